"""Shards over worker processes: each writes its own part, a ledger remembers what is done.

A store is a folder that a stage writes to::

    part-000001.parquet           rows of the first shard, written by the worker that made them
    _meta/run.json                what the run was: another root, spec or option that changes values is refused
    _meta/ledger/part-000001.json written after its part: the recordings that are done, the rejects
    _meta/rejects.parquet         of all ledgers together, written when the run ends

A part without its ledger entry is as good as not there; so a run that was stopped anywhere goes on.
"""

import abc
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import threadpoolctl

from ser_batch.config import RunOptions
from ser_batch.corpus import Recording, Reject
from ser_batch.errors import OutputError, RecordingError, SerBatchError, printable
from ser_batch.tables import (
    REJECTS,
    atomic_path,
    make_folder,
    part_writer,
    remove_temporaries,
    rows_table,
    write_json,
    write_table,
)

# rows kept in memory before they go to the part; a recording with more is written piece by piece
ROWS_A_GROUP = 512
# a shard is full at this many bytes of recordings, so that hours-long calls do not wait for one worker
BYTES_A_SHARD = 256 * 2**20
SECONDS_BETWEEN_LINES = 10.0

# what a stage does with a recording: (recording, content hash) -> pieces (table name, rows)
Tables = Iterator[tuple[str, pa.Table]]
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
    def tables(self, recording: Recording, content_hash: str) -> Tables:
        """Yield the rows of one recording, piece by piece."""

    def __call__(self, shard: Shard) -> ShardSummary:
        """Do a shard: write its part, then its ledger entry."""
        if multiprocessing.parent_process() is not None:
            # Ctrl-C reaches every process of the terminal; only the first one decides what to do
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with threadpoolctl.threadpool_limits(1):
            return _ShardRun(self, shard).run()


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
                content_hash, rows, seconds = None, 0, 0.0
                try:
                    content_hash = _content_hash(recording)
                    if recording.path not in self._rejects:
                        rows, seconds = parts.add(self._work.tables(recording, content_hash))
                except RecordingError as error:
                    self._reject(recording, error.stage, error, parts)
                except (SerBatchError, pa.ArrowException):
                    raise  # the output or the model is at fault, not the recording
                except Exception as error:  # whatever a decoder thinks up costs its recording, not the run
                    self._reject(recording, "worker", error, parts)
                n_rows, audio_s = n_rows + rows, audio_s + seconds
                entries.append(
                    {
                        "path": recording.path,
                        "size": recording.size,
                        "mtime_ns": recording.mtime_ns,
                        "content_hash": content_hash,
                        "rows": rows,
                        "audio_s": seconds,
                        "labels": labels_digest(recording),
                        "cuts": cuts_digest(recording),
                    }
                )
        rejects = [dataclasses.asdict(reject) for reject in self._rejects.values()]
        write_json(
            _ledger_path(self._work.folder, self._shard.name),
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
        self._done: dict[str, list[pa.Table]] = {table: [] for table in work.schemas}
        self._current: list[tuple[str, pa.Table]] = []
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

    def add(self, tables: Tables) -> tuple[int, float]:
        """Take all rows of one recording; return the rows of the part and the seconds of sound."""
        self._current, self._written_of_current = [], False
        n_rows, seconds = 0, 0.0
        for table, rows in tables:
            self._current.append((table, rows))
            if not table:
                n_rows += rows.num_rows
                seconds = max(seconds, _last_second(rows))
            if sum(rows.num_rows for _, rows in self._current) >= ROWS_A_GROUP:
                self._written_of_current = True
                self._keep_current()
        self._keep_current()
        return n_rows, seconds

    def forget(self) -> bool:
        """Drop the rows of the recording at hand; False where some are in the file already."""
        self._current = []
        return not self._written_of_current

    def _keep_current(self) -> None:
        for table, rows in self._current:
            self._done[table].append(rows)
            if sum(part.num_rows for part in self._done[table]) >= ROWS_A_GROUP:
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
        # one chunk a row group: the file is then the same however the rows came in
        rows = pa.concat_tables(self._done[table]).combine_chunks()
        try:
            self._writers[table].write_table(rows)
        except OSError as error:  # it is not the recording's fault
            raise OutputError(f"{self._paths[table]}: cannot be written ({error}); free some space") from error
        self._done[table] = []


def _last_second(rows: pa.Table) -> float:
    """Return the end of the last segment of a piece, in seconds; 0.0 where it has no rows."""
    return float(pc.max(rows["end_s"]).as_py() or 0.0)


def _content_hash(recording: Recording) -> str:
    """Return the SHA-256 of a file's bytes, hex."""
    try:
        with open(recording.file, "rb") as stream:  # noqa: PTH123 - pathlib knows no bytes
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RecordingError("open", f"{recording.path}: cannot be read ({error.strerror})") from error


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


def _ledger_path(folder: Path, name: str) -> Path:
    return folder / "_meta" / "ledger" / f"{name}.json"


class Store:
    """The output folder of a stage.

    Parameters
    ----------
    folder
        Made where it is not there.
    identity
        All that decides the values of the tables. A store made with another one is refused.
    overwrite
        Empty the store first.

    Raises
    ------
    OutputError
        The folder holds something else, belongs to another run, or cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        if os.fsencode(folder).decode("utf-8", errors="replace") != str(folder):
            raise OutputError(f"{folder}: the name is not UTF-8, which Parquet needs; choose another --out")
        self.folder = folder
        self._meta = folder / "_meta"
        run_file = self._meta / "run.json"
        is_ours = run_file.is_file() or (self._meta / "ledger").is_dir()
        if folder.is_dir() and any(folder.iterdir()) and not is_ours:
            raise OutputError(
                f"{folder}: holds something else than a run of ser-batch; choose another --out, or empty it"
            )
        if overwrite:
            self._clear()
        if run_file.is_file():
            self._refuse_other(json.loads(run_file.read_text(encoding="utf-8")), identity)
        make_folder(self._meta / "ledger")
        remove_temporaries(folder)
        if not run_file.is_file():
            write_json(run_file, identity)
        self._ledger = self._read_ledger()

    def plan(self, recordings: Iterable[Recording], *, prune: bool) -> "Plan":
        """Compare the recordings with what is done; rows of changed recordings leave the store.

        Parameters
        ----------
        recordings
            Of the manifest.
        prune
            Whether rows of recordings that are no longer there leave too.
        """
        recordings = tuple(recordings)
        done = {entry["path"]: entry for ledger in self._ledger.values() for entry in ledger["recordings"]}
        todo, relabel = [], []
        for recording in recordings:
            entry = done.get(recording.path)
            if entry is None or entry["cuts"] != cuts_digest(recording) or not _is_same(entry, recording):
                todo.append(recording)
            elif entry["labels"] != labels_digest(recording):
                relabel.append(recording)
        vanished = done.keys() - {recording.path for recording in recordings}
        self.drop({recording.path for recording in todo} | (vanished if prune else set()))
        return Plan(tuple(todo), tuple(relabel), len(recordings) - len(todo), len(vanished))

    def drop(self, paths: set[str]) -> None:
        """Take all rows of some recordings out of the parts.

        The ledger goes first: a part whose rows are not those of its ledger is done again by the next run.
        """
        for name, ledger in list(self._ledger.items()):
            kept = [entry for entry in ledger["recordings"] if entry["path"] not in paths]
            if len(kept) == len(ledger["recordings"]):
                continue
            ledger["recordings"] = kept
            ledger["rejects"] = [reject for reject in ledger["rejects"] if reject["path"] not in paths]
            ledger["rows"] = sum(entry["rows"] for entry in kept)
            write_json(_ledger_path(self.folder, name), ledger)
            for part in self._tables_of(name):
                self.rewrite(part, lambda table: table.filter(pc.invert(pc.is_in(table["path"], pa.array(paths)))))

    def relabel(self, recordings: Iterable[Recording], change: Callable[[pa.Table], pa.Table]) -> None:
        """Rewrite the parts that hold `recordings` by `change`, and note their labels as joined."""
        digests = {recording.path: labels_digest(recording) for recording in recordings}
        for name, ledger in self._ledger.items():
            if not any(entry["path"] in digests for entry in ledger["recordings"]):
                continue
            part = self.folder / f"{name}.parquet"
            if part.exists():
                self.rewrite(part, change)
            for entry in ledger["recordings"]:
                entry["labels"] = digests.get(entry["path"], entry["labels"])
            write_json(_ledger_path(self.folder, name), ledger)

    def rewrite(self, part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace a part by what `change` makes of it; an empty one is removed."""
        table = change(pq.ParquetFile(part).read())
        if table.num_rows:
            write_table(part, table)
        else:
            part.unlink()

    def shards(self, recordings: Iterable[Recording], options: RunOptions) -> list[Shard]:
        """Cut recordings into shards with names that no part has yet.

        Small runs are cut finer, so that every worker has something to do.
        """
        recordings = list(recordings)
        jobs = worker_count(options)
        size = min(options.shard_size, max(1, -(-len(recordings) // (2 * jobs))))
        number = max((int(name.removeprefix("part-")) for name in self._ledger), default=0)
        shards: list[Shard] = []
        group: list[Recording] = []
        for recording in recordings:
            if group and (len(group) >= size or sum(r.size for r in group) + recording.size > BYTES_A_SHARD):
                shards.append(Shard(f"part-{number + len(shards) + 1:06d}", tuple(group)))
                group = []
            group.append(recording)
        if group:
            shards.append(Shard(f"part-{number + len(shards) + 1:06d}", tuple(group)))
        return shards

    def finish(self, walk_rejects: Iterable[Reject]) -> "StoreSummary":
        """Write rejects.parquet of all that was rejected; return the counts of the whole store."""
        self._ledger = self._read_ledger()
        ledgers = self._ledger.values()
        rejects = [dataclasses.asdict(reject) for reject in walk_rejects]
        rejects += [reject for ledger in ledgers for reject in ledger["rejects"]]
        rejects.sort(key=lambda reject: reject["path"])
        write_table(self._meta / "rejects.parquet", rows_table(rejects, REJECTS))
        rejected = {reject["path"] for reject in rejects}
        entries = [entry for ledger in ledgers for entry in ledger["recordings"]]
        return StoreSummary(
            n_without_rows=sum(not entry["rows"] and entry["path"] not in rejected for entry in entries),
            n_recordings=sum(len(ledger["recordings"]) for ledger in ledgers),
            n_rows=sum(ledger["rows"] for ledger in ledgers),
            audio_s=sum(entry["audio_s"] for ledger in ledgers for entry in ledger["recordings"]),
            rejects=tuple(Reject(**reject) for reject in rejects),
        )

    def parts(self, table: str = MAIN) -> list[Path]:
        """Return the Parquet files of a table, in order."""
        return sorted((self._meta / table if table else self.folder).glob("part-*.parquet"))

    def _tables_of(self, name: str) -> list[Path]:
        return [*self.folder.glob(f"{name}.parquet"), *self._meta.glob(f"*/{name}.parquet")]

    def _read_ledger(self) -> dict[str, dict[str, Any]]:
        """Read all entries whose part is whole; remove what belongs to none."""
        ledger = {}
        for path in sorted((self._meta / "ledger").glob("part-*.json")):
            entry = json.loads(path.read_text(encoding="utf-8"))
            if entry["rows"] == _count_rows(self.folder / f"{path.stem}.parquet"):
                ledger[path.stem] = entry
        for part in [*self.parts(), *self._meta.glob("*/part-*.*")]:
            if part.stem not in ledger:
                part.unlink()
        return ledger

    def _clear(self) -> None:
        for part in self.parts():
            part.unlink()
        if self._meta.is_dir():
            shutil.rmtree(self._meta)

    def _refuse_other(self, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        before, now = _flat(found), _flat(json.loads(json.dumps(identity)))
        differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if differing:
            what = "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in differing)
            raise OutputError(
                f"{self.folder}: belongs to another run: {what}. Choose another --out, or give --overwrite to "
                "throw it away"
            )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run has to do: recordings to work on, to label anew, and how many are done or gone."""

    todo: tuple[Recording, ...]
    relabel: tuple[Recording, ...]
    n_done: int
    n_vanished: int


@dataclasses.dataclass(frozen=True)
class StoreSummary:
    """What a store holds in all; `n_without_rows` recordings had no channel or segment that was asked for."""

    n_recordings: int
    n_without_rows: int
    n_rows: int
    audio_s: float
    rejects: tuple[Reject, ...]


def _count_rows(part: Path) -> int | None:
    """Return the rows of a part: 0 where it is not there, None where it is broken."""
    try:
        return int(pq.read_metadata(part).num_rows)
    except FileNotFoundError:
        return 0
    except (OSError, pa.ArrowException):
        return None


def _is_same(entry: Mapping[str, Any], recording: Recording) -> bool:
    """Whether a recording is what the ledger remembers: size and time are the fast path, the hash decides.

    One that could not be read at all is tried again.
    """
    if entry["content_hash"] is None or entry["size"] != recording.size:
        return False
    if entry["mtime_ns"] == recording.mtime_ns:
        return True
    try:
        return bool(entry["content_hash"] == _content_hash(recording))
    except RecordingError:
        return False  # it is worked on again, and rejected there with its reason


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level, ``feature_spec.n_mels``."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def worker_count(options: RunOptions) -> int:
    """Return the number of worker processes: as asked for, else the cores this process may use."""
    return options.jobs or len(os.sched_getaffinity(0))


def run_shards(work: Work, shards: list[Shard], *, jobs: int, title: str) -> None:
    """Do all shards, showing progress on stderr.

    Parameters
    ----------
    work
        What is done with each.
    shards
        As `Store.shards` made them.
    jobs
        Worker processes; 1 is a plain loop in this process.
    title
        Of the progress bar.

    Raises
    ------
    KeyboardInterrupt
        Workers are gone within a second; finished shards stay.
    """
    n_files = sum(len(shard.recordings) for shard in shards)
    with _progress(title, n_files) as advance:
        for summary in _results(work, shards, min(jobs, len(shards))):
            advance(summary)


def _results(work: Work, shards: list[Shard], jobs: int) -> Iterator[ShardSummary]:
    if jobs <= 1:
        yield from map(work, shards)
        return
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        with _interrupt_held():
            # fork and threads do not go together (polars and JAX start threads); loky starts clean processes
            results = joblib.Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")(
                joblib.delayed(work)(shard) for shard in shards
            )
        yield from results
    except (Exception, KeyboardInterrupt) as error:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        remove_temporaries(work.folder)
        if isinstance(error, TerminatedWorkerError):
            raise SerBatchError(
                "a worker process was killed, perhaps because memory ran out; finished parts are kept. Run the same "
                "command again to go on, with fewer --jobs"
            ) from error
        raise


@contextlib.contextmanager
def _interrupt_held() -> Iterator[None]:
    """Keep Ctrl-C waiting; processes started meanwhile never see it, not even before they can ignore it."""
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_resource_tracker

    # these two, started later, would let the signal through again
    resource_tracker.ensure_running()
    loky_resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _progress(title: str, n_files: int) -> Iterator[Callable[[ShardSummary], None]]:
    """Show files, hours of sound, rate and time left: a bar on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with _bar(title, n_files) as advance:
            yield advance
        return
    started = said = time.monotonic()
    files, audio_s = 0, 0.0

    def advance_plainly(summary: ShardSummary) -> None:
        nonlocal files, audio_s, said
        files, audio_s = files + summary.n_recordings, audio_s + summary.audio_s
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            rate = files / (now - started)
            print(
                f"{title}: {files} of {n_files} files, {audio_s / 3600:.2f} h of audio, {rate:.1f} files/s, "
                f"{(n_files - files) / rate:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    yield advance_plainly


@contextlib.contextmanager
def _bar(title: str, n_files: int) -> Iterator[Callable[[ShardSummary], None]]:
    """Draw a bar on stderr."""
    import rich.console
    import rich.progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("files  {task.fields[hours]:.2f} h of audio  {task.fields[rate]:.1f} files/s "),
        bars.TimeRemainingColumn(),
    )
    started = time.monotonic()
    audio_s = 0.0
    with bars.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(title, total=n_files, hours=0.0, rate=0.0)

        def advance(summary: ShardSummary) -> None:
            nonlocal audio_s
            audio_s += summary.audio_s
            bar.update(task, advance=summary.n_recordings, hours=audio_s / 3600)
            bar.update(task, rate=bar.tasks[0].completed / (time.monotonic() - started))

        yield advance
