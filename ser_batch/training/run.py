"""The second stage: load features, split, fit every fold, write the model folder."""

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl
from msgspec import Meta

from ser_batch.config.features import AnyFeatureSpec, EncoderSpec, FeatureSpec
from ser_batch.config.option_values import holds_out_corpora, speaker_folds
from ser_batch.config.options import DEFAULT_FEATURES, HEAD_RECIPE, TrainOptions
from ser_batch.config.structs import as_json
from ser_batch.config.variants import CLEAN
from ser_batch.errors import InputError, ModelError, OutputError
from ser_batch.model.folder import MODEL_FILE, Model, load_model
from ser_batch.model.schema import Identity
from ser_batch.network.keras_settings import fixed_settings
from ser_batch.network.recipes import HEAD, RECIPES
from ser_batch.report.pages import page_warnings
from ser_batch.splits.folds import split_rows
from ser_batch.splits.performances import copy_warnings, with_performances
from ser_batch.storage import streams
from ser_batch.summary import StageSummary
from ser_batch.tables.features import Features, corpora, load_features, read_features_spec, vote_columns
from ser_batch.tables.parquet import read_frame
from ser_batch.tables.schemas import KEY
from ser_batch.training.batches import segment_numbers
from ser_batch.training.checkpoints import Checkpoints, claimed
from ser_batch.training.finetune import Start, load_start
from ser_batch.training.fit import fit_fold
from ser_batch.training.heads import with_temperatures
from ser_batch.training.model_folder import write_model
from ser_batch.training.multi_corpus import Corpora, check_votes, corpora_of, target_shares
from ser_batch.training.out_of_domain import sounds_of
from ser_batch.training.references import n_nameless, speaker_stats_of
from ser_batch.training.tasks import FoldResult, FoldTask, Say, Settings, Training, make_plan, usable_rows
from ser_batch.training.temperature import temperature_across_corpora, temperature_of


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
    say = say or streams.say
    started = time.monotonic()
    folders = tuple(features) or (DEFAULT_FEATURES,)
    start = load_start(options)
    if start is not None:
        options = msgspec.structs.replace(options, recipe=start.recipe, normalize=start.model.schema.normalize)
    # before anything is read that takes time
    options = options.for_features(read_features_spec(folders[0]).feature_spec)
    data = with_performances(load_features(folders, wanted=_wanted(options), scratch=options.out.parent))
    if start is not None:
        start.check_spec(data.spec)
    usable = usable_rows(data, options)
    labels = sorted(set(data.rows["emotion"].gather(usable.train)))
    if len(labels) < 2:
        raise InputError(f"all {len(usable.train)} rows are labelled {labels[0]!r}; training needs 2 labels or more")
    if options.soft_labels:
        check_votes(data, labels, usable.train)
    shares = target_shares(data, labels, soft_labels=options.soft_labels)
    corpora = corpora_of(data, shares, usable.train) if options.estimator == "network" else None
    if corpora is not None:
        corpora.check(labels, "")
    identity = _identity(data, options, start)
    model = _trained_before(options, identity)
    plan = make_plan(data, usable, labels, options)
    for fold in plan.folds if options.estimator == "network" else ():  # before any of them is trained
        own = corpora_of(data, shares, fold.train)
        if own is not None:
            own.check(labels, f"fold {fold.name}: ")
    training = Training(
        data=data, labels=labels, options=options, start=start, identity=identity, plan=plan, started=started
    )
    is_new = model is None
    if model is None:
        is_keras = not {options.kind, *options.baseline_names}.isdisjoint({*RECIPES, HEAD_RECIPE})
        with claimed(options.out), fixed_settings() if is_keras else contextlib.nullcontext():
            # another run of the same command may have ended since
            model = _trained_before(options, identity) or _train(training, say)
    # the model is in its place, whatever becomes of its page
    page = options.out / "report.html"
    unmade = () if page.is_file() else page_warnings(options.out, page)
    metrics: dict[str, Any] = as_json(model.schema.metrics) or {}
    segments = segment_numbers(data)
    return TrainSummary(
        out=options.out,
        model_id=model.model_id,
        report=_held_out_report(options.out) if metrics else None,
        models=read_frame(options.out / "summary.parquet") if metrics else None,
        metrics=metrics,
        n_train=len(np.unique(segments[plan.final.train])),
        n_test=sum(len(np.unique(segments[fold.test])) for fold in plan.folds if fold.seed == options.seed),
        shared_speakers=plan.n_shared_speakers,
        warnings=(*_warnings(training, corpora), *unmade),
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


def _train(training: Training, say: Say) -> Model:
    """Fit the model and the baselines on every fold, then the model to keep; write it all."""
    data, labels, options, plan = training.data, training.labels, training.options, training.plan
    if isinstance(data.spec, EncoderSpec):
        say("encoding sounds that are not speech")
        sounds_of(data)  # kept for all folds, and refused before the first if the encoder is not there
    checkpoints = Checkpoints(options.out, as_json(training.identity), say)
    settings = _settings(training, checkpoints, say)
    results = {
        name: [_fit(training, fold, name, settings) for fold in plan.folds]
        for name in dict.fromkeys((options.model_name, *options.baseline_names))
    }
    holds_out = options.estimator == "network" and holds_out_corpora(options.split)
    results = {name: _with_head_temperatures(own, labels) for name, own in results.items()}
    if holds_out and options.kind != HEAD_RECIPE:
        results = {name: _with_temperatures_across_corpora(data, labels, own) for name, own in results.items()}
    own = results[options.model_name]
    final = _fit(training, plan.final, options.model_name, settings) if plan.is_cross_validation else own[0]
    if plan.is_cross_validation and own:
        # nothing is set apart of all rows; what the folds set apart was not seen by the networks that scored it
        final = dataclasses.replace(final, temperature=temperature_of([run.development for run in own]))
        final = with_temperatures(final, [run.heads for run in own if run.heads is not None], labels)
    if holds_out and options.kind != HEAD_RECIPE:
        final = dataclasses.replace(final, temperature=temperature_across_corpora(data, labels, own))
    written = write_model(training, results, final)
    checkpoints.remove()
    return written


def _settings(training: Training, checkpoints: Checkpoints, say: Say) -> Settings:
    """Return the settings of the model itself."""
    data, options, plan = training.data, training.options, training.plan
    is_mfcc = isinstance(data.spec, FeatureSpec)
    has_others = bool(plan.folds) and options.normalize == "speaker"
    return Settings(
        epochs=options.epochs,
        start=training.start,
        soft_labels=options.soft_labels,
        speaker_stats=speaker_stats_of(data, options.cmvn_reference) if is_mfcc else None,
        recording_stats=speaker_stats_of(data, "recording") if has_others else None,
        checkpoints=checkpoints,
        has_other_folds=len({fold.name for fold in plan.folds}) > 1,
        say=say,
    )


def _fit(training: Training, fold: FoldTask, name: str, settings: Settings) -> FoldResult:
    """Fit the model or a baseline on a fold."""
    data, options, plan = training.data, training.options, training.plan
    is_own = name == options.model_name
    kind = options.kind if is_own else name
    if fold.name is None:
        title = ["all rows"]
    else:
        title = [f"fold {fold.name}"] if plan.is_cross_validation else []
        title += [] if is_own else [kind]
        title += [f"seed {fold.seed}"] if options.seeds > 1 else []
    if kind not in (options.kind, "robust"):
        clean = np.intersect1d(fold.train, np.flatnonzero((data.rows["variant"] == CLEAN).to_numpy()))
        fold = dataclasses.replace(fold, train=clean if len(clean) else fold.train)
    if not is_own:  # a baseline is what the same rows give without
        settings = dataclasses.replace(
            settings, start=None, soft_labels=False, speaker_stats=None, recording_stats=None
        )
    return fit_fold(data, training.labels, fold, kind, settings, prefix="".join(f"{one}: " for one in title))


def _other_folds(results: Sequence[FoldResult], own: FoldResult) -> list[FoldResult]:
    """Return the results of the other folds of the same seed."""
    return [one for one in results if one.fold.seed == own.fold.seed and one.fold.name != own.fold.name]


def _with_temperatures_across_corpora(
    data: Features, labels: Sequence[str], results: Sequence[FoldResult]
) -> list[FoldResult]:
    """Return results that hold a corpus out, each with the temperature of the other folds of its seed."""
    # None of those has the corpus that it is tried on among its held-out rows. A fold without others keeps what it has.
    if any(own.scaler is None for own in results):  # a classical model has no temperature
        return list(results)
    return [
        dataclasses.replace(own, temperature=temperature_across_corpora(data, labels, others)) if others else own
        for own in results
        for others in [_other_folds(results, own)]
    ]


def _with_head_temperatures(results: Sequence[FoldResult], labels: Sequence[str]) -> list[FoldResult]:
    """Return results of heads, each with the temperatures of the other folds of its seed, where there are any."""
    return [
        with_temperatures(own, [one.heads for one in _other_folds(results, own) if one.heads is not None], labels)
        for own in results
    ]


def _identity(data: Features, options: TrainOptions, start: Start | None) -> Identity[AnyFeatureSpec]:
    """Return all that decides the model: the data's hash and the settings."""
    # what decides only where there are corpora or copies, votes are learned or a split goes by it is left out of
    # other data's hashes
    names = corpora(data.rows)
    also = [names] if names.n_unique() > 1 else []
    also += [data.rows["performance"]] if any(copy_warnings(data.rows)) else []
    draws_speakers = options.split == "speaker" or speaker_folds(options.split) is not None
    also += [data.rows["sex"]] if draws_speakers else []
    also += data.rows.select(vote_columns(data.rows).values()).get_columns() if options.soft_labels else []
    keyed = data.rows.select(*KEY, "content_hash", "emotion", "speaker", *also).write_csv()
    digest = hashlib.sha256(keyed.encode())
    for values in data.chunks_of_values():
        digest.update(values.tobytes())
    if not (draws_speakers or options.split in ("stratified", "none") or holds_out_corpora(options.split)):
        for fold in split_rows(data.rows, options.split, seed=options.seed).folds:  # by a column, or a file of folds
            digest.update(fold.test.tobytes())
    is_network = options.estimator == "network"
    epochs = None
    if is_network and options.kind == HEAD_RECIPE:
        epochs = options.epochs or HEAD.epochs
    elif is_network:
        recipe = RECIPES[options.kind]
        epochs = options.epochs or (recipe.tuning if start else recipe).epochs
    return Identity(
        estimator=options.estimator,
        recipe=options.recipe if is_network else None,
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
    report = read_frame(folder / "report.parquet")
    return report.filter(subset="all", condition=report["condition"][0])


def _warnings(training: Training, several: Corpora | None) -> Iterator[str]:
    data, options, plan, start = training.data, training.options, training.plan, training.start
    if data.n_unlabelled:
        yield f"{data.n_unlabelled} rows without emotion are ignored"
    if data.n_silent:
        yield f"{data.n_silent} segments are digital silence and are left out"
    yield from copy_warnings(data.rows)
    for name, has in zip(several.names, several.has, strict=True) if several else ():
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
    heard = start.seen_corpora(data.rows) if start else ()
    if start and heard and plan.folds:
        yield (
            f"{start.name} was trained on {' and '.join(heard)}, which may include rows held out here; expect lower "
            "scores on new speakers"
        )
