"""The exceptions of ser-batch; every message says what came, what was expected and what to do.

::

    SerBatchError
    ├── UsageError          the call itself is wrong: an option, a value, a path that is not there (exit status 2)
    │   └── JobError        a job file with unknown keys or values of the wrong type
    ├── InputError          there is nothing to work on, or a labels file or table that cannot be used
    ├── RecordingError      one recording cannot be used; it becomes a row of rejects.parquet
    ├── OutputError         the output cannot be written, or belongs to another run
    ├── ModelError         a model folder is incomplete, altered or of another version
    ├── EncoderError        an encoder folder is incomplete or altered, or weights that no encoder can be made of
    └── DownloadError       an archive cannot be fetched or is not what it should be
"""

from collections.abc import Iterable


def printable(text: object) -> str:
    """Return `text` with control characters and undecodable bytes escaped, safe for a terminal and a log line."""
    # >>> printable("a\x1b[31m\nb.wav") 'a\\x1b[31m\\nb.wav'
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def did_you_mean(value: object, known: Iterable[str], before: str = "; ") -> str:
    """Return what to append to a message about a value that is not known; nothing where none is like it."""
    # >>> did_you_mean("telefone", ("wideband", "telephone")) '; did you mean telephone?' >>> did_you_mean("x",
    # ("wideband", "telephone")) ''
    import difflib  # only where something is wrong

    text = value[:100] if isinstance(value, str) else ""
    near = difflib.get_close_matches(text, list(known), n=1)
    return f"{before}did you mean {near[0]}?" if near else ""


def shortened(text: str, most: int = 2000) -> str:
    """Return `text` with its middle left out where it is longer than `most` characters."""
    # What a message quotes may be of any length; what it is about stands at its beginning, what to do at its end.
    # >>> shortened("--seeds 1111111111111111; expected 1 or more", 30) '--seeds 111111111... 1 or more'
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - 3 - tail]}...{text[-tail:]}"


class SerBatchError(Exception):
    """Root of all errors that ser-batch raises on purpose.

    Parameters
    ----------
    message
        What came, what was expected, what to do. File names inside it are made printable, and what is far too long to
        be read loses its middle.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(shortened(printable(message)))


class UsageError(SerBatchError):
    """The call is wrong: an option, a value, or a path that is not there."""

    exit_code = 2


class JobError(UsageError):
    """A job file holds unknown keys or values of the wrong type."""


class InputError(SerBatchError):
    """There is nothing to work on, or a labels file or table cannot be used."""


class RecordingError(SerBatchError):
    """One recording cannot be used.

    Parameters
    ----------
    stage
        Where it failed: ``walk``, ``open``, ``decode``, ``segment``, ``variant``.
    message
        What came, what was expected, what to do.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage

    def __reduce__(self) -> tuple[type["RecordingError"], tuple[str, str]]:
        """Let the error travel between processes with both of its arguments."""
        return type(self), (self.stage, str(self))


class OutputError(SerBatchError):
    """The output cannot be written, or belongs to a run with other settings."""


class ModelError(SerBatchError):
    """A model folder is incomplete, altered, or of a version this program does not read."""


class EncoderError(SerBatchError):
    """An encoder folder is incomplete or altered, or weights are not those of a Whisper encoder."""


class DownloadError(SerBatchError):
    """An archive cannot be fetched, or is not what it should be."""
