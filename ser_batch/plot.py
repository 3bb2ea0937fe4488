"""Picture of one recording: waveform, MFCCs, silence, probabilities over time."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ser_batch.audio.reader import AudioReader
from ser_batch.audio.recording_file import RecordingFile
from ser_batch.config.features import PRESETS, FeatureSpec
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.manifest import Recording
from ser_batch.corpus.walk import walk
from ser_batch.errors import InputError, UsageError, printable
from ser_batch.model.folder import Model, find_model
from ser_batch.report.altair_setup import alt
from ser_batch.report.emotion_colors import COLORS, emotion_name
from ser_batch.runs.part_writer import MAIN
from ser_batch.scoring.worker import ScoreWork, ScoringRules
from ser_batch.segments.boundaries import activity_of, channels_of
from ser_batch.segments.front_ends import front_end
from ser_batch.segments.segmenter import segments
from ser_batch.storage.atomic import atomic_path, make_folder
from ser_batch.summary import Summary
from ser_batch.vad.activity import FRAME_S, runs
from ser_batch.vad.channels import listened_samples

# more columns than a picture has pixels would show nothing
WAVEFORM_COLUMNS = 800
MFCC_COLUMNS = 160
PREDICTION_COLUMNS = 400
SHORT_S = 30.0  # a recording up to here has windows four times as close
SHORT_HOP_S = 0.505
SHORTEST_SILENCE_S = 0.3
Columns = dict[str, list[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """The data of a picture of one channel of a recording; tables by column, times in seconds."""

    path: str  # the recording's name
    # the table's number, -1 for the mean of all channels; how many the recording has
    channel: int
    n_channels: int
    # in Hz, and seconds
    sampling_rate: int
    duration_s: float
    # start_s, end_s, and low and high, the least and largest sample of each stretch; full scale is 1.0
    waveform: Columns
    # start_s, end_s, coefficient and value: the mean of a coefficient over a stretch, less its mean over the recording
    # and in units of its deviation. Of a model on embeddings, MFCCs of the preset telephone
    mfcc: Columns
    silence: Columns  # start_s and end_s of what is not speech
    # start_s, end_s, label, probability, is_highest: for the middle of each window that was scored, up to half way to
    # the next one
    predictions: Columns
    model: Model  # that was asked

    @property
    def silence_s(self) -> float:
        """Seconds of silence that the picture shows."""
        return float(sum(self.silence["end_s"]) - sum(self.silence["start_s"]))


class PlotSummary(Summary, frozen=True, kw_only=True):
    """What `plot` drew."""

    out: Annotated[Path, Meta(description="the picture")]
    path: Annotated[str, Meta(description="name of the recording")]
    channel: Annotated[int, Meta(description="channel shown, -1 for the mean of all")]
    n_channels: Annotated[int, Meta(description="channels of the recording")]
    duration_s: Annotated[float, Meta(description="duration, s")]
    silence_s: Annotated[float, Meta(description="silence that the picture shows, s")]
    model: Annotated[Path, Meta(description="model folder")]
    model_id: Annotated[str, Meta(description="id of the model")]
    license: Annotated[str, Meta(description="license of the model")]


def look(path: Path, *, model: str | None = None, channel: str = "0") -> Look:
    """Read one recording for a picture, block by block."""
    loaded = find_model(model)
    recording = _recording(path)
    if channel != "mix" and not channel.isdecimal():
        raise UsageError(f"--channel {channel}; expected the number of a channel, from 0, or mix")
    with RecordingFile(recording.file, recording.path) as file:
        return _look(recording, file, loaded, Segmentation(mode="windows", channels=channel))


def _look(recording: Recording, file: RecordingFile, loaded: Model, whole: Segmentation) -> Look:
    with AudioReader(file) as reader:
        activity = activity_of(reader, recording, whole)
        sound = reader.sound
        numbers = channels_of(recording, whole, sound.n_channels)
        if not numbers:
            raise UsageError(f"--channel {whole.channels}: {recording.path} has {sound.n_channels}, numbered from 0")
        (number,) = numbers
        duration_s = activity.duration_s
        waveform = _waveform(reader, number, duration_s)
        mfcc = _mfcc(
            reader, recording, PRESETS["telephone"] if loaded.takes_embeddings else loaded.spec, whole, duration_s
        )
    starts, ends = (edges * FRAME_S for edges in runs(~activity.frames[number]))
    is_shown = ends - starts >= max(SHORTEST_SILENCE_S, 2 * duration_s / WAVEFORM_COLUMNS)
    cut = msgspec.structs.replace(whole, hop_s=SHORT_HOP_S) if duration_s <= SHORT_S else whole
    return Look(
        path=recording.path,
        channel=number,
        n_channels=sound.n_channels,
        sampling_rate=sound.sampling_rate,
        duration_s=duration_s,
        waveform=waveform,
        mfcc=mfcc,
        silence={
            "start_s": starts[is_shown].tolist(),
            "end_s": np.minimum(ends[is_shown], duration_s).tolist(),
        },
        predictions=_predictions(recording, file, loaded, cut, duration_s),
        model=loaded,
    )


def _recording(path: Path) -> Recording:
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; expected one recording")
    manifest = walk(path)
    if not manifest.recordings:
        why = manifest.rejects[0].message if manifest.rejects else "its name is not that of a recording"
        raise InputError(f"{path}: {why}")
    return manifest.recordings[0]


def _edges(duration_s: float, most: int) -> npt.NDArray[np.float64]:
    """Return the edges of at most so many equal stretches, none of which is below a millisecond."""
    return np.linspace(0, duration_s, max(1, min(most, int(duration_s * 1000))) + 1)


def _waveform(reader: AudioReader, channel: int, duration_s: float) -> Columns:
    """Return the least and largest sample of each stretch."""
    edges = _edges(duration_s, WAVEFORM_COLUMNS)
    n_columns = len(edges) - 1
    low, high = np.full(len(edges) - 1, np.inf), np.full(len(edges) - 1, -np.inf)
    first, n_samples = 0, round(duration_s * reader.sound.sampling_rate)
    for block in reader.blocks():
        samples = listened_samples(block, channel)
        # by number, not by time: no sample falls on the wrong side of an edge
        column = np.arange(first, first + len(samples)) * n_columns // n_samples
        begins = np.flatnonzero(np.diff(column, prepend=-1))  # samples are in order, so columns are runs
        own = column[begins]
        low[own] = np.minimum(low[own], np.minimum.reduceat(samples, begins))
        high[own] = np.maximum(high[own], np.maximum.reduceat(samples, begins))
        first += len(samples)
    is_known = np.isfinite(low)
    return {
        "start_s": edges[:-1][is_known].tolist(),
        "end_s": edges[1:][is_known].tolist(),
        "low": low[is_known].tolist(),
        "high": high[is_known].tolist(),
    }


def _mfcc(
    reader: AudioReader, recording: Recording, spec: FeatureSpec, segmentation: Segmentation, duration_s: float
) -> Columns:
    """Return the mean of each coefficient over each stretch, of windows one after the other."""
    frame_s = spec.hop_length / spec.sampling_rate
    edges = _edges(duration_s, min(MFCC_COLUMNS, max(1, int(duration_s / frame_s))))
    sums, counts = np.zeros((len(edges) - 1, spec.n_mfcc)), np.zeros(len(edges) - 1)
    total, squares, n_frames = np.zeros(spec.n_mfcc), np.zeros(spec.n_mfcc), 0
    side_by_side = msgspec.structs.replace(segmentation, hop_s=segmentation.window_s)
    for segment in segments(reader, recording, front_end(spec), side_by_side):
        assert segment.features is not None  # no segment has too little speech
        frames = segment.features.astype(np.float64)
        times_s = segment.start_s + np.arange(len(frames), dtype=np.float64) * frame_s
        column = np.minimum((times_s * (len(counts) / edges[-1])).astype(np.int64), len(counts) - 1)
        np.add.at(sums, column, frames)
        np.add.at(counts, column, 1)
        total, squares, n_frames = total + frames.sum(axis=0), squares + (frames**2).sum(axis=0), n_frames + len(frames)
    mean = total / max(1, n_frames)
    deviation = np.sqrt(np.maximum(squares / max(1, n_frames) - mean**2, 1e-6))
    known = np.flatnonzero(counts)
    values = (sums[known] / counts[known, None] - mean) / deviation
    return {
        "start_s": np.repeat(edges[known], spec.n_mfcc).tolist(),
        "end_s": np.repeat(edges[known + 1], spec.n_mfcc).tolist(),
        "coefficient": np.tile(np.arange(spec.n_mfcc), len(known)).tolist(),
        "value": np.round(values, 3).ravel().tolist(),
    }


def _predictions(
    recording: Recording, file: RecordingFile, model: Model, segmentation: Segmentation, duration_s: float
) -> Columns:
    """Return the probabilities of `score` without an archive for each window; of many, the mean over neighbours."""
    rules = ScoringRules(min_speech=0.3, prior=model.schema.prior)
    work = ScoreWork(Path(), model.folder, model.labels, model.model_id, segmentation, rules=rules)
    rows = [row for table, row in work.rows(recording, file) if table == MAIN]
    middles_s = np.array([(row["start_s"] + row["end_s"]) / 2 for row in rows])
    probabilities = np.array([[row.get(f"p_{label}", np.nan) for label in model.labels] for row in rows])
    together = -(-len(rows) // PREDICTION_COLUMNS)
    if together > 1:
        groups = [slice(first, first + together) for first in range(0, len(rows), together)]
        middles_s = np.array([middles_s[group].mean() for group in groups])
        probabilities = np.array([_mean(probabilities[group]) for group in groups])
    between_s = (middles_s[1:] + middles_s[:-1]) / 2
    starts_s, ends_s = np.concatenate(([0.0], between_s)), np.concatenate((between_s, [duration_s]))
    is_scored = ~np.isnan(probabilities).any(axis=1)
    out: Columns = {name: [] for name in ("start_s", "end_s", "label", "probability", "is_highest")}
    for i in np.flatnonzero(is_scored):
        highest = int(np.argmax(probabilities[i]))
        for number, label in enumerate(model.labels):
            values = (starts_s[i], ends_s[i], label, float(probabilities[i, number]), number == highest)
            for column, value in zip(out.values(), values, strict=True):
                column.append(value)
    return out


def _mean(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean over the windows that were scored, shape (labels,); NaN where none was."""
    scored = probabilities[~np.isnan(probabilities).any(axis=1)]
    return scored.mean(axis=0) if len(scored) else np.full(probabilities.shape[1], np.nan)


