"""Normalization of MFCCs by the mean and deviation of all training data, a speaker or a channel."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np

from ser_batch.arrays import Array, Flags, Floats, Numbers
from ser_batch.config.structs import Scale, Shift

# What was trained on counts as this many frames of any speaker (5 s at a step of 23 ms): of a long call it is next to
# nothing, of a single short clip it is half.
PRIOR_FRAMES = 200.0
QUIET_DB = 25.0
_FIELDS = ("n_frames", "sums", "squares")


def speech_frames(mfcc: Array, n_frames: Numbers, n_mels: int) -> Flags:
    """Return which frames are at most `QUIET_DB` below the loudest of their segment, by the mean over the mel bands."""
    is_real = np.arange(mfcc.shape[1]) < n_frames[:, None]
    level_db = np.where(is_real, mfcc[:, :, 0] / np.float32(n_mels**0.5), -np.inf)
    return np.asarray(is_real & (level_db >= level_db.max(axis=1, keepdims=True, initial=-np.inf) - QUIET_DB))


@dataclasses.dataclass(frozen=True, eq=False)
class FrameStats:
    """CMVN statistics of segments or speakers: sums over the speech frames of their MFCCs."""

    n_frames: Floats  # of speech; shape (k,)
    # of the frames, and of their squares; shape (k, n_mfcc)
    sums: Floats
    squares: Floats

    @classmethod
    def of(cls, mfcc: Array, n_frames: Numbers, n_mels: int) -> Self:
        """Return the sums of each segment, pauses left out: their length says nothing of a speaker."""
        is_speech = speech_frames(mfcc, n_frames, n_mels)
        frames = np.where(is_speech[:, :, None], mfcc, 0).astype(np.float64)
        return cls(is_speech.sum(axis=1).astype(np.float64), frames.sum(axis=1), (frames * frames).sum(axis=1))

    @classmethod
    def concatenated(cls, parts: Sequence["FrameStats"]) -> Self:
        """Return several as one, one after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))

    def __add__(self, other: "FrameStats") -> "FrameStats":
        return FrameStats(*(getattr(self, name) + getattr(other, name) for name in _FIELDS))

    def __getitem__(self, numbers: Numbers | slice) -> "FrameStats":
        return FrameStats(self.n_frames[numbers], self.sums[numbers], self.squares[numbers])

    def replaced(self, is_replaced: Flags, other: "FrameStats") -> "FrameStats":
        """Return these, with those of `other` where `is_replaced`, shape (k,)."""
        chosen = is_replaced[:, None]
        return FrameStats(
            np.where(is_replaced, other.n_frames, self.n_frames),
            np.where(chosen, other.sums, self.sums),
            np.where(chosen, other.squares, self.squares),
        )

    def moments(self) -> tuple[Floats, Floats]:
        """Return mean and variance over the frames, shape (k, n_mfcc) each; 0 where there are none."""
        n = np.maximum(self.n_frames, 1.0)[:, None]
        mean = self.sums / n
        return mean, np.maximum(self.squares / n - mean**2, 0.0)

    def together(self, group: Numbers, n_groups: int) -> "FrameStats":
        """Return the sums of each group."""
        out = FrameStats(np.zeros(n_groups), *(np.zeros((n_groups, self.sums.shape[1])) for _ in range(2)))
        for total, own in ((out.n_frames, self.n_frames), (out.sums, self.sums), (out.squares, self.squares)):
            np.add.at(total, group, own)
        return out


class Scaler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean and deviation of each coefficient, fitted on the real frames of the training part."""

    # one number per coefficient
    mean: tuple[Shift, ...]
    scale: tuple[Scale, ...]

    def transform(self, mfcc: Array, n_frames: Numbers, stats: FrameStats | None = None) -> Array:
        """Return scaled MFCCs, shape (n, frames, coefficients); padding is 0 again.

        Parameters
        ----------
        mfcc
            Shape (n, frames, coefficients).
        n_frames
            Real frames, shape (n,).
        stats
            Statistics of each segment's speaker; None for those of the training data.
        """
        if stats is None:
            return scaled(mfcc, n_frames, np.asarray(self.mean), np.asarray(self.scale))
        mean, scale = self.of(stats)
        return scaled(mfcc, n_frames, mean[:, None], scale[:, None])

    def of(self, stats: FrameStats) -> tuple[Floats, Floats]:
        """Return mean and deviation of speakers, shape (k, coefficients) each.

        Those of what was trained on count as `PRIOR_FRAMES` frames beside the speaker's own, so that little speech
        gives something in between, and none gives `mean` and `scale`.
        """
        own_mean, own_variance = stats.moments()
        share = (stats.n_frames / (stats.n_frames + PRIOR_FRAMES))[:, None]
        mean = share * own_mean + (1 - share) * np.asarray(self.mean)
        return mean, np.sqrt(share * own_variance + (1 - share) * np.asarray(self.scale) ** 2)


def moved(of_speaker: tuple[Floats, Floats], before: FrameStats, after: FrameStats) -> tuple[Floats, Floats]:
    """Return mean and deviation of speakers as if all their speech had been changed as one segment of each was."""
    mean, scale = of_speaker
    (mean_before, variance_before), (mean_after, variance_after) = before.moments(), after.moments()
    # silence has no deviation to compare with
    stretch = np.sqrt(np.clip(variance_after / np.maximum(variance_before, 1e-3), 0.1, 10.0))
    return mean + mean_after - mean_before, scale * stretch


def scaled(mfcc: Array, n_frames: Numbers, mean: Floats, scale: Floats) -> Array:
    """Return MFCCs less a mean and in units of a scale, shape (n, frames, coefficients); padding is 0."""
    out = (mfcc - mean.astype(np.float32)) / scale.astype(np.float32)
    out[np.arange(mfcc.shape[1]) >= n_frames[:, None]] = 0
    return np.asarray(out, dtype=np.float32)


class OnlineCmvn:
    """Sums over MFCCs or embeddings of each channel so far: a channel of a recording is taken for one speaker.

    Memory does not grow with the recording. A segment is normalized by all speech up to the end of its batch; the first
    batch of a recording is a long one, so that its beginning has statistics, too. Where there is little speech, those
    of the training data (`Scaler.of`) or of the archive (`HeadModel`) have a share.
    """

    def __init__(self) -> None:
        self._totals: dict[int, FrameStats] = {}

    def update(self, channels: Sequence[int], stats: FrameStats) -> FrameStats:
        """Add segments; return the sums of each segment's channel so far."""
        numbers, group = np.unique(np.asarray(channels, dtype=np.int64), return_inverse=True)
        new = stats.together(group, len(numbers))
        for place, channel in enumerate(numbers.tolist()):
            own = new[np.array([place])]
            self._totals[channel] = self._totals[channel] + own if channel in self._totals else own
        return FrameStats.concatenated([self._totals[channel] for channel in channels])
