"""Files and folders written whole or not at all."""

import contextlib
import glob
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ser_batch.errors import OutputError
from ser_batch.storage.paths import is_remote, put_when_done

TEMPORARY_MARK = ".writing-"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place, fsynced, when the block ends well."""
    # A reader sees the old file or the whole new one. Where the block raises, nothing is left behind.
    if is_remote(path):
        with put_when_done(path) as temporary:
            yield temporary
        return
    target = behind_links(path)
    temporary = target.with_name(f".{target.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); free space or choose another --out") from error
    finally:
        # also where the folder itself is gone or read-only: the first error is the one to tell
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def behind_links(path: Path) -> Path:
    """Return what a link leads to, which is what to write; the path itself where it is no link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114 - Path's raises on long names


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it."""
    if is_remote(folder):
        return  # an object needs none
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another place with --out") from error


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what writers that were killed have left in `folder` and below of files whose name is like `name`."""
    if is_remote(folder):
        return  # an object is whole or not there
    for leftover in folder.rglob(f".{name}{TEMPORARY_MARK}*"):
        leftover.unlink(missing_ok=True)


def remove_temporaries_of(path: Path) -> None:
    """Remove what writers that were killed have left of this one file, in a folder that is not only ours."""
    if is_remote(path):
        return
    path = behind_links(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}{TEMPORARY_MARK}*"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