WIDTH, WAVE_HEIGHT, MFCC_HEIGHT, LABEL_HEIGHT = 760, 90, 150, 34  # px
AXIS_WIDTH = 74  # px left of every panel, so that they stand in line
PNG_SCALE = 2.0
FORMATS = (".html", ".png", ".svg")
INK, SILENCE = "#30353b", "#d9dde2"
PALE = 0.4  # opacity of what is not the highest


def plot(recording: Path, out: Path, *, model: str | None = None, channel: str = "0") -> PlotSummary:
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
    PlotSummary
        What it shows.

    Raises
    ------
    UsageError
        `out` has another suffix, or one that needs the extra `plots`, which is not installed; or see `look`.
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
    if kind != ".html":
        _converter(kind)  # before anything is read
    seen = look(recording, model=model, channel=channel)
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        temporary.write_bytes(rendered(specification(seen), kind))
    return PlotSummary(
        out=out,
        path=seen.path,
        channel=seen.channel,
        n_channels=seen.n_channels,
        duration_s=seen.duration_s,
        silence_s=seen.silence_s,
        model=seen.model.folder,
        model_id=seen.model.model_id,
        license=seen.model.schema.license,
    )


def rendered(chart: dict[str, Any], kind: str) -> bytes:
    """Return a Vega-Lite specification as the bytes of a file of that suffix."""
    if kind == ".html":
        return _page(chart)
    if kind == ".png":
        return bytes(_converter(kind).vegalite_to_png(chart, scale=PNG_SCALE))
    return str(_converter(kind).vegalite_to_svg(chart)).encode()


