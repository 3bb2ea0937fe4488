"""Batches of training segments: variants, joined clips, augmentation, mixup, scaling; embeddings minus a reference."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.network.augmentation import augmented, masked
from ser_batch.network.cmvn import FrameStats, Scaler, moved, scaled, speech_frames
from ser_batch.network.heads import ARCHIVE, NEUTRAL, NONE
from ser_batch.network.recipes import HeadRecipe, Recipe
from ser_batch.tables.features import Features
from ser_batch.tables.mfcc_array import Mfcc, chunks
from ser_batch.tables.schemas import KEY
from ser_batch.training.multi_corpus import MASKED, Targets
from ser_batch.training.references import DrawnReferences, SpeakerStats, group_numbers, members_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# kept before and after the speech of a clip, where sounds begin and fade
_MARGIN_FRAMES = 3
_LONGEST_PAUSE_FRAMES = 24


class Joiner:
    """Fills segments up with others of the same speaker and label, spoken or sung, in the same variant."""

    def __init__(self, data: Features, rows: Numbers, first: Numbers, n_variants: Numbers, y: Numbers) -> None:
        self._data, self._rows, self._first, self._n_variants = data, rows, first, n_variants
        segments = rows[first]
        own = data.rows[segments].select("speaker", "vocal_channel", label=pl.Series(y[segments]))
        group = own.select(pl.struct(pl.all()).rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
        members = members_of(group)
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


class _Segments:
    """The segments of a training part; a batch has each in one of its variants."""

    def __init__(self, data: Features, rows: Numbers, targets: Targets, recipe: Recipe | HeadRecipe) -> None:
        _, self._first, self._n_variants = np.unique(segment_numbers(data)[rows], return_index=True, return_counts=True)
        segments = rows[self._first]
        self._targets, self._allowed = targets.shares[segments], targets.allowed(segments)
        self._cells = targets.cells(segments)
        self._weights: Floats | None = None
        if targets.corpora is not None:
            self._weights = targets.corpora.weights(segments, targets.y, recipe)

    def __len__(self) -> int:
        return len(self._first)

    def order(self, generator: np.random.Generator) -> Numbers:
        """Return the numbers of the segments of one epoch: each once, or of several corpora as often as it weighs."""
        if self._weights is None:
            return generator.permutation(len(self))
        return drawn_by_weight(self._weights, self._cells, generator)


class TrainingSegments(_Segments):
    """Segments of MFCCs, changed as the recipe says."""

    def __init__(
        self,
        data: Features,
        rows: Numbers,
        targets: Targets,
        scaler: Scaler,
        recipe: Recipe,
        speaker_stats: SpeakerStats | None = None,
    ) -> None:
        super().__init__(data, rows, targets, recipe)
        self._data, self._rows, self._scaler, self._recipe = data, rows, scaler, recipe
        self._speaker_stats = speaker_stats
        self.is_masked = not self._allowed.all()
        self._joiner: Joiner | None = None
        if targets.corpora is not None and recipe.joined_share:
            self._joiner = Joiner(data, rows, self._first, self._n_variants, targets.y)

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[Array, Array]:
        """Return scaled MFCCs, shape (n, n_frames, n_mfcc), and targets of segments."""
        # Targets have shape (n, n_labels); where some are masked, those of `optimization.MaskedCrossentropy`.
        variants = generator.integers(self._n_variants[numbers])
        rows = self._rows[self._first[numbers] + variants]
        mfcc, n_frames, targets = self._data.mfcc[rows], self._data.n_frames[rows], self._targets[numbers]
        if self._joiner is not None:
            for i in np.flatnonzero(generator.random(len(numbers)) < self._recipe.joined_share):
                if self._joiner.is_possible(numbers[i]):
                    mfcc[i] = self._joiner.joined(int(numbers[i]), int(variants[i]), generator)
                    n_frames[i] = mfcc.shape[1]
        unchanged = mfcc, n_frames
        augmentation = self._recipe.augmentation
        if augmentation is not None:
            mfcc, n_frames = augmented(mfcc, n_frames, augmentation, self._data.mfcc_spec, generator)
        if self._speaker_stats is None:
            x = self._scaler.transform(mfcc, n_frames)
        else:
            n_mels = self._data.mfcc_spec.n_mels
            before, after = (FrameStats.of(*pair, n_mels) for pair in (unchanged, (mfcc, n_frames)))
            is_alone = generator.random(len(rows)) < self._recipe.alone_share
            stats = self._speaker_stats.of(rows).replaced(is_alone, before)
            mean, scale = moved(self._scaler.of(stats), before, after)
            x = scaled(mfcc, n_frames, mean[:, None], scale[:, None])
        if augmentation is not None:
            x = masked(x, n_frames, augmentation, generator)
        mixed = [(numbers, targets)]
        if self._recipe.mixup:
            share, other = _drawn_partners(len(x), self._recipe.mixup, generator)
            x = x * share[:, None, None] + x[other] * (1 - share)[:, None, None]
            mixed = [(numbers, targets * share[:, None]), (numbers[other], targets[other] * (1 - share)[:, None])]
        if self.is_masked:
            # two corpora are mixed without telling either of the other's labels: each part keeps its own mask, where
            # a union would take the clip of one for evidence against what only the other has
            return x, np.stack([np.where(self._allowed[own], shares, MASKED) for own, shares in mixed], axis=1)
        return x, sum((shares for _, shares in mixed[1:]), mixed[0][1])


class EmbeddedSegments(_Segments):
    """Segments of scaled embeddings, minus the references of the epoch."""

    def __init__(self, data: Features, rows: Numbers, targets: Targets, scaler: Scaler, recipe: HeadRecipe) -> None:
        super().__init__(data, rows, targets, recipe)
        if self._weights is None:  # labels count the same in one corpus, too
            self._weights = 1 / np.bincount(self._cells)[self._cells]
        self._targets = np.where(self._allowed, self._targets, MASKED)
        mean, scale = (np.asarray(values, dtype=np.float32) for values in (scaler.mean, scaler.scale))
        self._embedding = (data.embedding[rows] - mean) / scale
        is_neutral = np.isin(data.rows["emotion"].gather(rows).to_numpy(), NEUTRAL)
        self._groups = {
            name: np.unique(group_numbers(data.rows, name)[rows], return_inverse=True)[1]
            for name in recipe.references
            if name != NONE
        }
        self._references = {
            name: DrawnReferences(
                self._embedding,
                tuple((own[is_neutral[own]], own[~is_neutral[own]]) for own in members_of(group)),
                recipe.neutral_shares,
                (recipe.archive_segments,) if name == ARCHIVE else recipe.channel_segments,
            )
            for name, group in self._groups.items()
        }
        self._names = recipe.references
        self._drawn: Mapping[str, tuple[Array, Array]] = {}

    def order(self, generator: np.random.Generator) -> Numbers:
        """Begin an epoch: draw its references; return the numbers of its segments, each as often as it weighs."""
        self._drawn = {name: references.draw(generator) for name, references in self._references.items()}
        return super().order(generator)

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[dict[str, tuple[Array, Array]], Array]:
        """Return the inputs of each reference and the targets, see `network.optimization.Segments`."""
        rows = self._first[numbers] + generator.integers(self._n_variants[numbers])
        embedding = self._embedding[rows]
        inputs = {}
        for name in self._names:
            if name == NONE:
                inputs[name] = embedding, np.full(len(rows), 0.5, dtype=np.float32)
            else:
                means, shares = self._drawn[name]
                group = self._groups[name][rows]
                inputs[name] = embedding - means[group], shares[group]
        return inputs, self._targets[numbers][:, None]


def drawn_by_weight(weights: Floats, cell: Numbers, generator: np.random.Generator) -> Numbers:
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
