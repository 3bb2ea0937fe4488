"""A picture of one recording, as PNG, SVG or an HTML page that needs no network; drawn without a browser."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ser_batch.errors import UsageError, printable
from ser_batch.score.looking import Columns, Look, look
from ser_batch.tables import atomic_path, make_folder

WIDTH, WAVE_HEIGHT, MFCC_HEIGHT, LABEL_HEIGHT = 760, 90, 150, 34  # px
AXIS_WIDTH = 74  # px left of every panel, so that they stand in line
PNG_SCALE = 2.0
FORMATS = (".png", ".svg", ".html")
INK, SILENCE, BAR, HIGHEST = "#30353b", "#d9dde2", "#9db8d2", "#1f5f99"


def plot(recording: Path, out: Path, *, model: str | None = None, channel: str = "0") -> Look:
    """Write a picture of a recording: waveform, MFCCs, and the probabilities of a model over time.

    Parameters
    ----------
    recording
        One file.
    out
        Its suffix says what is written: .png, .svg or .html.
    model, channel
        As `look` takes them.

    Returns
    -------
    Look
        What it shows.

    Raises
    ------
    UsageError
        `out` has another suffix or is the recording; or see `look`.
    RecordingError
        The recording cannot be decoded.
    OutputError
        `out` cannot be written.
    """
    kind = out.suffix.lower()
    if kind not in FORMATS:
        raise UsageError(f"--out {out}; expected a name that ends in {', '.join(FORMATS)}")
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; expected the name of a file")
    seen = look(recording, model=model, channel=channel)
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        temporary.write_bytes(rendered(specification(seen), kind))
    return seen


def rendered(chart: dict[str, Any], kind: str) -> bytes:
    """Return a Vega-Lite specification as the bytes of a file of that suffix."""
    if kind == ".html":
        return _page(chart)
    import vl_convert

    if kind == ".png":
        return bytes(vl_convert.vegalite_to_png(chart, scale=PNG_SCALE))
    return str(vl_convert.vegalite_to_svg(chart)).encode()


def _page(chart: dict[str, Any]) -> bytes:
    """Return an HTML page that draws a specification, with all the JavaScript it takes."""
    # a name may hold <, which would end the script that the specification stands in
    text = json.dumps(chart).replace("<", "\\u003c")
    script = (files("ser_batch") / "templates" / "vega.js").read_text(encoding="utf-8")
    # saving the picture needs no network; the online editor would be sent all of it
    options = '{"renderer": "svg", "actions": {"export": true, "source": false, "compiled": false, "editor": false}}'
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>ser-batch plot</title></head>\n'
        f'<body><div id="picture"></div>\n<script type="module">{script}</script>\n'
        f'<script type="module">vegaEmbed("#picture", {text}, {options});</script>\n</body>\n</html>\n'
    ).encode()


def specification(seen: Look) -> dict[str, Any]:
    """Return the picture as a Vega-Lite specification."""
    import altair as alt

    scale = alt.Scale(domain=[0, seen.duration_s], nice=False)
    x = alt.X("start_s:Q", scale=scale, axis=None)
    last_x = alt.X(
        "start_s:Q",
        scale=scale,
        title="time, minutes:seconds" if seen.duration_s > 120 else "time, seconds",
        axis=alt.Axis(grid=False, labelExpr=_clock(seen.duration_s), tickCount=10),
    )

    def panel(chart: Any, title: str, height: int, *, at: Any = x) -> Any:
        shade = alt.Chart(_data(seen.silence)).mark_rect(color=SILENCE).encode(x=at, x2="end_s:Q")
        return alt.layer(shade, chart).properties(width=WIDTH, height=height, title=title)

    wave = (
        alt.Chart(_data(seen.waveform))
        .mark_rect(color=INK, stroke=INK, strokeWidth=0.6)
        .encode(x=x, x2="end_s:Q", y=alt.Y("low:Q", axis=_axis("amplitude", 3)), y2="high:Q")
    )
    mfcc = (
        alt.Chart(_data(seen.mfcc))
        .mark_rect()
        .encode(
            x=x,
            x2="end_s:Q",
            y=alt.Y("coefficient:O", sort="descending", axis=_axis("coefficient", values=range(0, 40, 10))),
            color=alt.Color(
                "value:Q", scale=alt.Scale(scheme="blueorange", domain=[-2.5, 2.5], clamp=True), legend=None
            ),
        )
    )
    labels = seen.model.labels
    bars = [
        alt.Chart(_data(_only(seen.predictions, label)))
        .mark_rect()
        .encode(
            x=last_x if label == labels[-1] else x,
            x2="end_s:Q",
            y=alt.Y("zero:Q", scale=alt.Scale(domain=[0, 1]), axis=_axis(label, values=[0, 0.5, 1], is_name=True)),
            y2="probability:Q",
            color=alt.condition("datum.is_highest", alt.value(HIGHEST), alt.value(BAR)),
        )
        for label in labels
    ]
    of = seen.n_channels
    channel = "mono" if of == 1 else f"mean of {of} channels" if seen.channel < 0 else f"channel {seen.channel} of {of}"
    panels = [
        panel(wave, "Waveform, full scale 1; silence is grey", WAVE_HEIGHT),
        panel(mfcc, "MFCCs, each in deviations from its own mean: blue below, orange above", MFCC_HEIGHT),
        *(
            panel(
                chart,
                f"Probabilities by {printable(seen.model.folder.name)} ({seen.model.model_id}); the highest is dark"
                if label == labels[0]
                else "",
                LABEL_HEIGHT,
                at=last_x if label == labels[-1] else x,
            )
            for label, chart in zip(labels, bars, strict=True)
        ),
    ]
    title = alt.TitleParams(
        printable(seen.path),
        subtitle=f"{channel}, {seen.sampling_rate} Hz, {seen.duration_s:.1f} s",
        anchor="start",
        fontSize=15,
        offset=10,
    )
    chart = alt.vconcat(*panels, spacing=6).properties(title=title, background="white", padding=12)
    styled = chart.configure_title(anchor="start", fontSize=11, fontWeight="normal", offset=4).configure_view(
        stroke="#b9bfc6"
    )
    made: dict[str, Any] = styled.to_dict()
    return made


def _data(columns: Columns) -> Any:
    """Return a table as Altair takes it without a limit of rows."""
    import altair as alt

    names = list(columns)
    return alt.InlineData(values=[dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def _only(predictions: Columns, label: str) -> Columns:
    """Return the rows of one label, with the foot of their bars."""
    places = [place for place, name in enumerate(predictions["label"]) if name == label]
    own = {name: [values[place] for place in places] for name, values in predictions.items() if name != "label"}
    return own | {"zero": [0.0] * len(places)}


def _axis(title: str, count: int = 3, *, values: Sequence[float] | None = None, is_name: bool = False) -> Any:
    import altair as alt

    upright: dict[str, Any] = (
        {"titleAngle": 0, "titleAlign": "right", "titleBaseline": "middle", "titleX": -30} if is_name else {}
    )
    more: dict[str, Any] = {} if values is None else {"values": list(values)}
    wide: dict[str, Any] = {"minExtent": AXIS_WIDTH, "maxExtent": AXIS_WIDTH}
    return alt.Axis(title=title, tickCount=count, labelOverlap=False, grid=False, **wide, **more, **upright)


def _clock(duration_s: float) -> str:
    """Return the expression that writes times along the axis."""
    if duration_s <= 120:
        return "format(datum.value, '~g')"
    return "floor(datum.value / 60) + ':' + format(floor(datum.value % 60), '02d')"
