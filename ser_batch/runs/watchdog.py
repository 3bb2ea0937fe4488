"""What a worker is at, written so that it can be read after the worker's death, and the time a recording may take.

A file of one shard, ``_meta/at/<shard>.txt``, while a worker process has it::

    3        6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090
    Timeout (0:00:05)!
    Thread 0x00007f0e5c8d4740 (most recent call first): ...

The number of the recording in the shard, from 0, and the hash of its content once that is known; below, where time
was up, what the process was doing then.
"""

import dataclasses
import faulthandler
import hashlib
import os
import tempfile
from pathlib import Path

from ser_batch.errors import OutputError
from ser_batch.storage.paths import is_remote, remove_tree

_FIRST_LINE = "{:<8} {:<64}\n"
_NO_RECORDING = -1


class Watch:
    """Notes what a worker process is at, and ends the process where a recording takes too long."""

    def __init__(self, folder: Path, name: str, timeout_s: float | None) -> None:
        self._path, self._timeout_s = _note_path(folder, name), timeout_s
        if is_remote(folder):
            make_notes_folder(folder)
        self._number, self._content_hash = _NO_RECORDING, ""
        try:
            self._file = os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o666)
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written ({error.strerror}); the folder of the output has to stay where it "
                "is while a run goes on"
            ) from error

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exception: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._file)
        if not isinstance(exception[1], MemoryError):  # the worker ends by it, and the note says at what
            self._path.unlink(missing_ok=True)

    def begin(self, number: int) -> None:
        """Note that recording `number` of the shard is begun; its time runs."""
        self._number, self._content_hash = number, ""
        self._write()
        if self._timeout_s is not None:
            # its thread is not one of Python's: time is up even where a library hangs and never lets Python run
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)

    def note_hash(self, content_hash: str) -> None:
        """Note what the recording at hand holds."""
        self._content_hash = content_hash
        self._write()

    def finish(self) -> None:
        """Note that no recording is at hand; what is left is to write."""
        faulthandler.cancel_dump_traceback_later()
        self._number = _NO_RECORDING
        self._write()

    def _write(self) -> None:
        line = _FIRST_LINE.format(self._number, self._content_hash).encode("ascii")
        try:
            os.pwrite(self._file, line, 0)
            os.lseek(self._file, len(line), os.SEEK_SET)  # where the traceback would go
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror}); free some space") from error


@dataclasses.dataclass(frozen=True)
class Note:
    """What a worker was at when it died."""

    number: int | None  # of the recording in its shard, from 0; None where none was at hand
    content_hash: str | None  # of that recording, or the last one, if it was known
    is_timed_out: bool  # whether the recording took too long


def make_notes_folder(folder: Path) -> None:
    """Make the folder of the notes in a store."""
    try:
        _note_path(folder, "").parent.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another place with --out") from error


def remove_notes(folder: Path) -> None:
    """Remove the notes of a store, and those that are in it though the notes are on this machine."""
    remove_tree(_note_path(folder, "").parent)
    if is_remote(folder):
        remove_tree(folder / "_meta" / "at")


def take_note(folder: Path, name: str) -> Note | None:
    """Read and remove what a worker noted of a shard; None where it did not begin it."""
    path = _note_path(folder, name)
    try:
        first, _, rest = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        path.unlink()
        number, content_hash = int(first[:8]), first[9:].strip()
    except (FileNotFoundError, ValueError):  # ValueError: it died before the first line was there
        return None
    return Note(None if number == _NO_RECORDING else number, content_hash or None, rest.startswith("Timeout"))


def _note_path(folder: Path, name: str) -> Path:
    if is_remote(folder):  # what is read after a death has to be on this machine
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"ser-batch-{os.getuid()}-{digest}" / f"{name}.txt"
    return folder / "_meta" / "at" / f"{name}.txt"
