"""Probabilities of a trained model for rows of the table, given what is known of their archive and channel."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ser_batch.arrays import Floats, Numbers
from ser_batch.network.cmvn import FrameStats, Scaler
from ser_batch.network.heads import HeadModel, probabilities_of
from ser_batch.tables.features import Features
from ser_batch.training.batches import Scaled
from ser_batch.training.references import channel_mean, frame_stats, mean_references
from ser_batch.training.tasks import FoldResult


@dataclasses.dataclass(frozen=True, eq=False)
class HeadsDecide:
    """Heads, see `regimes.Decide`; labels that they were not trained on get the probability 0."""

    data: Features
    model: HeadModel
    labels: Sequence[str]

    def __call__(self, rows: Numbers, *, archive: Numbers | None, channel: Numbers | None, log_prior: Floats) -> Floats:
        """Return probabilities after the prior, shape (n, labels)."""
        embedding = self.data.embedding[rows]
        columns = np.searchsorted(self.labels, self.model.labels)
        out = np.zeros((len(rows), len(self.labels)))
        out[:, columns] = self.model.probabilities(
            embedding,
            archive=None if archive is None else mean_references(embedding, archive),
            channel=None if channel is None else channel_mean(embedding, channel),
            log_prior=log_prior[columns],
        )
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkDecide:
    """A network on MFCCs, see `regimes.Decide`.

    One that is normalized takes the channel's reference. None takes the archive's: in composed calls it gained nothing
    beside the channel's (docs/results.md).
    """

    data: Features
    network: Any
    scaler: Scaler
    temperature: float
    is_normalized: bool
    columns: Numbers
    n_labels: int

    def __call__(self, rows: Numbers, *, archive: Numbers | None, channel: Numbers | None, log_prior: Floats) -> Floats:
        """Return probabilities after the prior, shape (n, labels); `archive` is of no use here."""
        from ser_batch.network import optimization

        del archive

        stats = self._stats(rows, channel) if self.is_normalized else None
        raw = optimization.predict(self.network, Scaled(self.data, rows, self.scaler, stats))
        out = np.zeros((len(rows), self.n_labels))
        out[:, self.columns] = probabilities_of(
            np.log(np.maximum(raw, 1e-12)), temperature=self.temperature, log_prior=log_prior[self.columns]
        )
        return out

    def _stats(self, rows: Numbers, channel: Numbers | None) -> FrameStats:
        own = frame_stats(self.data, rows)
        if channel is None:
            return own
        _, number = np.unique(channel, return_inverse=True)
        return own.together(number, int(number.max(initial=-1)) + 1)[number]


def decide_of(
    data: Features, labels: Sequence[str], run: FoldResult, *, is_normalized: bool
) -> HeadsDecide | NetworkDecide | None:
    """Return how a run decides on rows of the table; None of a classical model, which knows no reference."""
    if run.heads is not None:
        return HeadsDecide(data, run.heads.model, labels)
    if run.scaler is None:
        return None
    columns = np.arange(len(labels)) if run.learned is None else run.learned
    return NetworkDecide(data, run.model, run.scaler, run.temperature, is_normalized, columns, len(labels))
