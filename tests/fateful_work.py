"""Work whose recordings say what becomes of the process that does them.

In a module of its own because each worker process imports it.
"""

import ctypes
import dataclasses
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from dask_cluster import wait_until

from ser_batch.audio.recording_file import RecordingFile
from ser_batch.corpus.manifest import Recording
from ser_batch.runs import ledger, worker
from ser_batch.runs.part_writer import MAIN, Rows
from ser_batch.runs.worker import Work
from ser_batch.storage.atomic import TEMPORARY_MARK

SCHEMA = pa.schema([("path", pa.string()), ("end_s", pa.float64())])


def hang() -> None:
    """Wait for ever in C, and let no other thread of Python run meanwhile."""
    ctypes.PyDLL(None).pause()


def fail_at_the_ledger() -> None:
    """Let this worker die when it has done all its recordings, in the middle of writing that."""

    def die(folder: Path, name: str, _: object) -> None:
        path = ledger.ledger_path(folder, name)
        path.with_name(f".{path.name}{TEMPORARY_MARK}1-a").touch()
        os._exit(7)

    vars(worker)["write_ledger"] = die


def die_after_the_ledger() -> None:
    """Let this worker die when its shard is done, before word of it is out."""
    write = vars(worker)["write_ledger"]

    def write_and_die(*arguments: object) -> None:
        write(*arguments)
        os._exit(4)

    vars(worker)["write_ledger"] = write_and_die


def be_renewed() -> None:
    """Let loky find that this worker's memory grows, after each shard from the next one on."""
    from joblib.externals.loky import process_executor

    vars(process_executor).update(_MAX_MEMORY_LEAK_SIZE=-1e12, _MEMORY_LEAK_CHECK_DELAY=-1.0)


def kill_the_parent() -> None:
    """End the worker of a cluster that started this process."""
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(3)


FATES = {
    "kills": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashes": lambda: ctypes.string_at(0),
    "exits": lambda: os._exit(3),
    "hangs": hang,
    "fails later": fail_at_the_ledger,
    "is silent": die_after_the_ledger,
    "kills its parent": kill_the_parent,
    "is renewed": be_renewed,
}


@dataclasses.dataclass(frozen=True)
class FatefulWork(Work):
    """Yields as many rows as a recording's file says, then does what it says; notes each time who begins it."""

    folder: Path

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        return {MAIN: SCHEMA}

    def rows(self, recording: Recording, _: RecordingFile) -> Rows:
        file = Path(os.fsdecode(recording.file))
        with file.with_suffix(".begun").open("a") as log:
            log.write(f"{os.getppid()}\n")
        n_rows, fate = file.read_text().partition(" ")[::2]
        if fate == "waits":
            wait_until((file.parent / "go").exists)
        for number in range(int(n_rows)):
            yield MAIN, {"path": recording.path, "end_s": number + 1.0}
        if fate in FATES:
            FATES[fate]()
        elif fate == "takes too much":
            raise MemoryError
        elif fate == "kills once":
            if len(begun_by(file.parent, file.name)) == 1:
                os._exit(3)
        elif fate == "grows":
            file.write_text(f"{n_rows} and more")
        elif fate == "goes":
            file.unlink()
            raise RuntimeError("what was there is not")
        elif fate == "stops the run":
            (self.folder / "_meta" / "lock.json").unlink()
        elif fate == "takes the output along":
            file.write_text(n_rows)
            # at once: what another worker writes meanwhile would keep a folder that is emptied file by file
            gone = self.folder.rename(self.folder.with_name("gone"))
            shutil.rmtree(gone, ignore_errors=True)


def begun_by(folder: Path, name: str) -> list[int]:
    """Return the parents of the processes that began a recording."""
    log = (folder / name).with_suffix(".begun")
    return [int(pid) for pid in log.read_text().split()] if log.exists() else []


def counts(out: Path) -> dict[str, int]:
    """Return the numbers of rows by recording."""
    paths = [path for part in out.glob("part-*") for path in pq.read_table(part)["path"].to_pylist()]
    return {path: paths.count(path) for path in sorted(set(paths))}
