"""What each part of a clip's MFCCs costs on one core, in the ways there are to compute it: microseconds, one clip.

python tests/benchmark/parts.py
"""

import importlib.util
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # has to stand before NumPy is imported

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
import soundfile
import soxr
from harness import Row, argument_parser, corpus_folder, ravdess_wav, scratch_folder, show

from ser_batch.audio.resampling import Resampler
from ser_batch.config.features import PRESETS
from ser_batch.mfcc import BLOCK_FRAMES, MfccKernel

SPEC = PRESETS["wideband"]
TRIES = 60
SOURCE_RATE = 48_000


def microseconds(work: Callable[[], object], times: float = 1) -> str:
    """Return the median time of `work`, times `times`."""
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return f"{statistics.median(seconds) * times * 1e6:.0f}"


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--audio", "--scratch")
    arguments = parser.parse_args()
    ravdess = corpus_folder(arguments.audio, "ravdess")
    with scratch_folder(arguments.scratch) as scratch:
        wavs = sorted(ravdess_wav(ravdess, scratch, 40).rglob("*.wav"))
        wav = next(wav for wav in wavs if soundfile.info(wav).samplerate == SOURCE_RATE)
        show(f"One clip of {soundfile.info(wav).duration:.2f} s at 48 kHz", parts(wav), arguments.markdown)


def parts(wav: Path) -> list[Row]:
    """Return a row for each way of doing each part."""
    rows: list[Row] = []

    def row(part: str, way: str, work: Callable[[], object], times: float = 1) -> None:
        rows.append({"part": part, "way": way, "us": microseconds(work, times)})

    integers, _ = soundfile.read(wav, dtype="int16")
    source = integers * np.float32(1 / 32768)
    samples = soxr.resample(source, SOURCE_RATE, SPEC.sampling_rate, quality="HQ")
    row("decode", "soundfile, as float32", lambda: soundfile.read(wav, dtype="float32"))
    row("decode", "soundfile, as int16 *", lambda: soundfile.read(wav, dtype="int16"))
    row("scale", "int16 to float32 *", lambda: integers * np.float32(1 / 32768))
    row(
        "resample",
        "soxr.resample, clips *",
        lambda: soxr.resample(source, SOURCE_RATE, SPEC.sampling_rate, quality="HQ"),
    )
    row("resample", "soxr, a stream fed at once", lambda: _stream().resample_chunk(source, last=True))
    row(
        "resample",
        "soxr, a stream fed in pieces, long ones *",
        lambda: Resampler(SOURCE_RATE, SPEC.sampling_rate).feed(source),
    )

    n_frames = 1 + len(samples) // SPEC.hop_length
    padded = np.pad(samples, SPEC.n_fft // 2)
    blocks = n_frames / BLOCK_FRAMES  # all below are measured on one block
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPEC.n_fft)[:: SPEC.hop_length][:BLOCK_FRAMES]
    window = np.hanning(SPEC.n_fft + 1)[:-1].astype(np.float32)
    windowed = frames * window
    row("window", "multiply *", lambda: frames * window, blocks)
    spectrum = scipy.fft.rfft(windowed, axis=1)
    row("real FFT", "numpy.fft", lambda: np.fft.rfft(windowed, axis=1), blocks)
    row("real FFT", "scipy.fft *", lambda: scipy.fft.rfft(windowed, axis=1), blocks)
    if importlib.util.find_spec("ducc0"):
        import ducc0

        row("real FFT", "ducc0 (GPL)", lambda: ducc0.fft.r2c(windowed, axes=(1,)), blocks)
    if importlib.util.find_spec("pyfftw"):
        import pyfftw

        planned = pyfftw.builders.rfft(windowed, axis=1, planner_effort="FFTW_MEASURE")
        row("real FFT", "FFTW (GPL)", lambda: planned(windowed), blocks)
    row("power", "square of abs *", lambda: np.square(np.abs(spectrum)), blocks)
    power = np.square(np.abs(spectrum))
    dense = librosa.filters.mel(sr=SPEC.sampling_rate, n_fft=SPEC.n_fft, n_mels=SPEC.n_mels).T.copy()
    mel = power @ dense
    filters = MfccKernel(SPEC)._whole._filters
    row("mel", "one dense product", lambda: np.matmul(power, dense, out=mel), blocks)
    row(
        "mel",
        "16 bands at a time *",
        lambda: [np.matmul(power[:, bins], weights, out=mel[:, bands]) for bins, bands, weights in filters],
        blocks,
    )
    row("dB", "log10", lambda: np.log10(mel), blocks)
    row("dB", "log, scaled *", lambda: np.log(mel), blocks)
    dct = np.ascontiguousarray(scipy.fft.dct(np.eye(SPEC.n_mels), norm="ortho", axis=0)[: SPEC.n_mfcc].T, np.float32)
    row("DCT", "product *", lambda: mel @ dct, blocks)
    row("all of the above", "MfccKernel and Resampler *", lambda: _ours(wav))
    row("all of the above", "librosa.load and feature.mfcc", lambda: _librosas(wav))
    return rows


def _stream() -> soxr.ResampleStream:
    return soxr.ResampleStream(SOURCE_RATE, SPEC.sampling_rate, 1, dtype="float32", quality="HQ")


def _ours(wav: Path) -> np.ndarray:
    integers, _ = soundfile.read(wav, dtype="int16")
    samples = Resampler(SOURCE_RATE, SPEC.sampling_rate).feed(integers * np.float32(1 / 32768), last=True)
    return _KERNEL.mfcc(samples)


def _librosas(wav: Path) -> np.ndarray:
    samples, rate = librosa.load(wav)
    return librosa.feature.mfcc(y=samples, sr=rate, n_mfcc=SPEC.n_mfcc)


_KERNEL = MfccKernel(SPEC)

if __name__ == "__main__":
    main()
