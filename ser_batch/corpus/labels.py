"""The labels file: emotions, speakers, channels and times that names do not tell."""

import csv
import dataclasses
import io
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_batch.corpus.records import LabelRow, Recording
from ser_batch.errors import InputError

LABEL_PATTERN = re.compile(r"[a-z][a-z0-9_]*")

# rows of a report are named by label; these three names are its summary rows
RESERVED_LABELS = frozenset({"accuracy", "macro_avg", "weighted_avg"})

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


def join_labels(recordings: Iterable[Recording], labels: Path, *, timed: bool, cut: bool | None = None) -> Labels:
    """Join a labels file to recordings by path.

    Parameters
    ----------
    recordings
        Of the manifest.
    labels
        CSV or Parquet with the columns path and emotion, optionally speaker, channel, start_s, end_s (seconds).
        Where emotion or speaker is empty, what the file name says stands.
    timed
        Whether rows may have times; where they may not, such rows are refused.
    cut
        Whether segments are cut at the rows, so that a recording may have any number of them; None stands for `timed`.
        Where they are not, rows without times, which are about all of it, are one a recording and channel.

    Raises
    ------
    InputError
        The file cannot be read, lacks a column, or a row cannot be used; the message names the row.
    """
    recordings = tuple(recordings)
    cut = timed if cut is None else cut
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
                f"{labels}, row {number}: start_s is given, but a clip is labelled as a whole; "
                "add --segments labels or windows, or remove start_s and end_s"
            )
        if not cut and any(_are_about_the_same(label, other) for other in rows.get(path, [])):
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


def _are_about_the_same(one: LabelRow, other: LabelRow) -> bool:
    """Whether two rows are about all of the same channel; one without a channel is about all of them."""
    return (
        one.start_s is None
        and other.start_s is None
        and (one.channel == other.channel or None in (one.channel, other.channel))
    )


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
