"""Clips joined to what a window of a call is like: full of speech, begun and ended anywhere.

A corpus of acted clips begins and ends each with silence, a window of a call does so seldom; a network that has seen
clips alone hears less in windows of the same speech (docs/results.md).
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.network.scaling import speech_frames
from ser_batch.tables import Features

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

# kept before and behind the speech of a clip, where sounds begin and fade
_MARGIN_FRAMES = 3
_LONGEST_PAUSE_FRAMES = 24


class Joiner:
    """Fills segments up with others of the same speaker and label, spoken or sung, in the same variant.

    Parameters
    ----------
    data
        The table.
    rows
        Row numbers of the training part, rising.
    first, n_variants
        Of each segment: its place in `rows`, where its variants stand one after the other, and how many they are.
    y
        Label numbers of all rows of the table.
    """

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
        """Return the frames of a segment full of speech, shape (n_frames, n_mfcc).

        Parameters
        ----------
        number, variant
            Of the segment, and which of its variants.
        generator
            What is drawn from: the other segments, the pauses between, where the cut is.
        """
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
