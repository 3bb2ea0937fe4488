"""The output folder of a stage: what is done, what is still to do, what was rejected."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.config.options import RunOptions
from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.errors import RecordingError
from ser_batch.runs.ledger import (
    LedgerEntry,
    Shard,
    ShardLedger,
    cuts_digest,
    labels_digest,
    ledger_path,
    read_ledger,
    shard_number,
    write_ledger,
)
from ser_batch.runs.part_writer import MAIN, part_paths
from ser_batch.runs.worker import Work, content_hash_of
from ser_batch.storage.atomic import make_folder, remove_temporaries, write_json
from ser_batch.storage.lock import lock_file, refuse_foreign, refuse_other
from ser_batch.storage.paths import parquet_source, remove_tree
from ser_batch.tables.parquet import rows_table, write_table
from ser_batch.tables.schemas import REJECTS

# a shard is full at this many bytes of recordings, so that hours-long calls do not wait for one worker
BYTES_PER_SHARD = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run has to do."""

    todo: tuple[Recording, ...]  # recordings to work on
    relabel: tuple[Recording, ...]  # recordings whose rows get other labels, without being worked on
    n_done: int  # recordings that have their rows
    n_beyond_limit: int  # recordings beyond the limit
    n_before_since: int  # recordings without rows that were not modified since the time asked for
    mtimes_ns: Mapping[str, int]  # of the files that are found to be the same as before, by path
    n_missing: int = 0  # recordings that have rows and are no longer there


def plan_run(
    recordings: Iterable[Recording],
    done: Mapping[str, LedgerEntry],
    work: Work,
    *,
    since_ns: int | None,
    limit: int | None,
    timeout_s: float | None = None,
) -> Plan:
    """Compare recordings with the entries of the ledger."""
    todo: list[Recording] = []
    again: list[Recording] = []
    relabel: list[Recording] = []
    mtimes_ns: dict[str, int] = {}
    n_before_since = n_done = 0
    for recording in recordings:
        entry = done.get(recording.path)
        is_older = since_ns is not None and recording.mtime_ns < since_ns
        if entry is None:
            n_before_since += is_older
            todo += [] if is_older else [recording]
            continue
        has_new_labels = entry.labels != labels_digest(recording)
        gave_up_s = entry.timeout_s
        has_more_time = gave_up_s is not None and (timeout_s is None or timeout_s > gave_up_s)
        is_current = not has_more_time and entry.cuts == cuts_digest(recording, timed=work.cuts_at_labels)
        if is_current and not is_older:
            is_current = _is_same(entry, recording)
            mtimes_ns |= {recording.path: recording.mtime_ns} if is_current else {}
        if is_older or (is_current and (work.joins_labels or not has_new_labels)):
            n_done += 1
            relabel += [recording] if is_current and has_new_labels and work.joins_labels else []
        else:
            # what could not be done before comes last, so that under a limit it does not take every turn
            (todo if entry.content_hash and not has_more_time else again).append(recording)
    due = (*todo, *again)
    chosen = due[:limit]
    return Plan(chosen, tuple(relabel), n_done, len(due) - len(chosen), n_before_since, mtimes_ns)


def _is_same(entry: LedgerEntry, recording: Recording) -> bool:
    """Whether a recording is what the ledger remembers: size and time are the fast path, the hash decides."""
    if entry.content_hash is None or entry.size != recording.size:
        return False
    if entry.mtime_ns == recording.mtime_ns:
        return True
    try:
        return entry.content_hash == content_hash_of(recording)
    except RecordingError:
        return False  # it is worked on again, and rejected there with its reason


def store_folder(out: Path) -> Path:
    """Return the store of an output: beside a .parquet file, else the folder itself."""
    return out.with_suffix(".parts") if out.suffix == ".parquet" else out


