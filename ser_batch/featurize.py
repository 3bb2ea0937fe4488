"""The first stage: recordings to segments to MFCCs, one Parquet row a segment."""

import dataclasses
import heapq
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ser_batch.audio import AudioReader, Resampler, Samples, Sound, channel_samples
from ser_batch.config import FeatureSpec, FeaturizeOptions, Segmentation
from ser_batch.corpus import LabelRow, Recording, Reject, join_labels, walk
from ser_batch.errors import InputError, RecordingError, SerBatchError, UsageError
from ser_batch.mfcc import MfccKernel, SegmentMfcc, kernel
from ser_batch.parallel import MAIN, Plan, Store, Tables, Work, run_shards, worker_count
from ser_batch.tables import METADATA_COLUMNS, SCHEMA_VERSION, features_schema, read_parts, write_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """One window of one channel.

    Parameters
    ----------
    channel, index
        The table's channel number, and the segment's number within it.
    start_s, end_s
        Place in the recording, in seconds.
    mfcc
        float32, shape (frames, n_mfcc), at most `n_frames` frames, not padded.
    rms_dbfs
        Level of the source's samples in dB below full scale; None for digital silence.
    clipped_ratio
        Share of the source's samples at the encoding's full scale.
    label
        The row of the labels file that is about this segment, if there is one.
    """

    channel: int
    index: int
    start_s: float
    end_s: float
    mfcc: npt.NDArray[np.float32]
    rms_dbfs: float | None
    clipped_ratio: float
    label: LabelRow | None


@dataclasses.dataclass(frozen=True)
class _Interval:
    """A stretch to make a segment of; `end_s` None is the end of the recording."""

    index: int
    start_s: float
    end_s: float | None
    label: LabelRow | None = None


class _OpenSegment:
    """A segment whose samples are still coming."""

    def __init__(self, interval: _Interval, mfcc: SegmentMfcc) -> None:
        self.interval = interval
        self.mfcc = mfcc
        self.square_sum = 0.0
        self.n_clipped = 0
        self.n_source = 0


class _ChannelSegmenter:
    """Cuts one channel's stream into segments; each is computed from its own samples alone.

    Memory holds the segments that overlap at one moment, whatever the recording's length.
    """

    def __init__(
        self, sound: Sound, mfccs: MfccKernel, channel: int, intervals: Iterator[_Interval], *, is_exact: bool
    ) -> None:
        self._sound, self._mfccs, self._channel = sound, mfccs, channel
        self._is_exact = is_exact  # every interval was asked for; windows go on until the end is reached
        self._intervals = intervals
        self._next = next(intervals, None)
        self._open: list[tuple[float, int, _OpenSegment]] = []  # a heap by end
        self._resampler = Resampler(sound.sampling_rate, mfccs.spec.sampling_rate)
        self._n_source = self._n_target = 0
        self._covered = 0  # samples of the source up to the end of the last window

    def feed(self, samples: Samples, *, last: bool = False) -> Iterator[Segment]:
        """Take the next samples of the source, shape (n,); yield the segments that are complete."""
        target = self._resampler.feed(samples, last=last)
        self._begin(samples, target, last=last)
        for _, _, segment in self._open:
            self._measure(segment, samples)
            part = _cut(target, self._n_target, segment.interval, self._mfccs.spec.sampling_rate)
            if len(part):
                segment.mfcc.feed(part)
        self._n_source += len(samples)
        self._n_target += len(target)
        reached_s = self._n_target / self._mfccs.spec.sampling_rate
        while self._open and (last or self._open[0][0] <= reached_s):
            segment = heapq.heappop(self._open)[2]
            if self._is_wanted(segment.interval, last):
                yield self._finish(segment)

    def _begin(self, samples: Samples, target: Samples, *, last: bool) -> None:
        """Open the segments that begin before the end of the new samples.

        The resampler lags behind: a segment is opened as soon as the source reaches it, for `_measure`. At the end
        of the stream it has to have samples of both.
        """
        ends = (
            (self._sound.sampling_rate, self._n_source + len(samples)),
            (self._mfccs.spec.sampling_rate, self._n_target + len(target)),
        )
        is_reached = all if last else any
        while self._next is not None and is_reached(round(self._next.start_s * rate) < end for rate, end in ends):
            end_s = float("inf") if self._next.end_s is None else self._next.end_s
            segment = _OpenSegment(self._next, self._mfccs.segment())
            heapq.heappush(self._open, (end_s, self._next.index, segment))
            self._next = next(self._intervals, None)

    def _measure(self, segment: _OpenSegment, samples: Samples) -> None:
        own = _cut(samples, self._n_source, segment.interval, self._sound.sampling_rate)
        segment.square_sum += float(np.dot(own, own))
        segment.n_clipped += int(np.count_nonzero(np.abs(own) >= self._sound.full_scale))
        segment.n_source += len(own)

    def _is_wanted(self, interval: _Interval, last: bool) -> bool:
        """Whether a window adds anything: the last one ends at or past the end, none comes after it."""
        rate = self._sound.sampling_rate
        wanted = self._is_exact or interval.index == 0 or not last or self._covered < self._n_source
        if interval.end_s is not None:
            self._covered = max(self._covered, round(interval.end_s * rate))
        return wanted

    def _finish(self, segment: _OpenSegment) -> Segment:
        duration_s = self._n_source / self._sound.sampling_rate
        interval = segment.interval
        mean_square = segment.square_sum / max(1, segment.n_source)
        return Segment(
            channel=self._channel,
            index=interval.index,
            start_s=interval.start_s,
            end_s=duration_s if interval.end_s is None else min(interval.end_s, duration_s),
            mfcc=segment.mfcc.finish(),
            rms_dbfs=10 * float(np.log10(mean_square)) if mean_square else None,
            clipped_ratio=segment.n_clipped / max(1, segment.n_source),
            label=interval.label,
        )


