"""Metrics as frames, and the HTML page made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ser_batch.errors import UsageError
from ser_batch.tables import write_text

SUMMARY_ROWS = ("accuracy", "macro_avg", "weighted_avg")

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


def classification(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> pl.DataFrame:
    """Return precision, recall and F1 by label, then accuracy, macro_avg and weighted_avg.

    Parameters
    ----------
    truth, predicted
        One label a row.
    labels
        Of the model, in its order. Averages are over those that occur in `truth`; the recall of macro_avg is the
        unweighted average recall (UAR).

    Returns
    -------
    polars.DataFrame
        Columns label, precision, recall, f1 (accuracy stands in f1, as scikit-learn prints it) and support.
        Precision is null for a label that is never predicted, recall for one that never occurs, F1 for one that
        does neither.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    present = [label for label in labels if label in set(truth)]
    by_label = precision_recall_fscore_support(truth, predicted, labels=list(labels), zero_division=np.nan)
    rows = [
        {"label": label, "precision": p, "recall": r, "f1": f, "support": int(n)}
        for label, p, r, f, n in zip(labels, *by_label, strict=True)
    ]
    rows.append({"label": "accuracy", "f1": accuracy_score(truth, predicted), "support": len(truth)})
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, predicted, labels=present, average=average, zero_division=0.0
        )
        rows.append(
            {
                "label": f"{average}_avg",
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "support": len(truth),
            }
        )
    schema = {
        "label": pl.String,
        "precision": pl.Float64,
        "recall": pl.Float64,
        "f1": pl.Float64,
        "support": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("precision", "recall", "f1").fill_nan(None))


def headline(report: pl.DataFrame) -> dict[str, float]:
    """Return accuracy (WAR), UAR, macro F1 and weighted F1 of a `classification` frame."""
    rows = {row["label"]: row for row in report.iter_rows(named=True)}
    return {
        "accuracy": rows["accuracy"]["f1"],
        "uar": rows["macro_avg"]["recall"],
        "macro_f1": rows["macro_avg"]["f1"],
        "weighted_f1": rows["weighted_avg"]["f1"],
    }


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> pl.DataFrame:
    """Return counts of truth against prediction, long form: emotion, predicted, count and rate of the emotion."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(truth, predicted, labels=list(labels))
    totals = counts.sum(axis=1, keepdims=True)
    n = len(labels)
    return pl.DataFrame(
        {
            "emotion": np.repeat(labels, n),
            "predicted": np.tile(labels, n),
            "count": counts.reshape(-1),
            "rate": np.divide(counts, totals, out=np.zeros((n, n)), where=totals > 0).reshape(-1),
        }
    )


def predictions_report(
    segments: pl.DataFrame, calls: pl.DataFrame, labels: Sequence[str], *, timed: bool
) -> pl.DataFrame:
    """Return the frame of preds.report.parquet.

    Parameters
    ----------
    segments
        predicted, confidence, role and emotion of each segment.
    calls
        The same of each recording and channel.
    labels
        Of the model.
    timed
        Whether the truth has times, so that it is counted by segment; else by recording and channel.

    Returns
    -------
    polars.DataFrame
        A row a label and role plus accuracy, macro_avg, weighted_avg: n_predicted, share and mean_confidence of the
        segments; precision, recall, f1, support where truth is known, else null. The role is null for all together.
    """
    roles = [None, *segments["role"].drop_nulls().unique().sort()]
    frames = []
    for role in roles:
        own = segments if role is None else segments.filter(pl.col("role") == role)
        units = own if timed else (calls if role is None else calls.filter(pl.col("role") == role))
        frames.append(_report_of_role(own, units, labels).insert_column(0, pl.lit(role, pl.String).alias("role")))
    return pl.concat(frames)


def _report_of_role(segments: pl.DataFrame, units: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    predicted = segments.drop_nulls("predicted")
    shares = (
        predicted.group_by(label="predicted")
        .agg(n_predicted=pl.len().cast(pl.Int64), mean_confidence=pl.col("confidence").mean())
        .with_columns(share=pl.col("n_predicted") / pl.col("n_predicted").sum())
    )
    everything = pl.DataFrame({"label": [*labels, *SUMMARY_ROWS]})
    known = units.drop_nulls(["predicted", "emotion"])
    truth_labels = [*labels, *known["emotion"].filter(~known["emotion"].is_in(labels)).unique().sort()]
    if len(known):
        metrics = classification(known["emotion"].to_list(), known["predicted"].to_list(), truth_labels)
        everything = metrics.select("label")
    else:
        schema = {"precision": pl.Float64, "recall": pl.Float64, "f1": pl.Float64, "support": pl.Int64}
        metrics = everything.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in schema.items())
    return (
        everything.join(shares, on="label", how="left", maintain_order="left")
        .join(metrics, on="label", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("label").is_in(SUMMARY_ROWS)).then(None).otherwise(pl.col(name).fill_null(0)).alias(name)
            for name in ("n_predicted", "share")
        )
        .select("label", "n_predicted", "share", "mean_confidence", "precision", "recall", "f1", "support")
    )


def known_truth(report: pl.DataFrame) -> bool:
    """Whether a report has precision and recall, because some truth was known."""
    return bool(report.filter(pl.col("label") == SUMMARY_ROWS[0])["f1"].is_not_null().any())


def table_text(report: pl.DataFrame, columns: Sequence[str] = ("precision", "recall", "f1", "support")) -> str:
    """Return a `classification` frame as the plain text table that people know from scikit-learn."""
    width = max(len(label) for label in report["label"])
    widths = [max(11, len(name) + 2) for name in columns]
    lines = [" " * width + "".join(f"{name:>{n}}" for name, n in zip(columns, widths, strict=True))]
    for row in report.iter_rows(named=True):
        if row["label"] == SUMMARY_ROWS[0]:
            lines.append("")
        cells = ["" if row[name] is None else _number(row[name]) for name in columns]
        padded = "".join(f"{cell:>{n}}" for cell, n in zip(cells, widths, strict=True))
        lines.append(f"{row['label']:>{width}}{padded}")
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
    """
    if (source / "bundle.json").is_file():
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
    values = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    labels = values["labels"]
    if (folder / "report.parquet").is_file():
        report = pl.read_parquet(folder / "report.parquet").filter(pl.col("subset") == "all")
        counts = pl.read_parquet(folder / "confusion.parquet")
    else:  # trained on everything, so nothing was held out
        report, counts = None, None
    history = folder / "history.parquet"  # the models of the package come without
    return _render(
        "model.html.j2",
        bundle=values,
        metrics=values["metrics"],
        report=_rows(report.drop("subset")) if report is not None else [],
        published=_rows(PUBLISHED) if set(labels) == set(PUBLISHED["label"]) else [],
        labels=labels,
        confusion=_square(counts, labels) if counts is not None else [],
        curves=_curves(pl.read_parquet(history)) if history.is_file() else [],
    )


