"""Helpers that several test files share."""

import collections
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_batch.audio.reader import AudioReader
from ser_batch.audio.recording_file import RecordingFile
from ser_batch.config.option_values import ReaderSettings
from ser_batch.corpus.manifest import Metadata, Recording
from ser_batch.vad.activity import Activity
from ser_batch.vad.scan import scan


def touch(root: Path, *names: str) -> Path:
    """Make empty files below a folder."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """Return what the files of a folder hold, by their paths in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def reader_of(file: Path, path: str | None = None, settings: ReaderSettings | None = None) -> Iterator[AudioReader]:
    """Open a file for reading in blocks; `path` is its name in messages."""
    opened = RecordingFile(os.fsencode(file), path or file.name)
    with opened, AudioReader(opened, settings) as reader:
        yield reader


def speech_of(file: Path, **options: Any) -> Activity:
    """Find the speech of a file; `options` are those of `scan`."""
    with reader_of(file) as reader:
        return scan(reader, **options)


def recordings_of(folder: Path, texts: Mapping[str, str]) -> list[Recording]:
    """Write a text file for each name, unless it holds that already, and return them as the walk would."""
    made = []
    for name, text in texts.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        status = file.stat()
        made.append(
            Recording(
                path=name, file=os.fsencode(file), size=status.st_size, mtime_ns=status.st_mtime_ns, metadata=Metadata()
            )
        )
    return made


def values_of(model: Path) -> dict[str, Any]:
    """Return what the model.json of a folder says."""
    return json.loads((model / "model.json").read_text())


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Log:
    """What stands for a standard stream, and knows nothing of terminals."""

    text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def quiet(line: str) -> None:
    """Progress that nobody reads."""


@contextlib.contextmanager
def jax_events() -> Iterator[collections.Counter[str]]:
    """Count what JAX does: `backend_compile_duration` of each program, `cache_misses` of those that are compiled."""
    from jax import monitoring

    events: collections.Counter[str] = collections.Counter()
    monitoring.register_event_listener(lambda event, **_: events.update([event.rpartition("/")[2]]))
    monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.update([event.rpartition("/")[2]]))
    yield events
    monitoring.clear_event_listeners()
