"""The few things that differ between a folder and an object store, where a file is put as a whole or not at all.

An object store has no renames, no folders, no locks that end with their process and no open files. What is to be
written is made in a temporary file of this machine and then put; what is read comes as a whole.
"""

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ser_batch.config import is_remote
from ser_batch.errors import OutputError


def source(path: Path) -> Any:
    """Return what Parquet is read from: the path itself, or the bytes of an object."""
    return io.BytesIO(path.read_bytes()) if is_remote(path) else path


@contextlib.contextmanager
def put_when_done(path: Path) -> Iterator[Path]:
    """Give a temporary file, which becomes an object when the block ends well.

    Raises
    ------
    OutputError
        The store refuses it, or cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="ser-batch-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with refusing(path):
            remote: Any = path
            remote.fs.put_file(str(temporary), remote.path)


@contextlib.contextmanager
def object_lock(file: Path, record: dict[str, Any], refusal: Any) -> Iterator[None]:
    """Hold an output by an object that only one run can make, with its `record`; removed when the block ends.

    Parameters
    ----------
    file
        The object.
    record
        Who holds it.
    refusal
        Makes the error, of the record that is there already.
    """
    remote: Any = file
    while True:
        with refusing(file):
            try:
                remote.fs.pipe_file(remote.path, json.dumps(record).encode(), mode="create")
                break
            except FileExistsError:
                error = refusal(json.loads(file.read_text(encoding="utf-8")))
        if error is not None:
            raise error
        file.unlink(missing_ok=True)  # of a process of this machine that is gone
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            file.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all that is in it."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    remote: Any = folder
    with refusing(folder), contextlib.suppress(FileNotFoundError):
        remote.fs.rm(remote.path, recursive=True)


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever the library of an object store raises into an `OutputError` that names the object."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:  # each store has errors of its own
        raise OutputError(
            f"{path}: cannot be written or read ({type(error).__name__}: {error}); see to the store, its address and "
            "rights, and run the same command again to go on"
        ) from error
