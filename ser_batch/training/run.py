"""Load, split, fit every fold, write: the whole stage."""

import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl
from msgspec import Meta

from ser_batch.config.features import AnyFeatureSpec, FeatureSpec
from ser_batch.config.option_values import holds_out_corpora
from ser_batch.config.options import HEAD_RECIPE, TrainOptions
from ser_batch.config.structs import as_json
from ser_batch.config.variants import CLEAN
from ser_batch.errors import InputError, ModelError, OutputError
from ser_batch.model.folder import MODEL_FILE, Model, load_model
from ser_batch.model.schema import Identity
from ser_batch.network.recipes import HEAD, RECIPES
from ser_batch.summary import StageSummary
from ser_batch.tables.features import Features, corpora, load_features, read_features_spec, vote_columns
from ser_batch.tables.schemas import KEY
from ser_batch.training.batches import n_nameless, segment_numbers, speaker_stats_of
from ser_batch.training.checkpoints import Checkpoints, claimed
from ser_batch.training.finetune import Start, load_start
from ser_batch.training.fit import run_part
from ser_batch.training.heads import with_temperatures
from ser_batch.training.model_folder import write_model
from ser_batch.training.multi_corpus import Corpora, check_votes, corpora_of, target_shares
from ser_batch.training.out_of_domain import sounds_of
from ser_batch.training.tasks import FoldResult, FoldTask, Plan, Say, Settings, make_plan, usable_rows
from ser_batch.training.temperature import fitted_temperature, temperature_across_corpora

DEFAULT_FEATURES = Path("features")


class TrainSummary(StageSummary, frozen=True, kw_only=True):
    """What `train` did."""

    out: Annotated[Path, Meta(description="model folder")]
    model_id: Annotated[str, Meta(description="id of the model")]
    is_new: Annotated[bool, Meta(description="false where the folder held this very model already")]
    n_train: Annotated[int, Meta(description="training segments, variants not counted")]
    n_test: Annotated[int, Meta(description="held-out segments of all folds, variants not counted")]
    shared_speakers: Annotated[int, Meta(description="speakers in both parts of the split, the most of any fold")]
    metrics: Annotated[
        Mapping[str, Any],
        Meta(
            description="`metrics` of model.json: `accuracy`, `uar`, `macro_f1`, `weighted_f1`, `ece`, `description` "
            "and more; empty with `--split none`"
        ),
    ]
    report: Annotated[
        pl.DataFrame | None,
        Meta(
            description="list of the rows of report.parquet for all held-out rows in the first condition; null with "
            "`--split none`"
        ),
    ]
    models: Annotated[
        pl.DataFrame | None, Meta(description="list of the rows of summary.parquet; null with `--split none`")
    ]


