"""Labels files, CSV or Parquet, and tables of known publishers, joined to recordings."""

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_batch.corpus.cells import MISSING, Rows, cell_text, is_index, read_table
from ser_batch.corpus.known_corpora import CORPORA
from ser_batch.corpus.label_paths import LabelPaths
from ser_batch.corpus.manifest import LABEL_COLUMNS, LabelRow, Recording
from ser_batch.corpus.publisher_tables import LabelTable, RecordingsByName, publisher_table
from ser_batch.errors import InputError
from ser_batch.tables.schemas import LABEL_PREFIX


def _read_labels(labels: Path, recordings: Sequence[Recording]) -> tuple[list[str], Rows]:
    """Open a labels file; the table of a publisher as the labels file that it stands for."""
    columns, rows = read_table(labels)
    names = {column: _column(column, columns) for column in columns}
    table = None if "path" in names.values() else publisher_table(columns)
    if table is not None:
        return ["path", *LABEL_COLUMNS], _translated(labels, table, rows, recordings)
    found = [names[column] for column in columns]
    twice = next((name for name in found if found.count(name) > 1 and not is_index(name)), None)
    if twice is not None:
        raise InputError(f"{labels}: it has two columns {twice}; remove one of them")
    if found == columns:
        return found, rows
    return found, ((number, {names.get(column, column): cell for column, cell in row.items()}) for number, row in rows)


def _column(name: str, columns: Sequence[str]) -> str:
    """Return the name of a column as we spell it, unless another one is spelled so."""
    ours = name.strip().lower()
    is_ours = ours in _LABEL_COLUMNS or ours.startswith(LABEL_PREFIX)
    return ours if is_ours and ours not in columns else name


def _translated(labels: Path, table: LabelTable, rows: Rows, recordings: Sequence[Recording]) -> Rows:
    by_name = RecordingsByName(recordings)
    for number, row in rows:
        # more cells than columns: whoever checks the row refuses it
        if None in row:
            yield number, row
        else:
            yield number, {"path": by_name.path_of(table, row, f"{labels}, row {number}"), **table.labels(row)}


