"""What score_loop.py and score_batched.py share: the model, the windows of a call, the table.

Not run by itself.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import librosa
import numpy as np
import polars as pl

RATE = 22050  # Hz
WINDOW_S, HOP_S = 4.04, 2.02
N_FRAMES, N_MFCC = 174, 40


@dataclass(frozen=True)
class Model:
    """A network, the scaler it was trained with and its labels."""

    network: Any
    mean: np.ndarray
    scale: np.ndarray
    labels: list[str]


def load_model(folder: Path) -> Model:
    """Read a model folder."""
    values = json.loads((folder / "bundle.json").read_text())
    network = keras.saving.load_model(folder / "network.keras")
    return Model(network, np.array(values["scaler"]["mean"]), np.array(values["scaler"]["scale"]), values["labels"])


def scaled_windows(path: Path, model: Model) -> np.ndarray:
    """Return the scaled MFCCs of a call's windows, shape (windows, 174, 40); the last window is padded with zeros."""
    samples, _ = librosa.load(path, sr=RATE)
    length, hop = round(WINDOW_S * RATE), round(HOP_S * RATE)
    windows = []
    for first in range(0, max(len(samples) - length, 0) + hop, hop):
        window = samples[first : first + length]
        window = np.pad(window, (0, length - len(window)))
        mfcc = librosa.feature.mfcc(y=window, sr=RATE, n_mfcc=N_MFCC).T[:N_FRAMES]
        mfcc = np.pad(mfcc, ((0, N_FRAMES - len(mfcc)), (0, 0)))
        windows.append((mfcc - model.mean) / model.scale)
    return np.array(windows, dtype=np.float32)


def row(path: Path, segment: int, probabilities: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Return a window's row of the table."""
    return {
        "path": path.name,
        "segment": segment,
        "start_s": segment * HOP_S,
        "predicted": labels[int(probabilities.argmax())],
        **{f"p_{label}": float(p) for label, p in zip(labels, probabilities, strict=True)},
    }


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the table as Parquet."""
    out.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema_overrides={"segment": pl.Int32}).write_parquet(out)
