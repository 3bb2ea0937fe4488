"""Numeric kernel from samples to MFCCs, equal to librosa's, without librosa's start-up.

References
----------
.. [1] Davis & Mermelstein (1980), Comparison of parametric representations for monosyllabic word recognition,
   IEEE TASSP 28(4): 357-366.
.. [2] Slaney (1998), Auditory Toolbox, Interval Research Technical Report 1998-010: the mel scale and filters.
.. [3] McFee et al. (2015), librosa: audio and music signal analysis in Python; ``librosa.feature.mfcc`` 0.11
   is the definition that the tests compare with.
"""

import functools

import numpy as np
import numpy.typing as npt
import scipy.fft

from ser_batch.config.features import FeatureSpec

Array = npt.NDArray[np.float32]

# Frames that go through one matrix product. A product's last bits depend on its shape and on the row, so blocks begin
# at fixed frames of the segment: their shapes, and so a frame's numbers, depend on nothing but the segment's samples,
# however they were fed.
BLOCK_FRAMES = 58
# Mel filters that go into one product. A filter is zero but for a few neighbouring bins, so products of this many
# bands leave out most of the zeros; fewer bands spend their time on calls, more of them on zeros.
PRODUCT_BANDS = 16
# A recording is narrow when its own Nyquist frequency is at most this share of a quarter of the spec's rate: what the
# resampler and the window let through lies well below that quarter then, and every second sample tells all.
NARROW = 0.75
_DB_PER_NEPER = np.float32(10 / np.log(10))  # of powers; NumPy's natural logarithm is four times as fast as its log10


def mel_frequencies(n: int, *, fmax_hz: float) -> npt.NDArray[np.float64]:
    """Return `n` frequencies evenly spaced on Slaney's mel scale [2]_ from 0 to `fmax_hz`, in Hz."""
    # Linear below 1000 Hz (15 mels), logarithmic above (27 steps to 6400 Hz).
    hz_per_mel, corner_hz, log_step = 200.0 / 3, 1000.0, np.log(6.4) / 27
    corner_mel = corner_hz / hz_per_mel
    top = corner_mel + np.log(fmax_hz / corner_hz) / log_step if fmax_hz >= corner_hz else fmax_hz / hz_per_mel
    mels = np.linspace(0.0, top, n)
    linear = mels * hz_per_mel
    return np.where(mels < corner_mel, linear, corner_hz * np.exp(log_step * (mels - corner_mel)))


def mel_filterbank(spec: FeatureSpec) -> Array:
    """Return triangular mel filters of unit area [2]_, as ``librosa.filters.mel`` does.

    Returns
    -------
    array of float32, shape (n_mels, 1 + n_fft // 2)
    """
    bins_hz = np.fft.rfftfreq(spec.n_fft, 1 / spec.sampling_rate)
    edges_hz = mel_frequencies(spec.n_mels + 2, fmax_hz=spec.sampling_rate / 2)
    widths_hz = np.diff(edges_hz)
    ramps = edges_hz[:, None] - bins_hz[None, :]
    rising = -ramps[:-2] / widths_hz[:-1, None]
    falling = ramps[2:] / widths_hz[1:, None]
    weights = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    unit_area = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return np.asarray(weights * unit_area[:, None], dtype=np.float32)


def _banded(filters: Array) -> list[tuple[slice, slice, Array]]:
    """Cut filters, shape (bins, bands), into products of neighbouring bands: (bins, bands, weights) each."""
    products = []
    for first in range(0, filters.shape[1], PRODUCT_BANDS):
        bands = slice(first, min(first + PRODUCT_BANDS, filters.shape[1]))
        nonzero = np.flatnonzero(filters[:, bands].any(axis=1))
        # narrow filters of a long list of bands may fall between two bins
        bins = slice(nonzero[0], nonzero[-1] + 1) if len(nonzero) else slice(0, 1)
        products.append((bins, bands, np.ascontiguousarray(filters[bins, bands])))
    return products


