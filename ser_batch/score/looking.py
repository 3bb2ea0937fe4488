"""What a picture of one recording shows: waveform, MFCCs, silence, and what a model hears; in bounded memory."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch import bundle
from ser_batch.bundle import Bundle
from ser_batch.config import PRESETS, FeatureSpec, Segmentation
from ser_batch.corpus import Recording, walk
from ser_batch.errors import InputError, UsageError
from ser_batch.parallel import MAIN
from ser_batch.score.work import ScoreWork

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
    """What a picture of one channel of a recording shows; tables by column, times in seconds.

    Parameters
    ----------
    path
        The recording's name.
    channel, n_channels
        The table's number, -1 for the mean of all channels; how many the recording has.
    sampling_rate, duration_s
        In Hz, and seconds.
    waveform
        start_s, end_s, and low and high, the least and largest sample of each stretch; full scale is 1.0.
    mfcc
        start_s, end_s, coefficient and value: the mean of a coefficient over a stretch, less its mean over the
        recording and in units of its deviation. Of a model on embeddings, MFCCs of the preset telephone.
    silence
        start_s and end_s of what is not speech.
    predictions
        start_s, end_s, label, probability, is_highest: for the middle of each window that was scored, up to half way to
        the next one.
    model
        That was asked.
    """

    path: str
    channel: int
    n_channels: int
    sampling_rate: int
    duration_s: float
    waveform: Columns
    mfcc: Columns
    silence: Columns
    predictions: Columns
    model: Bundle

    @property
    def silence_s(self) -> float:
        """Seconds of silence that the picture shows."""
        return float(sum(self.silence["end_s"]) - sum(self.silence["start_s"]))


def look(path: Path, *, model: str | None = None, channel: str = "0") -> Look:
    """Read one recording for a picture, block by block.

    Parameters
    ----------
    path
        The recording.
    model
        A folder or the name of a shipped model; None as in `score`.
    channel
        ``0`` for the first one, or ``mix`` for the mean of all.

    Raises
    ------
    UsageError
        There is no such file, channel or model.
    InputError
        The file is no recording.
    RecordingError
        It cannot be decoded.
    """
    # these decode, and what starts a run of score loads none of it
    from ser_batch.featurize.intervals import activity_of, channels_of
    from ser_batch.vad.activity import FRAME_S, runs

    loaded = bundle.find(model)
    recording = _recording(path)
    if channel != "mix" and not channel.isdecimal():
        raise UsageError(f"--channel {channel}; expected the number of a channel, from 0, or mix")
    whole = Segmentation(mode="windows", channels=channel)
    activity = activity_of(recording, whole)
    sound = activity.sound
    assert sound is not None
    numbers = channels_of(recording, whole, sound.n_channels)
    if not numbers:
        raise UsageError(f"--channel {channel}: {recording.path} has {sound.n_channels}, numbered from 0")
    (number,) = numbers
    duration_s = activity.duration_s
    starts, ends = (edges * FRAME_S for edges in runs(~activity.frames[number]))
    is_shown = ends - starts >= max(SHORTEST_SILENCE_S, 2 * duration_s / WAVEFORM_COLUMNS)
    close = duration_s <= SHORT_S
    cut = dataclasses.replace(whole, hop_s=SHORT_HOP_S) if close else whole
    return Look(
        path=recording.path,
        channel=number,
        n_channels=sound.n_channels,
        sampling_rate=sound.sampling_rate,
        duration_s=duration_s,
        waveform=_waveform(recording, number, duration_s),
        mfcc=_mfcc(recording, _shown_spec(loaded), whole, duration_s),
        silence={
            "start_s": starts[is_shown].tolist(),
            "end_s": np.minimum(ends[is_shown], duration_s).tolist(),
        },
        predictions=_predictions(recording, loaded, cut, duration_s),
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


def _waveform(recording: Recording, channel: int, duration_s: float) -> Columns:
    """Return the least and largest sample of each stretch."""
    from ser_batch.audio import AudioReader, channel_samples

    edges = _edges(duration_s, WAVEFORM_COLUMNS)
    n_columns = len(edges) - 1
    low, high = np.full(len(edges) - 1, np.inf), np.full(len(edges) - 1, -np.inf)
    with AudioReader(recording.file, recording.path) as reader:
        first, n_samples = 0, round(duration_s * reader.sound.sampling_rate)
        for block in reader.blocks():
            samples = channel_samples(block, channel)
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


def _column(times_s: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the stretch that each time lies in."""
    n = len(edges) - 1
    return np.asarray(np.minimum((times_s * (n / edges[-1])).astype(np.int64), n - 1), dtype=np.int64)


def _shown_spec(model: Bundle) -> FeatureSpec:
    """Return how MFCCs are computed for the picture: as the model gets them, or for all rates if it gets embeddings."""
    return PRESETS["telephone"] if model.takes_embeddings else model.spec


def _mfcc(recording: Recording, spec: FeatureSpec, segmentation: Segmentation, duration_s: float) -> Columns:
    """Return the mean of each coefficient over each stretch, of windows one after the other."""
    from ser_batch.featurize.cutting import segments
    from ser_batch.featurize.front_ends import front_end

    frame_s = spec.hop_length / spec.sampling_rate
    edges = _edges(duration_s, min(MFCC_COLUMNS, max(1, int(duration_s / frame_s))))
    sums, counts = np.zeros((len(edges) - 1, spec.n_mfcc)), np.zeros(len(edges) - 1)
    total, squares, n_frames = np.zeros(spec.n_mfcc), np.zeros(spec.n_mfcc), 0
    side_by_side = dataclasses.replace(segmentation, hop_s=segmentation.window_s)
    for _, segment in segments(recording, front_end(spec), side_by_side):
        assert segment.features is not None  # no segment has too little speech
        frames = segment.features.astype(np.float64)
        column = _column(segment.start_s + np.arange(len(frames), dtype=np.float64) * frame_s, edges)
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


def _predictions(recording: Recording, model: Bundle, segmentation: Segmentation, duration_s: float) -> Columns:
    """Return what `score` says of each window where it knows no archive; of many, the mean over neighbours."""
    work = ScoreWork(
        Path(),
        model.folder,
        model.labels,
        model.model_id,
        segmentation,
        {},
        frozenset(),
        min_speech=0.3,
        prior=model.prior,
    )
    rows = [row for table, row in work.rows(recording, "") if table == MAIN]
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
    for place in np.flatnonzero(is_scored):
        highest = int(np.argmax(probabilities[place]))
        for number, label in enumerate(model.labels):
            values = (starts_s[place], ends_s[place], label, float(probabilities[place, number]), number == highest)
            for column, value in zip(out.values(), values, strict=True):
                column.append(value)
    return out


def _mean(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean over the windows that were scored, shape (labels,); NaN where none was."""
    scored = probabilities[~np.isnan(probabilities).any(axis=1)]
    return scored.mean(axis=0) if len(scored) else np.full(probabilities.shape[1], np.nan)
