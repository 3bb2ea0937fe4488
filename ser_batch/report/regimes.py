"""The figures of a model as it will be used: by what is known of the speaker and of the archive."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from ser_batch.config import CLEAN
from ser_batch.network.heads import NEUTRAL
from ser_batch.report.calibration import expected_calibration_error
from ser_batch.report.metrics import classification, headline, label_numbers
from ser_batch.tables import LABEL_PREFIX

NO_REFERENCE, ALONE, BALANCED, MOSTLY_NEUTRAL = "none", "alone", "balanced", "mostly_neutral"
REGIMES = (NO_REFERENCE, ALONE, BALANCED, MOSTLY_NEUTRAL)
# the row of all corpora
ALL = "all"
RECALL_PREFIX = "recall_"
FIGURES = ("uar", "accuracy", "ece", "share_error", "out_of_domain")


def regimes_table(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the frame of regimes.parquet.

    Parameters
    ----------
    predictions
        Of all runs: corpus, condition, regime, emotion, predicted, ``p_<label>`` for each label of the model, and
        is_out_of_domain.

    Returns
    -------
    polars.DataFrame
        One row per regime, condition and corpus, those of several seeds counted together; before them the corpus `all`,
        the mean over the corpora. Columns regime, condition, corpus, n, uar, accuracy, ece, share_error (mean over the
        labels that occur or are predicted of the distance between both shares), out_of_domain (share of the rows; null
        where not known) and ``recall_<label>`` (null where the label does not occur). In composed calls calm and
        neutral are one label, neutral.
    """
    labels = [name.removeprefix(LABEL_PREFIX) for name in predictions.columns if name.startswith(LABEL_PREFIX)]
    recalls = [RECALL_PREFIX + label for label in labels]
    schema = {
        **dict.fromkeys(("regime", "condition", "corpus"), pl.String),
        "n": pl.Int64,
        **dict.fromkeys((*FIGURES, *recalls), pl.Float64),
    }
    rows = [row for group in _groups(predictions) for row in _with_mean(group, labels)]
    return pl.DataFrame(rows, schema=schema)


def regimes_metrics(table: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures for bundle.json, by regime and condition.

    Parameters
    ----------
    table
        The frame of `regimes_table`.

    Returns
    -------
    dict
        Of all corpora together n, uar, accuracy, ece, share_error, out_of_domain (None where not known) and recalls (by
        label, those that occur); corpora is the UAR by corpus.
    """
    metrics: dict[str, dict[str, dict[str, Any]]] = {}
    recalls = [name for name in table.columns if name.startswith(RECALL_PREFIX)]
    for (regime, condition), own in table.group_by("regime", "condition", maintain_order=True):
        every = own.row(0, named=True)
        metrics.setdefault(str(regime), {})[str(condition)] = {
            **{name: every[name] for name in ("n", *FIGURES)},
            "recalls": {name.removeprefix(RECALL_PREFIX): every[name] for name in recalls if every[name] is not None},
            "corpora": dict(own[1:].select("corpus", "uar").iter_rows()),
        }
    return metrics


def _groups(predictions: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Give the rows of each regime and condition; clean comes first."""
    found = predictions["condition"].unique(maintain_order=True).to_list()
    for regime in REGIMES:
        for condition in sorted(found, key=lambda name: name != CLEAN):
            rows = predictions.filter(regime=regime, condition=condition)
            if len(rows):
                yield _merged(rows) if regime == MOSTLY_NEUTRAL else rows


def _with_mean(rows: pl.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of each corpus, before them their mean."""
    by_corpus = [_figures(own, labels) for own in rows.sort("corpus").partition_by("corpus", maintain_order=True)]
    frame = pl.DataFrame(by_corpus, infer_schema_length=None)
    means = frame.select(pl.exclude("regime", "condition", "corpus").mean()).row(0, named=True)
    first = {**by_corpus[0], **means, "corpus": ALL, "n": int(frame["n"].sum())}
    # a corpus may be called so, too
    return [first, *({**row, "corpus": f"corpus-{ALL}"} if row["corpus"] == ALL else row for row in by_corpus)]


def _figures(rows: pl.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    truth, predicted = rows["emotion"].to_list(), rows["predicted"].to_list()
    report = classification(truth, predicted, labels)
    p = rows.select(LABEL_PREFIX + label for label in labels).to_numpy()
    place = label_numbers(rows["predicted"], labels)
    right = (rows["emotion"] == rows["predicted"]).to_numpy()
    occurs = sorted({*truth, *predicted})
    errors = [abs((rows["predicted"] == one).mean() - (rows["emotion"] == one).mean()) for one in occurs]
    figures = headline(report)
    return {
        **{name: rows[name][0] for name in ("regime", "condition", "corpus")},
        "n": len(rows),
        "uar": figures["uar"],
        "accuracy": figures["accuracy"],
        "ece": expected_calibration_error(p[np.arange(len(rows)), place], right),
        "share_error": float(np.mean(errors)),
        "out_of_domain": rows["is_out_of_domain"].mean(),
        **{RECALL_PREFIX + row["label"]: row["recall"] for row in report.head(len(labels)).iter_rows(named=True)},
    }


def _merged(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows in which calm and neutral are one label."""
    neutral, *others = NEUTRAL
    columns = [LABEL_PREFIX + label for label in NEUTRAL]
    if not {*columns} <= {*rows.columns}:
        return rows.with_columns(pl.col("emotion").replace(dict.fromkeys(others, neutral)))
    return rows.with_columns(
        pl.col("emotion", "predicted").replace(dict.fromkeys(others, neutral)),
        pl.sum_horizontal(columns).alias(columns[0]),
        *(pl.lit(0.0).alias(name) for name in columns[1:]),
    )
