"""How the rows of any of our tables are spread: recordings, speakers, classes, lengths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ser_batch.tables import read_arrays

# rows are counted by the values of these, where a table has them
_COUNTED = (
    "dataset", "corpus", "variant", "channel", "sampling_rate", "role", "vocal_channel", "intensity", "sex", "speaker",
    "emotion", "predicted", "abstained", "status", "model_id", "stage", "error", "fold", "seed", "estimator",
    "condition", "subset", "label",
)  # fmt: skip
_MOST_VALUES = 100


def health(scan: pl.LazyFrame, names: Sequence[str], n_rows: int) -> tuple[dict[str, Any], dict[str, dict[Any, int]]]:
    """Return figures and counts of what a table has; all in one pass over the columns that it takes.

    Parameters
    ----------
    scan
        The table.
    names
        Of its columns without arrays.
    n_rows
        How many rows it has.

    Returns
    -------
    tuple of dict and dict
        Numbers by name, with their unit in it; rows by value, of columns with few values.
    """
    there = {*names}
    counted = [name for name in _COUNTED if name in there]
    key = [name for name in ("dataset", "path") if name in there] if "path" in there else []
    queries = [scan.group_by(name).len().sort("len", name, descending=[True, False]) for name in counted]
    numbers: list[pl.Expr] = []
    if "speaker" in there:
        numbers += [pl.col("speaker").n_unique().alias("n_speakers"), pl.col("speaker").null_count().alias("nameless")]
    if {"start_s", "end_s"} <= there:
        numbers += _spread(pl.col("end_s") - pl.col("start_s"), "segment_s")
    for name in ("speech_ratio", "confidence", "rms_dbfs"):
        if name in there:
            numbers.append(pl.col(name).mean().alias(f"mean_{name}"))
    if "n_tokens" in there:
        numbers += [
            pl.col("n_tokens").mean().alias("mean_n_tokens"),
            (pl.col("n_tokens") == 0).sum().alias("n_rows_without_tokens"),
        ]
    recordings = []
    if key:
        lengths = [pl.col("duration_s").max()] if "duration_s" in there else []
        sums = [pl.col("duration_s").sum().alias("audio_s"), *_spread(pl.col("duration_s"), "duration_s")]
        of_each = scan.group_by(key).agg(pl.len().alias("rows"), *lengths)
        recordings = [of_each.select(pl.len().alias("n_recordings"), *(sums if lengths else []))]
    asked = [*queries, *recordings, *([scan.select(numbers)] if numbers else [])]
    found = pl.collect_all(asked, engine="streaming") if asked else []
    counts = {
        name: dict(frame.iter_rows())
        for name, frame in zip(counted, found, strict=False)
        if 0 < len(frame) <= _MOST_VALUES and frame[name].null_count() < len(frame)
    }
    figures: dict[str, Any] = {}
    for frame in found[len(queries) :]:
        figures |= frame.row(0, named=True)
    if "nameless" in figures:
        nameless = figures.pop("nameless")
        figures["n_speakers"] -= nameless > 0  # null is a value to n_unique
        figures["n_rows_without_speaker"] = nameless
    if "emotion" in there:
        figures["n_rows_without_emotion"] = counts["emotion"].get(None, 0) if "emotion" in counts else n_rows
    return figures, counts


def embedding_health(parts: Sequence[Path]) -> dict[str, int]:
    """Return figures of the embeddings in some parts, read a row group at a time.

    Returns
    -------
    dict of str to int
        ``embedding_size``, numbers per embedding; ``n_constant_dimensions``, how many of them are the same in all rows;
        ``n_rows_not_finite``.
    """
    low, high, n_not_finite = np.empty(0), np.empty(0), 0
    for values in read_arrays(parts, "embedding"):
        n_not_finite += int((~np.isfinite(values).all(axis=1)).sum())
        if not len(low):
            low, high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    return {
        "embedding_size": len(low),
        "n_constant_dimensions": int((low == high).sum()),
        "n_rows_not_finite": n_not_finite,
    }


def _spread(values: pl.Expr, name: str) -> list[pl.Expr]:
    return [
        values.min().alias(f"shortest_{name}"),
        values.median().alias(f"median_{name}"),
        values.max().alias(f"longest_{name}"),
    ]
