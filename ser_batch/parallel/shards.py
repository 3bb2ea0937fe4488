"""One shard: its part and its ledger entry, written by the worker that did it."""

import abc
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import threadpoolctl

from ser_batch.corpus import Recording, Reject
from ser_batch.errors import OutputError, RecordingError, SerBatchError, printable
from ser_batch.tables import (
    atomic_path,
    make_folder,
    part_writer,
    rows_table,
    write_json,
)

# rows kept in memory before they go to the part; a recording with more is written piece by piece
ROWS_A_GROUP = 512

# what a stage makes of a recording: (table name, row) each
Rows = Iterator[tuple[str, Mapping[str, Any]]]

MAIN = ""  # the name of the table that makes up part-*.parquet; others stand below _meta/<name>/


@dataclasses.dataclass(frozen=True)
class Shard:
    """Recordings that one worker does in one go; `name` is that of the part."""

    name: str
    recordings: tuple[Recording, ...]


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What comes back from a worker: counts, never rows."""

    n_recordings: int
    n_rows: int
    n_rejects: int
    audio_s: float


class Work(abc.ABC):
    """What a stage does; sent to the workers, so small and without open files.

    Subclasses have `folder`, that of the store, and `schemas` by table name, `MAIN` for the parts.
    """

    folder: Path
    schemas: Mapping[str, pa.Schema]

    @abc.abstractmethod
    def rows(self, recording: Recording, content_hash: str) -> Rows:
        """Yield the rows of one recording as they are ready; columns left out are null."""

    def __call__(self, shard: Shard) -> ShardSummary:
        """Do a shard: write its part, then its ledger entry."""
        parent = multiprocessing.parent_process()
        if parent is not None:
            # Ctrl-C reaches every process of the terminal; only the first one decides what to do
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _end_with(parent.pid)
        with threadpoolctl.threadpool_limits(1):
            return _ShardRun(self, shard).run()


@functools.lru_cache(maxsize=1)
def _end_with(parent: int | None) -> None:
    """Let this worker end soon after the process that started it, however that one ended, and if it has already."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # no clean-up: the parts are whole or absent, and nobody waits for the rest

    threading.Thread(target=watch, daemon=True, name="ser-batch-parent-watch").start()


class _ShardRun:
    """One shard being done."""

    def __init__(self, work: Work, shard: Shard) -> None:
        self._work, self._shard = work, shard
        self._rejects: dict[str, Reject] = {}

    def run(self) -> ShardSummary:
        """Write the part and the ledger entry.

        A recording that breaks after some of its rows went to the part is left out in another attempt: its rows
        cannot be taken back from the file.
        """
        while True:
            try:
                return self._attempt()
            except _WrittenInPartError as broken:
                self._rejects[broken.reject.path] = broken.reject

    def _attempt(self) -> ShardSummary:
        started = time.monotonic()
        entries: list[dict[str, Any]] = []
        n_rows, audio_s = 0, 0.0
        with _Parts(self._work, self._shard.name) as parts:
            for recording in self._shard.recordings:
                content_hash, seconds = None, 0.0
                counts: Counter[str] = Counter()
                try:
                    content_hash = content_hash_of(recording)
                    if recording.path not in self._rejects:
                        counts, seconds = parts.add(self._work.rows(recording, content_hash))
                except RecordingError as error:
                    self._reject(recording, error.stage, error, parts)
                except (SerBatchError, pa.ArrowException, MemoryError):
                    raise  # the output, the model or the machine is at fault, not the recording
                except Exception as error:  # whatever a decoder thinks up costs its recording, not the run
                    self._reject(recording, "worker", error, parts)
                n_rows, audio_s = n_rows + counts[MAIN], audio_s + seconds
                entries.append(
                    {
                        "path": recording.path,
                        "size": recording.size,
                        "mtime_ns": recording.mtime_ns,
                        "content_hash": content_hash,
                        "rows": counts[MAIN],
                        "side_rows": {table: count for table, count in counts.items() if table != MAIN},
                        "audio_s": seconds,
                        "labels": labels_digest(recording),
                        "cuts": cuts_digest(recording),
                    }
                )
        rejects = [dataclasses.asdict(reject) for reject in self._rejects.values()]
        write_ledger(
            self._work.folder,
            self._shard.name,
            {
                "rows": n_rows,
                "seconds": time.monotonic() - started,
                "recordings": entries,
                "rejects": rejects,
            },
        )
        return ShardSummary(len(entries), n_rows, len(rejects), audio_s)

    def _reject(self, recording: Recording, stage: str, error: Exception, parts: "_Parts") -> None:
        message = str(error) or type(error).__name__
        if not isinstance(error, RecordingError):
            message = f"{printable(recording.path)}: {message}; replace the file or remove it"
        reject = Reject(recording.path, stage, type(error).__name__, message)
        if not parts.forget():
            raise _WrittenInPartError(reject) from error
        self._rejects[recording.path] = reject


class _WrittenInPartError(Exception):
    """A recording broke after some of its rows were written."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.message)
        self.reject = reject


class _Parts:
    """The Parquet files of one shard: rows of finished recordings wait in memory until a group is full."""

    def __init__(self, work: Work, name: str) -> None:
        self._stack = contextlib.ExitStack()
        self._paths = {
            table: (work.folder / "_meta" / table if table else work.folder) / f"{name}.parquet"
            for table in work.schemas
        }
        self._schemas = work.schemas
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._done: dict[str, list[Mapping[str, Any]]] = {table: [] for table in work.schemas}
        self._current: list[tuple[str, Mapping[str, Any]]] = []
        self._written_of_current = False

    def __enter__(self) -> "_Parts":
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
            make_folder(path.parent)
            temporary = self._stack.enter_context(atomic_path(path))
            self._writers[table] = self._stack.enter_context(part_writer(temporary, self._schemas[table]))
        rows = rows_table(self._done[table], self._schemas[table])
        self._done[table] = []
        try:
            self._writers[table].write_table(rows)
        except OSError as error:  # it is not the recording's fault
            raise OutputError(f"{self._paths[table]}: cannot be written ({error}); free some space") from error


def content_hash_of(recording: Recording) -> str:
    """Return the SHA-256 of a file's bytes, hex."""
    try:
        with open(recording.file, "rb") as stream:  # noqa: PTH123 - pathlib knows no bytes
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); change its permissions or remove it"
        raise RecordingError("open", f"{recording.path}: {reason}") from error


def labels_digest(recording: Recording) -> str:
    """Return a hash of what the labels file says of a recording; empty where it says nothing."""
    if not recording.labels:
        return ""
    return _digest([dataclasses.astuple(label) for label in recording.labels])


def cuts_digest(recording: Recording) -> str:
    """Return a hash of the channels and times that the labels file names for a recording; empty for none."""
    cuts = [(label.channel, label.start_s, label.end_s) for label in recording.labels]
    return _digest(cuts) if any(value is not None for cut in cuts for value in cut) else ""


def _digest(rows: list[tuple[Any, ...]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def write_ledger(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Write the ledger entry of a part, in one line: programs read it, and there is one for each shard."""
    write_json(folder / "_meta" / "ledger" / f"{name}.json", entry, indent=None)