def _cut(samples: Samples, first: int, interval: _Interval, rate: int) -> Samples:
    """Return the part of `samples`, which begin at number `first` of the stream, that an interval covers."""
    start = max(0, round(interval.start_s * rate) - first)
    end = len(samples) if interval.end_s is None else max(0, round(interval.end_s * rate) - first)
    return samples[start:end]


def segments(recording: Recording, spec: FeatureSpec, segmentation: Segmentation) -> Iterator[tuple[Sound, Segment]]:
    """Decode one recording and yield its segments as they are complete.

    Parameters
    ----------
    recording
        To open; its label rows decide the segments under ``labels``, and the channels wherever they name one.
    spec, segmentation
        How features are computed and recordings are cut.

    Yields
    ------
    tuple of Sound and Segment
        By time, channels side by side.

    Raises
    ------
    RecordingError
        It cannot be decoded, or a label row lies outside of it.
    """
    with AudioReader(recording.file, recording.path) as reader:
        sound = reader.sound
        plan = _intervals(recording, segmentation, sound.n_channels)
        segmenters = {
            channel: _ChannelSegmenter(sound, kernel(spec), channel, intervals, is_exact=segmentation.mode != "windows")
            for channel, intervals in plan.items()
        }
        # one block is held back, because the resampler wants to be told of the last one
        blocks = reader.blocks()
        block = next(blocks)
        for following in itertools.chain(blocks, (None,)):
            for channel, segmenter in segmenters.items():
                for segment in segmenter.feed(channel_samples(block, channel), last=following is None):
                    yield sound, segment
            if following is not None:
                block = following
        _check_labels_inside(
            recording, reader.n_samples / sound.sampling_rate, min(sound.sampling_rate, spec.sampling_rate)
        )


def _intervals(recording: Recording, segmentation: Segmentation, n_channels: int) -> dict[int, Iterator[_Interval]]:
    """Return the stretches to cut from each channel, by start."""
    rows = {channel: [] for channel in segmentation.channel_numbers(n_channels)}  # type: dict[int, list[LabelRow]]
    if any(label.channel is not None for label in recording.labels):
        rows = {}
    for label in recording.labels:
        wanted = segmentation.channel_numbers(n_channels) if label.channel is None else (label.channel,)
        for channel in wanted:
            if channel >= n_channels:
                raise RecordingError(
                    "segment",
                    f"{recording.path}: the labels name channel {channel}, it has {n_channels}; correct the labels",
                )
            rows.setdefault(0 if n_channels == 1 else channel, []).append(label)
    return {channel: _channel_intervals(labels, segmentation) for channel, labels in rows.items()}


