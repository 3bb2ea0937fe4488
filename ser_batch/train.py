"""The second stage: features to a model folder with its evaluation."""

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch import bundle, splits
from ser_batch.config import TrainOptions, canonical_json
from ser_batch.corpus import LICENCES
from ser_batch.errors import InputError, OutputError
from ser_batch.report import classification, confusion, headline, model_card, write_page
from ser_batch.tables import (
    KEY,
    SEGMENT_COLUMNS,
    Features,
    Mfcc,
    load_features,
    make_folder,
    model_predictions_schema,
    write_frame,
)

DEFAULT_FEATURES = Path("features")


@dataclasses.dataclass(frozen=True)
class TrainSummary:
    """What `train` did.

    Parameters
    ----------
    out
        The model folder.
    model_id
        Of the model.
    report
        A `report.classification` frame of the held-out rows; None for ``--split none``.
    metrics
        accuracy, uar, macro_f1, weighted_f1 and their meaning in words; empty for ``--split none``.
    n_train, n_test
        Rows, of the hold-out or of all folds together.
    shared_speakers, n_speakers
        How many speakers stand on both sides of the split (the most of any fold), and how many there are.
    warnings
        Sentences to tell.
    seconds
        Time it took.
    is_new
        False where the folder held this very model already.
    """

    out: Path
    model_id: str
    report: pl.DataFrame | None
    metrics: Mapping[str, Any]
    n_train: int
    n_test: int
    shared_speakers: int
    n_speakers: int
    warnings: tuple[str, ...]
    seconds: float
    is_new: bool


