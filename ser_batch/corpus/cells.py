"""Tables that people make, CSV or Parquet, as rows of cells; and what a cell says."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import InputError

# the number of each row, and its cells by column; None as a column is what a row has beyond them
Rows = Iterator[tuple[int, Mapping[str, Any]]]

# what programs write where there is no value; in lower case, na, none and null are words and names
MISSING = frozenset(
    {
        *("nan", "NaN", "NAN", "-nan", "-NaN", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>"),
        *("NULL", "Null", "null", "None", "NaT", "-"),
    }
)
# how .xlsx, .ods and .numbers, which are zip files, and .xls begin
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_DELIMITERS = ",;\t|"
# the first line that some spreadsheets write or want
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[ \t]*(?:\r\n?|\n)', re.IGNORECASE)
_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n?|\n))*")
_LINE_END = re.compile(r"\r\n?|\n")
# the index of a frame of pandas, and what CSV makes of it
_INDEX_COLUMN = re.compile(r"|Unnamed: 0|__index_level_\d+__")


def read_table(file: Path) -> tuple[list[str], Rows]:
    """Open a table: its columns, and its rows but for blank ones.

    A row's number is the line of a CSV file that it ends on, the header being 1, as editors count, or the row of a
    Parquet file from 1.

    Raises
    ------
    InputError
        It cannot be read, or is empty; taking its rows raises it too.
    """
    columns, rows = _read_parquet(file) if file.suffix.lower() == ".parquet" else _read_csv(file)
    twice = next((name for name in columns if columns.count(name) > 1 and not is_index(name)), None)
    if twice is not None:
        raise InputError(f"{file}: it has two columns {twice}; remove one of them")
    return columns, ((number, row) for number, row in rows if any(cell_text(cell) for cell in row.values()))


def is_index(column: str) -> bool:
    """Return whether a column is the index of a frame that somebody wrote with it."""
    return _INDEX_COLUMN.fullmatch(column) is not None


def cell_text(value: object) -> str | None:
    """Return the text of a cell without the spaces around it; None where it stands for no value."""
    text = "" if value is None else str(value).strip()
    if text and text[0] not in "-0123456789" and text not in MISSING:
        return text
    # pandas makes 1.0 of 1 where another row has no value
    text = text.partition(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text
    return None if text in MISSING else text or None


def _read_parquet(file: Path) -> tuple[list[str], Rows]:
    try:
        table = pq.read_table(file)
        rows = table.to_pylist()
    # ValueError: text that is no UTF-8, times that are none; the others: what pyarrow's parts raise
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as Parquet ({error})") from error
    return table.column_names, enumerate(rows, start=1)


def _read_csv(file: Path) -> tuple[list[str], Rows]:
    try:
        data = file.read_bytes()
        if data.startswith(_SPREADSHEETS):
            raise InputError(f"{file}: is a spreadsheet, and CSV or Parquet is expected; save it as CSV")
        # spreadsheets put a mark before the first column's name
        is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as CSV in UTF-8 ({error})") from error
    separator = _SEPARATOR_LINE.match(text)
    start = _BLANK_LINES.match(text, separator.end() if separator else 0)
    assert start is not None  # it matches nothing, too
    n_before, text = len(_LINE_END.findall(text[: start.end()])), text[start.end() :]
    if not text:
        raise InputError(f"{file}: it is empty; expected columns in the first row, such as path,emotion")
    delimiter = separator[1] if separator else _delimiter_of(_LINE_END.split(text, maxsplit=1)[0])
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise InputError(f"{file}, row {n_before + 1}: cannot be read as CSV ({error})") from error
    return list(reader.fieldnames), _csv_rows(file, reader, n_before)


def _delimiter_of(header: str) -> str:
    """Return what is between the cells: what makes the most of them of the first line."""
    return max(_DELIMITERS, key=header.count)


def _csv_rows(file: Path, reader: "csv.DictReader[str]", n_before: int) -> Rows:
    try:
        for row in reader:
            yield n_before + reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"{file}, row {n_before + reader.line_num}: cannot be read as CSV ({error}); is a quote left open?"
        ) from error
