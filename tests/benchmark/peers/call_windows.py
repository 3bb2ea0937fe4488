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

WINDOW_S, HOP_S = 4.04, 2.02


@dataclass(frozen=True)
class Model:
    """A network, what its features are made by, and its labels."""

    network: Any
    spec: dict[str, Any]
    labels: list[str]


def load_model(folder: Path) -> Model:
    """Read a model folder."""
    values = json.loads((folder / "model.json").read_text())
    return Model(keras.saving.load_model(folder / "network.keras"), values["feature_spec"], values["labels"])


def scaled_windows(path: Path, model: Model) -> np.ndarray:
    """Return the MFCCs of a call's windows, shape (windows, 174, 40); the last window is padded with zeros.

    They are scaled by the mean and deviation of all frames of the call, which is the voice that a model normalized by
    speaker is given, near enough to take as long: ser-batch leaves pauses out of them.
    """
    spec = model.spec
    rate = spec["sampling_rate"]
    samples, _ = librosa.load(path, sr=rate)
    length, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    windows = []
    for first in range(0, max(len(samples) - length, 0) + hop, hop):
        window = samples[first : first + length]
        window = np.pad(window, (0, length - len(window)))
        mel = librosa.feature.melspectrogram(
            y=window,
            sr=rate,
            n_fft=spec["n_fft"],
            win_length=spec["win_length"],
            hop_length=spec["hop_length"],
            n_mels=spec["n_mels"],
        )
        decibels = librosa.power_to_db(mel, ref=np.max, amin=1e-20, top_db=spec["top_db"])
        mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=spec["n_mfcc"]).T[: spec["n_frames"]]
        windows.append(np.pad(mfcc, ((0, spec["n_frames"] - len(mfcc)), (0, 0))))
    mfccs = np.array(windows, dtype=np.float32)
    return (mfccs - mfccs.mean(axis=(0, 1))) / mfccs.std(axis=(0, 1))


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
