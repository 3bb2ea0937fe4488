"""Writing of the model folder: evaluation, model.json, card, page."""

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

from ser_batch.arrays import Flags
from ser_batch.config.features import EncoderSpec, FeatureSpec
from ser_batch.config.option_values import holds_out_corpora
from ser_batch.config.options import TrainOptions
from ser_batch.corpus.known_corpora import license_of, sources_of
from ser_batch.encoder.model import GRAPH_FILE, SPEC_FILE, load_encoder
from ser_batch.errors import OutputError
from ser_batch.model.folder import ENCODER_FOLDER, Model, load_model
from ser_batch.model.saving import save_model
from ser_batch.network.heads import log_prior_of, prior_of
from ser_batch.report.calibration import coverage_table, reliability_table
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import confusion
from ser_batch.report.pages import write_page
from ser_batch.report.regimes import regimes_metrics, regimes_table
from ser_batch.report.texts import model_card
from ser_batch.storage.atomic import TEMPORARY_MARK, make_folder
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
    make_folder(options.out.parent)
    building = options.out.with_name(f".{options.out.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    make_folder(building)
    own = runs[options.model_name]
    corpus_labels = _corpus_labels(data, labels, plan, options)
    try:
        metrics: dict[str, Any] = {}
        if own:
            metrics = _write_evaluation(building, data, labels, runs, options, corpus_labels)
            metrics |= _write_regimes(building, data, labels, own, options, corpus_labels)
            metrics["description"] = _description(data, options, plan, start)
        write_frame(_history([*own, final]), building / "history.parquet")
        values = _model_values(data, labels, plan, final, metrics, start, identity, started)
        values["training"] |= _corpora_values(data, plan, corpus_labels)
        mfcc_domain = fit_mfcc_domain(data, final.part, plan.parts) if isinstance(data.spec, FeatureSpec) else None
        values |= {"mfcc_domain": dataclasses.asdict(mfcc_domain)} if mfcc_domain else {}
        if isinstance(data.spec, EncoderSpec):
            values["domain"] = dataclasses.asdict(domain_of(data, final.part.train))
        save_model(building, values, final.model, model_card(values))
        if data.encoder_folder is not None:  # it does not ship with ser-batch
            _copy_encoder(data, building / ENCODER_FOLDER)
        write_page(building, building / "report.html")
        _put(building, options.out)
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
) -> dict[str, Any]:
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
    metrics = _metrics(summaries[0], predictions, options, corpus_labels)
    if alone:
        of_alone = _metrics(summaries[1], predictions, options, corpus_labels)
        metrics["per_recording"] = {name: of_alone[name] for name in ("accuracy", "uar", "macro_f1", "ece")}
    main = predictions.filter(variant=metrics["condition"])
    write_frame(confusion(main["emotion"].to_list(), main["predicted"].to_list(), labels), folder / "confusion.parquet")
    return metrics


