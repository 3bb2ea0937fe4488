"""Charts of a model, as Vega-Lite specifications made with Altair.

Colors are the page's CSS variables, so that charts follow light, dark and print without being drawn anew. No text of
the data stands in an expression.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ser_batch.report.altair_setup import alt

# one color each, and a shape or dash beside it: nothing is told by color alone
SERIES_COLORS = ("var(--one)", "var(--two)", "var(--three)", "var(--four)")
SHAPES = ("circle", "square", "triangle-up", "diamond")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
ROW_HEIGHT = 24  # px

CONFIG = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    # the chart as a whole has words, and a table has its numbers: not each dot
    "mark": {"aria": False},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 150,
        "labelFlush": False,
        "tickCount": 5,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "orient": "top",
        "title": None,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
        "labelLimit": 150,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--soft)"},
}


def specification(chart: alt.TopLevelMixin, description: str) -> dict[str, Any]:
    """Return a chart as JSON has it, with the words a screen reader says for it; sizes follow the page."""
    made = chart.to_dict(validate=False)  # half the time; the tests draw every chart
    for name in ("config", "$schema"):
        made.pop(name, None)
    return {**made, "description": description}


def series(names: Sequence[str], channel: str = "color") -> Any:
    """Return color, shape or dash of several series in the order of their names, for one legend together."""
    choices: Sequence[Any] = {"color": SERIES_COLORS, "shape": SHAPES, "strokeDash": DASHES}[channel]
    scale = alt.Scale(domain=list(names), range=[choices[i % len(choices)] for i in range(len(names))])
    made = {"color": alt.Color, "shape": alt.Shape, "strokeDash": alt.StrokeDash}[channel]
    return made("series:N", scale=scale)


def figures_chart(rows: pl.DataFrame, title: str) -> dict[str, Any]:
    """Return figures with their intervals, one below the other."""
    names = rows["name"].to_list()
    base = alt.Chart(rows).encode(
        y=alt.Y("name:N", title=None, scale=alt.Scale(domain=names)),
        tooltip=[
            alt.Tooltip("name:N", title=" "),
            alt.Tooltip("value:Q", format=".3f", title=title),
            alt.Tooltip("low:Q", format=".3f", title="95 % from"),
            alt.Tooltip("high:Q", format=".3f", title="to"),
            alt.Tooltip("n:Q", title="segments"),
        ],
    )
    unit = alt.Scale(domain=[0, 1])
    rule = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title, scale=unit), x2="high:Q")
    dot = base.mark_point(filled=True, size=80, opacity=1, color=SERIES_COLORS[0]).encode(
        x=alt.X("value:Q", title=title, scale=unit)
    )
    chart = alt.layer(rule, dot).properties(width="container", height=ROW_HEIGHT * len(names))
    return specification(chart, f"{title} of {len(names)} groups, with 95 % intervals")


def labels_chart(report: pl.DataFrame) -> dict[str, Any]:
    """Return precision, recall and F1 of each label, the last two with their intervals where there are any."""
    measures = {"precision": "precision", "recall": "recall", "f1": "F1"}
    unknown = pl.lit(None, pl.Float64)
    rows = pl.concat(
        report.select(
            "label",
            "support",
            series=pl.lit(name),
            value=measure,
            low=f"{measure}_low" if f"{measure}_low" in report.columns else unknown,
            high=f"{measure}_high" if f"{measure}_high" in report.columns else unknown,
        )
        for measure, name in measures.items()
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("label:N", title=None, scale=alt.Scale(domain=report["label"].to_list())),
        yOffset=alt.YOffset("series:N", scale=alt.Scale(domain=list(measures.values()))),
        color=series(list(measures.values())),
        tooltip=[
            alt.Tooltip("label:N", title="emotion"),
            alt.Tooltip("series:N", title="figure"),
            alt.Tooltip("value:Q", format=".2f"),
            alt.Tooltip("low:Q", format=".2f", title="95 % from"),
            alt.Tooltip("high:Q", format=".2f", title="to"),
            alt.Tooltip("support:Q"),
        ],
    )
    scale = alt.Scale(domain=[0, 1])
    rule = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("low:Q", title=None, scale=scale), x2="high:Q")
    dot = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=alt.X("value:Q", title=None, scale=scale), shape=series(list(measures.values()), "shape")
    )
    chart = alt.layer(rule, dot).properties(width="container", height=2 * ROW_HEIGHT * len(report))
    return specification(chart, "precision, recall and F1 of each emotion")


def confusion_chart(confusion: pl.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix: rates as shades and text, counts too on hover."""
    scale = alt.Scale(domain=list(labels))
    rows = confusion.with_columns(percent=pl.format("{} %", (100 * pl.col("rate")).round().cast(pl.Int64)))
    base = alt.Chart(rows).encode(
        x=alt.X("predicted:N", title="heard as", scale=scale, axis=alt.Axis(labelAngle=-60, orient="top")),
        y=alt.Y("emotion:N", title="was", scale=scale),
        tooltip=[
            alt.Tooltip("emotion:N", title="was"),
            alt.Tooltip("predicted:N", title="heard as"),
            alt.Tooltip("count:Q", title="segments"),
            alt.Tooltip("rate:Q", format=".1%", title="of the row"),
        ],
    )
    cells = base.mark_rect(color=SERIES_COLORS[0], stroke="var(--line)").encode(
        # beyond .55 the text would not stand out against the shade
        fillOpacity=alt.FillOpacity("rate:Q", scale=alt.Scale(domain=[0, 1], range=[0, 0.55]), legend=None)
    )
    chart = alt.layer(cells, base.mark_text(fontSize=11).encode(text="percent:N"))
    # the name of the last column leans out of the chart
    chart = chart.properties(width="container", height=30 * len(labels), padding={"right": 24})
    return specification(chart, "confusion matrix, rates by row")


