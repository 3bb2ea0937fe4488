"""The page of a model folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ser_batch.config.features import AnyFeatureSpec
from ser_batch.model.folder import MODEL_FILE
from ser_batch.model.schema import Metrics, TrainedModel, read_schema
from ser_batch.report import charts
from ser_batch.report.error_analysis import by_speaker, worst_confusions
from ser_batch.report.evaluation import RESAMPLED
from ser_batch.report.html import render_page
from ser_batch.report.metrics import HEADLINE, SUMMARY_ROWS, main_rows
from ser_batch.report.regimes import ALL, MOSTLY_NEUTRAL, regimes_shown
from ser_batch.tables.parquet import read_frame

TABLES = ("report", "confusion", "summary", "reliability", "coverage", "history", "regimes", "predictions")
SPEAKERS_ON_PAGE = 40
SPEAKER_PROTOCOLS = ("speaker", "emobox", "luna")
# The work this project reproduces reports these for 491 held-out RAVDESS clips; accuracy .80, macro F1 .79.
PUBLISHED = pl.DataFrame(
    {
        "label": ["surprised", "disgust", "fearful", "happy", "calm", "neutral", "sad", "angry"],
        "precision": [0.79, 0.75, 0.79, 0.76, 0.80, 0.85, 0.93, 0.81],
        "recall": [0.82, 0.84, 0.88, 0.98, 0.65, 0.67, 0.71, 0.79],
        "f1": [0.80, 0.79, 0.83, 0.86, 0.72, 0.75, 0.81, 0.80],
        "support": [40, 74, 67, 65, 37, 49, 79, 80],
    }
)
# the work's own figures, of the same rows as PUBLISHED
PUBLISHED_HEADLINE = {"accuracy": 0.80, "macro_f1": 0.79, "weighted_f1": 0.80}


def verdict(model: TrainedModel[AnyFeatureSpec]) -> str:
    """Return in a sentence how often a model is right, for whom, and how often a guess is."""
    if model.metrics is None:
        return "How often it is right is unknown, because nothing was held out in training."
    protocol = model.split.partition(":")[0]
    n_right, guess = round(10 * model.metrics.accuracy), f"a guess is right for 1 of {len(model.labels)}"
    if protocol in ("stratified", "text"):
        return (
            f"Right for {n_right} of 10 clips of speakers it was trained on; {guess}. Expect less for other speakers."
        )
    whose = {"corpus": "of corpora it has not met", **dict.fromkeys(SPEAKER_PROTOCOLS, "of speakers it has not met")}
    return f"Right for {n_right} of 10 clips {whose.get(protocol, 'that were held out')}; {guess}."


def model_page(folder: Path) -> str:
    """Return the page of a model folder, with what its tables have; a shipped model has none of them."""
    model = read_schema(folder / MODEL_FILE)
    labels, metrics = model.labels, model.metrics
    # a model trained on everything, or shipped in the package, comes without most of the tables
    tables = {name: read_frame(folder / f"{name}.parquet") for name in TABLES if (folder / f"{name}.parquet").is_file()}
    report = main_rows(tables["report"]) if "report" in tables else pl.DataFrame()
    coverage = main_rows(tables["coverage"]) if "coverage" in tables else None
    confusion = main_rows(tables["confusion"]) if "confusion" in tables else None
    compared = _comparisons(tables.get("summary"))
    speakers = by_speaker(tables["predictions"]) if "predictions" in tables else pl.DataFrame()
    drawn: dict[str, Any] = {}
    if len(report):
        drawn["labels"] = charts.labels_chart(report.filter(~pl.col("label").is_in(SUMMARY_ROWS)))
    if confusion is not None:
        drawn["confusion"] = charts.confusion_chart(confusion, labels)
    for name, rows in compared.items():
        if rows:
            drawn[name] = _compared_chart(rows, name)
    if len(speakers) > 1:
        shown = speakers.head(SPEAKERS_ON_PAGE)
        drawn["speakers"] = charts.figures_chart(_figures(shown, "speaker", "accuracy"), "accuracy")
    if "reliability" in tables:
        drawn["reliability"] = charts.reliability_chart(main_rows(tables["reliability"]))
    if coverage is not None:
        drawn["coverage"] = charts.coverage_chart(coverage)
    for figure in ("accuracy", "loss"):
        curve = charts.curves_chart(tables["history"], figure) if "history" in tables else None
        drawn |= {f"{figure}_curve": curve} if curve else {}
    is_published = set(labels) == set(PUBLISHED["label"])
    return render_page(
        "model.html.j2",
        drawn,
        {"config": charts.CONFIG},
        model=model,
        verdict=verdict(model),
        metrics=metrics,
        intervals=(metrics.intervals if metrics else {}) or _intervals(report),
        resampled=RESAMPLED[_resampled(metrics, report)],
        report=report.to_dicts(),
        regimes=regimes_shown(metrics.regimes if metrics else {}),
        composed=_composed(tables.get("regimes")),
        published=PUBLISHED.to_dicts() if is_published else [],
        published_headline=PUBLISHED_HEADLINE if is_published else {},
        labels=labels,
        confusion=_square(confusion, labels) if confusion is not None else [],
        **compared,
        speakers=speakers.head(SPEAKERS_ON_PAGE).to_dicts() if len(speakers) > 1 else [],
        n_speakers=len(speakers),
        worst=worst_confusions(tables["predictions"]) if "predictions" in tables else [],
        kept=_at(coverage, (50, 70, 90)) if coverage is not None else [],
    )


def _intervals(report: pl.DataFrame) -> dict[str, tuple[float | None, float | None]]:
    """Return the intervals of the headline figures, by name; none where the report has none."""
    if "recall_low" not in report.columns:
        return {}
    rows = {row["label"]: row for row in report.iter_rows(named=True)}
    return {
        name: (rows[row][f"{measure}_low"], rows[row][f"{measure}_high"]) for name, (row, measure) in HEADLINE.items()
    }


def _resampled(metrics: Metrics | None, report: pl.DataFrame) -> str | None:
    """Return what was drawn anew for the intervals of the headline figures; None where these have none."""
    if metrics is not None and metrics.intervals:
        return metrics.resampled if None not in metrics.intervals.get("uar", (None,)) else None
    return report["resampled"][0] if "resampled" in report.columns else None


def _comparisons(summary: pl.DataFrame | None) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the three tables made of summary.parquet; a table with nothing to compare is empty."""
    # The first estimator is the model of the folder, the first condition is clean where that was evaluated.
    if summary is None:
        return {"subsets": [], "conditions": [], "models": []}
    own = summary.filter(pl.col("estimator") == pl.col("estimator").first())
    first = summary.filter(pl.col("condition") == pl.col("condition").first())
    subsets = own.filter(pl.col("condition") == pl.col("condition").first())
    speech = own.filter(pl.col("subset") == "speech").select("condition", speech_uar="uar")
    conditions = own.filter(pl.col("subset") == "all").join(speech, on="condition", how="left", maintain_order="left")
    models = pl.concat(first.filter(pl.col("subset") == subset) for subset in ("all", "speech"))
    return {
        "subsets": subsets.to_dicts() if len(subsets) > 1 else [],
        "conditions": conditions.to_dicts() if len(conditions) > 1 else [],
        "models": models.to_dicts() if models["estimator"].n_unique() > 1 else [],
    }


