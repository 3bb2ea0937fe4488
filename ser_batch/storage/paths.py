"""Paths of this machine and addresses in object stores, such as ``s3://bucket/calls``."""

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ser_batch.errors import OutputError, UsageError


def local_path(text: str | os.PathLike[str]) -> Path:
    """Return the path of a name on this machine; ``~`` and ``~user`` at its beginning are home folders."""
    name = os.fspath(text)
    expanded = os.path.expanduser(name)  # noqa: PTH111 - pathlib takes ./~ for ~
    if expanded.startswith("~"):
        user = name.partition("/")[0]
        raise UsageError(f"{name}: no user has the home folder {user}; write ./{name} for what has this very name")
    path = Path(expanded)
    # of ./~, which others would take for a home folder
    return path.absolute() if str(path).startswith("~") else path


def to_path(text: str | os.PathLike[str]) -> Path:
    """Return the path of a name; of an address a ``UPath`` of universal-pathlib, which is used like one."""
    if is_remote(text):
        return cast("Path", text)
    name = os.fspath(text)
    if "://" not in name:
        return local_path(name)
    try:
        from upath import UPath

        # other machines write there too, so what was listed a moment ago is no longer true
        address: Any = UPath(name.rstrip("/"), use_listings_cache=False)
        _ = address.fs
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{name}: cannot be used ({error}); for s3:// install what reads it: pip install 'ser-batch[s3]'"
        ) from error
    return cast("Path", address)


def is_remote(path: object) -> bool:
    """Whether this is an address and no path of this machine."""
    return not isinstance(path, str | Path) and hasattr(path, "storage_options")


def refuse_undecodable(path: Path, advice: str = "rename it") -> None:
    """Refuse a name that is not UTF-8."""
    if os.fsencode(str(path)).decode("utf-8", errors="replace") != str(path):
        raise UsageError(f"{path}: the name is not UTF-8, which Parquet needs; {advice}")


def parquet_source(path: Path) -> Any:
    """Return a source that Parquet readers take: the path itself, or the bytes of an object."""
    return io.BytesIO(path.read_bytes()) if is_remote(path) else path


@contextlib.contextmanager
def put_when_done(path: Path) -> Iterator[Path]:
    """Give a temporary file, which becomes an object when the block ends well."""
    with tempfile.TemporaryDirectory(prefix="ser-batch-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with refusing(path):
            remote: Any = path
            remote.fs.put_file(str(temporary), remote.path)


@contextlib.contextmanager
def object_lock(file: Path, record: dict[str, Any], refusal: Any) -> Iterator[None]:
    """Hold an output by an object that only one run can make, with its `record`; removed when the block ends."""
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