def run_file(folder: Path) -> Path:
    """Return where a store keeps the settings of its run."""
    return folder / "_meta" / "run.json"


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a run; None where it has not begun, or tables were copied without their store."""
    file = run_file(folder)
    settings: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return settings


class Store:
    """The output folder of a stage."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        refuse_foreign(folder)
        self.folder = folder
        self._meta = folder / "_meta"
        if overwrite:
            self._clear()
        earlier = read_settings(folder)
        if earlier is not None:
            refuse_other(folder, earlier, identity)
        make_folder(self._meta / "ledger")
        remove_temporaries(folder)
        if earlier is None:
            write_json(run_file(folder), identity)
        self._ledgers = self._open_ledgers()

    @property
    def rejects_file(self) -> Path:
        """Where `finish` writes what was rejected."""
        return self._meta / "rejects.parquet"

    def plan(
        self, recordings: Iterable[Recording], work: Work, options: RunOptions, *, existing: set[str] | None = None
    ) -> Plan:
        """Compare the recordings with what is done; rows of changed recordings leave the store.

        `existing` are the paths that are there, also of recordings that are not to be done.
        """
        recordings = tuple(recordings)
        done = {entry.path: entry for ledger in self._ledgers.values() for entry in ledger.recordings}
        plan = plan_run(
            recordings, done, work, since_ns=options.since_ns, limit=options.limit, timeout_s=options.timeout
        )
        wanted = {recording.path for recording in recordings}
        existing = wanted if existing is None else existing
        unwanted, missing = (done.keys() & existing) - wanted, done.keys() - existing
        # of those that were gone before they could be read there is nothing to keep
        unwanted |= {path for path in missing if done[path].content_hash is None}
        missing -= unwanted
        self.drop({recording.path for recording in plan.todo} | unwanted | (missing if options.prune else set()))
        self._update_times(plan.mtimes_ns)
        return dataclasses.replace(plan, n_missing=len(missing))

    def drop(self, paths: set[str]) -> None:
        """Take all rows of some recordings out of the parts."""
        # The ledger goes first: a part whose rows are not those of its ledger is done again by the next run.
        gone = pa.array(sorted(paths), pa.string())
        for name, ledger in self._ledgers.items():
            kept = [entry for entry in ledger.recordings if entry.path not in paths]
            if len(kept) == len(ledger.recordings):
                continue
            import pyarrow.compute as pc  # slow to load, and seldom needed

            ledger.recordings = kept
            ledger.rejects = [reject for reject in ledger.rejects if reject.path not in paths]
            write_ledger(self.folder, name, ledger)
            for part in self._tables_of(name):
                self.rewrite(part, lambda table: table.filter(pc.invert(pc.is_in(table["path"], gone))))

    def _update_times(self, mtimes_ns: Mapping[str, int]) -> None:
        """Remember the times of files that were touched and not changed, so that they are not read again."""
        for name, ledger in self._ledgers.items():
            touched = [
                entry for entry in ledger.recordings if mtimes_ns.get(entry.path, entry.mtime_ns) != entry.mtime_ns
            ]
            for entry in touched:
                entry.mtime_ns = mtimes_ns[entry.path]
            if touched:
                write_ledger(self.folder, name, ledger)

    def relabel(self, recordings: Iterable[Recording], change: Callable[[pa.Table], pa.Table]) -> None:
        """Rewrite the parts that hold `recordings` by `change`, and note their labels as joined."""
        digests = {recording.path: labels_digest(recording) for recording in recordings}
        for name, ledger in self._ledgers.items():
            if not any(entry.path in digests for entry in ledger.recordings):
                continue
            part = self.folder / f"{name}.parquet"
            if part.exists():
                self.rewrite(part, change)
            for entry in ledger.recordings:
                entry.labels = digests.get(entry.path, entry.labels)
            write_ledger(self.folder, name, ledger)

    def rewrite(self, part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace a part by what `change` makes of it; an empty one is removed."""
        table = change(pq.ParquetFile(parquet_source(part)).read())
        if table.num_rows:
            write_table(part, table)
        else:
            part.unlink()

    def shards(self, recordings: Sequence[Recording], *, shard_size: int, n_workers: int) -> list[Shard]:
        """Cut recordings into shards with names that no part has yet."""
        # small runs are cut finer, so that every worker has something to do
        size = min(shard_size, max(1, -(-len(recordings) // (2 * n_workers))))
        groups: list[list[Recording]] = []
        n_bytes = 0
        for recording in recordings:
            if not groups or len(groups[-1]) >= size or n_bytes + recording.size > BYTES_PER_SHARD:
                groups.append([])
                n_bytes = 0
            groups[-1].append(recording)
            n_bytes += recording.size
        first = 1 + max(map(shard_number, self._ledgers), default=0)
        return [Shard.numbered(number, tuple(group)) for number, group in enumerate(groups, start=first)]

    def finish(self, walk_rejects: Iterable[Reject]) -> "StoreSummary":
        """Write rejects.parquet of all that was rejected or warned of; return the counts of the whole store."""
        rejects = list(walk_rejects)
        digest = hashlib.sha256()
        without_rows: list[str] = []  # in any table
        n_recordings, n_rows, audio_s, new_audio_s = 0, 0, 0.0, 0.0
        # what is new comes one at a time: together it may be of a million recordings
        for name, ledger in itertools.chain(self._ledgers.items(), self._read_ledgers(known=self._ledgers)):
            held = [[e.path, e.content_hash, e.labels, e.cuts, e.rows] for e in ledger.recordings]
            digest.update(json.dumps([name, held]).encode())
            rejects += ledger.rejects
            without_rows += [e.path for e in ledger.recordings if not e.rows and not any(e.side_rows.values())]
            n_recordings += len(ledger.recordings)
            n_rows += ledger.row_counts[MAIN]
            audio_s += ledger.audio_s
            new_audio_s += 0.0 if name in self._ledgers else ledger.audio_s
        rejects.sort(key=lambda reject: reject.path)
        write_table(self.rejects_file, rows_table([dataclasses.asdict(reject) for reject in rejects], REJECTS))
        rejected = {reject.path for reject in rejects if not reject.is_warning}
        return StoreSummary(
            n_recordings=n_recordings,
            n_without_rows=sum(path not in rejected for path in without_rows),
            is_empty=len(without_rows) == n_recordings,
            n_rows=n_rows,
            audio_s=audio_s,
            new_audio_s=new_audio_s,
            digest=digest.hexdigest(),
            rejects=tuple(reject for reject in rejects if not reject.is_warning),
            warned=tuple(reject for reject in rejects if reject.is_warning),
        )

    def parts(self, table: str = MAIN) -> list[Path]:
        """Return the Parquet files of a table, in order."""
        return sorted((self._meta / table if table else self.folder).glob("part-*.parquet"))

    def _tables_of(self, name: str) -> list[Path]:
        return [*self.folder.glob(f"{name}.parquet"), *self._meta.glob(f"*/{name}.parquet")]

    def _open_ledgers(self) -> dict[str, ShardLedger]:
        """Return the ledgers whose parts are whole; remove what belongs to none, and what another shard holds too."""
        ledgers: dict[str, ShardLedger] = {}
        paths: set[str] = set()
        for name, ledger in self._read_ledgers():
            own = {entry.path for entry in ledger.recordings}
            if own.isdisjoint(paths):
                ledgers[name] = ledger
                paths |= own
            else:  # of a run on a cluster that was killed; see `recovery`
                ledger_path(self.folder, name).unlink()
        for part in [*self.parts(), *self._meta.glob("*/part-*.*")]:
            if part.stem not in ledgers:
                part.unlink(missing_ok=True)
        return ledgers

    def _read_ledgers(self, known: Container[str] = ()) -> Iterator[tuple[str, ShardLedger]]:
        """Yield the ledgers whose parts are whole, by name, besides those that are known."""
        for path in sorted((self._meta / "ledger").glob("part-*.json")):
            if path.stem not in known:
                ledger = read_ledger(path)
                if self._is_whole(path.stem, ledger):
                    yield path.stem, ledger

    def _is_whole(self, name: str, ledger: ShardLedger) -> bool:
        """Whether the tables of a shard hold the rows that its ledger counts."""
        counts = ledger.row_counts
        paths = part_paths(self.folder, counts, name)
        return all(count == _count_rows(paths[table]) for table, count in counts.items())

    def _clear(self) -> None:
        for part in self.parts():
            part.unlink()
        for path in self._meta.glob("*"):
            if path.is_dir():
                remove_tree(path)
            elif path != lock_file(self.folder):  # this run holds it
                path.unlink()


@dataclasses.dataclass(frozen=True)
class StoreSummary:
    """What a store holds."""

    n_recordings: int
    n_without_rows: int  # no channel or segment that was asked for
    is_empty: bool  # no row in any table
    n_rows: int
    audio_s: float
    new_audio_s: float  # of the parts that came since the store was opened
    digest: str  # of all parts, whatever the times of the files
    rejects: tuple[Reject, ...]
    warned: tuple[Reject, ...]


def _count_rows(part: Path) -> int | None:
    """Return the rows of a part: 0 where it is not there, None where it is broken."""
    try:
        return int(pq.read_metadata(parquet_source(part)).num_rows)
    except FileNotFoundError:
        return 0
    except (OSError, pa.ArrowException):
        return None
