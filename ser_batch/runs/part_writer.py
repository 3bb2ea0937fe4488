"""The Parquet files of one shard, written while its recordings are done."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError
from ser_batch.storage.atomic import atomic_path, remove_temporaries
from ser_batch.storage.paths import is_remote
from ser_batch.tables.parquet import part_writer, rows_table

# rows kept in memory before they go to the part; a recording with more is written piece by piece
ROWS_A_GROUP = 512
# what a stage makes of a recording: (table name, row) each
Rows = Iterator[tuple[str, Mapping[str, Any]]]
MAIN = ""  # the name of the table that makes up part-*.parquet; others stand below _meta/<name>/


def part_paths(folder: Path, tables: Iterable[str], name: str) -> dict[str, Path]:
    """Return where the rows of a shard go in a store, by table."""
    return {table: (folder / "_meta" / table if table else folder) / f"{name}.parquet" for table in tables}


def make_part_folders(folder: Path, tables: Iterable[str]) -> None:
    """Make the folders of the side tables."""
    # That of the store was there when the run began: where somebody removes it meanwhile it is not made again, half of
    # it, for the next run to take for something else.
    if is_remote(folder):
        return  # an object needs none
    for path in part_paths(folder, set(tables) - {MAIN}, "part").values():
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path.parent}: cannot be made ({error.strerror}); choose another place with --out"
            ) from error


def remove_parts(folder: Path, tables: Iterable[str], name: str) -> None:
    """Remove what a worker that died has left of a shard: its parts, and what it was writing, the ledger too."""
    for path in part_paths(folder, tables, name).values():
        path.unlink(missing_ok=True)
    remove_temporaries(folder, f"{name}.*")


class Parts:
    """The Parquet files of one shard: rows of finished recordings wait in memory until a group is full."""

    def __init__(self, folder: Path, schemas: Mapping[str, pa.Schema], name: str) -> None:
        self._stack = contextlib.ExitStack()
        self._paths = part_paths(folder, schemas, name)
        self._schemas = schemas
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._done: dict[str, list[Mapping[str, Any]]] = {table: [] for table in schemas}
        self._current: list[tuple[str, Mapping[str, Any]]] = []
        self._written_of_current = False

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *exception: Any) -> None:
        if exception[0] is not None:
            self._stack.__exit__(*exception)
            return
        with self._stack:
            for table in self._done:
                self._flush(table)

    def add(self, rows: Rows) -> tuple[Counter[str], float]:
        """Take all rows of one recording; return how many each table got, and the seconds of sound."""
        self._current, self._written_of_current = [], False
        seconds = beside_s = 0.0
        counts: Counter[str] = Counter()
        for table, row in rows:
            self._current.append((table, row))
            counts[table] += 1
            if table == MAIN:
                seconds = max(seconds, row["end_s"])
            else:
                beside_s = max(beside_s, row.get("duration_s") or 0.0)
            if len(self._current) >= ROWS_A_GROUP:
                self._written_of_current = True
                self._keep_current()
        self._keep_current()
        self._written_of_current = False  # what breaks before its first row must not be taken for this one
        return counts, seconds if counts[MAIN] else beside_s

    def forget(self) -> bool:
        """Drop the rows of the recording at hand; False where some are in the file already."""
        self._current = []
        return not self._written_of_current

    def _keep_current(self) -> None:
        for table, row in self._current:
            self._done[table].append(row)
            if len(self._done[table]) >= ROWS_A_GROUP:
                self._flush(table)
        self._current = []

    def _flush(self, table: str) -> None:
        if not self._done[table]:
            return
        if table not in self._writers:
            path = self._paths[table]
            temporary = self._stack.enter_context(atomic_path(path))
            self._writers[table] = self._stack.enter_context(part_writer(temporary, self._schemas[table]))
        rows = rows_table(self._done[table], self._schemas[table])
        self._done[table] = []
        try:
            self._writers[table].write_table(rows)
        except OSError as error:  # it is not the recording's fault
            raise OutputError(f"{self._paths[table]}: cannot be written ({error}); free some space") from error
