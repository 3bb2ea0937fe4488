"""preds.report.html: the page of predictions and calls."""

from pathlib import Path
from typing import Any

import polars as pl

from ser_batch.corpus.manifest import WARNING
from ser_batch.report import call_charts, charts
from ser_batch.report.html import render_page
from ser_batch.report.metrics import SUMMARY_ROWS
from ser_batch.report.predictions import known_truth, side_tables
from ser_batch.report.timelines import time_lines
from ser_batch.tables.parquet import read_frame

CALLS_ON_PAGE = 200
REJECTS_ON_PAGE = 100


def calls_page(source: Path) -> str:
    """Return the page of what score made: figures of everything, and the calls of the highest priority."""
    side = side_tables(source)
    calls = read_frame(side["calls"])
    report = read_frame(side["report"])
    together = report.filter(pl.col("role").is_null()).drop("role")
    has_truth = known_truth(together)
    listed = read_frame(side["rejects"])
    listed = listed.sort(pl.col("stage") == WARNING, maintain_order=True)
    rejects = listed.filter(pl.col("stage") != WARNING)
    labels = [name.removeprefix("share_") for name in calls.columns if name.startswith("share_")]
    of_labels = report.filter(~pl.col("label").is_in(SUMMARY_ROWS))
    ordered = calls.sort("priority", "path", "channel", descending=[True, False, False], nulls_last=True)
    top = ordered.head(CALLS_ON_PAGE)
    paths = top["path"].unique(maintain_order=True).to_list()
    number = dict(zip(paths, range(len(paths)), strict=True))
    rows = [{**row, "call": number[row["path"]]} for row in top.iter_rows(named=True)]
    drawn: dict[str, Any] = {}
    if of_labels["n_predicted"].sum():
        drawn["shares"] = call_charts.shares_chart(of_labels)
    priorities = call_charts.priorities_chart(calls)
    drawn |= {"priorities": priorities} if priorities else {}
    if rows:
        drawn["time_line"] = call_charts.time_line_chart(labels)
    return render_page(
        "predictions.html.j2",
        drawn,
        {
            "config": charts.CONFIG,
            "labels": labels,
            "calls": time_lines(source, calls, paths, labels),
        },
        source=source.name,
        side=side,
        labels=labels,
        report=(together if has_truth else together.filter(~pl.col("label").is_in(SUMMARY_ROWS))).to_dicts(),
        shares_by_role=_by_role(of_labels),
        has_truth=has_truth,
        calls=rows,
        n_calls=len(calls),
        n_recordings=calls["path"].n_unique(),
        audio_s=calls.group_by("path").agg(pl.col("duration_s").max())["duration_s"].sum() or 0.0,
        speech_s=calls["speech_s"].sum() or 0.0,
        n_segments=int(calls["n_segments"].sum()),
        statuses=_counts(calls, "status"),
        kinds=_counts(rejects, "stage", "error"),
        rejects=listed.head(REJECTS_ON_PAGE).to_dicts(),
        n_rejects=len(rejects),
        n_listed=len(listed),
        models=calls["model_id"].drop_nulls().unique().sort().to_list(),
    )


def _counts(frame: pl.DataFrame, *columns: str) -> list[dict[str, Any]]:
    """Return how many rows have which values, most first."""
    counts = frame.group_by(columns).len("count")
    return counts.sort("count", *columns, descending=[True, *[False] * len(columns)]).to_dicts()


def _by_role(of_labels: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Return the shares of labels by role; empty where no role is known."""
    known = of_labels.drop_nulls("role")
    return {
        role: dict(known.filter(role=role).select("label", "share").iter_rows())
        for role in known["role"].unique(maintain_order=True)
    }
