"""Metrics for people as text: the tables in the terminal, the model card."""

from collections.abc import Sequence

import polars as pl

from ser_batch.config.features import AnyFeatureSpec
from ser_batch.errors import printable
from ser_batch.model.schema import TrainedModel
from ser_batch.report.html import render
from ser_batch.report.metrics import SUMMARY_ROWS, main_rows
from ser_batch.report.regimes import regimes_shown

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


def table_text(report: pl.DataFrame, columns: Sequence[str] = ("precision", "recall", "f1", "support")) -> str:
    """Return a report as the plain text table that people know from scikit-learn."""
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
    """Return the frame of `summary_table` as a plain text table: a line a model and condition, speech apart."""
    rows = {(row["estimator"], row["condition"], row["subset"]): row for row in summary.iter_rows(named=True)}
    has_speech = any(subset == "speech" for _, _, subset in rows)
    width = max(9, *(len(estimator) + 2 for estimator, _, _ in rows))
    lines = [
        f"{'model':>{width}}{'condition':>20}{'accuracy':>10}{'UAR':>7}{'95 %':>13}{'macro F1':>10}{'ECE':>7}"
        + (f"{'speech UAR':>12}" if has_speech else "")
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


def model_card(model: TrainedModel[AnyFeatureSpec]) -> str:
    """Return MODEL_CARD.md of what a model.json says."""
    # ``{model_id}`` stands in it where the id goes, which is not known before the model is saved.
    regimes = regimes_shown(model.metrics.regimes if model.metrics else {})
    return render("model_card.md.j2", model=model, metrics=model.metrics, training=model.training, regimes=regimes)
