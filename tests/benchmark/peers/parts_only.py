"""The parts of the features that nobody can leave out, on two processes: no table, no metadata, nothing written.

python tests/benchmark/peers/parts_only.py WAVS FILTERBANK.npy
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one for each of the two processes; has to stand before NumPy is imported

import multiprocessing
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
import soxr

RATE = 22050  # Hz
N_FFT, HOP, N_MELS, N_MFCC, N_FRAMES = 2048, 512, 128, 40, 174
FILES_A_CHUNK = 8
WINDOW = np.hanning(N_FFT + 1)[:-1].astype(np.float32)  # periodic
DCT = scipy.fft.dct(np.eye(N_MELS), norm="ortho", axis=0)[:N_MFCC].T.astype(np.float32)


@cache
def mel_filters(filterbank: str) -> np.ndarray:
    """Read the filters, once a process, shape (1025, 128)."""
    return np.ascontiguousarray(np.load(filterbank).T)


def mfcc_sum(path: Path, filterbank: str) -> float:
    """Compute a recording's MFCCs; return their sum, so that nothing is computed in vain and little sent back."""
    samples, rate = soundfile.read(path, dtype="int16")
    sound = samples * np.float32(1 / 32768)
    if sound.ndim == 2:
        sound = sound.mean(axis=1)
    sound = np.pad(soxr.resample(sound, rate, RATE, quality="HQ"), N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(sound, N_FFT)[::HOP]
    spectrum = scipy.fft.rfft(frames * WINDOW, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    log_mel = 10 * np.log10(np.maximum(power @ mel_filters(filterbank), np.float32(1e-10)))
    floor = log_mel.max() - 80
    return float((np.maximum(log_mel[:N_FRAMES], floor) @ DCT).sum())


def main() -> None:
    """Print the sum over all recordings."""
    folder, filterbank = sys.argv[1:]
    with multiprocessing.Pool(2) as pool:
        sums = pool.imap_unordered(partial(mfcc_sum, filterbank=filterbank), Path(folder).rglob("*.wav"), FILES_A_CHUNK)
        print(sum(sums))


if __name__ == "__main__":
    main()
