"""One model: fitted on the training rows of a fold, tried on its held-out rows."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch import bundle, splits
from ser_batch.config import TrainOptions
from ser_batch.errors import InputError
from ser_batch.tables import (
    Features,
    Mfcc,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One model trained: of a fold, or of all rows."""

    fold: splits.Fold | None
    model: Any
    scaler: bundle.Scaler | None
    history: list[dict[str, Any]]
    probabilities: npt.NDArray[np.float64]  # (test rows, labels)


def run_fold(
    data: Features,
    labels: Sequence[str],
    fold: splits.Fold | None,
    options: TrainOptions,
    say: Callable[[str], None],
    prefix: str,
) -> Run:
    """Fit one model on a fold's training rows and predict its held-out rows."""
    y = np.searchsorted(labels, data.rows["emotion"].to_numpy()).astype(np.int64)  # LabelEncoder's order
    rows = np.arange(len(y)) if fold is None else fold.train
    test = np.empty(0, dtype=np.int64) if fold is None else fold.test
    missing = sorted(set(labels) - {labels[i] for i in y[rows]})
    if missing:
        raise InputError(f"{prefix}no training row is {missing[0]!r}; use another --split, or label more recordings")
    if options.estimator == "cnn":
        return _run_network(data, labels, y, rows, test, fold, options, say, prefix)
    say(f"{prefix}fitting {options.estimator} on {len(rows)} rows")
    x = np.concatenate([bundle.summary_features(data.mfcc[c], data.n_frames[c]) for c in chunks(np.arange(len(y)))])
    estimator = _classical(options)
    estimator.fit(x[rows], y[rows])
    probabilities = estimator.predict_proba(x[test]) if len(test) else np.empty((0, len(labels)))
    return Run(fold, estimator, None, [], probabilities)


def _run_network(
    data: Features,
    labels: Sequence[str],
    y: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    fold: splits.Fold | None,
    options: TrainOptions,
    say: Callable[[str], None],
    prefix: str,
) -> Run:
    from ser_batch.network import training

    scaler = _fit_scaler(data.mfcc, data.n_frames, rows)
    x, x_test = (_Scaled(data, part, scaler) for part in (rows, test))
    history: list[dict[str, Any]] = []
    training.set_seed(options.seed)
    model = training.build(options.recipe, data.spec.n_frames, data.spec.n_mfcc, len(labels))
    started = time.monotonic()

    def on_epoch(epoch: int, logs: dict[str, float]) -> None:
        # the held-out figures are looked at by people; nothing is chosen by them
        held_out = _held_out_figures(training.predict(model, x_test), y[test]) if len(test) else {}
        values = {"loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])} | held_out
        history.append({"fold": fold.name if fold else None, "seed": options.seed, "epoch": epoch} | values)
        left = (time.monotonic() - started) / epoch * (options.epochs - epoch)
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
        say(f"{prefix}epoch {epoch}/{options.epochs}  {figures}  {left:.0f} s left")

    training.fit(model, x, y[rows], n_labels=len(labels), epochs=options.epochs, seed=options.seed, on_epoch=on_epoch)
    probabilities = training.predict(model, x_test) if len(test) else np.empty((0, len(labels)))
    return Run(fold, model, scaler, history, probabilities)


class _Scaled:
    """Rows of the table, read and scaled when a batch asks for them: the table may be larger than memory."""

    def __init__(self, data: Features, rows: npt.NDArray[np.int64], scaler: bundle.Scaler) -> None:
        self._data, self._rows, self._scaler = data, rows, scaler

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, numbers: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float32]:
        rows = self._rows[numbers]
        return self._scaler.transform(self._data.mfcc[rows], self._data.n_frames[rows])


def chunks(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Cut row numbers into stretches of about 1024, 28 MB of MFCCs."""
    return np.array_split(rows, max(1, len(rows) // 1024))


def _fit_scaler(mfcc: Mfcc, n_frames: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> bundle.Scaler:
    """Fit mean and deviation of each coefficient on the real frames of `rows`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in chunks(rows):
        real = np.arange(mfcc.shape[1]) < n_frames[chunk, None]
        scaler.partial_fit(mfcc[chunk][real].astype(np.float64))
    return bundle.Scaler(tuple(map(float, scaler.mean_)), tuple(map(float, scaler.scale_)))


def _held_out_figures(probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> dict[str, float]:
    own = probabilities[np.arange(len(truth)), truth]
    return {
        "test_loss": float(-np.log(np.maximum(own, 1e-12)).mean()),
        "test_accuracy": float((probabilities.argmax(axis=1) == truth).mean()),
    }


def _classical(options: TrainOptions) -> Any:
    """Return the scikit-learn pipeline of a classical model on mean and deviation."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # fixed settings, none of them chosen on the data that is reported on
    estimators: dict[str, Callable[[], Any]] = {
        "svm": lambda: CalibratedClassifierCV(SVC(C=10.0), ensemble=False, cv=3),
        "forest": lambda: RandomForestClassifier(300, random_state=options.seed, n_jobs=1),
        "logistic": lambda: LogisticRegression(max_iter=2000),
    }
    return make_pipeline(StandardScaler(), estimators[options.estimator]())