def _channel_intervals(labels: Sequence[LabelRow], segmentation: Segmentation) -> Iterator[_Interval]:
    if segmentation.mode == "labels":
        ordered = sorted(labels, key=lambda label: (label.start_s or 0.0, label.end_s or float("inf")))
        for index, label in enumerate(ordered):
            yield _Interval(index, label.start_s or 0.0, label.end_s, label)
    elif segmentation.mode == "clip":
        yield _Interval(0, 0.0, None, labels[0] if labels else None)
    else:
        for index in itertools.count():
            # rounded to microseconds: 3 * 2.02 is 6.0600000000000005 to the machine
            start_s = round(index * segmentation.hop_s, 6)
            end_s = round(start_s + segmentation.window_s, 6)
            yield _Interval(index, start_s, end_s, labels[0] if labels else None)


def _check_labels_inside(recording: Recording, duration_s: float, sampling_rate: int) -> None:
    for label in recording.labels:
        if label.start_s is None or label.end_s is None:
            continue
        if round(label.start_s * sampling_rate) >= round(min(label.end_s, duration_s) * sampling_rate):
            raise RecordingError(
                "segment",
                f"{recording.path}: the labels have a row from {label.start_s:g} to {label.end_s:g} s that covers none "
                f"of its samples, it ends at {duration_s:.2f} s; correct the labels",
            )


@dataclasses.dataclass(frozen=True)
class FeaturizeWork(Work):
    """What a worker of featurize does with a recording."""

    folder: Path
    dataset: str
    spec: FeatureSpec
    segmentation: Segmentation

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:  # type: ignore[override]  # made in the worker: a schema is not sent
        """The parts only."""
        return {MAIN: features_schema(self.spec)}

    def tables(self, recording: Recording, content_hash: str) -> Tables:
        """Yield rows of the features table, a few segments at a time."""
        rows: list[tuple[Sound, Segment]] = []
        for pair in segments(recording, self.spec, self.segmentation):
            rows.append(pair)
            if len(rows) == 256:  # 7 MB
                yield MAIN, self._table(recording, content_hash, rows)
                rows = []
        if rows:
            yield MAIN, self._table(recording, content_hash, rows)

    def _table(self, recording: Recording, content_hash: str, rows: Sequence[tuple[Sound, Segment]]) -> pa.Table:
        spec = self.spec
        sounds, segments_ = zip(*rows, strict=True)
        n = len(rows)
        mfcc = np.zeros((n, spec.n_frames, spec.n_mfcc), dtype=np.float32)
        mean, std = np.empty((2, n, spec.n_mfcc), dtype=np.float32)
        for i, segment in enumerate(segments_):
            frames = segment.mfcc
            mfcc[i, : len(frames)] = frames
            mean[i], std[i] = frames.mean(axis=0), frames.std(axis=0)
        schema = features_schema(spec)
        columns: dict[str, Any] = {
            "dataset": [self.dataset] * n,
            "path": [recording.path] * n,
            "content_hash": [content_hash] * n,
            "channel": [segment.channel for segment in segments_],
            "segment": [segment.index for segment in segments_],
            "variant": ["clean"] * n,
            "start_s": [segment.start_s for segment in segments_],
            "end_s": [segment.end_s for segment in segments_],
            "duration_s": [sound.n_samples / sound.sampling_rate for sound in sounds],
            "sampling_rate": [sound.sampling_rate for sound in sounds],
            "n_channels": [sound.n_channels for sound in sounds],
            "n_frames": [len(segment.mfcc) for segment in segments_],
            "speech_ratio": [None] * n,
        }
        said = dataclasses.asdict(recording.metadata)
        for name, _ in METADATA_COLUMNS:
            columns[name] = [said[name]] * n
        columns["emotion"] = [emotion_of(recording, segment.label) for segment in segments_]
        columns["speaker"] = [speaker_of(recording, segment.label) for segment in segments_]
        arrays = [pa.array(columns[field.name], field.type) if field.name in columns else None for field in schema]
        row = schema.field("mfcc_mean").type
        frames_ = pa.FixedSizeListArray.from_arrays(mfcc.reshape(-1), type=row)
        arrays[schema.get_field_index("mfcc")] = pa.FixedSizeListArray.from_arrays(
            frames_, type=schema.field("mfcc").type
        )
        arrays[schema.get_field_index("mfcc_mean")] = pa.FixedSizeListArray.from_arrays(mean.reshape(-1), type=row)
        arrays[schema.get_field_index("mfcc_std")] = pa.FixedSizeListArray.from_arrays(std.reshape(-1), type=row)
        return pa.Table.from_arrays(arrays, schema=schema)


