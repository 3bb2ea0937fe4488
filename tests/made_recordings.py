"""Recordings for tests: read as they are, or small text files that say what is to come of them."""

import contextlib
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


def recordings_of(folder: Path, contents: Mapping[str, str]) -> list[Recording]:
    """Write a file for each name, unless it holds that already, and return them as the walk would."""
    made = []
    for name, content in contents.items():
        file = folder / name
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
        status = file.stat()
        made.append(
            Recording(
                path=name, file=os.fsencode(file), size=status.st_size, mtime_ns=status.st_mtime_ns, metadata=Metadata()
            )
        )
    return made
