"""Counts of labelled predictions, and the figures of the field made of them."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.arrays import Flags, Floats, Numbers
from ser_batch.config.variants import CLEAN
from ser_batch.tables.features import corpora
from ser_batch.tables.schemas import LABEL_PREFIX

SUMMARY_ROWS = ("accuracy", "macro_avg", "weighted_avg")
MEASURES = ("precision", "recall", "f1")
# where the figures that people quote stand in a classification: row, measure
HEADLINE = {
    "accuracy": ("accuracy", "f1"),
    "uar": ("macro_avg", "recall"),
    "macro_f1": ("macro_avg", "f1"),
    "weighted_f1": ("weighted_avg", "f1"),
}


def classification(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> pl.DataFrame:
    """Return precision, recall and F1 by label, then accuracy, macro_avg and weighted_avg.

    Parameters
    ----------
    truth, predicted
        One of `labels` a row.
    labels
        Of the model, in its order. Averages are over those that occur in `truth`; the recall of macro_avg is the
        unweighted average recall (UAR).

    Returns
    -------
    polars.DataFrame
        Columns label, precision, recall, f1 (accuracy stands in f1, as scikit-learn prints it) and support.
        Precision is null for a label that is never predicted, recall for one that never occurs, F1 for one that
        does neither.
    """
    counts = _counts(truth, predicted, labels)
    return figures_frame(figures(counts), counts.sum(axis=1), labels)


def headline(report: pl.DataFrame) -> dict[str, float]:
    """Return accuracy (WAR), UAR, macro F1 and weighted F1 of a `classification` frame."""
    rows = {row["label"]: row for row in report.iter_rows(named=True)}
    return {name: rows[row][measure] for name, (row, measure) in HEADLINE.items()}


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> pl.DataFrame:
    """Return counts of truth against prediction, long form: emotion, predicted, count and rate of the emotion."""
    counts = _counts(truth, predicted, labels)
    n = len(labels)
    return pl.DataFrame(
        {
            "emotion": np.repeat(labels, n),
            "predicted": np.tile(labels, n),
            "count": counts.reshape(-1),
            "rate": np.nan_to_num(ratio(counts, counts.sum(axis=1, keepdims=True))).reshape(-1),
        }
    )


def main_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a model's main figures: of all recordings, in the first condition."""
    # The first condition is clean wherever that was evaluated. A frame without subsets or conditions is all main.
    if "subset" in frame.columns:
        frame = frame.filter(pl.col("subset") == "all")
    if "condition" in frame.columns:
        frame = frame.filter(pl.col("condition") == pl.col("condition").first())
    return frame


def conditions(predictions: pl.DataFrame) -> list[str]:
    """Return the conditions of predictions.parquet: clean first, the others in order of appearance."""
    found: list[str] = predictions["variant"].unique(maintain_order=True).to_list()
    return sorted(found, key=lambda name: name != CLEAN)


def figures(counts: Numbers | Floats) -> Floats:
    """Return precision, recall and F1 of confusion matrices, any number of them at a time."""
    support, said = counts.sum(axis=-1), counts.sum(axis=-2)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    n = support.sum(axis=-1)
    by_label = np.stack([ratio(hits, said), ratio(hits, support), ratio(2 * hits, said + support)], axis=-1)
    accuracy = np.full((*n.shape, len(MEASURES)), np.nan)
    accuracy[..., MEASURES.index("f1")] = ratio(hits.sum(axis=-1), n)
    defined = np.nan_to_num(by_label)
    present = support > 0
    macro = ratio((defined * present[..., None]).sum(axis=-2), present.sum(axis=-1)[..., None])
    weighted = ratio((defined * support[..., None]).sum(axis=-2), n[..., None])
    return np.concatenate([by_label, np.stack([accuracy, macro, weighted], axis=-2)], axis=-2)


def headline_figure(values: Floats, name: str) -> Floats:
    """Return one of the `HEADLINE` figures of what `figures` returns, without its last two axes."""
    row, measure = HEADLINE[name]
    return np.asarray(values[..., SUMMARY_ROWS.index(row) - len(SUMMARY_ROWS), MEASURES.index(measure)])


def figures_frame(values: Floats, support: Numbers, labels: Sequence[str]) -> pl.DataFrame:
    """Return figures of shape (labels + 3, 3) and support of shape (labels,) as a `classification` frame."""
    return pl.DataFrame(
        {
            "label": [*labels, *SUMMARY_ROWS],
            **{measure: values[:, i] for i, measure in enumerate(MEASURES)},
            "support": [*support.tolist(), *[int(support.sum())] * len(SUMMARY_ROWS)],
        },
        schema_overrides={"support": pl.Int64},
    ).with_columns(pl.col(MEASURES).fill_nan(None))


def label_numbers(values: pl.Series, labels: Sequence[str]) -> Numbers:
    """Return the place of each value in `labels`, which has all of them."""
    return values.replace_strict(list(labels), range(len(labels)), return_dtype=pl.Int64).to_numpy()


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """Divide elementwise; NaN where `whole` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    quotient = np.full(part.shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole > 0)
    return quotient


def _counts(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Numbers:
    """Return the confusion matrix, shape (labels, labels): truth, then prediction."""
    n = len(labels)
    rows, columns = (label_numbers(pl.Series(side, dtype=pl.String), labels) for side in (truth, predicted))
    return np.bincount(rows * n + columns, minlength=n * n).reshape(n, n)


def restricted(probabilities: Floats, allowed: Flags) -> Floats:
    """Return probabilities given that the label is one of those allowed."""
    kept = np.where(allowed, probabilities, 0.0)
    n_nothing = kept.sum(axis=1, keepdims=True) == 0
    kept = np.where(n_nothing, np.broadcast_to(allowed, kept.shape), kept)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def by_corpus(
    predictions: pl.DataFrame, labels: Sequence[str], corpus_labels: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each corpus with its rows on the labels that it has; nothing where there is one corpus."""
    names = corpora(predictions)
    for corpus in names.unique().sort() if names.n_unique() > 1 else ():
        rows = predictions.filter(names == corpus)
        has = {*corpus_labels.get(corpus, ()), *rows["emotion"]}
        columns = [LABEL_PREFIX + label for label in labels]
        p = restricted(rows.select(columns).to_numpy(), np.array([label in has for label in labels]))
        yield (
            corpus,
            rows.with_columns(
                pl.Series("predicted", np.asarray(labels)[p.argmax(axis=1)], pl.String),
                *(pl.Series(name, p[:, i], pl.Float64) for i, name in enumerate(columns)),
            ),
        )