def emotion_of(recording: Recording, label: LabelRow | None) -> str | None:
    """Return the emotion of a segment: the label row's, else what the name says."""
    return (label.emotion if label else None) or recording.metadata.emotion


def speaker_of(recording: Recording, label: LabelRow | None) -> str | None:
    """Return the speaker of a segment: the label row's, else what the name says."""
    return (label.speaker if label else None) or recording.metadata.speaker


@dataclasses.dataclass(frozen=True)
class FeaturizeSummary:
    """What `featurize` did.

    Parameters
    ----------
    out
        The features folder.
    n_done
        Recordings featurized by this call; `n_already` were done before, `n_vanished` are no longer there.
    n_recordings, n_segments, audio_s
        Of the whole folder, rejects not counted among the segments; seconds of sound.
    rejects
        All recordings that could not be used.
    passed_over
        Other files seen by the walk, by suffix.
    warnings
        Sentences about the labels file.
    emotions
        Segments by emotion; None where none is known.
    seconds
        Time this call took.
    verified
        Number of recordings compared with librosa and the largest absolute difference, or None.
    """

    out: Path
    n_done: int
    n_already: int
    n_vanished: int
    n_recordings: int
    n_segments: int
    audio_s: float
    rejects: tuple[Reject, ...]
    passed_over: Mapping[str, int]
    warnings: tuple[str, ...]
    emotions: Mapping[str | None, int]
    seconds: float
    verified: tuple[int, float] | None


def featurize(audio: Path, options: FeaturizeOptions | None = None) -> FeaturizeSummary:
    """Turn a folder of recordings into a features folder; go on where an earlier call stopped.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording.
    options
        Those of ``ser-batch featurize``.

    Raises
    ------
    UsageError
        `audio` is not there, or options do not go together.
    InputError
        Nothing could be featurized, or the labels file cannot be used.
    OutputError
        The output cannot be written, or belongs to another run.
    """
    options = options or FeaturizeOptions()
    started = time.monotonic()
    spec, segmentation = options.spec, options.segmentation
    _check_combination(options)
    manifest = walk(audio)
    recordings, warnings = labelled(manifest.recordings, options.labels, segmentation)
    dataset = _utf8(options.name or manifest.root.name)
    identity = {
        "root": _utf8(manifest.root),
        "dataset": dataset,
        "feature_spec": spec.to_dict(),
        "segmentation": segmentation.to_dict(),
    }
    store = Store(options.out, identity, overwrite=options.overwrite)
    write_json(
        options.out / "spec.json",
        {
            "schema_version": SCHEMA_VERSION,
            "feature_spec": spec.to_dict(),
            "feature_spec_hash": spec.digest(),
            "segmentation": segmentation.to_dict(),
            "dataset": dataset,
        },
    )
    plan = store.plan(recordings, prune=options.prune)
    _relabel(store, plan, segmentation)
    work = FeaturizeWork(options.out, dataset, spec, segmentation)
    run_shards(work, store.shards(plan.todo, options), jobs=worker_count(options), title="featurize")
    held = store.finish(manifest.rejects)
    if not held.n_rows:
        first = held.rejects[0].message if held.rejects else "no recording has a row in the labels file"
        raise InputError(f"{audio}: nothing could be featurized ({len(held.rejects)} rejected); {first}")
    emotions = read_parts(options.out, ["emotion"])["emotion"].value_counts().to_pylist()
    return FeaturizeSummary(
        out=options.out,
        n_done=len(plan.todo),
        n_already=plan.n_done,
        n_vanished=plan.n_vanished,
        n_recordings=held.n_recordings,
        n_segments=held.n_rows,
        audio_s=held.audio_s,
        rejects=held.rejects,
        passed_over=manifest.passed_over,
        warnings=(*warnings, *_without_rows(held.n_without_rows)),
        emotions={row["values"]: row["counts"] for row in emotions},
        seconds=time.monotonic() - started,
        verified=_verify(options, recordings) if options.verify else None,
    )


