"""Speech or not, by the frame: how loud it is, where it exceeds the noise, and what is too steady for a voice.

The constants were chosen on real calls and on mixes whose truth is known; docs/calls.md has the figures, beside those
of webrtcvad, and `tests/benchmark/vad.py` measures them again.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft

from ser_batch.audio.sound import Samples
from ser_batch.vad.activity import FRAME_S, Frames, runs

Floats = npt.NDArray[np.float32]
Decibels = npt.NDArray[np.float64]
VAD_RATE = 8000  # Hz; what a telephone carries is enough to tell speech
FRAME_SAMPLES = round(FRAME_S * VAD_RATE)
BAND_EDGES_HZ = (250, 700, 1500, 4000)
QUIETEST_DBFS = -65.0  # what is below is no speech, however quiet the recording
BELOW_RECORDING_DB = 36.0  # speech is at most so far below the recording's loud frames (the 95th percentile)
BELOW_NEARBY_DB = 32.0  # and below the loudest within NEARBY_FRAMES: what decays behind a word is none
NEARBY_FRAMES = 33  # 1 s
OVER_NOISE_DB = 5.0  # and so far over the noise: all of it
OVER_BAND_NOISE_DB = 6.0  # or that of any band
# the noise is the least, over FLOOR_BLOCKS blocks of 1 s, of the 10th percentile of frames that are not silence
FLOOR_BLOCK_FRAMES, FLOOR_BLOCKS, FLOOR_PERCENT = 33, 11, 10
SILENCE_DBFS = -70.0
# a level that holds within this over 0.33 s is that of a tone or of noise: a voice moves
STEADY_DB, STEADY_FRAMES = 2.0, 11
# two spectral peaks with nearly all of the power are a tone of the exchange or a key, if most frames around are so
TONE_SHARE, TONE_MAJORITY, TONE_FRAMES = 0.97, 0.85, 21
GAP_FRAMES = 6  # shorter gaps are filled: 0.18 s, the silence before a plosive
BURST_FRAMES = 3  # and what is shorter than 0.09 s is a click
# words begin and end softly: so much is added on both sides
HANGOVER_FRAMES = 1
# and a frame more for each of these dB that noise, and what speech has to exceed it by, hides of what could be heard
NOISE_HANGOVER_DB = (0.0, 8.0, 16.0)
_EPSILON = 1e-12
_WINDOW = np.hanning(FRAME_SAMPLES + 1)[:-1].astype(np.float32)
_HZ = np.fft.rfftfreq(FRAME_SAMPLES, 1 / VAD_RATE)
_BANDS = tuple(np.searchsorted(_HZ, BAND_EDGES_HZ).tolist())
_LOWEST_BIN = 2  # hum and offset below 67 Hz are no tones
_LEAST_OFFSET = 1e-3  # -60 dBFS: less hides no voice
_PEAK_BINS = np.arange(-2, 3)  # what a tone covers under the window


class Features(NamedTuple):
    """What is kept of each frame until the recording is known to its end."""

    power: Floats  # shape (n,), mean square around the offset, which is no sound
    bands: Floats  # shape (n, bands), power
    tone: Floats  # shape (n,), share of the two strongest peaks

    @classmethod
    def join(cls, parts: "list[Features]") -> "Features":
        """Return the features of all frames."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def features(samples: Samples) -> Features:
    """Return the features of whole frames."""
    frames = samples.reshape(-1, FRAME_SAMPLES)
    spectrum = scipy.fft.rfft(frames * _WINDOW, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    bands = np.stack([power[:, a:b].sum(axis=1) for a, b in itertools.pairwise(_BANDS)], axis=1)
    bands *= 2 / (FRAME_SAMPLES * np.square(_WINDOW).sum())  # to mean squares, as the whole frame's
    rest = power[:, _LOWEST_BIN:]
    total = rest.sum(axis=1)
    rows = np.arange(len(rest))[:, None]
    for _ in range(2):
        peak = np.clip(rest.argmax(axis=1)[:, None] + _PEAK_BINS, 0, rest.shape[1] - 1)
        rest[rows, peak] = 0
    left = rest.sum(axis=1)
    # the difference of equal sums need not be 0
    tone = 1 - np.divide(left, total, where=total > 0, out=np.ones_like(left))
    offset = samples.mean(dtype=np.float64)
    level = frames - np.float32(offset) if abs(offset) > _LEAST_OFFSET else frames
    return Features(np.square(level).mean(axis=1), bands, tone)


def speech(known: Features) -> Frames:
    """Decide which frames are speech."""
    level = decibels(known.power)
    is_heard = level > SILENCE_DBFS
    loud = level[level > QUIETEST_DBFS]
    if not len(loud):
        return np.zeros(len(level), dtype=np.bool_)
    is_over = level > _floor(level, is_heard) + OVER_NOISE_DB
    for band in known.bands.T:
        smooth = decibels(_smooth(band))
        is_over |= smooth > np.maximum(_floor(smooth, is_heard), SILENCE_DBFS) + OVER_BAND_NOISE_DB
    nearby = _around(decibels(_smooth(known.power)), 2 * NEARBY_FRAMES + 1, highest=True)
    least = np.maximum(
        max(float(np.percentile(loud, 95)) - BELOW_RECORDING_DB, QUIETEST_DBFS), nearby - BELOW_NEARBY_DB
    )
    # by the bands as well: below them pink noise, hum and wind swing
    is_held = _is_steady(level) | _is_steady(decibels(known.bands.sum(axis=1)))
    is_speech = is_over & (level > least) & ~is_held
    # a tone that begins or ends within a frame has no clear peaks there, so its neighbours count as well
    n_tones = _count(is_speech & _spread(known.tone > TONE_SHARE, 1), TONE_FRAMES)
    is_speech &= n_tones <= TONE_MAJORITY * _count(is_speech, TONE_FRAMES)
    found = _closed(is_speech)
    # noise that is there throughout: in digital silence the weakest speech would pass for it
    hidden_db = _floor(level, np.ones_like(is_heard)) + OVER_NOISE_DB - least
    spread = _spread(found, HANGOVER_FRAMES)
    for reach, noise_db in enumerate(NOISE_HANGOVER_DB, HANGOVER_FRAMES + 1):
        spread |= _spread(found, reach) & (hidden_db > noise_db)
    return _closed(spread)


def decibels(power: npt.NDArray[Any]) -> Decibels:
    """Return a power in dB below full scale; silence is -120."""
    return np.asarray(10 * np.log10(power.astype(np.float64) + _EPSILON))


def _floor(level: Decibels, is_heard: Frames) -> Decibels:
    """Return the level of the noise around each frame; -120 where there is nothing but silence."""
    n_blocks = -(-len(level) // FLOOR_BLOCK_FRAMES)
    padded = np.full(n_blocks * FLOOR_BLOCK_FRAMES, np.inf)
    padded[: len(level)] = np.where(is_heard, level, np.inf)
    blocks = np.sort(padded.reshape(n_blocks, FLOOR_BLOCK_FRAMES), axis=1)
    n_heard = np.isfinite(blocks).sum(axis=1)
    lowest = blocks[np.arange(n_blocks), n_heard * FLOOR_PERCENT // 100]
    lowest[n_heard < FLOOR_BLOCK_FRAMES // 4] = np.inf  # too few to tell noise by
    least = _around(lowest, FLOOR_BLOCKS, highest=False)
    least[np.isinf(least)] = 10 * np.log10(_EPSILON)
    return np.repeat(least, FLOOR_BLOCK_FRAMES)[: len(level)]


def _is_steady(level: Decibels) -> Frames:
    """Whether a frame lies in some stretch of `STEADY_FRAMES` frames whose level holds."""
    spread = _around(level, STEADY_FRAMES, highest=True) - _around(level, STEADY_FRAMES, highest=False)
    return _spread(np.asarray(spread < STEADY_DB), STEADY_FRAMES // 2)


def _closed(frames: Frames) -> Frames:
    """Fill short gaps between true frames, then drop short bursts."""
    starts, ends = runs(~frames)
    is_gap = (starts > 0) & (ends < len(frames)) & (ends - starts <= GAP_FRAMES)
    filled = frames | _between(starts[is_gap], ends[is_gap], len(frames))
    starts, ends = runs(filled)
    is_burst = ends - starts < BURST_FRAMES
    return filled & ~_between(starts[is_burst], ends[is_burst], len(frames))


def _between(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], n: int) -> Frames:
    """Return n frames that are true from each start up to its end."""
    steps = np.zeros(n + 1, dtype=np.int64)
    steps[starts] += 1
    steps[ends] -= 1
    return np.asarray(np.cumsum(steps[:-1]) > 0)


def _spread(frames: Frames, reach: int) -> Frames:
    """Return which frames are true or have a true one at most `reach` frames away."""
    return np.asarray(_count(frames, 2 * reach + 1) > 0)


def _around(values: npt.NDArray[Any], width: int, *, highest: bool) -> npt.NDArray[Any]:
    """Return the highest or lowest of each value and its neighbours, `width` (odd) in all."""
    reduce, beyond = (np.maximum, -np.inf) if highest else (np.minimum, np.inf)
    # windows of 1, 2, 4, ... values, each made of two of the last: their number grows with the logarithm of the width
    padded = np.pad(values, width // 2, constant_values=beyond)
    reached = 1
    while reached < width:
        step = min(reached, width - reached)
        padded = reduce(padded[:-step], padded[step:])
        reached += step
    return padded


def _smooth(power: Floats) -> Floats:
    """Return the mean of each value and its two neighbours; zeros lie beyond the ends."""
    padded = np.pad(power, 1)
    return np.asarray((padded[:-2] + power + padded[2:]) / 3)


def _count(frames: Frames, width: int) -> npt.NDArray[np.int64]:
    """Return how many of each frame and its neighbours, `width` (odd) in all, are true."""
    sums = np.concatenate(([0], np.cumsum(np.pad(frames, width // 2), dtype=np.int64)))
    return np.asarray(sums[width:] - sums[:-width])
