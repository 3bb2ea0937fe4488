"""The file of a recording: opened once, hashed, and read by whatever decodes it."""

import bisect
import copy
import errno
import hashlib
import io
import itertools
import os
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from ser_batch.audio.layout import Pieces
from ser_batch.errors import RecordingError, printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Up to here a file is read once and held. A larger one is read in pieces to be hashed, and again to be decoded, so that
# a worker's memory does not depend on it.
HELD_BYTES = 32 << 20


class ChangedError(RecordingError):
    """A recording became another one while it was worked on."""


class RecordingFile:
    """The file of a recording, opened and hashed; a context manager.

    Parameters
    ----------
    file
        The bytes to open the file by.
    path
        Name for messages.

    Raises
    ------
    RecordingError
        Stage ``open``: it is not there any more, a `ChangedError`, or it cannot be read.
    """

    def __init__(self, file: bytes, path: str) -> None:
        self.name, self.path = file, path
        self.warnings: list[str] = []  # what is wrong with a recording that was read all the same
        try:
            stream = open(file, "rb", buffering=0)  # noqa: PTH123, SIM115 - pathlib knows no bytes
            self.stream: BinaryIO = stream
            self.descriptor: int | None = None  # the open file's number; None where its bytes are held
            try:
                self.size = os.fstat(stream.fileno()).st_size
                if self.size <= HELD_BYTES:
                    with stream:
                        self.stream = io.BytesIO(stream.readall())
                else:
                    self.descriptor = stream.fileno()
                self.content_hash = hashlib.file_digest(self.stream, "sha256").hexdigest()  # of its bytes, hex
            except BaseException:
                stream.close()
                raise
        except OSError as error:
            raise unreadable(path, error) from error

    def __enter__(self) -> "RecordingFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stream.close()

    def warn(self, text: str) -> None:
        """Note what is wrong with the recording, once."""
        warning = f"{printable(self.path)}: {text}"
        if warning not in self.warnings:
            self.warnings.append(warning)

    def part(self, pieces: Pieces) -> Self:
        """Return what `pieces` make of this file, as a file of its own that is open as long as this one."""
        if pieces == (range(self.size),):
            return self
        part = copy.copy(self)
        part.stream, part.descriptor = cast("BinaryIO", _Spliced(self.stream, pieces)), None
        part.size = sum(map(len, pieces))
        return part


class _Spliced:
    """Pieces of a file, and bytes in place of others, read as if they were a file."""

    def __init__(self, stream: BinaryIO, pieces: Pieces) -> None:
        self._stream, self._pieces, self._place = stream, pieces, 0
        self._starts = (0, *itertools.accumulate(map(len, pieces)))

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + (0, self._place, self._starts[-1])[whence]
        if place < 0:
            raise ValueError("before the beginning")
        self._place = place
        return place

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, n_bytes: int = -1) -> bytes:
        end = self._starts[-1] if n_bytes < 0 else min(self._place + n_bytes, self._starts[-1])
        parts = []
        while self._place < end:
            number = bisect.bisect_right(self._starts, self._place) - 1
            start = self._starts[number]
            part = self._pieces[number][self._place - start : end - start]
            if isinstance(part, range):
                self._stream.seek(part.start)
                part = self._stream.read(len(part))
            if not part:  # the file became shorter
                break
            parts.append(part)
            self._place += len(part)
        return b"".join(parts)


class Rewound:
    """A file from its beginning, as decoders take it: a broken one may send them before that, and gets an error code.

    An exception would be printed by the library that calls back, with a traceback.
    """

    def __init__(self, stream: BinaryIO) -> None:
        stream.seek(0)
        self.read, self.readinto, self.tell = stream.read, stream.readinto, stream.tell  # type: ignore[attr-defined]  # BinaryIO lacks readinto, its classes have it
        self._stream = stream

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Return the new place, or an error as C has them."""
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL


def unreadable(path: str, error: OSError) -> RecordingError:
    """Return the error of a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError):
        return ChangedError(
            "open",
            f"{printable(path)}: is no longer there, though it was found when the run began; run the same command "
            "again",
        )
    return RecordingError(
        "open", f"{printable(path)}: cannot be read ({error.strerror}); change its permissions or remove it"
    )
