"""Probabilities over time of some recordings, small enough for a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ser_batch.report.predictions import segment_files
from ser_batch.tables.parquet import scan_frames
from ser_batch.tables.schemas import LABEL_PREFIX, PEAK_COLUMNS

# of all time lines of a page together: half a megabyte of digits
MAX_VALUES = 200_000
MAX_STEPS, FEWEST_STEPS = 160, 24  # of one channel


def time_lines(source: Path, calls: pl.DataFrame, paths: Sequence[str], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the time line of each recording, in the order of `paths`."""
    shown = calls.filter(pl.col("path").is_in(paths)).sort("path", "channel")
    n_steps = min(MAX_STEPS, max(FEWEST_STEPS, MAX_VALUES // max(1, len(shown) * len(labels))))
    probabilities = [LABEL_PREFIX + label for label in labels]
    wanted = ["path", "channel", "start_s", "end_s", "abstained", *probabilities]
    of_channel: dict[tuple[str, int], dict[str, Any]] = {}
    windows = [
        scan_frames([file]).filter(pl.col("path").is_in(paths)).select(wanted).collect()
        for file in segment_files(source)
    ]
    if windows:  # a folder has no parts where no channel had a segment
        steps = _thinned(_apart(pl.concat(windows)), probabilities, n_steps)
        of_channel = {(row["path"], row["channel"]): row for row in steps.iter_rows(named=True)}
    found: dict[str, list[dict[str, Any]]] = {path: [] for path in paths}
    for row in shown.iter_rows(named=True):
        found[row["path"]].append(_channel(row, of_channel.get((row["path"], row["channel"])), labels))
    return [{"channels": found[path]} for path in paths]


def _apart(windows: pl.DataFrame) -> pl.DataFrame:
    """Return windows in order, where two overlap each up to the middle of what they share: from and to, in s."""
    key = ["path", "channel"]
    before, after = pl.col("end_s").shift(1).over(key), pl.col("start_s").shift(-1).over(key)
    start, end = pl.col("start_s"), pl.col("end_s")
    return windows.sort(*key, "start_s").with_columns(
        start=pl.when(before > start).then((start + before) / 2).otherwise(start),
        end=pl.when(after < end).then((after + end) / 2).otherwise(end),
    )


def _thinned(windows: pl.DataFrame, probabilities: Sequence[str], n_steps: int) -> pl.DataFrame:
    """Return one row a channel with lists of steps, at most `n_steps` of them; a step is the mean of some windows."""
    key = ["path", "channel"]
    number = pl.int_range(pl.len()).over(key)
    together = (pl.len().over(key) / n_steps).ceil().cast(pl.Int64)
    percents = [(pl.col(name).mean() * 100).round().cast(pl.Int64) for name in probabilities]
    return (
        windows.with_columns(step=number // together)
        .group_by(*key, "step", maintain_order=True)
        .agg(
            (pl.col("start").min() * 10).round().cast(pl.Int64),
            (pl.col("end").max() * 10).round().cast(pl.Int64),
            # a step of which nothing was scored has no value at all
            unsure=pl.col("abstained").all(ignore_nulls=True) & pl.col("abstained").is_not_null().any(),
            p=pl.concat_list(percents),
        )
        .group_by(key, maintain_order=True)
        .agg("start", "end", "unsure", "p")
    )


def _channel(call: dict[str, Any], steps: dict[str, Any] | None, labels: Sequence[str]) -> dict[str, Any]:
    role = f", {call['role']}" if call["role"] else ""
    return {
        "name": f"channel {call['channel']}{role}" if call["channel"] >= 0 else "all channels",
        "status": call["status"],
        "predicted": call["predicted"],
        "start": steps["start"] if steps else [],
        "end": steps["end"] if steps else [],
        "unsure": [int(value) for value in steps["unsure"]] if steps else [],
        "p": [None if step[0] is None else step for step in steps["p"]] if steps else [],
        "peaks": [
            [label, *(_rounded(call[f"{name}_{label}"]) for name in PEAK_COLUMNS)]
            for label in labels
            if call[f"peak_s_{label}"] is not None
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
