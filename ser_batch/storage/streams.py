"""Standard streams that are missing, such as those of a job of cron, or full."""

import contextlib
import io
import os
import sys
from typing import TextIO


def open_missing_streams() -> None:
    """Open /dev/null for each standard stream that this process has not."""
    # an output that got such a number would have what libraries print in the middle of it
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # has the lowest number that is free
            os.set_inheritable(opened, True)
            assert opened == number
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal; what others put in its place, such as a log, need not know."""
    return bool(getattr(stream, "isatty", bool)())


def say(line: str) -> None:
    """Print a line on stderr; where that is full, nobody reads it, and the work goes on."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


class _TolerantFile(io.FileIO):
    """A file that forgets what it cannot write, and remembers why."""

    error: OSError | None = None

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


class TolerantStreams:
    """Stdout and stderr that cost no work where they are full, or nobody reads them any more."""

    def __init__(self) -> None:
        open_missing_streams()
        self._files = {"stdout": _TolerantFile(1, "w", closefd=False), "stderr": _TolerantFile(2, "w", closefd=False)}
        for name, file in self._files.items():
            setattr(sys, name, _text(file, getattr(sys, name)))

    def errors(self) -> dict[str, OSError]:
        """Return why what was printed is not complete, by the name of the stream."""
        sys.stdout.flush()
        sys.stderr.flush()
        return {name: file.error for name, file in self._files.items() if file.error is not None}


def _text(file: io.FileIO, old: TextIO) -> TextIO:
    """Return a stream of text into a file, like an old one; letters that its encoding lacks are written as codes."""
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=old.encoding,
        errors="backslashreplace",
        line_buffering=getattr(old, "line_buffering", False),
        write_through=getattr(old, "write_through", False),
    )