LABEL_PATTERN = re.compile(r"[a-z][a-z0-9_]*")
# the summary rows of a report, whose other rows are named by label
RESERVED_LABELS = frozenset({"accuracy", "macro_avg", "weighted_avg"})
# the labels of the known corpora
OUR_LABELS = sorted({label for corpus in CORPORA.values() for label in corpus.meanings["emotion"].values() if label})
_EXPECTED_LABEL = f"a lower-case word such as angry (a-z, 0-9, _), and none of {', '.join(sorted(RESERVED_LABELS))}"
_LABEL_COLUMNS = ("path", *LABEL_COLUMNS, "channel", "start_s", "end_s")
# the table's channels are 16-bit integers; and no recording lasts decades
_MAX_CHANNELS, _LONGEST_S = 2**15, 1e9
# the pattern and description of columns that do not hold any text
_TEXTS = {
    "sex": (re.compile("male|female"), "male or female"),
    "intensity": (LABEL_PATTERN, "a lower-case word such as strong"),
    "corpus": (re.compile("[a-z0-9][a-z0-9_-]*"), "a lower-case name such as ravdess"),
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """A labels file joined to a manifest."""

    recordings: tuple[Recording, ...]  # the manifest's recordings with their rows
    warnings: tuple[str, ...]  # of rows without a recording, recordings without a row, unknown columns, empty votes
    voted: tuple[str, ...] = ()  # the labels that the file has votes of, sorted; empty where it has none


def join_labels(recordings: Iterable[Recording], labels: Path, *, timed: bool, cut: bool | None = None) -> Labels:
    """Join a labels file to recordings by path.

    Parameters
    ----------
    recordings
        Of the manifest.
    labels
        CSV or Parquet with the columns path and emotion, optionally speaker, sex, intensity, statement, corpus,
        channel, start_s, end_s (seconds), and ``p_<label>``: the votes or shares of listeners, which become shares
        that sum to 1. Where a cell is empty, what the file name says stands; an empty emotion beside votes is the
        one of most votes. With columns of votes, emotion may be left out. Or a table that the publisher of a known
        corpus made, see `LabelTable`.
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
    columns, table = _read_labels(labels, recordings)
    voted = _voted_labels(labels, columns)
    missing = [name for name in ("path", "emotion") if name not in columns and not (voted and name == "emotion")]
    if missing:
        has = ", ".join(name or "one without a name" for name in columns)
        raise InputError(f"{labels}: no column {missing[0]}; it has {has}; expected path, emotion")
    paths = LabelPaths(recordings)
    without_votes: list[str] = []
    tied: list[str] = []
    missing_words: Counter[tuple[str, str]] = Counter()
    for number, path, said in _said(labels, table, columns, paths, voted):
        label = said.label
        if not timed and label.start_s is not None:
            raise InputError(
                f"{labels}, row {number}: start_s is given, but a clip is labelled as a whole; "
                "add --segments labels or windows, or remove start_s and end_s"
            )
        if not cut and any(_are_about_the_same(label, other) for other in rows.get(path, [])):
            raise InputError(f"{labels}, row {number}: a second row for {path}; one row a recording and channel")
        rows.setdefault(path, []).append(label)
        if label.votes and label.emotion is None:
            tied.append(path)
        elif said.has_zeros:
            without_votes.append(path)
        missing_words.update(said.missing)
    unmatched = [path for path in rows if path not in paths]
    if recordings and len(unmatched) == len(rows):
        raise InputError(f"{labels}: {_why_nothing_matches(unmatched, paths, recordings)}")
    warnings = [*_likely_slips(labels, rows)]
    used = {*_LABEL_COLUMNS, *(LABEL_PREFIX + label for label in voted)}
    unknown = [name for name in columns if name not in used and not is_index(name)]
    if unknown:
        known_columns = ", ".join((*_LABEL_COLUMNS, f"{LABEL_PREFIX}<label>"))
        warnings.append(f"{labels}: columns not used: {', '.join(unknown)} (known: {known_columns})")
    warnings += [
        f"{labels}: {n} cells of {name} are {word}, which is read as missing"
        for (name, word), n in sorted(missing_words.items())
    ]
    warnings += _some(labels, without_votes, "rows have votes that sum to 0, which say nothing")
    warnings += _some(labels, tied, "rows have no emotion and votes that are tied, so theirs is unknown")
    advice = paths.advice(unmatched)
    warnings += [
        warning + (f"; {advice}" if advice else "")
        for warning in _some(labels, unmatched, "row paths name no recording (paths are relative to the root, with /)")
    ]
    unlabeled = [recording.path for recording in recordings if recording.path not in rows]
    warnings += _some(labels, unlabeled, "recordings have no row")
    joined = tuple(
        dataclasses.replace(recording, labels=own)
        if (own := tuple(rows.get(recording.path, ()))) or recording.labels
        else recording
        for recording in recordings
    )
    return Labels(joined, tuple(warnings), voted)


def _why_nothing_matches(unmatched: Sequence[str], paths: LabelPaths, recordings: Sequence[Recording]) -> str:
    if not unmatched:
        return "it has no rows below its columns; expected one for each recording"
    advice = paths.advice(unmatched)
    return f"none of its {len(unmatched)} paths names a recording. " + (
        f"{advice[0].upper()}{advice[1:]}"
        if advice
        else f"The first is {unmatched[0]!r}, a recording is {recordings[0].path!r}; expected paths relative to the "
        "folder that is walked, with /"
    )


def _likely_slips(labels: Path, rows: Mapping[str, Iterable[LabelRow]]) -> Iterator[str]:
    """Give a sentence for each emotion that is spelled nearly as one of ours: a label of its own, or a slip."""
    counts = Counter(row.emotion for of_path in rows.values() for row in of_path if row.emotion is not None)
    for emotion, n in sorted(counts.items()):
        # "sadness" is a word of its own, "angy" and "surprise" are not
        near = [] if emotion in OUR_LABELS else difflib.get_close_matches(emotion, OUR_LABELS, n=1, cutoff=0.85)
        if near:
            yield f"{labels}: {n} rows have the emotion {emotion}; did you mean {near[0]}? It is taken as it stands"


def _voted_labels(labels: Path, columns: Iterable[str]) -> tuple[str, ...]:
    """Return the labels that a file has columns of votes for, sorted."""
    voted = {name.removeprefix(LABEL_PREFIX) for name in columns if name.startswith(LABEL_PREFIX)}
    for name in sorted(voted):
        if not is_label(name):
            raise InputError(
                f"{labels}, row 1: column {LABEL_PREFIX}{name}; after {LABEL_PREFIX} expected {_EXPECTED_LABEL}"
            )
    return tuple(sorted(voted))


def _are_about_the_same(one: LabelRow, other: LabelRow) -> bool:
    """Whether two rows are about all of the same channel; one without a channel is about all of them."""
    return (
        one.start_s is None
        and other.start_s is None
        and (one.channel == other.channel or None in (one.channel, other.channel))
    )


@dataclasses.dataclass(frozen=True)
class _Said:
    """What the cells of a row say, but for its path."""

    label: LabelRow
    missing: tuple[tuple[str, str], ...]  # columns whose cells stand for no value, and their words
    has_zeros: bool  # whether there are votes, and all are 0


def _said(
    labels: Path, table: Rows, columns: Sequence[str], paths: LabelPaths, voted: Iterable[str]
) -> Iterator[tuple[int, str, _Said]]:
    """Yield number, path and the rest of each row; rows whose texts are the same are read once."""
    names = [name for name in dict.fromkeys(columns) if name in _LABEL_COLUMNS[1:] or name.startswith(LABEL_PREFIX)]
    read: dict[tuple[Any, ...], _Said] = {}
    for number, row in table:
        path = _path(labels, number, row, paths)
        key = tuple([row.get(name) for name in names])
        is_text = all(cell is None or type(cell) is str for cell in key)  # not 1, 1.0 and True, which are equal
        said = read.get(key) if is_text else None
        if said is None:
            label = _label_row(labels, number, row, voted)
            cells = ((name, str(row.get(name) or "").strip()) for name in LABEL_COLUMNS)
            missing = tuple(cell for cell in cells if cell[1] in MISSING and not isinstance(row[cell[0]], float))
            has_zeros = not label.votes and any(cell_text(row.get(LABEL_PREFIX + name)) for name in voted)
            said = _Said(label, missing, has_zeros)
            if is_text:
                read[key] = said
        yield number, path, said


def _path(labels: Path, number: int, row: Mapping[str, Any], paths: LabelPaths) -> str:
    """Return the recording that a row is about."""
    where = f"{labels}, row {number}"
    if None in row:
        raise InputError(
            f"{where}: more cells than the header has columns; quote cells that hold what is between cells"
        )
    if cell_text(row.get("path")) is None:
        raise InputError(f"{where}: path is empty; expected a path relative to the root")
    return paths.path_of(str(row["path"]))


def _label_row(labels: Path, number: int, row: Mapping[str, Any], voted: Iterable[str]) -> LabelRow:
    """Check what one row of a labels file says."""
    where = f"{labels}, row {number}"
    said = {name: cell_text(row.get(name)) for name in LABEL_COLUMNS}
    texts = said | {name: text.lower() for name in ("emotion", *_TEXTS) if (text := said[name])}
    if texts["emotion"] is not None and not is_label(texts["emotion"]):
        raise InputError(f"{where}: emotion {said['emotion']!r}; expected {_EXPECTED_LABEL}")
    for name, (pattern, expected) in _TEXTS.items():
        text = texts[name]
        if text is not None and pattern.fullmatch(text) is None:
            raise InputError(f"{where}: {name} {said[name]!r}; expected {expected}")
    channel = _number(where, "channel", row.get("channel"))
    if channel is not None and (not -1 <= channel < _MAX_CHANNELS or channel != int(channel)):
        raise InputError(f"{where}: channel {channel:g}; expected -1 (the mean), 0, 1, ...")
    start_s, end_s = (_number(where, name, row.get(name)) for name in ("start_s", "end_s"))
    if (start_s is None) != (end_s is None):
        raise InputError(f"{where}: start_s and end_s go together; one of them is empty")
    if end_s is not None and end_s > _LONGEST_S:
        raise InputError(f"{where}: end_s {end_s:g}; expected seconds, at most {_LONGEST_S:g}")
    if start_s is not None and end_s is not None and not 0 <= start_s < end_s:
        raise InputError(f"{where}: start_s {start_s:g}, end_s {end_s:g}; expected 0 <= start_s < end_s")
    votes = _votes(where, row, voted)
    if votes and texts["emotion"] is None:
        texts["emotion"] = _most_voted(votes)
    return LabelRow(
        **texts, channel=None if channel is None else int(channel), start_s=start_s, end_s=end_s, votes=_shares(votes)
    )


def is_label(text: str) -> bool:
    """Return whether a word may be an emotion of the tables."""
    return LABEL_PATTERN.fullmatch(text) is not None and text not in RESERVED_LABELS


def _votes(where: str, row: Mapping[str, Any], voted: Iterable[str]) -> dict[str, float]:
    """Return the votes of a row by label, an empty cell being 0; nothing where all are 0."""
    votes = {label: _number(where, LABEL_PREFIX + label, row.get(LABEL_PREFIX + label)) or 0.0 for label in voted}
    for label, n in votes.items():
        if n < 0:
            raise InputError(f"{where}: {LABEL_PREFIX}{label} {n:g}; expected votes or a share, 0 or more")
    return votes if any(votes.values()) else {}


def _most_voted(votes: Mapping[str, float]) -> str | None:
    """Return the label of most votes; None where several have as many."""
    first, *others = sorted(votes, key=lambda label: votes[label], reverse=True)
    return None if others and votes[others[0]] == votes[first] else first


def _shares(votes: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    largest = max(votes.values(), default=0.0)
    parts = {label: n / largest for label, n in votes.items()}  # first, so that no sum is infinite
    total = sum(parts.values())
    return tuple((label, part / total) for label, part in parts.items())


def _number(where: str, name: str, value: object) -> float | None:
    """Return a finite number, or None where the cell is empty."""
    text = cell_text(value)
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
