"""Predictions on some of a model's labels: those that a corpus has."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.tables import LABEL_PREFIX, corpora


def restricted(probabilities: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return probabilities given that the label is one of those allowed.

    Parameters
    ----------
    probabilities
        Shape (n, labels).
    allowed
        Shape (labels,) or (n, labels), at least one a row.

    Returns
    -------
    array of float64, shape (n, labels)
        Rows sum to 1; 0 where not allowed. Where all that is allowed has the probability 0, it is the same for each.
    """
    kept = np.where(allowed, probabilities, 0.0)
    n_nothing = kept.sum(axis=1, keepdims=True) == 0
    kept = np.where(n_nothing, np.broadcast_to(allowed, kept.shape), kept)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def by_corpus(
    predictions: pl.DataFrame, labels: Sequence[str], corpus_labels: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Give each corpus and its rows, predictions and probabilities on the labels that it has; none where there is one.

    Parameters
    ----------
    predictions
        The frame of predictions.parquet.
    labels
        Of the model, in its order.
    corpus_labels
        Those of each corpus, to which come those that occur in its rows.
    """
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
