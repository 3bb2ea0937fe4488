"""Metrics for people: the HTML pages, the model card, the table in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ser_batch.bundle import BUNDLE_FILE, check_told, read_values
from ser_batch.errors import UsageError, printable
from ser_batch.report.metrics import HEADLINE, SUMMARY_ROWS, main_rows
from ser_batch.report.pictures import coverage_picture, learning_curves, reliability_picture
from ser_batch.report.scored import known_truth, side_tables
from ser_batch.tables import write_text

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

CALLS_ON_PAGE = 200


def table_text(report: pl.DataFrame, columns: Sequence[str] = ("precision", "recall", "f1", "support")) -> str:
    """Return a report as the plain text table that people know from scikit-learn.

    Parameters
    ----------
    report
        A frame of `classification`, `predictions_report` or `report_table`; of the last, all recordings in the first
        condition are shown.
    columns
        To show beside the label.
    """
    report = main_rows(report)
    labels = [printable(label) for label in report["label"]]  # a model, and what it says, may come from elsewhere
    width = max(map(len, labels))
    widths = [max(11, len(name) + 2) for name in columns]
    lines = [" " * width + "".join(f"{name:>{n}}" for name, n in zip(columns, widths, strict=True))]
    for label, row in zip(labels, report.iter_rows(named=True), strict=True):
        if label == SUMMARY_ROWS[0]:
            lines.append("")
        cells = ["" if row[name] is None else _number(row[name]) for name in columns]
        padded = "".join(f"{cell:>{n}}" for cell, n in zip(cells, widths, strict=True))
        lines.append(f"{label:>{width}}{padded}")
    return "\n".join(lines)


def summary_text(summary: pl.DataFrame) -> str:
    """Return the frame of `summary_table` as a plain text table: a line a model and condition, speech apart.

    Parameters
    ----------
    summary
        Of one model or of several, one after the other.
    """
    rows = {(row["estimator"], row["condition"], row["subset"]): row for row in summary.iter_rows(named=True)}
    width = max(9, *(len(estimator) + 2 for estimator, _, _ in rows))
    lines = [
        f"{'model':>{width}}{'condition':>20}{'accuracy':>10}{'UAR':>7}{'95 %':>13}{'macro F1':>10}{'ECE':>7}"
        f"{'speech UAR':>12}"
    ]
    for (estimator, condition, subset), row in rows.items():
        if subset != "all":
            continue
        interval = f"{row['uar_low']:.2f} to {row['uar_high']:.2f}" if row["uar_low"] is not None else ""
        speech = rows.get((estimator, condition, "speech"))
        lines.append(
            f"{printable(estimator):>{width}}{printable(condition):>20}{row['accuracy']:>10.3f}{row['uar']:>7.3f}{interval:>13}"
            f"{row['macro_f1']:>10.3f}{row['ece']:>7.3f}" + (f"{speech['uar']:>12.3f}" if speech else "")
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def write_page(source: Path, out: Path) -> None:
    """Write the HTML page of a model folder or of preds.parquet.

    Parameters
    ----------
    source
        A folder made by train, or what score made: a .parquet file with its side tables, or a folder of parts.
    out
        The page; one file that needs no network.

    Raises
    ------
    UsageError
        `source` is neither.
    BundleError
        bundle.json is broken.
    """
    if (source / BUNDLE_FILE).is_file():
        page = _model_page(source)
    else:
        side = side_tables(source)
        missing = [path for path in side.values() if not path.is_file()]
        if missing:
            raise UsageError(
                f"{source}: neither a model folder (with bundle.json) nor predictions made by `ser-batch score` "
                f"({missing[0].name} is missing)"
            )
        page = _predictions_page(source, side)
    write_text(out, page)


def model_card(bundle: Mapping[str, Any]) -> str:
    """Return MODEL_CARD.md of the values of a bundle.json.

    ``{model_id}`` stands in it where the id goes, which is not known before the model is saved.
    """
    return _render("model_card.md.j2", bundle=bundle, metrics=bundle["metrics"], training=bundle["training"])


def _model_page(folder: Path) -> str:
    path = folder / BUNDLE_FILE
    values = read_values(path)
    check_told(path, values)
    labels = values["labels"]
    # a model trained on everything, or shipped in the package, comes without most of the tables
    tables = {
        name: pl.read_parquet(folder / f"{name}.parquet")
        for name in ("report", "confusion", "summary", "reliability", "coverage", "history")
        if (folder / f"{name}.parquet").is_file()
    }
    report = main_rows(tables["report"]) if "report" in tables else pl.DataFrame()
    coverage = main_rows(tables["coverage"]) if "coverage" in tables else None
    return _render(
        "model.html.j2",
        bundle=values,
        metrics=values["metrics"],
        intervals=values["metrics"].get("intervals") or _intervals(report),
        report=report.to_dicts(),
        published=PUBLISHED.to_dicts() if set(labels) == set(PUBLISHED["label"]) else [],
        labels=labels,
        confusion=_square(main_rows(tables["confusion"]), labels) if "confusion" in tables else [],
        **_comparisons(tables.get("summary")),
        reliability=reliability_picture(main_rows(tables["reliability"])) if "reliability" in tables else None,
        coverage=coverage_picture(coverage) if coverage is not None else None,
        kept=_at(coverage, (50, 70, 90)) if coverage is not None else [],
        curves=learning_curves(tables["history"]) if "history" in tables else [],
    )


def _intervals(report: pl.DataFrame) -> dict[str, tuple[float | None, float | None]]:
    """Return the intervals of the headline figures, by name; none where the report has none."""
    if "recall_low" not in report.columns:
        return {}
    rows = {row["label"]: row for row in report.iter_rows(named=True)}
    return {
        name: (rows[row][f"{measure}_low"], rows[row][f"{measure}_high"]) for name, (row, measure) in HEADLINE.items()
    }


def _comparisons(summary: pl.DataFrame | None) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the three tables made of summary.parquet; a table with nothing to compare is empty.

    The first estimator is the model of the folder, the first condition is clean where that was evaluated.
    """
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