def _composed(regimes: pl.DataFrame | None) -> list[dict[str, Any]]:
    """Return the rows of composed calls of each corpus; none where there is one corpus."""
    if regimes is None:
        return []
    rows = regimes.filter(pl.col("regime") == MOSTLY_NEUTRAL, pl.col("corpus") != ALL).sort(
        "corpus", maintain_order=True
    )
    return rows.to_dicts() if rows["corpus"].n_unique() > 1 else []


def _compared_chart(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the UAR of the rows of one of the tables of `_comparisons`."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    column = {"subsets": "subset", "conditions": "condition", "models": "estimator"}[name]
    if name == "models":
        frame = frame.filter(subset="all")
    return charts.figures_chart(_figures(frame, column, "uar"), "unweighted average recall (UAR)")


def _figures(frame: pl.DataFrame, name: str, figure: str) -> pl.DataFrame:
    """Return the frame that `figures_chart` takes."""
    unknown = pl.lit(None, pl.Float64)
    ends = {end: f"{figure}_{end}" if f"{figure}_{end}" in frame.columns else unknown for end in ("low", "high")}
    return frame.select("n", name=name, value=figure, **ends)


def _at(coverage: pl.DataFrame, percents: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of coverage.parquet at some coverages in percent."""
    return coverage.filter((100 * pl.col("coverage")).round().cast(pl.Int64).is_in(percents)).to_dicts()


def _square(counts: pl.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the confusion matrix as rows of cells."""
    cells: Mapping[tuple[str, str], dict[str, Any]] = {
        (row["emotion"], row["predicted"]): row for row in counts.iter_rows(named=True)
    }
    return [{"label": label, "cells": [cells[label, other] for other in labels]} for label in labels]
