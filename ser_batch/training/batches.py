"""Whose mean and deviation each row of the table is scaled by, where a model is normalized by recording or speaker."""

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.config.options import Normalize
from ser_batch.network.augmentation import augmented, masked
from ser_batch.network.cmvn import FrameStats, Scaler, moved, scaled, speech_frames
from ser_batch.network.recipes import Recipe
from ser_batch.tables.features import Features
from ser_batch.tables.mfcc_array import Mfcc, chunks
from ser_batch.tables.schemas import KEY
from ser_batch.training.multi_corpus import MASKED, Corpora

Numbers = npt.NDArray[np.int64]
_RECORDING = ("dataset", "path", "channel")


@dataclasses.dataclass(frozen=True, eq=False)
class SpeakerStats:
    """What is known of all voices in the table, without any label.

    Parameters
    ----------
    heard
        Of each voice: all its rows of one variant, because a telephone line or a room is a part of how a voice sounds.
    number
        Of the voice of each row of the table, shape (rows,).
    """

    stats: FrameStats
    number: Numbers

    def of(self, rows: Numbers) -> FrameStats:
        """Return what was heard of the voice of each of some rows."""
        return self.stats[self.number[rows]]


def speaker_stats_of(data: Features, by: Normalize) -> SpeakerStats | None:
    """Return the voices of a table; None where nothing is normalized."""
    if by == "none":
        return None
    recording = pl.struct(*_RECORDING, "variant").rank("dense").cast(pl.Int64) - 1
    number = data.rows.select(recording).to_series()
    if by == "speaker":
        nobody = pl.when(pl.col("speaker").is_null()).then(number)
        number = data.rows.select(pl.struct("speaker", "variant", nobody=nobody).rank("dense").cast(pl.Int64) - 1)[
            "speaker"
        ]
    numbers = number.to_numpy()
    rows = np.arange(len(numbers))
    n_mels = data.mfcc_spec.n_mels
    stats = FrameStats.concatenated(
        [FrameStats.of(data.mfcc[chunk], data.n_frames[chunk], n_mels) for chunk in chunks(rows)]
    )
    return SpeakerStats(stats.together(numbers, int(numbers.max()) + 1), numbers)


def n_nameless(data: Features) -> int:
    """Return how many recordings have rows whose speaker is not known."""
    return data.rows.filter(pl.col("speaker").is_null()).select(_RECORDING[:2]).n_unique()


Array = npt.NDArray[np.float32]
# kept before and behind the speech of a clip, where sounds begin and fade
_MARGIN_FRAMES = 3
_LONGEST_PAUSE_FRAMES = 24


