"""Recordings in an object store: found by a listing, and fetched one by one where they are read."""

import contextlib
import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ser_batch.corpus.known_corpora import parse_name
from ser_batch.corpus.manifest import Manifest, Metadata, Recording
from ser_batch.errors import InputError, RecordingError, UsageError, printable
from ser_batch.storage.paths import to_path

APPLE_DOUBLE = "._ of macOS"  # files in which it notes what belongs to others


def walk_store(audio: Path, *, corpus: str, suffixes: frozenset[str]) -> Manifest:
    """Find the recordings whose names begin with an address."""
    remote: Any = audio
    try:
        found: dict[str, dict[str, Any]] = remote.fs.find(remote.path, detail=True)
    except FileNotFoundError:
        found = {}
    except Exception as error:  # each store has errors of its own
        raise InputError(
            f"{audio}: cannot be listed ({type(error).__name__}: {error}); see to the store, its address and rights"
        ) from error
    if not found:
        raise UsageError(f"{audio}: nothing is there; expected recordings")
    root = remote.parent if list(found) == [remote.path] else remote
    skipped_files: Counter[str] = Counter()
    recordings: list[Recording] = []
    for key, info in sorted(found.items()):
        *_, folder, name = key.split("/")
        stem, dot, end = name.rpartition(".")
        suffix = (dot + end).lower() if stem else ""
        if suffix not in suffixes or name.startswith("._"):
            skipped_files[APPLE_DOUBLE if suffix in suffixes else printable(suffix) or "no suffix"] += 1
            continue
        modified = info["LastModified"] if "LastModified" in info else remote.fs.modified(key)
        recordings.append(
            Recording(
                path=key[len(root.path) :].lstrip("/"),
                file=remote.fs.unstrip_protocol(key).encode(),
                size=int(info["size"]),
                mtime_ns=round(modified.timestamp() * 1e9),
                metadata=parse_name(name, folder=folder, corpus=corpus) or Metadata(),
            )
        )
    if not recordings:
        raise InputError(f"{audio}: no recordings found; it holds {sum(skipped_files.values())} other files")
    return Manifest(root, tuple(recordings), (), dict(skipped_files))


def is_in_store(recording: Recording) -> bool:
    """Whether a recording has to be fetched to be read."""
    return b"://" in recording.file and not recording.file.startswith(b"/")


@contextlib.contextmanager
def fetched(recording: Recording) -> Iterator[Recording]:
    """Give a recording that can be opened: itself, or a copy for the length of the block, whole and of one moment."""
    if not is_in_store(recording):
        yield recording
        return
    address: Any = to_path(recording.file.decode())
    with tempfile.TemporaryDirectory(prefix="ser-batch-") as folder:
        copy = Path(folder) / f"recording{Path(address.name).suffix}"
        try:
            address.fs.get_file(address.path, str(copy))
        except FileNotFoundError:
            pass  # whoever opens the copy finds that it is not there
        except Exception as error:  # each store has errors of its own
            raise RecordingError(
                "open",
                f"{recording.path}: cannot be fetched ({type(error).__name__}: {error}); run the same command again",
            ) from error
        if copy.exists():
            os.utime(copy, ns=(recording.mtime_ns, recording.mtime_ns))
        yield dataclasses.replace(recording, file=os.fsencode(copy))