def side_tables(source: Path) -> dict[str, Path]:
    """Return where the tables beside predictions lie, by name: in a folder of parts, or beside one file."""
    names = ("calls", "report", "rejects")
    if source.is_dir():
        return {name: source / "_tables" / f"{name}.parquet" for name in names}
    return {name: source.with_suffix(f".{name}.parquet") for name in names}


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
        report=_rows(report if has_truth else report.filter(~pl.col("label").is_in(SUMMARY_ROWS))),
        has_truth=has_truth,
        calls=_rows(shown),
        n_calls=len(calls),
        audio_h=(calls.group_by("path").agg(pl.col("duration_s").max())["duration_s"].sum() or 0.0) / 3600,
        n_segments=int(calls["n_segments"].sum()),
        rejects=_rows(rejects.head(CALLS_ON_PAGE)),
        n_rejects=len(rejects),
    )


def _render(template: str, **values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_batch", "templates"),
        # names of files and labels are data; Markdown has no use for HTML's escapes
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.to_dicts()


def _square(counts: pl.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the confusion matrix as rows of cells."""
    cells: Mapping[tuple[str, str], dict[str, Any]] = {
        (row["emotion"], row["predicted"]): row for row in counts.iter_rows(named=True)
    }
    return [{"label": label, "cells": [cells[label, other] for other in labels]} for label in labels]


def _curves(history: pl.DataFrame) -> list[dict[str, Any]]:
    """Return learning curves as points of a 600 by 180 picture: one curve a column, the mean over folds."""
    if history.is_empty():
        return []
    mean = history.group_by("epoch").agg(pl.exclude("fold", "seed", "epoch").mean()).sort("epoch")
    pictures = []
    for title, names in (("accuracy", ("accuracy", "test_accuracy")), ("loss", ("loss", "test_loss"))):
        top = 1.0 if title == "accuracy" else max(float(mean[name].max() or 0) for name in names)  # type: ignore[arg-type]  # a float column
        lines = []
        for name in names:
            known = mean.drop_nulls(name)
            points = [
                f"{40 + 550 * (epoch - 1) / max(1, len(mean) - 1):.1f},{10 + 160 * (1 - value / top):.1f}"
                for epoch, value in zip(known["epoch"], known[name], strict=True)
            ]
            if points:
                lines.append({"name": name, "points": " ".join(points), "last": float(known[name][-1])})
        pictures.append({"title": title, "top": top, "epochs": len(mean), "lines": lines})
    return pictures
