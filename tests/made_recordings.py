"""Recordings for tests of what is done with them: small text files that say what is to come of them."""

import os
from collections.abc import Mapping
from pathlib import Path

from ser_batch.corpus.manifest import Metadata, Recording


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