def _utf8(name: str | Path) -> str:
    r"""Return a name as the tables have it: undecodable bytes written ``\xNN``."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _without_rows(n: int) -> Iterator[str]:
    if n:
        yield f"{n} recordings have none of the channels that were asked for and no rows (mono has channel 0)"


def labelled(
    recordings: tuple[Recording, ...], labels: Path | None, segmentation: Segmentation
) -> tuple[tuple[Recording, ...], tuple[str, ...]]:
    """Join the labels file, if there is one; under ``labels`` only recordings with rows are kept.

    Returns
    -------
    tuple of recordings and warnings

    Raises
    ------
    UsageError
        Segments are to follow a labels file, and there is none.
    """
    if labels is None:
        if segmentation.mode == "labels":
            raise UsageError("--segments labels needs --labels FILE, with start_s and end_s")
        return recordings, ()
    joined = join_labels(recordings, labels, timed=segmentation.mode == "labels")
    kept = joined.recordings
    if segmentation.mode == "labels":
        kept = tuple(recording for recording in kept if recording.labels)
    return kept, joined.warnings


def _check_combination(options: FeaturizeOptions) -> None:
    if options.verify and (options.segments != "clip" or options.segmentation.channels != "mix"):
        raise UsageError("--verify compares whole clips with librosa; leave out --segments and --channels")


def _relabel(store: Store, plan: Plan, segmentation: Segmentation) -> None:
    """Write new emotions and speakers into the parts of recordings whose labels changed, without decoding."""
    changed = {recording.path: recording for recording in plan.relabel}

    def change(table: pa.Table) -> pa.Table:
        columns = {name: table[name].to_pylist() for name in ("path", "n_channels", "channel", "segment")}
        emotions, speakers = table["emotion"].to_pylist(), table["speaker"].to_pylist()
        for i, (path, n_channels, channel, segment) in enumerate(zip(*columns.values(), strict=True)):
            if path in changed:
                label = _label_of(changed[path], segmentation, n_channels, channel, segment)
                emotions[i] = emotion_of(changed[path], label)
                speakers[i] = speaker_of(changed[path], label)
        for name, values in (("emotion", emotions), ("speaker", speakers)):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pa.array(values, pa.string()))
        return table

    store.relabel(plan.relabel, change)


def _label_of(
    recording: Recording, segmentation: Segmentation, n_channels: int, channel: int, segment: int
) -> LabelRow | None:
    """Return the label row that a segment of the table has."""
    for interval in _intervals(recording, segmentation, n_channels).get(channel, iter(())):
        if interval.index == segment:
            return interval.label
    return None


def _verify(options: FeaturizeOptions, recordings: Iterable[Recording]) -> tuple[int, float]:
    """Compare recordings drawn at random with what librosa itself computes for them."""
    import librosa
    import soundfile

    files = {recording.path: recording.file for recording in recordings}
    table = read_parts(options.out, ["path", "n_frames", "mfcc"])
    table = table.filter(pc.is_in(table["path"], pa.array(list(files), pa.string())))
    spec, n_compared, largest = options.spec, 0, 0.0
    for number in np.random.default_rng().permutation(table.num_rows):
        if n_compared == options.verify:
            break
        (row,) = table.slice(number, 1).to_pylist()
        try:
            with open(files[row["path"]], "rb") as stream:  # noqa: PTH123 - pathlib knows no bytes
                samples, rate = librosa.load(stream, sr=spec.sampling_rate)
        except (soundfile.SoundFileError, ValueError):
            continue  # GSM, which librosa does not open
        n_compared += 1
        expected = librosa.feature.mfcc(
            y=samples,
            sr=rate,
            n_mfcc=spec.n_mfcc,
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
        )
        frames = np.asarray(row["mfcc"], dtype=np.float32)[: row["n_frames"]]
        if expected.T[: spec.n_frames].shape != frames.shape:
            raise SerBatchError(f"{row['path']}: librosa finds {expected.shape[1]} frames, the table has {len(frames)}")
        largest = max(largest, float(np.abs(expected.T[: spec.n_frames] - frames).max()))
    return n_compared, largest
