"""From a folder to a manifest: the walk, what file names say, what a labels file adds.

Nothing here opens a recording; a name, a size and a time are all that is looked at.
"""

import csv
import dataclasses
import io
import os
import re
import stat
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_batch.errors import InputError, UsageError, printable

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".aif", ".aiff", ".au", ".gsm"})
LABEL_PATTERN = re.compile(r"[a-z][a-z0-9_]*")
# rows of a report are named by label; these three names are its summary rows
RESERVED_LABELS = frozenset({"accuracy", "macro_avg", "weighted_avg"})

# what a model trained on a corpus inherits; corpora not named here are the user's own
LICENCES = {"ravdess": "CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file name says about a recording; None where it says nothing."""

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelRow:
    """One row of a labels file that belongs to a recording."""

    emotion: str | None
    speaker: str | None = None
    channel: int | None = None
    start_s: float | None = None
    end_s: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    r"""One audio file of the manifest.

    Parameters
    ----------
    path
        Relative to the root, with ``/``; undecodable bytes written ``\xNN``. The key in every table.
    file
        The bytes to open the file by.
    size, mtime_ns
        Length in bytes and time of last change in nanoseconds, as seen by the walk.
    metadata
        What the name says.
    labels
        The rows of the labels file that name this recording.
    """

    path: str
    file: bytes
    size: int
    mtime_ns: int
    metadata: Metadata
    labels: tuple[LabelRow, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reject:
    """A recording that could not be used: the row of rejects.parquet."""

    path: str
    stage: str
    error: str
    message: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the walk found, in a deterministic order.

    Parameters
    ----------
    root
        The folder that was walked, absolute.
    recordings
        The audio files.
    rejects
        Entries that look like recordings but cannot be reached.
    passed_over
        How many other files there were, by suffix (lower case).
    """

    root: Path
    recordings: tuple[Recording, ...]
    rejects: tuple[Reject, ...]
    passed_over: Mapping[str, int]


def walk(audio: Path) -> Manifest:
    """Find the recordings below a folder.

    Links are followed, each folder once, so that circles end. Real folders come before links, and names are
    sorted by their bytes, so that the order depends on nothing but the tree.

    Parameters
    ----------
    audio
        A folder, or one audio file.

    Raises
    ------
    UsageError
        There is no such folder or file.
    InputError
        It holds no audio file.
    """
    if not os.path.exists(audio):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise UsageError(f"{audio}: no such folder or file; expected recordings, or a folder that holds some")
    single = audio.is_file()
    root = os.fsencode(audio.parent.resolve() if single else audio.resolve())
    recordings: list[Recording] = []
    rejects: list[Reject] = []
    passed_over: Counter[str] = Counter()
    seen: set[str] = set()
    for file in [os.path.join(root, os.fsencode(audio.name))] if single else _files(root, rejects):  # noqa: PTH118 - pathlib knows no bytes
        path = _table_path(os.path.relpath(file, root))
        suffix = os.fsdecode(os.path.splitext(file)[1]).lower()  # noqa: PTH122 - as above
        if suffix not in AUDIO_SUFFIXES:
            passed_over[printable(suffix) or "no suffix"] += 1
            continue
        try:
            status = os.stat(file)  # noqa: PTH116 - as above
        except OSError as error:
            rejects.append(Reject(path, "walk", type(error).__name__, f"{printable(path)}: {error.strerror}"))
            continue
        if not stat.S_ISREG(status.st_mode):
            passed_over["not a regular file"] += 1
            continue
        if path in seen:
            rejects.append(
                Reject(
                    path,
                    "walk",
                    "DuplicatePath",
                    f"{printable(path)}: another name is written the same way; rename one",
                )
            )
            continue
        seen.add(path)
        metadata = parse_name(path.rsplit("/", 1)[-1]) or Metadata()
        recordings.append(
            Recording(path=path, file=file, size=status.st_size, mtime_ns=status.st_mtime_ns, metadata=metadata)
        )
    if not recordings and not rejects:
        others = f"; it holds {sum(passed_over.values())} other files" if passed_over else ""
        raise InputError(
            f"{audio}: no recordings found{others}; expected files that end in "
            f"{' '.join(sorted(AUDIO_SUFFIXES))}, at any depth"
        )
    return Manifest(Path(os.fsdecode(root)), tuple(recordings), tuple(rejects), dict(passed_over))


def _files(root: bytes, rejects: list[Reject]) -> Iterator[bytes]:
    """Yield all files below `root`, each folder once; folders that cannot be read become rejects."""
    visited: set[tuple[int, int]] = set()
    linked = [root]
    while linked:
        folders = [linked.pop(0)]
        while folders:
            folder = folders.pop()
            try:
                status = os.stat(folder)  # noqa: PTH116 - pathlib knows no bytes
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                path = _table_path(os.path.relpath(folder, root))
                rejects.append(Reject(path, "walk", type(error).__name__, f"{printable(path)}: {error.strerror}"))
                continue
            below: list[bytes] = []
            for entry in entries:
                if _is_folder(entry):
                    (linked if entry.is_symlink() else below).append(entry.path)
                else:
                    yield entry.path
            folders.extend(reversed(below))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry leads to a folder; a link that leads nowhere, or to itself, is no folder."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _table_path(relative: bytes) -> str:
    r"""Return the path as the tables have it: UTF-8, undecodable bytes written ``\xNN``."""
    return relative.decode("utf-8", errors="backslashreplace")


_RAVDESS_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)\.\w+")
_RAVDESS_MODALITY = {"01": "audio-video", "02": "video", "03": "audio"}
_RAVDESS_VOCAL_CHANNEL = {"01": "speech", "02": "song"}
_RAVDESS_EMOTION = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
_RAVDESS_INTENSITY = {"01": "normal", "02": "strong"}
_RAVDESS_STATEMENT = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_RAVDESS_ACTORS = 24


def parse_name(name: str) -> Metadata | None:
    """Read what a RAVDESS file name says.

    Seven two-digit codes: modality, vocal channel, emotion, intensity, statement, repetition, actor
    (Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391). Odd actors are male.

    Parameters
    ----------
    name
        File name without folders, such as ``03-01-06-01-02-01-12.wav``.

    Returns
    -------
    Metadata or None
        None where the name is not RAVDESS, impossible codes (emotion 09, actor 25) included.

    Examples
    --------
    >>> parse_name("03-01-06-01-02-01-12.wav").emotion
    'fearful'
    >>> parse_name("03-01-09-01-02-01-12.wav") is None
    True
    """
    match = _RAVDESS_NAME.fullmatch(name)
    if match is None or not name.isascii():
        return None
    modality, vocal_channel, emotion, intensity, statement, repetition, actor_code = match.groups()
    actor = int(actor_code)
    if (
        modality not in _RAVDESS_MODALITY
        or vocal_channel not in _RAVDESS_VOCAL_CHANNEL
        or emotion not in _RAVDESS_EMOTION
        or intensity not in _RAVDESS_INTENSITY
        or statement not in _RAVDESS_STATEMENT
        or repetition not in ("01", "02")
        or not 1 <= actor <= _RAVDESS_ACTORS
    ):
        return None
    return Metadata(
        corpus="ravdess",
        modality=_RAVDESS_MODALITY[modality],
        vocal_channel=_RAVDESS_VOCAL_CHANNEL[vocal_channel],
        emotion=_RAVDESS_EMOTION[emotion],
        intensity=_RAVDESS_INTENSITY[intensity],
        statement=_RAVDESS_STATEMENT[statement],
        repetition=int(repetition),
        actor=actor,
        sex="male" if actor % 2 else "female",
        speaker=f"ravdess-{actor:02d}",
    )


_LABEL_COLUMNS = ("path", "emotion", "speaker", "channel", "start_s", "end_s")


@dataclasses.dataclass(frozen=True)
class Labels:
    """A labels file joined to a manifest.

    Parameters
    ----------
    recordings
        The manifest's recordings with their rows.
    warnings
        Sentences to tell: rows without a recording, recordings without a row, unknown columns.
    """

    recordings: tuple[Recording, ...]
    warnings: tuple[str, ...]


def join_labels(recordings: Iterable[Recording], labels: Path, *, timed: bool) -> Labels:
    """Join a labels file to recordings by path.

    Parameters
    ----------
    recordings
        Of the manifest.
    labels
        CSV or Parquet with the columns path and emotion, optionally speaker, channel, start_s, end_s (seconds).
        Where emotion or speaker is empty, what the file name says stands.
    timed
        Whether segments follow the file's times; where they do not, rows with times are refused.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or a row cannot be used; the message names the row.
    """
    recordings = tuple(recordings)
    rows: dict[str, list[LabelRow]] = {}
    columns, table = _read_rows(labels)
    missing = [name for name in ("path", "emotion") if name not in columns]
    if missing:
        raise InputError(f"{labels}: no column {missing[0]}; it has {', '.join(columns)}; expected path, emotion")
    known = {recording.path for recording in recordings}
    for number, row in table:
        path, label = _label_row(labels, number, row, known)
        if not timed and label.start_s is not None:
            raise InputError(
                f"{labels}, row {number}: start_s is given, but segments do not follow the file; "
                "add --segments labels, or remove start_s and end_s"
            )
        # a row without a channel is about all of them
        if not timed and any(
            label.channel == other.channel or None in (label.channel, other.channel) for other in rows.get(path, [])
        ):
            raise InputError(f"{labels}, row {number}: a second row for {path}; one row a recording and channel")
        rows.setdefault(path, []).append(label)
    warnings = []
    unknown = [name for name in columns if name not in _LABEL_COLUMNS]
    if unknown:
        warnings.append(f"{labels}: columns not used: {', '.join(unknown)} (known: {', '.join(_LABEL_COLUMNS)})")
    warnings += _some(
        labels,
        [path for path in rows if path not in known],
        "row paths name no recording (paths are relative to the root, with /)",
    )
    warnings += _some(
        labels,
        [path for path in (recording.path for recording in recordings) if path not in rows],
        "recordings have no row",
    )
    joined = tuple(
        dataclasses.replace(recording, labels=tuple(rows.get(recording.path, ()))) for recording in recordings
    )
    return Labels(joined, tuple(warnings))


def _read_rows(labels: Path) -> tuple[list[str], Iterator[tuple[int, Mapping[str, Any]]]]:
    """Open a labels file; return its column names and its rows, numbered as `_label_row` tells them."""
    if labels.suffix.lower() == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(labels)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{labels}: cannot be read as Parquet ({error})") from error
        return table.column_names, enumerate(table.to_pylist(), start=1)
    try:
        # utf-8-sig: spreadsheets put a mark before the first column's name
        text = labels.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{labels}: cannot be read as CSV in UTF-8 ({error})") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = list(reader.fieldnames or [])
    except csv.Error as error:
        raise InputError(f"{labels}, row 1: cannot be read as CSV ({error})") from error
    return columns, _csv_rows(labels, reader)


def _csv_rows(labels: Path, reader: "csv.DictReader[str]") -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield rows with the number of the line they end on."""
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"{labels}, row {reader.line_num}: cannot be read as CSV ({error}); is a quote left open?"
        ) from error


def _label_row(labels: Path, number: int, row: Mapping[str, Any], known: Container[str]) -> tuple[str, LabelRow]:
    """Check one row of a labels file.

    `number` is the line of a CSV file, the header being 1, as editors count, or the row of a Parquet file from 1.
    A path may begin with spaces where one in `known` does.
    """
    where = f"{labels}, row {number}"
    if None in row:
        raise InputError(f"{where}: more cells than the header has columns; quote a path that holds a comma")
    path, emotion, speaker = (_text(row.get(name)) for name in ("path", "emotion", "speaker"))
    if path is None:
        raise InputError(f"{where}: path is empty; expected a path relative to the root")
    path = str(row["path"]) if str(row["path"]) in known else path
    if emotion is not None and (LABEL_PATTERN.fullmatch(emotion) is None or emotion in RESERVED_LABELS):
        raise InputError(
            f"{where}: emotion {emotion!r}; expected a lower-case word such as angry (a-z, 0-9, _), "
            f"and none of {', '.join(sorted(RESERVED_LABELS))}"
        )
    channel = _number(where, "channel", row.get("channel"))
    if channel is not None and (channel < -1 or channel != int(channel)):
        raise InputError(f"{where}: channel {channel:g}; expected -1 (the mean), 0, 1, ...")
    start_s, end_s = (_number(where, name, row.get(name)) for name in ("start_s", "end_s"))
    if (start_s is None) != (end_s is None):
        raise InputError(f"{where}: start_s and end_s go together; one of them is empty")
    if start_s is not None and end_s is not None and not 0 <= start_s < end_s:
        raise InputError(f"{where}: start_s {start_s:g}, end_s {end_s:g}; expected 0 <= start_s < end_s")
    return path, LabelRow(
        emotion=emotion,
        speaker=speaker,
        channel=None if channel is None else int(channel),
        start_s=start_s,
        end_s=end_s,
    )


def _text(value: object) -> str | None:
    """Return stripped text, or None where there is none."""
    text = "" if value is None else str(value).strip()
    return text or None


def _number(where: str, name: str, value: object) -> float | None:
    """Return a finite number, or None where the cell is empty."""
    text = _text(value)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InputError(f"{where}: {name} {text!r}; expected a number")
    return number


def _some(labels: Path, paths: list[str], what: str) -> list[str]:
    """Return a sentence with the count and the first few paths, or nothing."""
    if not paths:
        return []
    shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    return [f"{labels}: {len(paths)} {what}: {shown}"]
