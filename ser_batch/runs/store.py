"""The output folder of a stage: what is done, what is still to do, what was rejected."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.config.options import RunOptions
from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.runs.ledger import Shard, labels_digest, write_ledger
from ser_batch.runs.part_writer import MAIN
from ser_batch.runs.pieces import number_of
from ser_batch.runs.planning import Plan, plan_run
from ser_batch.runs.worker import Work
from ser_batch.storage.atomic import make_folder, remove_temporaries, write_json
from ser_batch.storage.lock import lock_file, refuse_foreign, refuse_other
from ser_batch.storage.paths import parquet_source, remove_tree
from ser_batch.tables.parquet import rows_table, write_table
from ser_batch.tables.schemas import REJECTS

# a shard is full at this many bytes of recordings, so that hours-long calls do not wait for one worker
BYTES_A_SHARD = 256 * 2**20


class Store:
    """The output folder of a stage."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        refuse_foreign(folder)
        self.folder = folder
        self._meta = folder / "_meta"
        run_file = self._meta / "run.json"
        if overwrite:
            self._clear()
        if run_file.is_file():
            refuse_other(folder, json.loads(run_file.read_text(encoding="utf-8")), identity)
        make_folder(self._meta / "ledger")
        remove_temporaries(folder)
        if not run_file.is_file():
            write_json(run_file, identity)
        self._ledger = self._read_ledger()

    @property
    def rejects_file(self) -> Path:
        """Where `finish` writes what was rejected."""
        return self._meta / "rejects.parquet"

    def plan(
        self,
        recordings: Iterable[Recording],
        work: Work,
        *,
        prune: bool,
        there: set[str] | None = None,
        since_ns: int | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> Plan:
        """Compare the recordings with what is done; rows of changed recordings leave the store."""
        recordings = tuple(recordings)
        done = {entry["path"]: entry for ledger in self._ledger.values() for entry in ledger["recordings"]}
        plan = plan_run(recordings, done, work, since_ns=since_ns, limit=limit, timeout_s=timeout_s)
        wanted = {recording.path for recording in recordings}
        there = wanted if there is None else there
        unwanted, vanished = (done.keys() & there) - wanted, done.keys() - there
        # of those that were gone before they could be read there is nothing to keep
        unwanted |= {path for path in vanished if done[path]["content_hash"] is None}
        vanished -= unwanted
        self.drop({recording.path for recording in plan.todo} | unwanted | (vanished if prune else set()))
        self._note_times(plan.mtimes_ns)
        return dataclasses.replace(plan, n_missing=len(vanished))

    def drop(self, paths: set[str]) -> None:
        """Take all rows of some recordings out of the parts."""
        # The ledger goes first: a part whose rows are not those of its ledger is done again by the next run.
        gone = pa.array(sorted(paths), pa.string())
        for name, ledger in list(self._ledger.items()):
            kept = [entry for entry in ledger["recordings"] if entry["path"] not in paths]
            if len(kept) == len(ledger["recordings"]):
                continue
            import pyarrow.compute as pc  # slow to load, and seldom needed

            ledger["recordings"] = kept
            ledger["rejects"] = [reject for reject in ledger["rejects"] if reject["path"] not in paths]
            ledger["rows"] = sum(entry["rows"] for entry in kept)
            write_ledger(self.folder, name, ledger)
            for part in self._tables_of(name):
                self.rewrite(part, lambda table: table.filter(pc.invert(pc.is_in(table["path"], gone))))

    def _note_times(self, mtimes_ns: Mapping[str, int]) -> None:
        """Remember the times of files that were touched and not changed, so that they are not read again."""
        for name, ledger in self._ledger.items():
            touched = [e for e in ledger["recordings"] if mtimes_ns.get(e["path"], e["mtime_ns"]) != e["mtime_ns"]]
            for entry in touched:
                entry["mtime_ns"] = mtimes_ns[entry["path"]]
            if touched:
                write_ledger(self.folder, name, ledger)

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
            write_ledger(self.folder, name, ledger)

    def rewrite(self, part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace a part by what `change` makes of it; an empty one is removed."""
        table = change(pq.ParquetFile(parquet_source(part)).read())
        if table.num_rows:
            write_table(part, table)
        else:
            part.unlink()

    def shards(self, recordings: Iterable[Recording], options: RunOptions, *, jobs: int | None = None) -> list[Shard]:
        """Cut recordings into shards with names that no part has yet."""
        # Small runs are cut finer, so that every worker has something to do; `jobs` is how many there are, if the
        # options do not tell.
        recordings = list(recordings)
        jobs = jobs or worker_count(options)
        size = min(options.shard_size, max(1, -(-len(recordings) // (2 * jobs))))
        number = max((number_of(name) for name in self._ledger), default=0)
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
        rejects = [dataclasses.asdict(reject) for reject in walk_rejects]
        digest = hashlib.sha256()
        silent: list[str] = []  # recordings without rows in any table
        n_recordings, n_rows, audio_s, new_audio_s = 0, 0, 0.0, 0.0
        # what is new comes one at a time: together it may be of a million recordings
        new = self._ledgers(besides=self._ledger)
        for name, ledger in itertools.chain(self._ledger.items(), new):
            held = [[e["path"], e["content_hash"], e["labels"], e["cuts"], e["rows"]] for e in ledger["recordings"]]
            digest.update(json.dumps([name, held]).encode())
            rejects += ledger["rejects"]
            silent += [
                entry["path"]
                for entry in ledger["recordings"]
                if not entry["rows"] and not any(entry["side_rows"].values())
            ]
            n_recordings += len(ledger["recordings"])
            n_rows += ledger["rows"]
            seconds = sum(entry["audio_s"] for entry in ledger["recordings"])
            audio_s += seconds
            new_audio_s += 0.0 if name in self._ledger else seconds
        rejects.sort(key=lambda reject: reject["path"])
        write_table(self.rejects_file, rows_table(rejects, REJECTS))
        rejected = {reject["path"] for reject in rejects}
        return StoreSummary(
            n_without_rows=sum(path not in rejected for path in silent),
            n_recordings=n_recordings,
            n_rows=n_rows,
            audio_s=audio_s,
            new_audio_s=new_audio_s,
            digest=digest.hexdigest(),
            rejects=tuple(Reject(**reject) for reject in rejects),
        )

    def parts(self, table: str = MAIN) -> list[Path]:
        """Return the Parquet files of a table, in order."""
        return sorted((self._meta / table if table else self.folder).glob("part-*.parquet"))

    def _tables_of(self, name: str) -> list[Path]:
        return [*self.folder.glob(f"{name}.parquet"), *self._meta.glob(f"*/{name}.parquet")]

    def _read_ledger(self) -> dict[str, dict[str, Any]]:
        """Read all entries whose part is whole; remove what belongs to none."""
        ledger = dict(self._ledgers())
        for part in [*self.parts(), *self._meta.glob("*/part-*.*")]:
            if part.stem not in ledger:
                part.unlink()
        return ledger

    def _ledgers(self, besides: Container[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the entries whose part is whole, by name; those that are known already are left out."""
        for path in sorted((self._meta / "ledger").glob("part-*.json")):
            if path.stem in besides:
                continue
            entry = json.loads(path.read_text(encoding="utf-8"))
            if self._is_whole(path.stem, entry):
                yield path.stem, entry

    def _is_whole(self, name: str, ledger: Mapping[str, Any]) -> bool:
        """Whether the part and the side tables of a shard hold the rows that its ledger counts."""
        sides: Counter[str] = Counter()
        for entry in ledger["recordings"]:
            sides.update(entry["side_rows"])
        return ledger["rows"] == _count_rows(self.folder / f"{name}.parquet") and all(
            count == _count_rows(self._meta / table / f"{name}.parquet") for table, count in sides.items()
        )

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
    """What a store holds in all; `n_without_rows` recordings had no channel or segment that was asked for.

    `new_audio_s` is of the parts that came since the store was opened; `digest` is that of all parts, whatever the
    times of the files.
    """

    n_recordings: int
    n_without_rows: int
    n_rows: int
    audio_s: float
    new_audio_s: float
    digest: str
    rejects: tuple[Reject, ...]


def _count_rows(part: Path) -> int | None:
    """Return the rows of a part: 0 where it is not there, None where it is broken."""
    try:
        return int(pq.read_metadata(parquet_source(part)).num_rows)
    except FileNotFoundError:
        return 0
    except (OSError, pa.ArrowException):
        return None


def worker_count(options: RunOptions) -> int:
    """Return the number of worker processes: as asked for, else the cores this process may use."""
    return options.jobs or len(os.sched_getaffinity(0))
