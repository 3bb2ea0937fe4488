"""Curves as points of a picture of 600 by 190 px, which the templates draw as SVG."""

import dataclasses
from collections.abc import Iterable, Sequence

import polars as pl

LEFT, TOP = 40, 10  # px, the upper left corner of the axes
WIDTH, HEIGHT = 550, 160  # px, within the axes


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: its name, its points as SVG has them, and its last value where that means something."""

    name: str
    points: str
    last: float | None = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """Curves in one pair of axes; `left`, `right` and `top` are what stands at their ends."""

    title: str
    left: str
    right: str
    top: str
    lines: Sequence[Line]
    has_diagonal: bool = False


def learning_curves(history: pl.DataFrame) -> list[Picture]:
    """Return accuracy and loss by epoch, the mean over folds and seeds.

    Parameters
    ----------
    history
        The frame of history.parquet: epoch, loss, accuracy, and of development or test rows what has values.
    """
    if history.is_empty():
        return []
    mean = history.group_by("epoch").agg(pl.exclude("fold", "seed", "epoch").mean()).sort("epoch")
    n_epochs = len(mean)
    pictures = []
    for title in ("accuracy", "loss"):
        names = [name for name in (title, f"dev_{title}", f"test_{title}") if name in mean.columns]
        highest = max((value for name in names for value in mean[name].drop_nulls()), default=0.0)
        top = 1.0 if title == "accuracy" else highest or 1.0
        lines = []
        for name in names:
            known = mean.drop_nulls(name)
            x = ((epoch - 1) / max(1, n_epochs - 1) for epoch in known["epoch"])
            points = _points(x, (value / top for value in known[name]))
            if points:
                lines.append(Line(name.replace("_", " "), points, float(known[name][-1])))
        pictures.append(Picture(f"{title} over {n_epochs} epochs", "1", str(n_epochs), f"{top:.1f}", lines))
    return pictures


def reliability_picture(table: pl.DataFrame) -> Picture:
    """Return accuracy by confidence of one condition's rows of reliability.parquet.

    On the diagonal a model is right as often as it says.
    """
    known = table.drop_nulls("accuracy")
    line = Line("accuracy by confidence", _points(known["mean_confidence"], known["accuracy"]))
    return Picture("dashed, right as often as it says", "0", "1", "1.0", [line], has_diagonal=True)


def coverage_picture(table: pl.DataFrame) -> Picture:
    """Return accuracy and UAR by coverage of one condition's rows of coverage.parquet."""
    lines = [
        Line(name, _points(table["coverage"], table[column]), float(table[column][-1]))
        for name, column in (("accuracy", "accuracy"), ("UAR", "uar"))
    ]
    return Picture("by share of segments kept, the most confident first", "0", "1", "1.0", lines)


def _points(x: Iterable[float], y: Iterable[float]) -> str:
    """Return points with x and y from 0 to 1 as SVG has them."""
    pairs = ((LEFT + WIDTH * across, TOP + HEIGHT * (1 - up)) for across, up in zip(x, y, strict=True))
    return " ".join(f"{across:.1f},{up:.1f}" for across, up in pairs)
