"""preds.report.parquet: one row per label and role, with metrics where the truth is known."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ser_batch.report.metrics import SUMMARY_ROWS, classification


def predictions_report(
    segments: pl.DataFrame, calls: pl.DataFrame, labels: Sequence[str], *, timed: bool
) -> pl.DataFrame:
    """Return the frame of preds.report.parquet."""
    # of the calls: a role may have none but silent segments, or such as the model abstained of
    roles = [None, *calls["role"].drop_nulls().unique().sort()]
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


def side_tables(source: Path) -> dict[str, Path]:
    """Return where the tables beside predictions lie, by name: in a folder of parts, or beside one file."""
    names = ("calls", "quarters", "report", "rejects")
    if source.is_dir():
        return {name: source / "_tables" / f"{name}.parquet" for name in names}
    return {name: source.with_suffix(f".{name}.parquet") for name in names}


def segment_files(source: Path) -> list[Path]:
    """Return the files that hold the rows of segments: the parts of a folder, or the one file."""
    return sorted(source.glob("part-*.parquet")) if source.is_dir() else [source]


def page_file(source: Path) -> Path:
    """Return where the page of predictions lies: in a folder of parts, or beside one file."""
    return source / "_tables" / "report.html" if source.is_dir() else source.with_suffix(".report.html")
