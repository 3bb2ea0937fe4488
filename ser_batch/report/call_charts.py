"""Charts of predictions, as Vega-Lite specifications made with Altair; see `charts`."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ser_batch.report.altair_setup import alt
from ser_batch.report.charts import ROW_HEIGHT, SERIES_COLORS, series, specification

EVERYONE = "all"
PRIORITY_BINS = 20


def shares_chart(report: pl.DataFrame) -> dict[str, Any]:
    """Return the share of each label, of all together or of each role."""
    roles = report["role"].drop_nulls().unique(maintain_order=True).to_list()
    rows = report.filter(pl.col("role").is_not_null()) if roles else report
    rows = rows.with_columns(series=pl.col("role").fill_null(EVERYONE))
    names = roles or [EVERYONE]
    labels = rows["label"].unique(maintain_order=True).to_list()
    chart = (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            x=alt.X("share:Q", title="share of segments", axis=alt.Axis(format=".0%")),
            y=alt.Y("label:N", title=None, scale=alt.Scale(domain=labels)),
            yOffset=alt.YOffset("series:N", scale=alt.Scale(domain=names)),
            color=series(names) if roles else alt.value(SERIES_COLORS[0]),
            tooltip=[
                alt.Tooltip("label:N", title="emotion"),
                alt.Tooltip("series:N", title="role"),
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("n_predicted:Q", title="segments"),
                alt.Tooltip("mean_confidence:Q", format=".2f", title="mean confidence"),
            ],
        )
        .properties(width="container", height=ROW_HEIGHT * len(labels) * (1 + len(names)) // 2)
    )
    return specification(chart, "share of each emotion" + (" by role" if roles else ""))


def priorities_chart(calls: pl.DataFrame) -> dict[str, Any] | None:
    """Return how many recordings and channels have which priority; None where none has any."""
    known = calls["priority"].drop_nulls()
    if known.is_empty():
        return None
    numbers = pl.DataFrame({"bin": (known * PRIORITY_BINS).floor().clip(0, PRIORITY_BINS - 1)})
    rows = numbers.group_by("bin").len("calls").sort("bin")
    rows = rows.select("calls", low=pl.col("bin") / PRIORITY_BINS, high=(pl.col("bin") + 1) / PRIORITY_BINS)
    chart = (
        alt.Chart(rows)
        .mark_bar(color=SERIES_COLORS[0])
        .encode(
            x=alt.X("low:Q", title="priority", scale=alt.Scale(domain=[0, 1]), bin="binned"),
            x2="high:Q",
            y=alt.Y("calls:Q", title="recordings and channels", axis=alt.Axis(tickMinStep=1, format=",d")),
            tooltip=[
                alt.Tooltip("low:Q", format=".2f", title="priority from"),
                alt.Tooltip("high:Q", format=".2f", title="to"),
                alt.Tooltip("calls:Q", title="recordings and channels"),
            ],
        )
        .properties(width="container", height=180)
    )
    return specification(chart, "how many recordings and channels have which priority")


def time_line_chart(labels: Sequence[str]) -> dict[str, Any]:
    """Return the probabilities of one channel over time, without its data, which the page's script puts in."""
    duration, step = alt.param(name="duration", value=1), alt.param(name="step", value=1)
    x = alt.X(
        "from:Q",
        title=None,
        scale=alt.Scale(domain=[0, alt.ExprRef("duration")], nice=False),
        axis=alt.Axis(
            values=alt.ExprRef("sequence(0, duration + step / 2, step)"),
            labelExpr="floor(datum.value / 60) + ':' + format(datum.value % 60, '02d')",
            grid=False,
        ),
    )
    silence = (
        alt.Chart(alt.NamedData("silence"))
        .mark_rect(color="var(--silence)")
        .encode(x=x, x2="to:Q", tooltip=[alt.Tooltip("time:N", title="not scored")])
    )
    windows = (
        alt.Chart(alt.NamedData("windows"))
        .mark_rect()
        .encode(
            x=x,
            x2="to:Q",
            y=alt.Y("label:N", title=None, scale=alt.Scale(domain=list(labels))),
            color=alt.value(SERIES_COLORS[1]),
            fillOpacity=alt.FillOpacity("opacity:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
            tooltip=[
                alt.Tooltip("time:N"),
                alt.Tooltip("label:N", title="emotion"),
                alt.Tooltip("p:Q", format=".2f", title="probability"),
                alt.Tooltip("sure:N", title="model"),
            ],
        )
    )
    chart = alt.layer(silence, windows).add_params(duration, step)
    chart = chart.properties(width="container", height=20 * len(labels))
    return specification(chart, "probability of each emotion over time")
