"""The model folder: written beside its place, then put there in one go."""

import dataclasses
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ser_batch import bundle, splits
from ser_batch.config import TrainOptions
from ser_batch.corpus import LICENCES
from ser_batch.errors import OutputError
from ser_batch.report import classification, confusion, headline, model_card, write_page
from ser_batch.tables import (
    SEGMENT_COLUMNS,
    TEMPORARY_MARK,
    Features,
    make_folder,
    model_predictions_schema,
    write_frame,
)
from ser_batch.train.fitting import Run


def write_model(
    data: Features,
    labels: Sequence[str],
    split: splits.Split,
    runs: Sequence[Run],
    final: Run,
    options: TrainOptions,
    identity: Mapping[str, Any],
    shared: int,
    started: float,
) -> bundle.Bundle:
    """Write the whole model folder beside its place, then put it there in one go."""
    make_folder(options.out.parent)
    building = options.out.with_name(f".{options.out.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")
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
        if older.exists() and not out.exists():
            older.rename(out)
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    shutil.rmtree(older, ignore_errors=True)


def _predictions(data: Features, labels: Sequence[str], runs: Sequence[Run], options: TrainOptions) -> pl.DataFrame:
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


def _history(runs: Sequence[Run]) -> pl.DataFrame:
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
    n, n_unknown = data.rows["speaker"].drop_nulls().n_unique(), data.rows["speaker"].null_count()
    how = f"{len(split.folds)} folds ({options.split})" if split.is_cross_validation else f"a {options.split} hold-out"
    if shared:
        heard = f"{shared} of {n} speakers stand on both sides, so it is not a figure for new speakers"
    elif n_unknown:
        heard = f"the speakers of {n_unknown} segments are not known, so they may stand on both sides"
    else:
        heard = f"0 of {n} speakers stand on both sides, so these are speakers never heard in training"
    return f"Cross-validated on {how}: {heard}." if split.is_cross_validation else f"Measured on {how}: {heard}."


def _bundle_values(
    data: Features,
    labels: Sequence[str],
    final: Run,
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
            "lowest_sampling_rate": rows["sampling_rate"].min(),
            "n_speakers": rows["speaker"].drop_nulls().n_unique(),
            "datasets": sorted(set(rows["dataset"])),
            "rows_by_emotion": {label: int((rows["emotion"] == label).sum()) for label in labels},
        },
        "metrics": dict(metrics),
        "cross_validated": bool(split.is_cross_validation and metrics),
        "licence": "; ".join(LICENCES[corpus] for corpus in corpora if corpus in LICENCES),
        "seconds": round(time.monotonic() - started, 1),
    }
