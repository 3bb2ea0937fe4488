"""One run at a time into one output."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ser_batch.config import is_remote
from ser_batch.errors import OutputError
from ser_batch.tables.storage import object_lock

# the runs of this process, by what their records say
_own_runs: set[str] = set()
# of file systems that have no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def locked(file: Path, output: Path) -> Iterator[None]:
    """Hold an output for this run; another run meanwhile is refused, whichever process or thread it is of.

    The lock is the kernel's (`flock`), so that it ends with the process, however that ends: what a run that was
    killed left behind is taken over without a word. Beside the lock, `file` says who holds it: pid, host and start.

    A file system without locks has that record alone. Then a record of a process on this host that is gone is taken
    over; any other one is believed, since nobody can tell from here whether a run on another host goes on: the message
    says which file to remove if it does not. So it is in an object store, too.

    Parameters
    ----------
    file
        In a folder that is there; removed when the block ends.
    output
        What is held, for the message.

    Raises
    ------
    OutputError
        Another run holds it, or `file` cannot be written.
    """
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
