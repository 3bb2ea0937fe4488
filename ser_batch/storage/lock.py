"""One run at a time per output folder."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_batch.errors import OutputError
from ser_batch.storage.atomic import make_folder
from ser_batch.storage.paths import is_remote, object_lock, refuse_undecodable

# the runs of this process, by what their records say
_own_runs: set[str] = set()
# in bytes; a file system allows 255, and names of tables and temporary files are longer than that of the output
_LONGEST_NAME = 200
# of file systems that have no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def locked(file: Path, output: Path) -> Iterator[None]:
    """Hold an output for this run; another run meanwhile is refused, whichever process or thread it is of."""
    # The lock is the kernel's (`flock`), so that it ends with the process, however that ends: what a run that was
    # killed left behind is taken over without a word. Beside the lock, `file` says who holds it: pid, host and start.
    # A file system without locks has that record alone. Then a record of a process on this host that is gone is taken
    # over; any other one is believed, since nobody can tell from here whether a run on another host goes on: the
    # message says which file to remove if it does not. So it is in an object store, too.
    if is_remote(file):
        with object_lock(file, _own_record(), lambda found: _refusal(file, output, found) if _may_run(found) else None):
            yield
        return
    try:
        descriptor = _take(file, output)
    except OSError as error:
        raise OutputError(
            f"{output}: cannot be written ({error.strerror}: {file}); choose another place with --out"
        ) from error
    try:
        yield
    finally:
        # while it is still held, so that no other run's file is removed; the output may be gone by now
        with contextlib.suppress(OSError):
            if _is_same(descriptor, file):
                file.unlink()
        os.close(descriptor)


def _take(file: Path, output: Path) -> int:
    """Return an open descriptor that holds the lock, with the record written."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _has_lock(descriptor):
                raise _refusal(file, output, _record_in(descriptor))
            if _is_same(descriptor, file):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(_own_record()).encode(), 0)
                os.fsync(descriptor)  # workers on other machines look whether the run goes on
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the run that held it has just removed the file: the next one is ours


def _own_record() -> dict[str, Any]:
    run = secrets.token_hex(8)
    _own_runs.add(run)
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "run": run,
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _has_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return not _may_run(_record_in(descriptor))
    return True


def _may_run(record: dict[str, Any]) -> bool:
    """Whether the process of a record may be there still."""
    if not record:
        return False
    if record.get("host") != socket.gethostname():
        return True
    if int(record["pid"]) == os.getpid():  # a container that was started again has the same number for its process
        return record.get("run") is None or record["run"] in _own_runs
    try:
        os.kill(int(record["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _record_in(descriptor: int) -> dict[str, Any]:
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # it is being written right now
        return {}
    return record if isinstance(record, dict) else {}


def _refusal(file: Path, output: Path, record: dict[str, Any]) -> OutputError:
    return OutputError(
        f"{output}: another run is writing there: process {record.get('pid', '?')} on {record.get('host', '?')}, "
        f"started {record.get('started', '?')}. Wait until it has ended, or choose another --out; if there is no such "
        f"process any more, remove {file}"
    )


def _is_same(descriptor: int, file: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the output folder of a stage for this run."""
    refuse_foreign(folder)
    make_folder(folder / "_meta")
    with locked(lock_file(folder), folder):
        yield


def lock_file(folder: Path) -> Path:
    """Return the file that says which run holds a folder."""
    return folder / "_meta" / "lock.json"


def claim_of(folder: Path) -> str | None:
    """Return the record of the run that holds a folder, which no other run shares; None where none does."""
    try:
        return lock_file(folder).read_text(encoding="utf-8") or None
    except OSError:
        return None


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds something else than a run, or whose name no table can have."""
    refuse_undecodable(folder, "choose another --out")
    if len(os.fsencode(folder.name)) > _LONGEST_NAME:
        raise OutputError(f"{folder}: the name is too long for the files beside it; choose a shorter --out")
    meta = folder / "_meta"
    try:
        is_ours = (meta / "run.json").is_file() or (meta / "ledger").is_dir() or lock_file(folder).is_file()
        is_empty = not folder.is_dir() or not any(path != meta or any(meta.iterdir()) for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read ({error.strerror}); choose another --out") from error
    if not (is_ours or is_empty):
        raise OutputError(f"{folder}: holds something else than a run of ser-batch; choose another --out, or empty it")


def refuse_other(folder: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse a store that was made with other settings."""
    before, now = _flat(found), _flat(json.loads(json.dumps(identity)))
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        what = "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in differing)
        raise OutputError(
            f"{folder}: belongs to another run: {what}. Choose another --out, or give --overwrite to throw it away"
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level, ``feature_spec.n_mels``."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