class _Analysis:
    """Frames to mel powers, from every sample or, for narrow recordings, from every second one."""

    def __init__(self, spec: FeatureSpec, step: int) -> None:
        self._spec, self._step = spec, step
        window = np.hanning(spec.win_length + 1)[:-1]  # periodic
        before = (spec.n_fft - spec.win_length) // 2
        window = np.pad(window, (before, spec.n_fft - spec.win_length - before))
        self._window = (window[::step] * step).astype(np.float32)
        self._filters = _banded(mel_filterbank(spec).T[: len(self._window) // 2 + 1])

    def mel(self, samples: Array, first: int, last: int) -> Array:
        """Return the mel powers of frames `first` to `last`, shape (last - first, n_mels)."""
        spec, n = self._spec, last - first
        reached = slice(first * spec.hop_length, (last - 1) * spec.hop_length + spec.n_fft, self._step)
        stretch = np.ascontiguousarray(samples[reached])
        strides = (spec.hop_length // self._step * stretch.itemsize, stretch.itemsize)
        frames: Array = np.ndarray((n, len(self._window)), np.float32, stretch, strides=strides)
        spectrum = scipy.fft.rfft(frames * self._window, axis=1)
        power = np.abs(spectrum)
        power *= power
        mel = np.zeros((n, spec.n_mels), dtype=np.float32)
        for bins, bands, weights in self._filters:
            np.matmul(power[:, bins], weights, out=mel[:, bands])
        return mel


class MfccKernel:
    """Computes MFCCs for one spec; make it with `kernel`, which keeps the tables.

    Parameters
    ----------
    spec
        All parameters.
    is_narrow
        Whether the recordings have nothing above a quarter of the spec's rate: telephone calls under a wideband
        spec. Half the samples then give the same numbers in half the time, but for frames that reach over the
        segment's ends: the cut there shows in all bands.
    """

    def __init__(self, spec: FeatureSpec, *, is_narrow: bool = False) -> None:
        self.spec = spec
        self._whole = _Analysis(spec, 1)
        self._inner = _Analysis(spec, 2) if is_narrow else self._whole
        dct = scipy.fft.dct(np.eye(spec.n_mels), type=2, norm="ortho", axis=0)[: spec.n_mfcc]
        self._dct = np.ascontiguousarray(dct.T.astype(np.float32))

    def segment(self) -> "SegmentMfcc":
        """Start a segment, to be fed with samples."""
        return SegmentMfcc(self)

    def mfcc(self, samples: Array) -> Array:
        """Compute a whole segment at once.

        Parameters
        ----------
        samples
            Shape (n,), n at least 1, at the spec's rate, full scale 1.0.

        Returns
        -------
        array of float32, shape (frames, n_mfcc)
            At most `n_frames` frames, not padded.
        """
        segment = self.segment()
        segment.feed(samples)
        return segment.finish()

    def log_mel(self, samples: Array, n: int, *, inner: range) -> Array:
        """Return `n` frames of mel powers in dB, shape (n, n_mels), not yet cut at `top_db`."""
        # Frame i begins at sample i * hop_length; `inner` are those that lie wholly within the segment.
        if self._inner is self._whole:
            inner = range(0)  # nothing to tell apart: a block is one stretch
        out = np.empty((n, self.spec.n_mels), dtype=np.float32)
        for first in range(0, n, BLOCK_FRAMES):
            last = min(first + BLOCK_FRAMES, n)
            start, stop = (min(max(edge, first), last) for edge in (inner.start, max(inner.start, inner.stop)))
            for analysis, begin, end in (
                (self._whole, first, start),
                (self._inner, start, stop),
                (self._whole, stop, last),
            ):
                if begin < end:
                    out[begin:end] = analysis.mel(samples, begin, end)
        np.log(np.maximum(out, np.float32(self.spec.amin), out=out), out=out)
        out *= _DB_PER_NEPER
        return out

    def cepstrum(self, log_mel: Array) -> Array:
        """Return the DCT-II of dB values, shape (n, n_mels) to (n, n_mfcc)."""
        return np.asarray(log_mel @ self._dct)


class SegmentMfcc:
    """MFCCs of one segment whose samples come bit by bit; memory does not grow with its length.

    The dB floor hangs on the loudest point of the whole segment, so every frame is looked at; but only the first
    `n_frames` are kept.
    """

    def __init__(self, kernel: MfccKernel) -> None:
        self._kernel = kernel
        spec = kernel.spec
        self._pending = np.zeros(spec.n_fft // 2, dtype=np.float32)  # centered frames: zeros before the first
        self._kept: list[Array] = []
        self._n_kept = self._n_samples = self._n_done = 0
        self._peak_db = -np.inf

    def feed(self, samples: Array) -> None:
        """Take the next samples, shape (n,)."""
        self._n_samples += len(samples)
        self._pending = np.concatenate((self._pending, samples))
        self._advance(BLOCK_FRAMES, len(self._pending))

    def finish(self) -> Array:
        """End the segment.

        Returns
        -------
        array of float32, shape (frames, n_mfcc)
            1 + samples // hop_length frames, at most `n_frames`.
        """
        spec = self._kernel.spec
        n_real = len(self._pending)
        self._pending = np.concatenate((self._pending, np.zeros(spec.n_fft - spec.n_fft // 2, dtype=np.float32)))
        self._advance(1, n_real)
        log_mel = np.concatenate(self._kept)
        np.maximum(log_mel, np.float32(self._peak_db - spec.top_db), out=log_mel)
        if spec.level == "peak":
            log_mel -= np.float32(self._peak_db)
        return self._kernel.cepstrum(log_mel)

    def _advance(self, multiple: int, n_real: int) -> None:
        """Turn the pending samples, of which `n_real` are not padding, into frames, in multiples of `multiple`."""
        spec = self._kernel.spec
        n = ((len(self._pending) - spec.n_fft) // spec.hop_length + 1) // multiple * multiple
        if n < 1:
            return
        first_inner = max(0, -(-(spec.n_fft // 2) // spec.hop_length) - self._n_done)
        inner = range(first_inner, (n_real - spec.n_fft) // spec.hop_length + 1)
        log_mel = self._kernel.log_mel(self._pending, n, inner=inner)
        self._n_done += n
        self._peak_db = max(self._peak_db, float(log_mel.max()))
        if self._n_kept < spec.n_frames:
            self._kept.append(log_mel[: spec.n_frames - self._n_kept].copy())
            self._n_kept += len(self._kept[-1])
        self._pending = self._pending[n * spec.hop_length :]


def kernel(spec: FeatureSpec, source_rate: int | None = None) -> MfccKernel:
    """Return the kernel of a spec; its tables are made once per process.

    Parameters
    ----------
    spec
        All parameters.
    source_rate
        Rate in Hz that the samples were resampled from; None for the spec's own.
    """
    is_even = not any(length % 2 for length in (spec.n_fft, spec.hop_length))
    return _kernel(spec, is_even and 2 * (source_rate or spec.sampling_rate) <= NARROW * spec.sampling_rate)


@functools.lru_cache(maxsize=8)
def _kernel(spec: FeatureSpec, is_narrow: bool) -> MfccKernel:
    return MfccKernel(spec, is_narrow=is_narrow)