def train(
    features: Sequence[Path] = (),
    options: TrainOptions | None = None,
    *,
    say: Say | None = None,
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
    UsageError
        What `init` names cannot be started from.
    InputError
        The features cannot be used: other specs, one label, too few speakers.
    OutputError
        The model folder belongs to another training, or cannot be written.
    """
    options = options or TrainOptions()
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    started = time.monotonic()
    folders = tuple(features) or (DEFAULT_FEATURES,)
    start = load_start(options)
    if start is not None:
        options = msgspec.structs.replace(options, recipe=start.recipe, normalize=start.model.schema.normalize)
    # before anything is read that takes time
    options = options.for_features(read_features_spec(folders[0]).feature_spec)
    data = load_features(folders, wanted=_wanted(options), scratch=options.out.parent)
    if start is not None:
        start.check_spec(data.spec)
    usable = usable_rows(data, options)
    labels = sorted(set(data.rows["emotion"].gather(usable.train)))
    if len(labels) < 2:
        raise InputError(f"all {len(usable.train)} rows are labelled {labels[0]!r}; training needs 2 labels or more")
    if options.soft_labels:
        check_votes(data, labels, usable.train)
    shares = target_shares(data, labels, soft_labels=options.soft_labels)
    several = corpora_of(data, shares, usable.train)
    if several is not None and options.estimator == "network":
        several.check(labels, "")
    identity = _identity(data, options, start)
    before = _trained_before(options, identity)
    plan = make_plan(data, usable, labels, options)
    for part in plan.parts if options.estimator == "network" else ():  # before any of them is trained
        of_part = corpora_of(data, shares, part.train)
        if of_part is not None:
            of_part.check(labels, f"fold {part.fold}: ")
    is_new = before is None
    if before is None:
        with claimed(options.out):
            # another run of the same command may have ended since
            before = _trained_before(options, identity)
            before = before or _train(data, labels, plan, options, start, identity, started, say)
    metrics: dict[str, Any] = as_json(before.schema.metrics) or {}
    segments = segment_numbers(data)
    return TrainSummary(
        out=options.out,
        model_id=before.model_id,
        report=_held_out_report(options.out) if metrics else None,
        models=pl.read_parquet(options.out / "summary.parquet") if metrics else None,
        metrics=metrics,
        n_train=len(np.unique(segments[plan.final.train])),
        n_test=sum(len(np.unique(segments[part.test])) for part in plan.parts if part.seed == options.seed),
        shared_speakers=plan.n_shared_speakers,
        warnings=tuple(_warnings(data, options, plan, start, several)),
        seconds=time.monotonic() - started,
        is_new=is_new,
    )


def _wanted(options: TrainOptions) -> dict[str, set[str]]:
    """Return the columns and values of the rows that are read at all."""
    wanted = {}
    if options.train_variant_names is not None:
        wanted["variant"] = {*options.train_variant_names, *options.condition_names}
    if "both" not in (options.vocal_channel, options.test_vocal_channel):
        wanted["vocal_channel"] = {options.vocal_channel, options.test_vocal_channel}
    return wanted


def _train(
    data: Features,
    labels: Sequence[str],
    plan: Plan,
    options: TrainOptions,
    start: Start | None,
    identity: Identity[AnyFeatureSpec],
    started: float,
    say: Say,
) -> Model:
    """Fit the model on every fold, and the baselines; then the one to keep, and write it all."""
    is_mfcc = isinstance(data.spec, FeatureSpec)

    def fit(part: FoldTask, name: str) -> FoldResult:
        is_own = name == options.model_name
        kind = options.kind if is_own else name
        names = [f"fold {part.fold}" if plan.is_cross_validation else "", "" if is_own else kind]
        names.append(f"seed {part.seed}" if options.seeds > 1 else "")
        prefix = "".join(f"{name}: " for name in names if name)
        if part.fold is None:
            prefix = "all rows: "
        if kind not in (options.kind, "robust"):
            clean = np.intersect1d(part.train, np.flatnonzero((data.rows["variant"] == CLEAN).to_numpy()))
            part = dataclasses.replace(part, train=clean if len(clean) else part.train)
        return run_part(data, labels, part, kind, own_settings if is_own else plain, say=say, prefix=prefix)

    if not is_mfcc:
        say("encoding sounds that are not speech")
        sounds_of(data)  # kept for all folds, and refused before the first if the encoder is not there
    checkpoints = Checkpoints(options.out, as_json(identity), say)
    n_folds = len({part.fold for part in plan.parts})
    # a baseline is what the same rows give without
    plain = Settings(epochs=options.epochs, checkpoints=checkpoints, has_other_folds=n_folds > 1)
    own_settings = dataclasses.replace(
        plain,
        start=start,
        soft_labels=options.soft_labels,
        voices=speaker_stats_of(data, options.cmvn_reference) if is_mfcc else None,
        voices_alone=speaker_stats_of(data, "recording") if plan.parts and options.normalize == "speaker" else None,
    )
    wanted = dict.fromkeys((options.model_name, *options.baseline_names))
    runs = {name: [fit(part, name) for part in plan.parts] for name in wanted}
    calibrates = options.estimator == "network" and holds_out_corpora(options.split)
    runs = {name: _calibrated_by_others(of_model, labels) for name, of_model in runs.items()}
    if calibrates and options.kind != HEAD_RECIPE:
        runs = {name: _calibrated_elsewhere(data, labels, of_model) for name, of_model in runs.items()}
    own = runs[options.model_name]
    if plan.is_cross_validation:
        final = fit(plan.final, options.model_name)
        # nothing is set apart of all rows; what the folds set apart was never heard by the networks that scored it
        developed = [np.concatenate(arrays) for arrays in zip(*(run.development for run in own), strict=True)]
        final = dataclasses.replace(final, temperature=fitted_temperature(*developed)) if developed else final
    else:
        final = own[0]
    if options.kind == HEAD_RECIPE:
        if plan.is_cross_validation:
            final = with_temperatures(final, [run.heads for run in own if run.heads is not None], labels)
    elif calibrates:
        final = dataclasses.replace(final, temperature=temperature_across_corpora(data, labels, own))
    written = write_model(data, labels, plan, runs, final, options, start, identity, started)
    checkpoints.remove()
    return written


def _calibrated_elsewhere(data: Features, labels: Sequence[str], runs: Sequence[FoldResult]) -> list[FoldResult]:
    """Return runs that hold a corpus out, each with the temperature of the others of its seed."""
    # None of those has the corpus that it is tried on among its held-out rows. A run without others keeps what it has.
    out = []
    for run in runs:
        if run.scaler is None:  # a classical model has no temperature
            return list(runs)
        others = [other for other in runs if other.part.seed == run.part.seed and other.part.fold != run.part.fold]
        temperature = temperature_across_corpora(data, labels, others) if others else run.temperature
        out.append(dataclasses.replace(run, temperature=temperature))
    return out


def _calibrated_by_others(runs: Sequence[FoldResult], labels: Sequence[str]) -> list[FoldResult]:
    """Return runs of heads, each with the temperatures of the other folds of its seed, where there are any."""
    out = []
    for run in runs:
        others = [one.heads for one in runs if one.part.seed == run.part.seed and one.part.fold != run.part.fold]
        out.append(with_temperatures(run, [heads for heads in others if heads is not None], labels))
    return out


def _identity(data: Features, options: TrainOptions, start: Start | None) -> Identity[AnyFeatureSpec]:
    """Return all that decides the model: the data's hash and the settings."""
    # what decides only where there are several corpora, or votes are learned, is left out of other data's hashes
    names = corpora(data.rows)
    also = [names] if names.n_unique() > 1 else []
    also += data.rows.select(vote_columns(data.rows).values()).get_columns() if options.soft_labels else []
    keyed = data.rows.select(*KEY, "content_hash", "emotion", "speaker", *also).write_csv()
    digest = hashlib.sha256(keyed.encode())
    for values in data.chunks_of_values():
        digest.update(values.tobytes())
    is_cnn = options.estimator == "network"
    epochs = None
    if is_cnn and options.kind == HEAD_RECIPE:
        epochs = options.epochs or HEAD.epochs
    elif is_cnn:
        recipe = RECIPES[options.kind]
        epochs = options.epochs or (recipe.tuning if start else recipe).epochs
    return Identity(
        estimator=options.estimator,
        recipe=options.recipe if is_cnn else None,
        epochs=epochs,
        split=options.split,
        vocal_channel=options.vocal_channel,
        test_vocal_channel=options.test_vocal_channel,
        train_variants=options.train_variant_names,
        conditions=options.condition_names,
        baselines=options.baseline_names,
        seed=options.seed,
        seeds=options.seeds,
        data_hash=digest.hexdigest(),
        feature_spec=data.spec,
        segmentation=tuple(dict.fromkeys(data.segmentations)),
        soft_labels=options.soft_labels,
        normalize=options.cmvn_reference,
        init=start.record() if start else None,
    )


def _trained_before(options: TrainOptions, identity: Identity[AnyFeatureSpec]) -> Model | None:
    """Return the model in the output if it is this very one; refuse another."""
    out = options.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / MODEL_FILE).is_file():
        raise OutputError(f"{out}: holds something else than a model of ser-batch; choose another --out")
    if options.overwrite:
        return None
    try:
        found = load_model(out)
    except ModelError as error:
        raise OutputError(f"{error}. To replace the model in {out}, give --overwrite") from error
    then, now = (
        # the id of the first model stands for all the rest of it
        msgspec.structs.asdict(one) | {"init": one.init and one.init.model_id}
        for one in (found.schema, identity)
    )
    differing = [name for name in now if then[name] != now[name]]
    if differing:
        what = "; ".join(f"{name} was {then[name]!r} and is {now[name]!r}" for name in differing)
        raise OutputError(
            f"{out}: holds another model: {what}. Choose another --out, or give --overwrite to replace it"
        )
    return found


