"""Boundaries of segments: the channels of a recording, and the stretches of each."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from ser_batch.audio.reader import AudioReader
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.manifest import LabelRow, Recording, label_at
from ser_batch.errors import RecordingError
from ser_batch.vad.activity import Activity
from ser_batch.vad.scan import scan

Times = tuple[float, float]  # start and end in the recording, seconds


@dataclasses.dataclass(frozen=True)
class Interval:
    """A stretch to make a segment of; `end_s` None is the end of the recording.

    `labels` are the rows that may be about it: its own, or all of its channel.
    """

    index: int
    start_s: float
    end_s: float | None
    labels: Sequence[LabelRow] = ()


def activity_of(reader: AudioReader, recording: Recording, segmentation: Segmentation) -> Activity:
    """Find the speech of the channels that `segments` cuts, and of those beside them."""
    return scan(reader, lambda n_channels: channels_of(recording, segmentation, n_channels))


def channels_of(recording: Recording, segmentation: Segmentation, n_channels: int) -> tuple[int, ...]:
    """Return the table's numbers of the channels that a recording is cut by."""
    return tuple(labels_by_channel(recording, segmentation, n_channels))


def labels_by_channel(recording: Recording, segmentation: Segmentation, n_channels: int) -> dict[int, list[LabelRow]]:
    """Return the channels to cut, and the rows of the labels file about each: by start, then in the file's order."""
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
    for labels in rows.values():
        labels.sort(key=lambda label: (label.start_s or 0.0, label.end_s or float("inf")))
    return rows


def intervals(
    channel: int, labels: Sequence[LabelRow], segmentation: Segmentation, activity: Activity | None
) -> Iterator[Interval]:
    """Yield the stretches to cut from a channel, by start."""
    if segmentation.mode == "labels":
        for index, label in enumerate(labels):
            yield Interval(index, label.start_s or 0.0, label.end_s, (label,))
    elif segmentation.mode == "clip":
        yield Interval(0, 0.0, None, labels)
    elif segmentation.mode == "turns":
        assert activity is not None  # `activity_of` comes first
        for index, (start_s, end_s) in enumerate(activity.turns(channel, longest_s=segmentation.window_s)):
            yield Interval(index, start_s, end_s, labels)
    else:
        for index in itertools.count():
            # rounded to microseconds: 3 * 2.02 is 6.0600000000000005 to the machine
            start_s = round(index * segmentation.hop_s, 6)
            end_s = round(start_s + segmentation.window_s, 6)
            yield Interval(index, start_s, end_s, labels)


def check_labels_inside(recording: Recording, duration_s: float, rates: Sequence[int]) -> None:
    """Refuse labels that cover no sample of a recording at one of some sampling rates (Hz)."""
    for label in recording.labels:
        if label.start_s is None or label.end_s is None:
            continue
        end_s = min(label.end_s, duration_s)
        if any(round(label.start_s * rate) >= round(end_s * rate) for rate in rates):
            raise RecordingError(
                "segment",
                f"{recording.path}: the labels have a row from {label.start_s:g} to {label.end_s:g} s that covers none "
                f"of its samples, it ends at {duration_s:.2f} s; correct the labels",
            )


def label_of(
    recording: Recording, segmentation: Segmentation, n_channels: int, channel: int, segment: int, times_s: Times
) -> LabelRow | None:
    """Return the label row that a segment of the table has, which lies at `times_s`, (start, end) in seconds."""
    labels = labels_by_channel(recording, segmentation, n_channels).get(channel, [])
    if segmentation.mode == "labels":  # rows may overlap, and each has its own segment
        labels = labels[segment : segment + 1]
    return label_at(labels, *times_s)