class Joiner:
    """Fills segments up with others of the same speaker and label, spoken or sung, in the same variant."""

    def __init__(self, data: Features, rows: Numbers, first: Numbers, n_variants: Numbers, y: Numbers) -> None:
        self._data, self._rows, self._first, self._n_variants = data, rows, first, n_variants
        segments = rows[first]
        own = data.rows[segments].select("speaker", "vocal_channel", label=pl.Series(y[segments]))
        group = own.select(pl.struct(pl.all()).rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
        order = np.argsort(group, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
        self._alike = [members[number] for number in group]
        self._is_known = own["speaker"].is_not_null().to_numpy()

    def joined(self, number: int, variant: int, generator: np.random.Generator) -> Array:
        """Return the frames of a segment full of speech, shape (n_frames, n_mfcc)."""
        n_frames = self._data.mfcc_spec.n_frames
        frames = self._speech(number, variant)
        while len(frames) < n_frames:
            other = int(generator.choice(self._alike[number]))
            more = self._speech(other, min(variant, int(self._n_variants[other]) - 1))
            pause = np.minimum(frames[-1:], more[:1]).repeat(generator.integers(1, _LONGEST_PAUSE_FRAMES + 1), axis=0)
            frames = np.concatenate([frames, pause, more])
        begin = generator.integers(len(frames) - n_frames + 1)
        return frames[begin : begin + n_frames]

    def is_possible(self, number: int) -> bool:
        """Whether it is known who speaks in a segment."""
        return bool(self._is_known[number])

    def _speech(self, number: int, variant: int) -> Array:
        row = self._rows[[self._first[number] + variant]]
        mfcc, n_frames = self._data.mfcc[row], self._data.n_frames[row]
        loud = np.flatnonzero(speech_frames(mfcc, n_frames, self._data.mfcc_spec.n_mels))
        frames = mfcc[0, : n_frames[0]]
        return np.asarray(frames[max(0, loud[0] - _MARGIN_FRAMES) : loud[-1] + 1 + _MARGIN_FRAMES])


class Scaled:
    """Scaled MFCCs of rows of the table."""

    def __init__(self, data: Features, rows: Numbers, scaler: Scaler, stats: FrameStats | None = None) -> None:
        self._data, self._rows, self._scaler, self._frame_stats = data, rows, scaler, stats

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, numbers: Numbers | slice) -> Array:
        rows = self._rows[numbers]
        stats = None if self._frame_stats is None else self._frame_stats[numbers]
        return self._scaler.transform(self._data.mfcc[rows], self._data.n_frames[rows], stats)


class TrainingSegments:
    """The segments of a training part; a batch has each in one of its variants, changed as the recipe says."""

    def __init__(
        self,
        data: Features,
        rows: Numbers,
        y: Numbers,
        n_labels: int,
        scaler: Scaler,
        recipe: Recipe,
        *,
        shares: Array | None = None,
        corpora: Corpora | None = None,
        voices: SpeakerStats | None = None,
    ) -> None:
        self._data, self._scaler, self._recipe, self._voices = data, scaler, recipe, voices
        self._rows = rows
        _, self._first, self._n_variants = np.unique(segment_numbers(data)[rows], return_index=True, return_counts=True)
        segments = rows[self._first]
        self._targets = np.eye(n_labels, dtype=np.float32)[y[segments]] if shares is None else shares[segments]
        self._allowed = np.ones_like(self._targets, dtype=np.bool_)
        self._weights: npt.NDArray[np.float64] | None = None
        if corpora is not None:
            self._allowed = corpora.allowed(segments)
            self._weights = corpora.weights(segments, y, recipe)
            # of one cell after the other, so that each has its share of an epoch to a segment
            self._cell = corpora.number[segments] * n_labels + y[segments]
        self.is_masked = not self._allowed.all()
        self._joiner: Joiner | None = None
        if corpora is not None and recipe.joined_share:
            self._joiner = Joiner(data, rows, self._first, self._n_variants, y)

    def __len__(self) -> int:
        return len(self._first)

    def order(self, generator: np.random.Generator) -> Numbers:
        """Return the numbers of the segments of one epoch: each once, or of several corpora as often as it weighs."""
        if self._weights is None:
            return generator.permutation(len(self))
        return drawn_by_weight(self._weights, self._cell, generator)

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[Array, Array]:
        """Return scaled MFCCs, shape (n, n_frames, n_mfcc), and targets of segments."""
        # Targets have shape (n, n_labels); where some are masked, those of `masking.MaskedCrossentropy`.
        variants = generator.integers(self._n_variants[numbers])
        rows = self._rows[self._first[numbers] + variants]
        mfcc, n_frames, targets = self._data.mfcc[rows], self._data.n_frames[rows], self._targets[numbers]
        if self._joiner is not None:
            for place in np.flatnonzero(generator.random(len(numbers)) < self._recipe.joined_share):
                if self._joiner.is_possible(numbers[place]):
                    mfcc[place] = self._joiner.joined(int(numbers[place]), int(variants[place]), generator)
                    n_frames[place] = mfcc.shape[1]
        changes = self._recipe.augmentation
        unchanged = mfcc, n_frames
        if changes is not None:
            mfcc, n_frames = augmented(mfcc, n_frames, changes, self._data.mfcc_spec, generator)
        if self._voices is None:
            x = self._scaler.transform(mfcc, n_frames)
        else:
            before, after = (
                FrameStats.of(*pair, self._data.mfcc_spec.n_mels) for pair in (unchanged, (mfcc, n_frames))
            )
            is_alone = generator.random(len(rows)) < self._recipe.alone_share
            stats = self._voices.of(rows).replaced(is_alone, before)
            mean, scale = moved(self._scaler.of(stats), before, after)
            x = scaled(mfcc, n_frames, mean[:, None], scale[:, None])
        if changes is not None:
            x = masked(x, n_frames, changes, generator)
        if self._recipe.mixup:
            share, other = _drawn_partners(len(x), self._recipe.mixup, generator)
            x = x * share[:, None, None] + x[other] * (1 - share)[:, None, None]
            parts = [(numbers, targets * share[:, None]), (numbers[other], targets[other] * (1 - share)[:, None])]
        else:
            parts = [(numbers, targets)]
        if self.is_masked:
            # two corpora are mixed without telling either of the other's labels: each part keeps its own mask, where
            # a union would take the clip of one for evidence against what only the other has
            return x, np.stack([np.where(self._allowed[own], part, MASKED) for own, part in parts], axis=1)
        return x, sum((part for _, part in parts[1:]), parts[0][1])


def drawn_by_weight(weights: npt.NDArray[np.float64], cell: Numbers, generator: np.random.Generator) -> Numbers:
    """Draw as many numbers as there are weights, by weight (systematic sampling, Madow 1949)."""
    # Those of one cell, such as a label of a corpus, stand side by side when they are drawn, so that each cell gets its
    # share of an epoch to a segment.
    order = generator.permutation(len(weights))
    order = order[np.argsort(cell[order], kind="stable")]
    ends = np.cumsum(weights[order])
    ends *= len(order) / ends[-1]
    drawn = np.searchsorted(ends, np.arange(len(order)) + generator.random(), side="right")
    return generator.permutation(order[np.minimum(drawn, len(order) - 1)])


def segment_numbers(data: Features) -> Numbers:
    """Return a number for each row's segment, shape (rows,), rising; variants share one."""
    return data.rows.select(pl.struct(KEY[:-1]).rle_id().cast(pl.Int64)).to_series().to_numpy()


def _drawn_partners(n: int, concentration: float, generator: np.random.Generator) -> tuple[Array, Numbers]:
    """Return for each of n segments its share in the mixture, at least a half, and the segment it is mixed with."""
    share = generator.beta(concentration, concentration, n).astype(np.float32)
    return np.maximum(share, 1 - share), generator.permutation(n)


def fit_scaler(mfcc: Mfcc, n_frames: Numbers, rows: Numbers) -> Scaler:
    """Fit mean and deviation of each coefficient on the real frames of `rows`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in chunks(rows):
        real = np.arange(mfcc.shape[1]) < n_frames[chunk, None]
        scaler.partial_fit(mfcc[chunk][real].astype(np.float64))
    return Scaler(tuple(map(float, scaler.mean_)), tuple(map(float, scaler.scale_)))
