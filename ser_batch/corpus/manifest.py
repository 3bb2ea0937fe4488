"""The manifest of recordings: metadata of names, rows of a labels file, rejects."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


# slots: a walk may find a million recordings, and dictionaries would be most of their memory
@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """The metadata in a file name; None where it has none."""

    corpus: str | None = None
    modality: str | None = None
    vocal_channel: str | None = None
    emotion: str | None = None
    intensity: str | None = None
    statement: str | None = None
    repetition: int | None = None
    actor: int | None = None
    sex: str | None = None
    speaker: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """One row of a labels file that belongs to a recording."""

    emotion: str | None  # where the cell is empty, the label of most votes
    speaker: str | None = None
    sex: str | None = None
    intensity: str | None = None
    statement: str | None = None
    corpus: str | None = None
    # the stretch that the row labels; times in seconds
    channel: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    # label and share of its votes, in the order of the labels; the shares sum to 1. Empty where nobody voted
    votes: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One audio file of the manifest."""

    path: str  # relative to the root, with ``/``; undecodable bytes written ``\xNN``. The key in every table
    file: bytes  # the bytes to open the file by
    # length in bytes and time of last change in nanoseconds, as seen by the walk
    size: int
    mtime_ns: int
    metadata: Metadata  # what the name says
    labels: tuple[LabelRow, ...] = ()  # the rows of the labels file that name this recording


WARNING = "warning"  # the stage of what is no reject


@dataclasses.dataclass(frozen=True)
class Reject:
    """A recording that could not be used, or was used with a warning: the row of rejects.parquet."""

    path: str
    stage: str
    error: str
    message: str

    @classmethod
    def warning(cls, path: str, message: str) -> "Reject":
        """Return the row of a recording that was used, though something is wrong with it."""
        return cls(path, WARNING, "Warning", message)

    @property
    def is_warning(self) -> bool:
        """Whether the recording was used all the same."""
        return self.stage == WARNING


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The result of a walk, in a deterministic order."""

    root: Path  # the folder that was walked, absolute
    recordings: tuple[Recording, ...]  # the audio files
    rejects: tuple[Reject, ...]  # entries that look like recordings but cannot be reached
    skipped_files: Mapping[str, int]  # how many other files there were, by suffix (lower case)


# columns of a labels file that a file name may hold too
LABEL_COLUMNS = ("emotion", "speaker", "sex", "intensity", "statement", "corpus")


def label_at(labels: Sequence[LabelRow], start_s: float, end_s: float) -> LabelRow | None:
    """Return the row that labels a stretch of a recording."""
    # It is the one that shares the most time with it, the first of several, if that is at least half of the stretch;
    # else a row without times, which is about all of the recording; else None.
    best, max_s = None, (end_s - start_s) / 2 - 1e-6  # half of it, and what is lost in rounding
    for label in labels:
        if label.start_s is None or label.end_s is None:
            continue
        shared_s = min(label.end_s, end_s) - max(label.start_s, start_s)
        if shared_s > max_s:
            best, max_s = label, shared_s
    return best or next((label for label in labels if label.start_s is None), None)


def emotion_of(recording: Recording, label: LabelRow | None) -> str | None:
    """Return the emotion of a segment: the label row's, else what the name says."""
    # Votes that are tied leave it unknown, whatever the name says; where labels have times, the name does not speak for
    # what lies between them.
    if label is None and any(row.start_s is not None for row in recording.labels):
        return None
    if label is not None and (label.emotion or label.votes):
        return label.emotion
    return recording.metadata.emotion


def metadata_of(recording: Recording, label: LabelRow | None) -> dict[str, Any]:
    """Return the metadata columns of a segment: the label row's, else those of the name."""
    values = {field.name: getattr(recording.metadata, field.name) for field in dataclasses.fields(Metadata)}
    if label is not None:
        values |= {name: value for name in LABEL_COLUMNS if (value := getattr(label, name))}
    return values | {"emotion": emotion_of(recording, label)}
