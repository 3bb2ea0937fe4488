"""Reference speech of rows: statistics of MFCCs for CMVN, and the mean embeddings that heads subtract."""

import dataclasses

import numpy as np
import polars as pl

from ser_batch.arrays import Array, Numbers
from ser_batch.config.options import Normalize
from ser_batch.network.cmvn import FrameStats
from ser_batch.network.heads import ARCHIVE, ChannelMean
from ser_batch.tables.features import Features, corpora
from ser_batch.tables.mfcc_array import chunks

_RECORDING = ("dataset", "path", "channel")


@dataclasses.dataclass(frozen=True, eq=False)
class SpeakerStats:
    """CMVN statistics of each row's speaker or recording; no label is used."""

    # a telephone line or a room is a part of how a speaker sounds, so each variant has statistics of its own
    stats: FrameStats
    number: Numbers  # place of each row's statistics, shape (rows,)

    def of(self, rows: Numbers) -> FrameStats:
        """Return the statistics of rows."""
        return self.stats[self.number[rows]]


def speaker_stats_of(data: Features, by: Normalize) -> SpeakerStats | None:
    """Return the statistics that rows are normalized by; None where they are not."""
    if by == "none":
        return None
    number = pl.struct(*_RECORDING, "variant").rank("dense").cast(pl.Int64) - 1
    if by == "speaker":
        nobody = pl.when(pl.col("speaker").is_null()).then(number)
        number = pl.struct("speaker", "variant", nobody=nobody).rank("dense").cast(pl.Int64) - 1
    numbers = data.rows.select(number).to_series().to_numpy()
    stats = frame_stats(data, np.arange(len(numbers)))
    return SpeakerStats(stats.together(numbers, int(numbers.max()) + 1), numbers)


def frame_stats(data: Features, rows: Numbers) -> FrameStats:
    """Return the CMVN statistics of each row by itself."""
    n_mels = data.mfcc_spec.n_mels
    return FrameStats.concatenated([FrameStats.of(data.mfcc[c], data.n_frames[c], n_mels) for c in chunks(rows)])


def n_nameless(data: Features) -> int:
    """Return how many recordings have rows whose speaker is not known."""
    return data.rows.filter(pl.col("speaker").is_null()).select(_RECORDING[:2]).n_unique()


def group_numbers(rows: pl.DataFrame, reference: str) -> Numbers:
    """Return a number for the archive or the channel of each row, shape (rows,), from 0."""
    # An archive is a corpus; a channel is a speaker, and where none is known a channel of a recording. Each variant is
    # an archive and a channel of its own: a telephone line is a part of how all its speech sounds.
    if reference == ARCHIVE:
        own = pl.struct(corpora(rows), rows["variant"], eager=True)
    else:
        recording = pl.struct(*_RECORDING).rank("dense").cast(pl.Int64)
        nobody = pl.when(pl.col("speaker").is_null()).then(recording)
        own = rows.select(pl.struct("speaker", "variant", nobody=nobody, corpus=corpora(rows))).to_series()
    return own.rank("dense").cast(pl.Int64).to_numpy() - 1


def mean_references(embedding: Array, group: Numbers) -> Array:
    """Return the mean embedding of each row's group, shape (rows, d)."""
    out = np.empty_like(embedding)
    for rows in members_of(group):
        out[rows] = embedding[rows].mean(axis=0, dtype=np.float64)
    return out


def members_of(group: Numbers) -> list[Numbers]:
    """Return the rows of each group, groups by their number."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []


def channel_mean(embedding: Array, group: Numbers) -> ChannelMean:
    """Return the mean embedding and the size of each row's channel, given as numbers of groups, shape (rows,)."""
    _, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
    return ChannelMean(mean_references(embedding, group), counts[inverse].astype(np.int64))


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnReferences:
    """References of the groups of a training part, drawn anew each epoch."""

    embedding: Array  # scaled embeddings of all rows of the table, shape (rows, d)
    # row numbers of each group: those that are neutral speech, and the others
    members: tuple[tuple[Numbers, Numbers], ...]
    shares: tuple[float, float]  # least and most share of neutral speech in a reference
    sizes: tuple[int, ...]  # segments that a reference is the mean of, one of these numbers each time

    def draw(self, generator: np.random.Generator) -> tuple[Array, Array]:
        """Return a reference for each group, shape (groups, d), and its share of neutral speech, shape (groups,)."""
        means, shares = zip(*(self._of(*sides, generator) for sides in self.members), strict=True)
        return np.stack(means), np.array(shares, dtype=np.float32)

    def _of(self, neutral: Numbers, other: Numbers, generator: np.random.Generator) -> tuple[Array, float]:
        size = int(generator.choice(self.sizes))
        # a speaker who is never neutral, or never anything else, has the share there is
        low, high = self.shares if len(neutral) and len(other) else (float(len(neutral) > 0),) * 2
        n_neutral = round(generator.uniform(low, high) * size)
        sides = ((neutral, n_neutral), (other, size - n_neutral))
        drawn = np.concatenate([generator.choice(rows, n, replace=len(rows) < n) for rows, n in sides if n])
        return np.asarray(self.embedding[drawn].mean(axis=0), dtype=np.float32), n_neutral / size