def _write_regimes(
    folder: Path,
    data: Features,
    labels: Sequence[str],
    runs: Sequence[FoldResult],
    options: TrainOptions,
    corpus_labels: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Write what the held-out rows give by what is known of archive and channel; return it for model.json."""
    frames = []
    for run in runs:
        decide = decide_of(data, labels, run, is_normalized=options.wanted_normalize != "none")
        if decide is None:
            return {}
        frames.append(
            regime_predictions(
                data.rows,
                run.part.test,
                decide,
                labels,
                log_prior=log_prior_of(labels, prior_of(labels)),
                calm=run.part.calm,
                common=run.part.common,
                corpus_labels=corpus_labels,
                is_out_of_domain=_out_of_domain(data, run) if isinstance(data.spec, EncoderSpec) else None,
            )
        )
    table = regimes_table(pl.concat(frames))
    write_frame(table, folder / "regimes.parquet", regimes_schema(labels))
    return {"regimes": regimes_metrics(table)}


def _out_of_domain(data: Features, run: FoldResult) -> Flags:
    """Return which rows of the table are out of domain, shape (rows,); only held-out ones are tried."""
    rows = np.union1d(run.part.test, run.part.calm)
    out = np.zeros(len(data.rows), dtype=np.bool_)
    out[rows] = domain_of(data, run.part.train).ood_score(data.embedding[rows]) > 1
    return out


def _corpus_labels(data: Features, labels: Sequence[str], plan: Plan, options: TrainOptions) -> dict[str, list[str]]:
    """Return the labels that each corpus has in what the model is trained on; empty where there is one corpus."""
    shares = target_shares(data, labels, soft_labels=options.soft_labels)
    several = corpora_of(data, shares, plan.final.train)
    return several.labels_of(labels) if several else {}


def _corpora_values(data: Features, plan: Plan, corpus_labels: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what the training summary has of several corpora; nothing where there is one, as ever."""
    if not corpus_labels:
        return {}
    numbers = plan.final.train
    names = corpora(data.rows).gather(numbers)
    segments = pl.DataFrame({"corpus": names, "segment": segment_numbers(data)[numbers]})
    n_rows = dict(segments.group_by("corpus").n_unique().iter_rows())
    return {"corpora": {name: {"n_rows": n_rows[name], "labels": own} for name, own in corpus_labels.items()}}


def _metrics(
    summary: pl.DataFrame, predictions: pl.DataFrame, options: TrainOptions, corpus_labels: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the figures that stand in model.json: those of the first condition, and a few of the others."""
    rows = {(row["condition"], row["subset"]): row for row in summary.iter_rows(named=True)}
    main = summary["condition"][0]
    every = rows[main, "all"]
    named = ("accuracy", "uar", "macro_f1", "weighted_f1")
    metrics = {name: every[name] for name in (*named, "ece", "n")}
    metrics["condition"] = main
    metrics["seeds"] = list(range(options.seed, options.seed + options.seeds))
    metrics["intervals"] = {name: [every[f"{name}_low"], every[f"{name}_high"]] for name in named[:3]}
    if every["uar_sd"] is not None:
        metrics["deviation_over_seeds"] = {name: every[f"{name}_sd"] for name in named[:3]}
    for subset in ("speech", "song"):
        if (main, subset) in rows:
            metrics[subset] = {name: rows[main, subset][name] for name in (*named[:3], "ece")}
    by_corpus = {name: rows.get((main, f"corpus-{name}"), rows.get((main, name))) for name in corpus_labels}
    if any(by_corpus.values()):
        metrics["corpora"] = {
            name: {figure: row[figure] for figure in (*named[:3], "ece", "n")} for name, row in by_corpus.items() if row
        }
    if holds_out_corpora(options.split):
        metrics["held_out_corpora"] = _cross_corpus(predictions, rows)
    metrics["conditions"] = {
        condition: {name: row[name] for name in ("accuracy", "uar", "ece")}
        | ({"speech_uar": rows[condition, "speech"]["uar"]} if (condition, "speech") in rows else {})
        for (condition, subset), row in rows.items()
        if subset == "all"
    }
    return metrics


def _cross_corpus(
    predictions: pl.DataFrame, rows: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
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
        figures[name] = {figure: first[figure] for figure in ("accuracy", "uar", "macro_f1", "ece", "n")} | {
            "labels": predictions.filter(names == name)["emotion"].unique().sort().to_list(),
            "conditions": {condition: row["uar"] for condition, row in of_corpus.items()},
        }
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
        data.rows[run.part.test]
        .select([name for name, _ in segment_columns(data.spec)])
        .with_columns(
            pl.lit(run.part.fold).alias("fold"),
            pl.lit(run.part.seed, pl.Int64).alias("seed"),
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
    n_folds = len({part.fold for part in plan.parts})
    how = f"{n_folds} folds ({options.split})" if plan.is_cross_validation else f"a {options.split} hold-out"
    how += f", mean of {options.seeds} seeds" if options.seeds > 1 else ""
    how += f", {options.test_vocal_channel} only" if options.test_vocal_channel != "both" else ""
    before = start.heard_before(data.rows) if start else ()
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
    if options.normalize == "speaker":
        heard += "; other speech of the same speakers was heard, without its labels"
    if start and before:
        heard += (
            f"; but it started from the model {start.model.model_id}, which learned from {' and '.join(before)} too "
            "and may have heard what is held out here, so it is not a figure for new speakers"
        )
    return f"Cross-validated on {how}: {heard}." if plan.is_cross_validation else f"Measured on {how}: {heard}."


def _model_values(
    data: Features,
    labels: Sequence[str],
    plan: Plan,
    final: FoldResult,
    metrics: Mapping[str, Any],
    start: Start | None,
    identity: Mapping[str, Any],
    started: float,
) -> dict[str, Any]:
    numbers = final.part.train
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
    spec = data.spec
    inputs = f"embeddings of {spec.encoder}" if isinstance(spec, EncoderSpec) else f"{spec.n_mfcc} MFCCs"
    return (
        {
            "schema_version": 1,
            "description": f"{names[identity['estimator']]} on {inputs}; {len(labels)} emotions: {', '.join(labels)}.",
            **identity,
            "feature_spec_hash": data.spec.digest(),
            "labels": list(labels),
            "scaler": dataclasses.asdict(final.scaler) if final.scaler else None,
            "temperature": final.temperature,
            "prior": prior_of(labels),
            "training": {
                "n_rows": len(segments),
                "variants": rows["variant"].unique().sort().to_list(),
                "n_recordings": rows["content_hash"].n_unique(),
                "lowest_sampling_rate": rows["sampling_rate"].min(),
                "n_speakers": rows["speaker"].drop_nulls().n_unique(),
                "datasets": sorted(set(rows["dataset"])),
                "sources": sources_of(corpora),
                "rows_by_emotion": {label: int((segments["emotion"] == label).sum()) for label in labels},
            },
            "metrics": dict(metrics),
            "cross_validated": bool(plan.is_cross_validation and metrics),
            "license": with_inherited(license_of(corpora), start),
            "seconds": round(time.monotonic() - started, 1),
        }
        | ({"init_name": start.name} if start else {})
        | _head_values(final)
    )


def _head_values(final: FoldResult) -> dict[str, Any]:
    """Return what model.json says of heads alone."""
    if final.heads is None:
        return {}
    model = final.heads.model
    return {
        "temperature_without_reference": model.temperature_without,
        "temperature_of_calls": model.temperature_of_calls,
    }
