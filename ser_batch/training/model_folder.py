"""Writing of the model folder: evaluation, model.json, card, page."""

import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ser_batch.arrays import Flags
from ser_batch.config.features import AnyFeatureSpec, EncoderSpec
from ser_batch.config.option_values import holds_out_corpora
from ser_batch.config.options import TrainOptions
from ser_batch.corpus.known_corpora import license_of, sources_of
from ser_batch.encoder.model import GRAPH_FILE, SPEC_FILE, load_encoder
from ser_batch.errors import OutputError
from ser_batch.model.folder import ENCODER_FOLDER, Model, load_model
from ser_batch.model.saving import save_model
from ser_batch.model.schema import (
    CorpusData,
    CrossCorpus,
    Figures,
    Identity,
    Metrics,
    Regime,
    TrainedModel,
    TrainingData,
)
from ser_batch.network.heads import log_prior_of, prior_of
from ser_batch.report.calibration import coverage_table, reliability_table
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import confusion
from ser_batch.report.model_card import model_card
from ser_batch.report.regimes import regimes_metrics, regimes_table
from ser_batch.storage.atomic import TEMPORARY_MARK, behind_links, make_folder
from ser_batch.tables.features import Features, corpora
from ser_batch.tables.parquet import write_frame
from ser_batch.tables.schemas import model_predictions_schema, regimes_schema, segment_columns
from ser_batch.training.batches import segment_numbers
from ser_batch.training.decisions import decide_of
from ser_batch.training.finetune import Start, with_inherited
from ser_batch.training.multi_corpus import corpora_of, target_shares
from ser_batch.training.out_of_domain import domain_of, fit_mfcc_domain
from ser_batch.training.regimes import regime_predictions
from ser_batch.training.tasks import FoldResult, Plan, Training


