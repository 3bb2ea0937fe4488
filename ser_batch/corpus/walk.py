"""The walk: from a folder to a manifest of recordings."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ser_batch.corpus.known_corpora import CORPORA, parse_name
from ser_batch.corpus.manifest import Manifest, Metadata, Recording, Reject
from ser_batch.corpus.object_store import APPLE_DOUBLE, walk_store
from ser_batch.errors import InputError, UsageError, printable
from ser_batch.storage.paths import is_remote

AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".w64", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf"),
        *(".m4a", ".m4b", ".aac", ".amr", ".wma", ".webm", ".mka"),
        *(".mp4", ".mov", ".3gp", ".mkv"),  # films, for their sound
        *(".gsm", ".ulaw", ".ul", ".alaw", ".al", ".raw", ".pcm", ".vox"),  # without a header
    }
)


def walk(audio: Path, *, corpus: str = "auto") -> Manifest:
    """Find the recordings below a folder.

    Links are followed, each folder once, so that circles end. Real folders come before links, and names are
    sorted by their bytes, so that the order depends on nothing but the tree.

    Parameters
    ----------
    audio
        A folder, or one audio file; or the address of such in an object store.
    corpus
        Whose names the files have; see `parse_name`.

    Raises
    ------
    UsageError
        There is no such folder or file.
    InputError
        It holds no audio file.
    """
    if is_remote(audio):
        return walk_store(audio, corpus=corpus, suffixes=AUDIO_SUFFIXES)
    if not os.path.exists(audio):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise UsageError(f"{audio}: no such folder or file; expected recordings, or a folder that holds some")
    single = audio.is_file()
    root = os.fsencode(audio.parent.resolve() if single else audio.resolve())
    recordings: list[Recording] = []
    rejects: list[Reject] = []
    skipped_files: Counter[str] = Counter()
    seen: set[str] = set()
    below = root.rstrip(b"/") + b"/"
    for file in [os.path.join(root, os.fsencode(audio.name))] if single else _files(root, rejects):  # noqa: PTH118 - pathlib knows no bytes
        path = utf8(file[len(below) :])  # not relpath, which takes longer than all the rest
        # not splitext, which finds no suffix in ``..wav``; a file named ``.wav`` has none
        stem, dot, end = os.path.basename(file).rpartition(b".")  # noqa: PTH119 - as above
        suffix = os.fsdecode(dot + end).lower() if stem else ""
        if suffix not in AUDIO_SUFFIXES:
            skipped_files[printable(suffix) or "no suffix"] += 1
            continue
        try:
            status = os.stat(file)  # noqa: PTH116 - as above
        except OSError as error:
            rejects.append(Reject(path, "walk", type(error).__name__, f"{printable(path)}: {error.strerror}"))
            continue
        if not stat.S_ISREG(status.st_mode):
            skipped_files["not a regular file"] += 1
            continue
        if _is_apple_double(file):
            skipped_files[APPLE_DOUBLE] += 1
            continue
        if path in seen:
            message = f"{printable(path)}: another name is written the same way; rename one"
            rejects.append(Reject(path, "walk", "DuplicatePath", message))
            continue
        seen.add(path)
        *_, folder, name = utf8(file).split("/")
        metadata = parse_name(name, folder=folder, corpus=corpus) or Metadata()
        recordings.append(
            Recording(path=path, file=file, size=status.st_size, mtime_ns=status.st_mtime_ns, metadata=metadata)
        )
    if not recordings and not rejects:
        others = f"; it holds {sum(skipped_files.values())} other files" if skipped_files else ""
        raise InputError(
            f"{audio}: no recordings found{others}; expected files that end in "
            f"{' '.join(sorted(AUDIO_SUFFIXES))}, at any depth"
        )
    return Manifest(Path(os.fsdecode(root)), tuple(recordings), tuple(rejects), dict(skipped_files))


def name_warnings(recordings: Iterable[Recording], *, corpus: str) -> tuple[str, ...]:
    """Return warnings about names without an emotion, or not of the corpus that was asked for."""
    foreign: list[str] = []
    unmapped: Counter[str] = Counter()
    for recording in recordings:
        known = recording.metadata
        if known.corpus is None:
            foreign.append(recording.path)
        elif known.emotion is None and not any(label.emotion for label in recording.labels):
            unmapped[known.corpus] += 1
    warnings = [
        f"{count} recordings of {name} are of an emotion that has no label here; theirs is unknown"
        for name, count in sorted(unmapped.items())
    ]
    if foreign and corpus in CORPORA:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        warnings.append(
            f"{len(foreign)} recordings are not named as those of {corpus}, their names say nothing: {shown}"
        )
    return tuple(warnings)


def _files(root: bytes, rejects: list[Reject]) -> Iterator[bytes]:
    """Yield all files below `root`, each folder once; folders that cannot be read become rejects."""
    visited: set[tuple[int, int]] = set()
    linked = [root]
    while linked:
        folders = [linked.pop(0)]
        while folders:
            folder = folders.pop()
            try:
                status = os.stat(folder)  # noqa: PTH116 - pathlib knows no bytes
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                path = utf8(os.path.relpath(folder, root))
                rejects.append(Reject(path, "walk", type(error).__name__, f"{printable(path)}: {error.strerror}"))
                continue
            below: list[bytes] = []
            for entry in entries:
                if _is_folder(entry):
                    (linked if entry.is_symlink() else below).append(entry.path)
                else:
                    yield entry.path
            folders.extend(reversed(below))


def _is_apple_double(file: bytes) -> bool:
    """Whether this is what macOS notes of a file beside it, or in the __MACOSX of a zip: `._` and the file's name."""
    folder, name = os.path.split(file)
    if not name.startswith(b"._"):
        return False
    if os.path.basename(folder) == b"__MACOSX" or b"/__MACOSX/" in folder or os.path.exists(folder + b"/" + name[2:]):  # noqa: PTH110, PTH119 - pathlib knows no bytes
        return True
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - as above
            return stream.read(4) == b"\x00\x05\x16\x07"
    except OSError:
        return False  # it becomes a reject with its reason


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry leads to a folder; a link that leads nowhere, or to itself, is no folder."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def utf8(path: bytes | str | Path) -> str:
    r"""Return a path or name as the tables have it: UTF-8, undecodable bytes written ``\xNN``."""
    return os.fsencode(path if isinstance(path, bytes) else str(path)).decode("utf-8", errors="backslashreplace")
