"""The figures of a model as it will be used: by what is known of the speaker and of the archive."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ser_batch.config.variants import CLEAN
from ser_batch.model.schema import Regime
from ser_batch.network.heads import NEUTRAL
from ser_batch.report.calibration import expected_calibration_error
from ser_batch.report.metrics import classification, headline, label_numbers
from ser_batch.tables.parquet import rows_table
from ser_batch.tables.schemas import LABEL_PREFIX, RECALL_PREFIX, regimes_schema

NO_REFERENCE, ALONE, BALANCED, MOSTLY_NEUTRAL = "none", "alone", "balanced", "mostly_neutral"
# what each of them means, for the card and the page
REGIMES: Mapping[str, str] = {
    NO_REFERENCE: "A single clip. No other speech is known.",
    ALONE: "A single clip of an archive. The mean of the archive is known, but not which of it is the speaker's.",
    BALANCED: "The archive is known, and so are all clips of the speaker, with each emotion about as often. Corpora "
    "are like this. Calls are not.",
    MOSTLY_NEUTRAL: "A call composed of clips of one speaker: about four fifths neutral, the rest one emotion. The "
    "archive and the call are known, but no labels. The prior is the one for calls. Calm counts as neutral.",
}
# the row of all corpora
ALL = "all"
FIGURES = ("uar", "accuracy", "ece", "share_error", "out_of_domain")


def regimes_table(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the frame of regimes.parquet."""
    labels = [name.removeprefix(LABEL_PREFIX) for name in predictions.columns if name.startswith(LABEL_PREFIX)]
    rows = [row for group in _groups(predictions) for row in _with_mean(group, labels)]
    return pl.DataFrame(rows_table(rows, regimes_schema(labels)))


def regimes_metrics(table: pl.DataFrame) -> dict[str, dict[str, Regime]]:
    """Return the figures for model.json, by regime and condition."""
    metrics: dict[str, dict[str, Regime]] = {}
    recalls = [name for name in table.columns if name.startswith(RECALL_PREFIX)]
    for (regime, condition), own in table.group_by("regime", "condition", maintain_order=True):
        every = own.row(0, named=True)
        metrics.setdefault(str(regime), {})[str(condition)] = Regime(
            **{name: every[name] for name in ("n", *FIGURES)},
            recalls={name.removeprefix(RECALL_PREFIX): every[name] for name in recalls if every[name] is not None},
            corpora=dict(own[1:].select("corpus", "uar").iter_rows()),
        )
    return metrics


def regimes_shown(regimes: Mapping[str, Mapping[str, Regime]]) -> dict[str, Any]:
    """Return what the card and the page show of `regimes_metrics`."""
    # model.json has them by the alphabet
    ordered = [name for name in REGIMES if name in regimes]
    rows = [
        {"regime": regime, "condition": condition, **msgspec.structs.asdict(regimes[regime][condition])}
        for regime in ordered
        for condition in _clean_first(regimes[regime])
    ]
    condition = rows[0]["condition"] if rows else ""
    by_regime = {row["regime"]: row["corpora"] for row in rows if row["condition"] == condition}
    names = sorted({name for corpora in by_regime.values() for name in corpora})
    composed = [row for row in rows if row["regime"] == MOSTLY_NEUTRAL]
    labels = sorted({label for row in composed for label in row["recalls"]})
    return {
        "meanings": {regime: REGIMES[regime] for regime in ordered},
        "rows": rows,
        "condition": condition,
        "corpora": [
            {"corpus": name, "uar": {regime: corpora.get(name) for regime, corpora in by_regime.items()}}
            for name in (names if len(names) > 1 else ())
        ],
        "labels": labels,
        "recalls": [
            {"condition": row["condition"], "by_label": [row["recalls"].get(label) for label in labels]}
            for row in composed
        ],
    }


def _groups(predictions: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Give the rows of each regime and condition; clean comes first."""
    found = predictions["condition"].unique(maintain_order=True).to_list()
    for regime in REGIMES:
        for condition in _clean_first(found):
            rows = predictions.filter(regime=regime, condition=condition)
            if len(rows):
                yield _merged(rows) if regime == MOSTLY_NEUTRAL else rows


def _clean_first(conditions: Iterable[str]) -> list[str]:
    return sorted(conditions, key=lambda name: name != CLEAN)


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
    """Return rows in which calm and neutral are one label: neutral, or calm to a model that has no other."""
    kept, *others = (label for label in NEUTRAL if LABEL_PREFIX + label in rows.columns)
    return rows.with_columns(
        pl.col("emotion", "predicted").replace(dict.fromkeys(NEUTRAL, kept)),
        pl.sum_horizontal(LABEL_PREFIX + label for label in (kept, *others)).alias(LABEL_PREFIX + kept),
        *(pl.lit(0.0).alias(LABEL_PREFIX + label) for label in others),
    )
