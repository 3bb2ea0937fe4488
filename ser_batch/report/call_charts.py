"""Shares of emotions as stacked bars: of each call, role and day."""

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ser_batch.report.emotion_colors import emotion_name

DAYS_ON_PAGE = 31
# such as 2026-03-01, 2026_03_01, 2026/03/01 and 20260301, also before six digits of a time
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_/.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?=\d{6}(?!\d)|\D|$)")


def stacked(shares: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Return the pieces of a bar of width 100, one after the other, of labels that have a share."""
    pieces: list[dict[str, Any]] = []
    at = 0.0
    for label, share in shares.items():
        if share:
            pieces.append(
                {"label": label, "name": emotion_name(label), "at": round(at, 1), "width": round(100 * share, 1)}
            )
            at += 100 * share
    return pieces


def shares_of(row: Mapping[str, Any], labels: Sequence[str]) -> dict[str, float | None]:
    """Return the shares in a row of calls by label."""
    return {label: row[f"share_{label}"] for label in labels}


def day_of(path: str) -> str | None:
    """Return the last date in a path, as YYYY-MM-DD; None where it has none."""
    for year, _, month, day in reversed(_DATE.findall(path)):
        try:
            return datetime.date(int(year), int(month), int(day)).isoformat()
        except ValueError:  # the 31st of a shorter month
            continue
    return None


def shares_by_day(calls: pl.DataFrame, days: Sequence[str | None], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the shares of each of the last days, by seconds of speech; nothing where fewer than two are known."""
    weight = pl.col("speech_s").fill_null(0)
    known = calls.with_columns(day=pl.Series(days, dtype=pl.String)).drop_nulls("day")
    columns = [f"share_{label}" for label in labels]
    table = (
        known.group_by("day")
        .agg(
            *((pl.col(name) * weight).sum() / weight.filter(pl.col(name).is_not_null()).sum() for name in columns),
            calls=pl.len(),
        )
        .fill_nan(None)  # of a day without speech
        .sort("day", descending=True)
    )
    rows = [
        {
            "day": row["day"],
            "calls": row["calls"],
            "pieces": stacked(shares_of(row, labels)),
        }
        for row in table.head(DAYS_ON_PAGE).iter_rows(named=True)
    ]
    return rows if len(table) > 1 else []
