"""Whisper's log-mel spectrogram.

References
----------
.. [1] Radford et al. (2022), Robust speech recognition via large-scale weak supervision, arXiv:2212.04356, and
   ``whisper/audio.py`` of its code. ``WhisperFeatureExtractor`` of Hugging Face transformers is what the tests
   compare with.
"""

import functools

import numpy as np
import numpy.typing as npt
import scipy.fft

from ser_batch.config.features import EncoderSpec, FeatureSpec
from ser_batch.mfcc import mel_filterbank

Array = npt.NDArray[np.float32]
_MIN_POWER = np.float32(1e-10)
_RANGE = np.float32(8.0)  # decades below the loudest point that are kept


def log_mel(samples: Array, spec: EncoderSpec) -> Array:
    """Compute Whisper's log-mel spectrogram, without padding to 30 s.

    Frames are centered, with the samples mirrored at both ends; the last frame, centered on the end, is left out.

    Parameters
    ----------
    samples
        Shape (n,), n a multiple of `spec.hop_length` and more than ``spec.n_fft // 2``, full scale 1.0.
    spec
        Sampling rate, window, hop and number of mel bands.

    Returns
    -------
    array of float32, shape (n // hop_length, n_mels)
    """
    window, filters = _tables(spec.sampling_rate, spec.n_fft, spec.n_mels)
    padded = np.pad(samples, spec.n_fft // 2, mode="reflect")
    n_frames = len(samples) // spec.hop_length
    strides = (spec.hop_length * padded.itemsize, padded.itemsize)
    frames: Array = np.ndarray((n_frames, spec.n_fft), np.float32, padded, strides=strides)
    spectrum = scipy.fft.rfft(frames * window, axis=1)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    mel = power @ filters
    np.log10(np.maximum(mel, _MIN_POWER, out=mel), out=mel)
    np.maximum(mel, mel.max() - _RANGE, out=mel)
    mel += np.float32(4.0)
    mel *= np.float32(0.25)
    return np.asarray(mel)


@functools.lru_cache(maxsize=4)
def _tables(sampling_rate: int, n_fft: int, n_mels: int) -> tuple[Array, Array]:
    """Return the window, periodic Hann, and the mel filters, shape (bins, n_mels)."""
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    features = FeatureSpec(sampling_rate=sampling_rate, n_mfcc=1, n_fft=n_fft, win_length=n_fft, n_mels=n_mels)
    return window, np.ascontiguousarray(mel_filterbank(features).T)
