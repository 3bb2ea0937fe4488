"""Augmentation of MFCCs, drawn anew for every segment of every batch."""

import functools

import numpy as np
import scipy.fft

from ser_batch.arrays import Array, Numbers
from ser_batch.config.features import FeatureSpec
from ser_batch.network.recipes import Augmentation

N_WARPS = 15
_BINS_A_BAND = 5.0
_DB_A_NEPER = np.float32(10 / np.log(10))


def augmented(
    mfcc: Array, n_frames: Numbers, settings: Augmentation, spec: FeatureSpec, generator: np.random.Generator
) -> tuple[Array, Numbers]:
    """Return changed copies of segments."""
    warps = warp_matrices(spec, settings.warp)
    changed = mfcc @ warps[generator.integers(len(warps), size=len(mfcc))]
    noisy = np.flatnonzero(generator.random(len(mfcc)) < settings.noise_share)
    changed[noisy] = _noisy(changed[noisy], n_frames[noisy], settings, spec, generator)
    # a gain of 1 dB in all bands is sqrt(n_mels) in the first coefficient of an orthonormal DCT
    gains_db = generator.normal(0, settings.level_db, len(mfcc)).astype(np.float32)
    changed[:, :, 0] += gains_db[:, None] * np.float32(spec.n_mels**0.5)
    out = np.zeros_like(mfcc)
    counts = np.empty_like(n_frames)
    for i, n in enumerate(n_frames.tolist()):
        frames = _moved(changed[i, :n], settings.shift, generator)[: mfcc.shape[1]]
        counts[i] = len(frames)
        out[i, : len(frames)] = frames
    return out, counts


def masked(scaled: Array, n_frames: Numbers, settings: Augmentation, generator: np.random.Generator) -> Array:
    """Return scaled segments, shape (n, frames, n_mfcc), with stretches set to 0, the mean."""
    out = scaled.copy()
    n_mfcc = scaled.shape[2]
    for i, n in enumerate(n_frames.tolist()):
        for _ in range(2):
            width = generator.integers(settings.mask_frames + 1)
            first = generator.integers(max(1, n - width + 1))
            out[i, first : first + width] = 0
        width = generator.integers(settings.mask_coefficients + 1)
        first = generator.integers(n_mfcc - width + 1)
        out[i, :, first : first + width] = 0
    return out


@functools.lru_cache(maxsize=4)
def warp_matrices(spec: FeatureSpec, most: float) -> Array:
    """Return what MFCCs are multiplied with to warp the mel axis, shape (N_WARPS, n_mfcc, n_mfcc)."""
    # Each goes back to the mel bands, takes each band's value from a place `1 + warp` times as far up (the last band's
    # beyond the end), and returns to coefficients; warps are evenly spaced from -most to most.
    bands = np.arange(spec.n_mels)
    dct = _dct(spec)
    matrices = []
    for warp in np.linspace(-most, most, N_WARPS):
        places = np.minimum(bands * (1 + warp), spec.n_mels - 1)
        below = places.astype(np.int64)
        above = np.minimum(below + 1, spec.n_mels - 1)
        taken = np.zeros((spec.n_mels, spec.n_mels))
        np.add.at(taken, (bands, below), 1 - (places - below))
        np.add.at(taken, (bands, above), places - below)
        matrices.append((dct @ taken @ dct.T).T)
    return np.array(matrices, dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _dct(spec: FeatureSpec) -> Array:
    """Return the DCT-II that makes MFCCs of mel bands in dB, shape (n_mfcc, n_mels); its transpose goes back."""
    matrix = scipy.fft.dct(np.eye(spec.n_mels), type=2, norm="ortho", axis=0)[: spec.n_mfcc]
    return np.asarray(matrix, dtype=np.float32)


@functools.lru_cache(maxsize=4)
def _steady_noise(n_mels: int) -> Array:
    """Return mel powers of noise of mean 1, shape (4096, n_mels): each is the sum of a few independent bins' powers."""
    # Drawn once: that takes longer than all the rest. Each segment begins at another frame.
    drawn = np.random.default_rng(0).standard_gamma(_BINS_A_BAND, (4096, n_mels), dtype=np.float32)
    return np.asarray(drawn / np.float32(_BINS_A_BAND))


def _noisy(
    mfcc: Array, n_frames: Numbers, settings: Augmentation, spec: FeatureSpec, generator: np.random.Generator
) -> Array:
    """Return segments, shape (n, frames, n_mfcc), with noise of a random spectrum added to their mel powers."""
    # The spectrum is a random walk over the bands on a slope between +10 and -30 dB, its level drawn evenly from
    # `noise_db`.
    n = len(mfcc)
    power = np.exp(mfcc @ _dct(spec) / _DB_A_NEPER)
    is_real = np.arange(mfcc.shape[1]) < n_frames[:, None]
    mean_power = (power.sum(axis=2) * is_real).sum(axis=1) / n_frames
    slope_db = generator.uniform(-30, 10, (n, 1)) * np.linspace(0, 1, spec.n_mels)
    walk_db = generator.normal(0, 1, (n, spec.n_mels)).cumsum(axis=1)
    spectrum = 10 ** ((slope_db + walk_db) / 10)
    spectrum /= spectrum.sum(axis=1, keepdims=True)
    ratio_db = generator.uniform(*settings.noise_db, n)
    level = (mean_power * 10 ** (-ratio_db / 10))[:, None] * spectrum
    steady = _steady_noise(spec.n_mels)
    frames = (generator.integers(len(steady), size=(n, 1)) + np.arange(mfcc.shape[1])) % len(steady)
    drawn = steady[frames]
    drawn *= level[:, None, :].astype(np.float32)
    return np.asarray(np.log(power + drawn) * _DB_A_NEPER @ _dct(spec).T)


def _moved(frames: Array, most: int, generator: np.random.Generator) -> Array:
    """Return frames that begin up to `most` frames later, or earlier behind copies of the first one."""
    frames_earlier = int(generator.integers(-most, most + 1))
    if frames_earlier >= 0:
        return frames[min(frames_earlier, len(frames) - 1) :]
    return np.concatenate([np.repeat(frames[:1], -frames_earlier, axis=0), frames])