def train(
    features: Sequence[Path] = (),
    options: TrainOptions | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> TrainSummary:
    """Train and evaluate a model.

    Parameters
    ----------
    features
        Features folders; none stands for ``features`` in the working directory.
    options
        Those of ``ser-batch train``.
    say
        Gets a line of progress an epoch; by default they go to stderr.

    Raises
    ------
    InputError
        The features cannot be used: other specs, one label, too few speakers.
    OutputError
        The model folder belongs to another training, or cannot be written.
    """
    options = options or TrainOptions()
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    started = time.monotonic()
    data = load_features(tuple(features) or (DEFAULT_FEATURES,))
    labels = sorted(set(data.rows["emotion"]))
    if len(labels) < 2:
        raise InputError(f"all {len(data.rows)} rows are labelled {labels[0]!r}; training needs 2 labels or more")
    identity = _identity(data, options)
    before = _trained_before(options, identity)
    split = splits.split(data.rows, options.split, seed=options.seed)
    shared = max((splits.shared_speakers(data.rows, fold) for fold in split.folds), default=0)
    runs = [
        _run(data, labels, fold, options, say, f"fold {fold.name}: " if len(split.folds) > 1 else "")
        for fold in (() if before else split.folds)
    ]
    if before is None:
        final = runs[0] if not split.is_cross_validation else _run(data, labels, None, options, say, "all rows: ")
        before = _write(data, labels, split, runs, final, options, identity, shared, started)
        is_new = True
    else:
        is_new = False
    metrics = before.values["metrics"]
    return TrainSummary(
        out=options.out,
        model_id=before.model_id,
        report=_held_out_report(options.out) if metrics else None,
        metrics=metrics,
        n_train=len(data.rows) if split.is_cross_validation else len(split.folds[0].train),
        n_test=sum(len(fold.test) for fold in split.folds),
        shared_speakers=shared,
        n_speakers=data.rows["speaker"].drop_nulls().n_unique(),
        warnings=_warnings(data),
        seconds=time.monotonic() - started,
        is_new=is_new,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One model trained: of a fold, or of all rows."""

    fold: splits.Fold | None
    model: Any
    scaler: bundle.Scaler | None
    history: list[dict[str, Any]]
    probabilities: npt.NDArray[np.float64]  # (test rows, labels)


def _run(
    data: Features,
    labels: Sequence[str],
    fold: splits.Fold | None,
    options: TrainOptions,
    say: Callable[[str], None],
    prefix: str,
) -> _Run:
    """Fit one model on a fold's training rows and predict its held-out rows."""
    y = np.searchsorted(labels, data.rows["emotion"].to_numpy()).astype(np.int64)  # LabelEncoder's order
    rows = np.arange(len(y)) if fold is None else fold.train
    test = np.empty(0, dtype=np.int64) if fold is None else fold.test
    missing = sorted(set(labels) - {labels[i] for i in y[rows]})
    if missing:
        raise InputError(f"{prefix}no training row is {missing[0]!r}; use another --split, or label more recordings")
    if options.estimator == "cnn":
        return _run_network(data, labels, y, rows, test, fold, options, say, prefix)
    x = bundle.summary_features(data.mfcc, data.n_frames)
    say(f"{prefix}fitting {options.estimator} on {len(rows)} rows")
    estimator = _classical(options)
    estimator.fit(x[rows], y[rows])
    probabilities = estimator.predict_proba(x[test]) if len(test) else np.empty((0, len(labels)))
    return _Run(fold, estimator, None, [], probabilities)


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
) -> _Run:
    from ser_batch import network

    scaler = _fit_scaler(data.mfcc, data.n_frames, rows)
    x, x_test = (scaler.transform(data.mfcc[part], data.n_frames[part]) for part in (rows, test))
    history: list[dict[str, Any]] = []
    network.set_seed(options.seed)
    model = network.build(options.recipe, data.spec.n_frames, data.spec.n_mfcc, len(labels))
    started = time.monotonic()

    def on_epoch(epoch: int, logs: dict[str, float]) -> None:
        # the held-out figures are looked at by people; nothing is chosen by them
        held_out = _held_out_figures(network.predict(model, x_test), y[test]) if len(test) else {}
        values = {"loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])} | held_out
        history.append({"fold": fold.name if fold else None, "seed": options.seed, "epoch": epoch} | values)
        left = (time.monotonic() - started) / epoch * (options.epochs - epoch)
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
        say(f"{prefix}epoch {epoch}/{options.epochs}  {figures}  {left:.0f} s left")

    network.fit(model, x, y[rows], n_labels=len(labels), epochs=options.epochs, seed=options.seed, on_epoch=on_epoch)
    probabilities = network.predict(model, x_test) if len(test) else np.empty((0, len(labels)))
    return _Run(fold, model, scaler, history, probabilities)


def _fit_scaler(mfcc: Mfcc, n_frames: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> bundle.Scaler:
    """Fit mean and deviation of each coefficient on the real frames of `rows`."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for chunk in np.array_split(rows, max(1, len(rows) // 1024)):  # 28 MB of frames at a time
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


def _identity(data: Features, options: TrainOptions) -> dict[str, Any]:
    """Return all that decides the model: the data's hash and the settings."""
    keyed = data.rows.select(*KEY, "content_hash", "emotion", "speaker").write_csv()
    digest = hashlib.sha256(keyed.encode())
    digest.update(data.mfcc.tobytes())
    is_cnn = options.estimator == "cnn"
    return {
        "estimator": options.estimator,
        "recipe": options.recipe if is_cnn else None,
        "epochs": options.epochs if is_cnn else None,
        "split": options.split,
        "seed": options.seed,
        "data_hash": digest.hexdigest(),
        "feature_spec": data.spec.to_dict(),
        "segmentation": data.segmentation.to_dict(),
    }


def _trained_before(options: TrainOptions, identity: Mapping[str, Any]) -> bundle.Bundle | None:
    """Return the model in the output if it is this very one; refuse another."""
    out = options.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / bundle.BUNDLE_FILE).is_file():
        raise OutputError(f"{out}: holds something else than a model of ser-batch; choose another --out")
    if options.overwrite:
        return None
    found = bundle.load(out)
    now = json.loads(canonical_json(identity))
    differing = [name for name in now if found.values.get(name) != now[name]]
    if differing:
        what = "; ".join(f"{name} was {found.values.get(name)!r} and is {now[name]!r}" for name in differing)
        raise OutputError(
            f"{out}: holds another model: {what}. Choose another --out, or give --overwrite to replace it"
        )
    return found


def _write(
    data: Features,
    labels: Sequence[str],
    split: splits.Split,
    runs: Sequence[_Run],
    final: _Run,
    options: TrainOptions,
    identity: Mapping[str, Any],
    shared: int,
    started: float,
) -> bundle.Bundle:
    """Write the whole model folder beside its place, then put it there in one go."""
    make_folder(options.out.parent)
    building = options.out.with_name(f".{options.out.name}.writing-{os.getpid()}-{secrets.token_hex(4)}")
    make_folder(building)
    try:
        metrics: dict[str, Any] = {}
        if runs:
            predictions = _predictions(data, labels, runs, options)
            truth, predicted = (predictions[name].to_list() for name in ("emotion", "predicted"))
            report = classification(truth, predicted, labels)
            metrics = {**headline(report), "n": len(truth), "meaning": _meaning(data, options, split, shared)}
            write_frame(predictions, building / "predictions.parquet", model_predictions_schema(labels))
            write_frame(report.insert_column(0, pl.lit("all").alias("subset")), building / "report.parquet")
            write_frame(confusion(truth, predicted, labels), building / "confusion.parquet")
        write_frame(_history([*runs, final]), building / "history.parquet")
        values = _bundle_values(data, labels, final, metrics, identity, split, started)
        bundle.save(building, values, final.model, model_card(values))
        write_page(building, building / "report.html")
        _put(building, options.out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return bundle.load(options.out)


def _put(building: Path, out: Path) -> None:
    """Move a finished folder into its place; an older one leaves only when the new one is there."""
    older = building.with_name(building.name + ".older")
    try:
        if out.exists():
            out.rename(older)
        building.rename(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    shutil.rmtree(older, ignore_errors=True)


def _predictions(data: Features, labels: Sequence[str], runs: Sequence[_Run], options: TrainOptions) -> pl.DataFrame:
    """Return the held-out rows of all runs with their fold, seed, prediction and probabilities."""
    frames = []
    for run in runs:
        assert run.fold is not None
        frames.append(
            data.rows[run.fold.test]
            .select([name for name, _ in SEGMENT_COLUMNS])
            .with_columns(
                pl.lit(run.fold.name).alias("fold"),
                pl.lit(options.seed).alias("seed"),
                pl.Series("predicted", np.asarray(labels)[run.probabilities.argmax(axis=1)]),
                *(pl.Series(f"p_{label}", run.probabilities[:, i], pl.Float64) for i, label in enumerate(labels)),
            )
        )
    return pl.concat(frames)


def _history(runs: Sequence[_Run]) -> pl.DataFrame:
    schema = {
        "fold": pl.String,
        "seed": pl.Int64,
        "epoch": pl.Int64,
        "loss": pl.Float64,
        "accuracy": pl.Float64,
        "test_loss": pl.Float64,
        "test_accuracy": pl.Float64,
    }
    unique = list(dict.fromkeys(runs))  # of a hold-out, the final run is the only one
    return pl.DataFrame([row for run in unique for row in run.history], schema=schema)


def _meaning(data: Features, options: TrainOptions, split: splits.Split, shared: int) -> str:
    """Say in words what the held-out figures are figures of."""
    n = data.rows["speaker"].drop_nulls().n_unique()
    how = f"{len(split.folds)} folds ({options.split})" if split.is_cross_validation else f"a {options.split} hold-out"
    if shared:
        heard = f"{shared} of {n} speakers stand on both sides, so it is not a figure for new speakers"
    elif n:
        heard = "speakers never heard in training"
    else:
        heard = "the speakers are not known, so they may stand on both sides"
    return f"Cross-validated on {how}: {heard}." if split.is_cross_validation else f"Measured on {how}: {heard}."


def _bundle_values(
    data: Features,
    labels: Sequence[str],
    final: _Run,
    metrics: Mapping[str, Any],
    identity: Mapping[str, Any],
    split: splits.Split,
    started: float,
) -> dict[str, Any]:
    rows = data.rows if final.fold is None else data.rows[final.fold.train]
    corpora = rows["corpus"].drop_nulls().unique().sort()
    names = {
        "cnn": "1D CNN",
        "svm": "Support vector machine",
        "forest": "Random forest",
        "logistic": "Logistic regression",
    }
    return {
        "schema_version": 1,
        "description": f"{names[identity['estimator']]} on {data.spec.n_mfcc} MFCCs; {len(labels)} emotions: "
        f"{', '.join(labels)}.",
        **identity,
        "feature_spec_hash": data.spec.digest(),
        "labels": list(labels),
        "scaler": dataclasses.asdict(final.scaler) if final.scaler else None,
        "temperature": 1.0,
        "training": {
            "n_rows": len(rows),
            "n_recordings": rows["content_hash"].n_unique(),
            "n_speakers": rows["speaker"].drop_nulls().n_unique(),
            "datasets": sorted(set(rows["dataset"])),
            "rows_by_emotion": {label: int((rows["emotion"] == label).sum()) for label in labels},
        },
        "metrics": dict(metrics),
        "cross_validated": bool(split.is_cross_validation and metrics),
        "licence": "; ".join(LICENCES[corpus] for corpus in corpora if corpus in LICENCES),
        "seconds": round(time.monotonic() - started, 1),
    }


def _held_out_report(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "report.parquet").filter(pl.col("subset") == "all").drop("subset")


def _warnings(data: Features) -> tuple[str, ...]:
    if not data.n_unlabelled:
        return ()
    return (f"{data.n_unlabelled} rows have no emotion and were left out",)