def _held_out_report(folder: Path) -> pl.DataFrame:
    """Return the rows of report.parquet that people look at first: the first condition, all rows."""
    report = pl.read_parquet(folder / "report.parquet")
    return report.filter(subset="all", condition=report["condition"][0])


def _warnings(
    data: Features, options: TrainOptions, plan: Plan, start: Start | None, several: Corpora | None
) -> Iterator[str]:
    if data.n_unlabelled:
        yield f"{data.n_unlabelled} rows without emotion are ignored"
    if data.n_copies:
        yield (
            f"{data.n_copies} recordings are in more than one features folder; each is in one part of the split only"
        )
    for name, has in zip(several.names, several.has, strict=True) if several and options.estimator == "network" else ():
        if has.sum() == 1:
            yield f"corpus {name} is not learned, because all its rows have the same label"
    if options.normalize == "speaker" and (n := n_nameless(data)):
        yield f"{n} recordings have rows without speaker; these are normalized by recording"
    if plan.n_left_out:
        yield f"{plan.n_left_out} held-out rows are ignored, because no training row has their emotion"
    if options.kind == "robust" and options.train_variant_names is None and set(data.rows["variant"]) == {CLEAN}:
        yield (
            "the features have clean rows only; for telephones, noise and rooms, train on features made with "
            "`ser-batch featurize --variants robust`"
        )
    heard = start.heard_before(data.rows) if start else ()
    if start and heard and plan.parts:
        yield (
            f"{start.name} was trained on {' and '.join(heard)}, which may include rows held out here; expect lower "
            "scores on new speakers"
        )
