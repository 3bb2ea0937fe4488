"""MFCCs of a folder with librosa, one file after the other: the plain loop of most notebooks.

python tests/benchmark/peers/librosa_loop.py WAVS OUT.npy
"""

import sys
from pathlib import Path

import librosa
import numpy as np

N_FRAMES = 174


def mfcc(path: Path) -> np.ndarray:
    """Return the MFCCs of a recording, shape (40, 174), cut or padded with zeros."""
    samples, rate = librosa.load(path)
    values = librosa.feature.mfcc(y=samples, sr=rate, n_mfcc=40)[:, :N_FRAMES]
    return np.pad(values, ((0, 0), (0, N_FRAMES - values.shape[1])))


def files(folder: str) -> list[Path]:
    """Return the recordings in the order of their paths."""
    return sorted(Path(folder).rglob("*.wav"), key=str)


def main() -> None:
    """Write all of them as one array."""
    folder, out = sys.argv[1:]
    np.save(out, np.array([mfcc(path) for path in files(folder)]))


if __name__ == "__main__":
    main()