def _converter(kind: str) -> ModuleType:
    try:
        import vl_convert  # 84 MB, which few need
    except ImportError as error:
        raise UsageError(
            f'plot to {kind} needs vl-convert-python ({error}); pip install "ser-batch[plots]", or choose .html'
        ) from error
    return vl_convert


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
    tables = {"silence": seen.silence, "waveform": seen.waveform, "mfcc": seen.mfcc}
    of_label = {label: f"label {number}" for number, label in enumerate(seen.model.labels)}
    tables |= {name: _only(seen.predictions, label) for label, name in of_label.items()}
    scale = alt.Scale(domain=[0, seen.duration_s], nice=False)
    x = alt.X("start_s:Q", scale=scale, axis=None)
    last_x = alt.X(
        "start_s:Q",
        scale=scale,
        title="time, minutes:seconds" if seen.duration_s > 120 else "time, seconds",
        axis=alt.Axis(grid=False, labelExpr=_clock(seen.duration_s), tickCount=10),
    )

    def panel(chart: Any, title: str, height: int, *, at: Any = x) -> Any:
        shade = alt.Chart(alt.NamedData("silence")).mark_rect(color=SILENCE).encode(x=at, x2="end_s:Q")
        return alt.layer(shade, chart).properties(width=WIDTH, height=height, title=title)

    wave = (
        alt.Chart(alt.NamedData("waveform"))
        .mark_rect(color=INK, stroke=INK, strokeWidth=0.6)
        .encode(x=x, x2="end_s:Q", y=alt.Y("low:Q", axis=_axis("amplitude", 3)), y2="high:Q")
    )
    mfcc = (
        alt.Chart(alt.NamedData("mfcc"))
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
        alt.Chart(alt.NamedData(of_label[label]))
        .mark_rect()
        .encode(
            x=last_x if label == labels[-1] else x,
            x2="end_s:Q",
            y=alt.Y("zero:Q", scale=alt.Scale(domain=[0, 1]), axis=_axis(label, values=[0, 0.5, 1], is_name=True)),
            y2="probability:Q",
            color=alt.value(COLORS[emotion_name(label)][0]),
            opacity=alt.condition("datum.is_highest", alt.value(1), alt.value(PALE)),
        )
        for label in labels
    ]
    of = seen.n_channels
    channel = "mono" if of == 1 else f"mean of {of} channels" if seen.channel < 0 else f"channel {seen.channel} of {of}"
    panels = [
        panel(wave, "Waveform, full scale 1; silence is gray", WAVE_HEIGHT),
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
    # the rows are added in the end, as Altair copies and checks all that a chart holds at each step
    return {**styled.to_dict(), "datasets": {name: _rows(table) for name, table in tables.items()}}


def _rows(columns: Columns) -> list[dict[str, Any]]:
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _only(predictions: Columns, label: str) -> Columns:
    """Return the rows of one label, with the foot of their bars."""
    is_own = [name == label for name in predictions["label"]]
    own = {name: [*itertools.compress(values, is_own)] for name, values in predictions.items() if name != "label"}
    return own | {"zero": [0.0] * sum(is_own)}


def _axis(title: str, count: int = 3, *, values: Sequence[float] | None = None, is_name: bool = False) -> Any:
    more: dict[str, Any] = {"minExtent": AXIS_WIDTH, "maxExtent": AXIS_WIDTH}
    if values is not None:
        more["values"] = list(values)
    if is_name:
        more |= {"titleAngle": 0, "titleAlign": "right", "titleBaseline": "middle", "titleX": -30}
    return alt.Axis(title=title, tickCount=count, labelOverlap=False, grid=False, **more)


def _clock(duration_s: float) -> str:
    """Return the expression that writes times along the axis."""
    if duration_s <= 120:
        return "format(datum.value, '~g')"
    return "floor(datum.value / 60) + ':' + format(floor(datum.value % 60), '02d')"
