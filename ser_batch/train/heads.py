"""One model of heads on embeddings: fitted on a training part, tried on what is held out in each regime."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_batch.network.heads import ARCHIVE, NEUTRAL, NONE
from ser_batch.network.recipes import HeadRecipe
from ser_batch.network.scaling import Scaler
from ser_batch.tables import Features
from ser_batch.train.corpora import MASKED, Corpora
from ser_batch.train.feeding import drawn_by_weight, segment_numbers
from ser_batch.train.references import DrawnReferences, group_numbers

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


class EmbeddedSegments:
    """The segments of a training part; a batch has each in one of its variants, less the references of the epoch.

    Parameters
    ----------
    data
        The table.
    rows
        Row numbers of the training part, rising.
    y
        Label numbers of all rows of the table.
    labels
        Of the model.
    scaler
        Mean and deviation of the embeddings.
    recipe
        How references are drawn.
    shares
        What all rows of the table are to be learned as, shape (table rows, n_labels).
    corpora
        Of the training part, where it has several.
    """

    def __init__(
        self,
        data: Features,
        rows: Numbers,
        y: Numbers,
        labels: Sequence[str],
        scaler: Scaler,
        recipe: HeadRecipe,
        *,
        shares: Array,
        corpora: Corpora | None,
    ) -> None:
        mean, scale = (np.asarray(values, dtype=np.float32) for values in (scaler.mean, scaler.scale))
        self._embedding = (data.embedding[rows] - mean) / scale
        _, self._first, self._n_variants = np.unique(segment_numbers(data)[rows], return_index=True, return_counts=True)
        segments = rows[self._first]
        self._targets = shares[segments]
        n_labels = len(labels)
        if corpora is None:
            counts = np.bincount(y[segments], minlength=n_labels)
            self._weights = 1 / counts[y[segments]]
            self._cell = y[segments]
        else:
            self._targets = np.where(corpora.allowed(segments), self._targets, MASKED)
            self._weights = corpora.weights(segments, y, recipe)
            self._cell = corpora.number[segments] * n_labels + y[segments]
        is_neutral = np.isin(data.rows["emotion"].gather(rows).to_numpy(), NEUTRAL)
        self._group: dict[str, Numbers] = {}
        self._references: dict[str, DrawnReferences] = {}
        for reference in recipe.references:
            if reference == NONE:
                continue
            _, group = np.unique(group_numbers(data, reference)[rows], return_inverse=True)
            order = np.argsort(group, kind="stable")
            members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
            self._group[reference] = group
            self._references[reference] = DrawnReferences(
                self._embedding,
                tuple((own[is_neutral[own]], own[~is_neutral[own]]) for own in members),
                recipe.neutral_shares,
                (recipe.archive_segments,) if reference == ARCHIVE else recipe.channel_segments,
            )
        self._names = recipe.references
        self._drawn: dict[str, tuple[Array, Array]] = {}

    def __len__(self) -> int:
        return len(self._first)

    def order(self, generator: np.random.Generator) -> Numbers:
        """Begin an epoch: draw its references; return the numbers of its segments, each as often as it weighs."""
        self._drawn = {name: references.draw(generator) for name, references in self._references.items()}
        return drawn_by_weight(self._weights, self._cell, generator)

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[dict[str, tuple[Array, Array]], Array]:
        """Return the inputs of each reference and the targets, see `network.head_training.HeadSegments`."""
        rows = self._first[numbers] + generator.integers(self._n_variants[numbers])
        embedding = self._embedding[rows]
        inputs = {}
        for name in self._names:
            if name == NONE:
                inputs[name] = embedding, np.full(len(rows), 0.5, dtype=np.float32)
                continue
            means, shares = self._drawn[name]
            group = self._group[name][rows]
            inputs[name] = embedding - means[group], shares[group]
        return inputs, self._targets[numbers][:, None]


def fit_embedding_scaler(data: Features, rows: Numbers, corpora: Corpora | None) -> Scaler:
    """Fit mean and deviation of each number of an embedding on `rows`; corpora count the same."""
    weights = np.ones(len(rows))
    if corpora is not None:
        number = corpora.number[rows]
        weights = 1 / np.bincount(number)[number]
    weights /= weights.sum()
    mean, square = np.zeros((2, data.embedding.shape[1]))
    for first in range(0, len(rows), 1024):
        own = data.embedding[rows[first : first + 1024]].astype(np.float64)
        mean += weights[first : first + 1024] @ own
        square += weights[first : first + 1024] @ (own * own)
    scale = np.sqrt(np.maximum(square - mean**2, 1e-12))
    return Scaler(_rounded(mean), _rounded(np.maximum(scale, 1e-6)))


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