def write_model(training: Training, runs: Mapping[str, Sequence[FoldResult]], final: FoldResult) -> Model:
    """Write the whole model folder beside its place, then put it there in one go."""
    data, labels, plan, options = training.data, training.labels, training.plan, training.options
    start, identity, started = training.start, training.identity, training.started
    out = behind_links(options.out)
    make_folder(out.parent)
    building = out.with_name(f".{out.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    make_folder(building)
    own = runs[options.model_name]
    corpus_labels = _corpus_labels(data, labels, plan, options)
    try:
        metrics = None
        if own:
            metrics = _write_evaluation(building, data, labels, runs, options, corpus_labels)
            before = start.seen_corpora(data.rows) if start else ()
            metrics = msgspec.structs.replace(
                metrics,
                # what the model that it started from has learned is not unseen
                held_out_corpora={name: own for name, own in metrics.held_out_corpora.items() if name not in before},
                regimes=_write_regimes(building, data, labels, own, options, corpus_labels),
                description=_description(data, options, plan, start),
            )
        write_frame(_history([*own, final]), building / "history.parquet")
        trained = _trained(data, labels, plan, final, metrics, start, identity, corpus_labels, started)
        save_model(building, trained, final.model, model_card(trained))
        if data.encoder_folder is not None:  # it does not ship with ser-batch
            _copy_encoder(data, building / ENCODER_FOLDER)
        _put(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return load_model(options.out)


def _copy_encoder(data: Features, out: Path) -> None:
    """Copy the encoder that the features were made with; score needs it wherever the model goes."""
    assert data.encoder_folder is not None
    folder = Path(data.encoder_folder)
    load_encoder(folder, expected=data.encoder_spec)
    make_folder(out)
    for name in (GRAPH_FILE, SPEC_FILE):
        shutil.copyfile(folder / name, out / name)


def _write_evaluation(
    folder: Path,
    data: Features,
    labels: Sequence[str],
    runs: Mapping[str, Sequence[FoldResult]],
    options: TrainOptions,
    corpus_labels: Mapping[str, Sequence[str]],
) -> Metrics:
    """Write the held-out rows and the tables made of them; return the figures for model.json."""
    predictions = _predictions(data, labels, runs[options.model_name])
    write_frame(predictions, folder / "predictions.parquet", model_predictions_schema(labels, data.spec))
    write_frame(report_table(predictions, labels, corpus_labels=corpus_labels), folder / "report.parquet")
    write_frame(reliability_table(predictions, labels), folder / "reliability.parquet")
    write_frame(coverage_table(predictions, labels), folder / "coverage.parquet")
    alone = [run.per_recording for run in runs[options.model_name] if run.per_recording is not None]
    named = {options.model_name: runs[options.model_name]}
    named |= {f"{options.model_name}, recordings alone": alone} if alone else {}
    summaries = [
        summary_table(_predictions(data, labels, own), labels, estimator=name, corpus_labels=corpus_labels)
        for name, own in {**named, **runs}.items()
    ]
    write_frame(pl.concat(summaries), folder / "summary.parquet")
    metrics = _metrics(summaries[0], summaries[1] if alone else None, predictions, options, corpus_labels)
    main = predictions.filter(variant=metrics.condition)
    write_frame(confusion(main["emotion"].to_list(), main["predicted"].to_list(), labels), folder / "confusion.parquet")
    return metrics


def _write_regimes(
    folder: Path,
    data: Features,
    labels: Sequence[str],
    runs: Sequence[FoldResult],
    options: TrainOptions,
    corpus_labels: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Regime]]:
    """Write what the held-out rows give by what is known of archive and channel; return it for model.json."""
    frames = []
    for run in runs:
        decide = decide_of(data, labels, run, is_normalized=options.cmvn_reference != "none")
        if decide is None:
            return {}
        frames.append(
            regime_predictions(
                data.rows,
                run.fold.test,
                decide,
                labels,
                log_prior=log_prior_of(labels, prior_of(labels)),
                calm=run.fold.calm,
                common=run.fold.common,
                corpus_labels=corpus_labels,
                is_out_of_domain=_out_of_domain(data, run) if isinstance(data.spec, EncoderSpec) else None,
            )
        )
    table = regimes_table(pl.concat(frames))
    write_frame(table, folder / "regimes.parquet", regimes_schema(labels))
    return regimes_metrics(table)


def _out_of_domain(data: Features, run: FoldResult) -> Flags:
    """Return which rows of the table are out of domain, shape (rows,); only held-out ones are tried."""
    rows = np.union1d(run.fold.test, run.fold.calm)
    out = np.zeros(len(data.rows), dtype=np.bool_)
    out[rows] = domain_of(data, run.fold.train).ood_score(data.embedding[rows]) > 1
    return out


def _corpus_labels(data: Features, labels: Sequence[str], plan: Plan, options: TrainOptions) -> dict[str, list[str]]:
    """Return the labels that each corpus has in what the model is trained on; empty where there is one corpus."""
    shares = target_shares(data, labels, soft_labels=options.soft_labels)
    several = corpora_of(data, shares, plan.final.train)
    return several.labels_of(labels) if several else {}


def _corpora_data(data: Features, plan: Plan, corpus_labels: Mapping[str, Sequence[str]]) -> dict[str, CorpusData]:
    """Return what is learned from each of several corpora."""
    numbers = plan.final.train
    names = corpora(data.rows).gather(numbers)
    segments = pl.DataFrame({"corpus": names, "segment": segment_numbers(data)[numbers]})
    n_rows = dict(segments.group_by("corpus").n_unique().iter_rows())
    return {name: CorpusData(n_rows=n_rows[name], labels=tuple(own)) for name, own in corpus_labels.items()}


Rows = Mapping[tuple[str, str], Mapping[str, Any]]
_HEADLINE = ("accuracy", "uar", "macro_f1")


def _by_group(summary: pl.DataFrame) -> Rows:
    """Return the rows of summary.parquet by condition and subset."""
    return {(row["condition"], row["subset"]): row for row in summary.iter_rows(named=True)}


def _figures(row: Mapping[str, Any], *also: str) -> Figures:
    """Return figures of a row of summary.parquet."""
    return Figures(**{name: row[name] for name in ("accuracy", "uar", "ece", *also)})


def _metrics(
    summary: pl.DataFrame,
    alone: pl.DataFrame | None,
    predictions: pl.DataFrame,
    options: TrainOptions,
    corpus_labels: Mapping[str, Sequence[str]],
) -> Metrics:
    """Return the figures that stand in model.json: those of the first condition, and a few of the others."""
    rows = _by_group(summary)
    main = summary["condition"][0]
    every = rows[main, "all"]
    by_corpus = {name: rows.get((main, f"corpus-{name}"), rows.get((main, name))) for name in corpus_labels}
    of_speech = {condition: row["uar"] for (condition, subset), row in rows.items() if subset == "speech"}
    return Metrics(
        **{name: every[name] for name in (*_HEADLINE, "weighted_f1", "ece", "n")},
        description="",
        condition=main,
        seeds=tuple(range(options.seed, options.seed + options.seeds)),
        intervals={name: (every[f"{name}_low"], every[f"{name}_high"]) for name in _HEADLINE},
        resampled=every["resampled"] or "speaker",
        deviation_over_seeds={} if every["uar_sd"] is None else {name: every[f"{name}_sd"] for name in _HEADLINE},
        speech=_figures(rows[main, "speech"], "macro_f1") if (main, "speech") in rows else None,
        song=_figures(rows[main, "song"], "macro_f1") if (main, "song") in rows else None,
        per_recording=None if alone is None else _figures(_by_group(alone)[main, "all"], "macro_f1"),
        conditions={
            condition: msgspec.structs.replace(_figures(row), speech_uar=of_speech.get(condition))
            for (condition, subset), row in rows.items()
            if subset == "all"
        },
        corpora={name: _figures(row, "macro_f1", "n") for name, row in by_corpus.items() if row},
        held_out_corpora=_cross_corpus(predictions, rows) if holds_out_corpora(options.split) else {},
    )


def _cross_corpus(predictions: pl.DataFrame, rows: Rows) -> dict[str, CrossCorpus]:
    """Return the figures on each corpus that was left out, in the first condition, and its UAR in all of them."""
    names = corpora(predictions)
    conditions = dict.fromkeys(condition for condition, _ in rows)
    figures = {}
    for name in names.unique().sort():
        # one corpus alone is all there is
        subset = next(
            subset for subset in (f"corpus-{name}", name, "all") if all((one, subset) in rows for one in conditions)
        )
        of_corpus = {condition: rows[condition, subset] for condition in conditions}
        first = next(iter(of_corpus.values()))
        figures[name] = CrossCorpus(
            **{figure: first[figure] for figure in (*_HEADLINE, "ece", "n")},
            labels=tuple(predictions.filter(names == name)["emotion"].unique().sort()),
            conditions={condition: row["uar"] for condition, row in of_corpus.items()},
        )
    return figures


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


def _predictions(data: Features, labels: Sequence[str], runs: Sequence[FoldResult]) -> pl.DataFrame:
    """Return the held-out rows of all runs with their fold, seed, prediction and probabilities."""
    return pl.concat(_held_out(data, labels, run) for run in runs)


def _held_out(data: Features, labels: Sequence[str], run: FoldResult) -> pl.DataFrame:
    probabilities = run.probabilities(labels)
    return (
        data.rows[run.fold.test]
        .select([name for name, _ in segment_columns(data.spec)])
        .with_columns(
            pl.lit(run.fold.name).alias("fold"),
            pl.lit(run.fold.seed, pl.Int64).alias("seed"),
            pl.Series("predicted", np.asarray(labels)[probabilities.argmax(axis=1)]),
            *(pl.Series(f"p_{label}", probabilities[:, i], pl.Float64) for i, label in enumerate(labels)),
        )
    )


def _history(runs: Sequence[FoldResult]) -> pl.DataFrame:
    schema = {
        "fold": pl.String,
        "seed": pl.Int64,
        "member": pl.Int64,
        "epoch": pl.Int64,
        "loss": pl.Float64,
        "accuracy": pl.Float64,
        "dev_loss": pl.Float64,
        "dev_accuracy": pl.Float64,
    }
    unique = list(dict.fromkeys(runs))  # of a hold-out, the final run is the only one
    return pl.DataFrame([row for run in unique for row in run.history], schema=schema)


def _description(data: Features, options: TrainOptions, plan: Plan, start: Start | None) -> str:
    """Say in words what the held-out figures are figures of."""
    n, n_unknown = data.rows["speaker"].drop_nulls().n_unique(), data.rows["speaker"].null_count()
    n_folds = len({fold.name for fold in plan.folds})
    how = f"{n_folds} folds ({options.split})" if plan.is_cross_validation else f"a {options.split} hold-out"
    how += f", mean of {options.seeds} seeds" if options.seeds > 1 else ""
    how += f", {options.test_vocal_channel} only" if options.test_vocal_channel != "both" else ""
    before = start.seen_corpora(data.rows) if start else ()
    if plan.n_shared_speakers:
        heard = f"{plan.n_shared_speakers} of {n} speakers stand on both sides, so it is not a figure for new speakers"
    elif n_unknown:
        heard = f"the speakers of {n_unknown} rows are not known, so they may stand on both sides"
    elif before:
        heard = f"0 of {n} speakers stand on both sides"
    elif holds_out_corpora(options.split):
        heard = f"0 of {n} speakers stand on both sides, so these are speakers and corpora never heard in training"
    else:
        heard = f"0 of {n} speakers stand on both sides, so these are speakers never heard in training"
    if holds_out_corpora(options.split):
        how += ", each on the labels that it shares with the others"
    heard += _reference_used(data, options)
    if start and before:
        heard += (
            f"; but it started from the model {start.model.model_id}, which learned from {' and '.join(before)} too "
            "and may have heard what is held out here, so it is not a figure for new speakers"
        )
    return f"Cross-validated on {how}: {heard}." if plan.is_cross_validation else f"Measured on {how}: {heard}."


def _reference_used(data: Features, options: TrainOptions) -> str:
    """Say what the figures make use of beside the segment itself."""
    if options.normalize == "speaker":
        return "; MFCCs are normalized by all speech of the speaker, without labels"
    if isinstance(data.spec, EncoderSpec) and options.estimator == "network":
        return "; embeddings are compared with all speech of the speaker and of the archive, without labels"
    return ""


def _trained(
    data: Features,
    labels: Sequence[str],
    plan: Plan,
    final: FoldResult,
    metrics: Metrics | None,
    start: Start | None,
    identity: Identity[AnyFeatureSpec],
    corpus_labels: Mapping[str, Sequence[str]],
    started: float,
) -> TrainedModel[AnyFeatureSpec]:
    """Return what model.json says."""
    numbers = final.fold.train
    rows = data.rows[numbers]
    # each segment once: its variants are not more data
    segments = rows[np.unique(segment_numbers(data)[numbers], return_index=True)[1]]
    corpora = rows["corpus"].drop_nulls().unique().sort()
    names = {
        "network": "Heads" if final.heads else "1D CNN",
        "svm": "Support vector machine",
        "forest": "Random forest",
        "logistic": "Logistic regression",
    }
    spec, is_encoder = data.spec, isinstance(data.spec, EncoderSpec)
    inputs = f"embeddings of {spec.encoder}" if isinstance(spec, EncoderSpec) else f"{spec.n_mfcc} MFCCs"
    return TrainedModel(
        **msgspec.structs.asdict(identity),
        schema_version=1,
        description=f"{names[identity.estimator]} on {inputs}; {len(labels)} emotions: {', '.join(labels)}.",
        feature_spec_hash=spec.digest(),
        labels=tuple(labels),
        scaler=final.scaler,
        temperature=final.temperature,
        temperature_without_reference=final.heads.model.temperature_without if final.heads else None,
        temperature_of_calls=final.heads.model.temperature_of_calls if final.heads else None,
        prior=prior_of(labels),
        priority=dict(final.priority),
        mfcc_domain=None if is_encoder else fit_mfcc_domain(data, final.fold, plan.folds),
        domain=domain_of(data, final.fold.train) if is_encoder else None,
        training=TrainingData(
            n_rows=len(segments),
            n_recordings=rows["performance"].n_unique(),
            n_speakers=rows["speaker"].drop_nulls().n_unique(),
            datasets=tuple(sorted(set(rows["dataset"]))),
            lowest_sampling_rate=min(rows["sampling_rate"].drop_nulls()),
            sources=tuple(sources_of(corpora)),
            variants=tuple(rows["variant"].unique().sort()),
            rows_by_emotion={label: int((segments["emotion"] == label).sum()) for label in labels},
            corpora=_corpora_data(data, plan, corpus_labels),
        ),
        metrics=metrics,
        cross_validated=plan.is_cross_validation and metrics is not None,
        license=with_inherited(license_of(corpora), start),
        seconds=round(time.monotonic() - started, 1),
        init_name=start.name if start else None,
    )
