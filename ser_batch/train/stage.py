"""Load, split, fit every fold, write: the whole stage."""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ser_batch import bundle, splits
from ser_batch.config import TrainOptions, canonical_json
from ser_batch.errors import BundleError, InputError, OutputError
from ser_batch.tables import (
    KEY,
    Features,
    load_features,
)
from ser_batch.train.fitting import chunks, run_fold
from ser_batch.train.writing import write_model

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
    shared_speakers
        How many speakers stand on both sides of the split (the most of any fold).
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
    data = load_features(tuple(features) or (DEFAULT_FEATURES,), scratch=options.out.parent)
    labels = sorted(set(data.rows["emotion"]))
    if len(labels) < 2:
        raise InputError(f"all {len(data.rows)} rows are labelled {labels[0]!r}; training needs 2 labels or more")
    identity = _identity(data, options)
    before = _trained_before(options, identity)
    split = splits.split(data.rows, options.split, seed=options.seed)
    shared = max((splits.shared_speakers(data.rows, fold) for fold in split.folds), default=0)
    runs = [
        run_fold(data, labels, fold, options, say, f"fold {fold.name}: " if len(split.folds) > 1 else "")
        for fold in (() if before else split.folds)
    ]
    if before is None:
        final = runs[0] if not split.is_cross_validation else run_fold(data, labels, None, options, say, "all rows: ")
        before = write_model(data, labels, split, runs, final, options, identity, shared, started)
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
        warnings=_warnings(data),
        seconds=time.monotonic() - started,
        is_new=is_new,
    )


def _identity(data: Features, options: TrainOptions) -> dict[str, Any]:
    """Return all that decides the model: the data's hash and the settings."""
    keyed = data.rows.select(*KEY, "content_hash", "emotion", "speaker").write_csv()
    digest = hashlib.sha256(keyed.encode())
    for rows in chunks(np.arange(len(data.rows))):
        digest.update(data.mfcc[rows].tobytes())
    is_cnn = options.estimator == "cnn"
    return {
        "estimator": options.estimator,
        "recipe": options.recipe if is_cnn else None,
        "epochs": options.epochs if is_cnn else None,
        "split": options.split,
        "seed": options.seed,
        "data_hash": digest.hexdigest(),
        "feature_spec": data.spec.to_dict(),
        "segmentation": [segmentation.to_dict() for segmentation in dict.fromkeys(data.segmentations)],
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
    try:
        found = bundle.load(out)
    except BundleError as error:
        raise OutputError(f"{error}. To replace the model in {out}, give --overwrite") from error
    now = json.loads(canonical_json(identity))
    differing = [name for name in now if found.values.get(name) != now[name]]
    if differing:
        what = "; ".join(f"{name} was {found.values.get(name)!r} and is {now[name]!r}" for name in differing)
        raise OutputError(
            f"{out}: holds another model: {what}. Choose another --out, or give --overwrite to replace it"
        )
    return found


def _held_out_report(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "report.parquet").filter(pl.col("subset") == "all").drop("subset")


def _warnings(data: Features) -> tuple[str, ...]:
    if not data.n_unlabelled:
        return ()
    return (f"{data.n_unlabelled} rows have no emotion and were left out",)
