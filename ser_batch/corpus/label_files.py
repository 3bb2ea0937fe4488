"""Open a labels file, CSV or Parquet; a table of a known publisher is turned into one."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_batch.corpus.publisher_tables import LabelTable, RecordingsByName, delimiter_of, publisher_table
from ser_batch.corpus.records import Recording
from ser_batch.errors import InputError

Rows = Iterator[tuple[int, Mapping[str, Any]]]


def read_rows(labels: Path, recordings: Sequence[Recording]) -> tuple[list[str], Rows]:
    """Open a labels file.

    Parameters
    ----------
    labels
        The file.
    recordings
        Those that a publisher's table names by their file names.

    Returns
    -------
    list and iterator
        Names of the columns; rows by column, numbered by the line of a CSV file that they end on, the header being 1,
        or by the row of a Parquet file from 1.

    Raises
    ------
    InputError
        The file cannot be read; while rows are read, a row that cannot be.
    """
    columns, delimiter, rows = _read_parquet(labels) if labels.suffix.lower() == ".parquet" else _read_csv(labels)
    table = None if "path" in columns else publisher_table(columns, delimiter)
    if table is None:
        return columns, rows
    return ["path", "emotion", "speaker", "statement", "sex", "corpus"], _translated(labels, table, rows, recordings)


def _translated(labels: Path, table: LabelTable, rows: Rows, recordings: Sequence[Recording]) -> Rows:
    by_name = RecordingsByName(recordings)
    for number, row in rows:
        # more cells than columns: whoever checks the row refuses it
        if None in row:
            yield number, row
        else:
            yield number, {"path": by_name.path_of(table, row, f"{labels}, row {number}"), **table.labels(row)}


def _read_parquet(labels: Path) -> tuple[list[str], str, Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(labels)
        rows = table.to_pylist()
    # ValueError: text that is no UTF-8, times that are none; the others: what pyarrow's parts raise
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        raise InputError(f"{labels}: cannot be read as Parquet ({error})") from error
    return table.column_names, ",", enumerate(rows, start=1)


def _read_csv(labels: Path) -> tuple[list[str], str, Rows]:
    try:
        # utf-8-sig: spreadsheets put a mark before the first column's name
        text = labels.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{labels}: cannot be read as CSV in UTF-8 ({error})") from error
    delimiter = delimiter_of(text.partition("\n")[0])
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = list(reader.fieldnames or [])
    except csv.Error as error:
        raise InputError(f"{labels}, row 1: cannot be read as CSV ({error})") from error
    return columns, delimiter, _csv_rows(labels, reader)


def _csv_rows(labels: Path, reader: "csv.DictReader[str]") -> Rows:
    """Yield rows with the number of the line they end on."""
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"{labels}, row {reader.line_num}: cannot be read as CSV ({error}); is a quote left open?"
        ) from error