def _at(coverage: pl.DataFrame, percents: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of coverage.parquet at some coverages in percent."""
    return coverage.filter((100 * pl.col("coverage")).round().cast(pl.Int64).is_in(percents)).to_dicts()


def _predictions_page(source: Path, side: Mapping[str, Path]) -> str:
    calls = pl.read_parquet(side["calls"])
    report = pl.read_parquet(side["report"]).filter(pl.col("role").is_null()).drop("role")
    has_truth = known_truth(report)
    rejects = pl.read_parquet(side["rejects"])
    labels = [name.removeprefix("share_") for name in calls.columns if name.startswith("share_")]
    shown = calls.head(CALLS_ON_PAGE).select(
        "path", "channel", "role", "duration_s", "n_segments", "predicted", "status",
        *(f"share_{label}" for label in labels),
    )  # fmt: skip
    return _render(
        "predictions.html.j2",
        source=source.name,
        labels=labels,
        report=(report if has_truth else report.filter(~pl.col("label").is_in(SUMMARY_ROWS))).to_dicts(),
        has_truth=has_truth,
        calls=shown.to_dicts(),
        n_calls=len(calls),
        audio_h=(calls.group_by("path").agg(pl.col("duration_s").max())["duration_s"].sum() or 0.0) / 3600,
        n_segments=int(calls["n_segments"].sum()),
        rejects=rejects.head(CALLS_ON_PAGE).to_dicts(),
        n_rejects=len(rejects),
    )


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_batch", "templates"),
        # names of files and labels are data; Markdown has escapes of its own, `_markdown`
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if template.endswith(".html.j2") else _markdown,
    )
    return environment.get_template(template).render(**values)


def _markdown(value: Any) -> Any:
    """Return what stands in a Markdown page for a value: one line, and no tag of HTML, which Markdown lets through."""
    return printable(value).replace("&", "&amp;").replace("<", "&lt;") if isinstance(value, str) else value


def _square(counts: pl.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the confusion matrix as rows of cells."""
    cells: Mapping[tuple[str, str], dict[str, Any]] = {
        (row["emotion"], row["predicted"]): row for row in counts.iter_rows(named=True)
    }
    return [{"label": label, "cells": [cells[label, other] for other in labels]} for label in labels]