def curves_chart(history: pl.DataFrame, figure: str) -> dict[str, Any] | None:
    """Return accuracy or loss by epoch: the mean over folds and members, and from the least to the most of them."""
    named = {"training": figure, "development": f"dev_{figure}"}
    frames = [
        history.select("epoch", series=pl.lit(name), value=column).drop_nulls("value") for name, column in named.items()
    ]
    rows = pl.concat(frames).group_by("series", "epoch", maintain_order=True)
    table = rows.agg(mean=pl.col("value").mean(), low=pl.col("value").min(), high=pl.col("value").max())
    if table.is_empty():
        return None
    names = table["series"].unique(maintain_order=True).to_list()
    domain = alt.Scale(domain=[0, 1]) if figure == "accuracy" else alt.Scale(zero=True)
    base = alt.Chart(table.sort("epoch")).encode(
        x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1, format="d", grid=False, tickCount=8)),
        color=series(names),
    )
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=figure, scale=domain), y2="high:Q")
    # a single epoch is no line
    line = base.mark_line(strokeWidth=2, point=table["epoch"].n_unique() == 1).encode(
        y=alt.Y("mean:Q", title=figure, scale=domain),
        strokeDash=series(names, "strokeDash"),
        tooltip=["epoch:Q", alt.Tooltip("series:N", title="rows"), alt.Tooltip("mean:Q", format=".3f", title=figure)],
    )
    chart = alt.layer(band, line).properties(width="container", height=200)
    return specification(chart, f"{figure} by epoch")


def reliability_chart(table: pl.DataFrame) -> dict[str, Any]:
    """Return accuracy by confidence of one condition's rows of reliability.parquet."""
    # On the diagonal a model is right as often as it says; a larger dot stands for more segments.
    unit = alt.Scale(domain=[0, 1])
    diagonal = (
        alt.Chart(pl.DataFrame({"x": [0, 1], "y": [0, 1]}))
        .mark_line(color="var(--soft)", strokeDash=[4, 4], strokeWidth=1)
        .encode(x=alt.X("x:Q", title="confidence", scale=unit), y=alt.Y("y:Q", title="accuracy", scale=unit))
    )
    base = alt.Chart(table.drop_nulls("accuracy")).encode(
        x=alt.X("mean_confidence:Q", scale=unit),
        y=alt.Y("accuracy:Q", scale=unit),
        tooltip=[
            alt.Tooltip("mean_confidence:Q", format=".2f", title="confidence"),
            alt.Tooltip("accuracy:Q", format=".2f"),
            alt.Tooltip("n:Q", title="segments"),
        ],
    )
    dots = base.mark_point(filled=True, opacity=0.9, color=SERIES_COLORS[0]).encode(
        size=alt.Size("n:Q", scale=alt.Scale(range=[30, 300]), legend=None)
    )
    chart = alt.layer(diagonal, base.mark_line(color=SERIES_COLORS[0], strokeWidth=2), dots)
    return specification(chart.properties(width="container", height=240), "accuracy by confidence")


def coverage_chart(table: pl.DataFrame) -> dict[str, Any]:
    """Return accuracy and UAR by coverage of one condition's rows of coverage.parquet."""
    names = {"accuracy": "accuracy", "UAR": "uar"}
    rows = pl.concat(
        table.select("coverage", "n", "confidence", series=pl.lit(name), value=column) for name, column in names.items()
    )
    chart = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2, point={"size": 30})
        .encode(
            x=alt.X(
                "coverage:Q",
                title="share of segments kept, the most confident first",
                axis=alt.Axis(format=".0%"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y("value:Q", title="right among them", scale=alt.Scale(domain=[0, 1])),
            color=series(list(names)),
            strokeDash=series(list(names), "strokeDash"),
            tooltip=[
                alt.Tooltip("series:N", title="figure"),
                alt.Tooltip("value:Q", format=".3f"),
                alt.Tooltip("coverage:Q", format=".0%", title="kept"),
                alt.Tooltip("confidence:Q", format=".2f", title="least confidence"),
                alt.Tooltip("n:Q", title="segments"),
            ],
        )
        .properties(width="container", height=240)
    )
    return specification(chart, "accuracy and UAR by share of segments kept")
