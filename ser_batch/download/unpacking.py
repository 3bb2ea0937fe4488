"""Unpack an archive that came from elsewhere: all of it is looked at before anything is written."""

import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ser_batch.download.archives import Archive
from ser_batch.errors import DownloadError

_MAX_UNPACKED_BYTES = 4 * 1024**3

# What is allowed, not what is forbidden: so no `..`, nothing absolute, no backslash, colon or NUL. A name of SUBESCO
# has a bracket.
_NAME_PART = r"\w(?:[\w. \]-]*\w)?"
_SAFE_NAME = re.compile(rf"{_NAME_PART}(?:/{_NAME_PART})*", re.ASCII)


def unpacked_before(archive: Archive, kept: Path, out: Path) -> dict[str, int]:
    """Return path -> size of what was unpacked from this very archive, if all of it is still there."""
    try:
        marker = json.loads((kept / f"{archive.name}.json").read_text(encoding="utf-8"))
        files: dict[str, int] = marker["files"]
        intact = marker["md5"] == archive.md5 and archive.n_recordings in {0, count_recordings(files)}
        if intact and all((out / path).stat().st_size == n_bytes for path, n_bytes in files.items()):
            return files
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        pass  # no marker, a damaged one, or a file is gone: unpack again
    return {}


def unpack(archive: Archive, kept: Path, out: Path) -> dict[str, int]:
    """Unpack all recordings and tables, last write down which; return path -> size in bytes."""
    # beside the archive, so that no half recording ever stands where a walk finds it
    temporary = kept / f"{archive.name}.{os.getpid()}.unpacking"
    try:
        with zipfile.ZipFile(kept / archive.name) as opened:
            members = _checked(archive, opened.infolist())
            for path, member in members.items():
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as content, temporary.open("wb") as file:
                    shutil.copyfileobj(content, file)
                temporary.replace(out / path)
        files = {path: member.file_size for path, member in members.items()}
        n_recordings = count_recordings(files)
        marker = {"archive": archive.name, "md5": archive.md5, "n_recordings": n_recordings, "files": files}
        temporary.write_text(json.dumps(marker, indent=1), encoding="utf-8")
        temporary.replace(kept / f"{archive.name}.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DownloadError(f"{archive.name}: expected a sound zip archive, found: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return files


def count_recordings(paths: Iterable[str]) -> int:
    """Return how many of the unpacked files are recordings."""
    return sum(path.lower().endswith(".wav") for path in paths)


def _checked(archive: Archive, members: Iterable[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return recordings and tables by path, or refuse the archive before anything of it is written."""
    suffixes = (".wav", ".csv") if archive.has_tables else (".wav",)
    wanted: dict[str, zipfile.ZipInfo] = {}
    # by lower case: on some systems two names that differ in nothing else are one file
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        name = member.orig_filename.removesuffix("/")  # as stored: zipfile rewrites `filename`
        last = name.rpartition("/")[2]
        if name.split("/")[0] == "__MACOSX" or last == ".DS_Store" or last.startswith("._"):
            continue
        if archive.has_tables and not member.is_dir() and not name.lower().endswith(suffixes):
            continue
        reason = _unusable(member, name, suffixes)
        if reason is None and member.is_dir():
            folders.add(name.lower())
            continue
        if reason is None and name.lower() in files:
            reason = "its name is there twice, or differs in upper and lower case only"
        if reason is not None:
            raise DownloadError(f"{archive.name}: nothing unpacked; member {name!r} is refused: {reason}")
        wanted[name] = member
        files.add(name.lower())
        folders.update(str(folder).lower() for folder in PurePosixPath(name).parents)
    for name in sorted(files & folders):
        raise DownloadError(f"{archive.name}: nothing unpacked; {name!r} is both a recording and a folder in it")
    n_bytes = sum(member.file_size for member in wanted.values())
    if n_bytes > _MAX_UNPACKED_BYTES:
        raise DownloadError(
            f"{archive.name}: nothing unpacked; expected at most {_MAX_UNPACKED_BYTES} bytes, found {n_bytes}"
        )
    n_recordings = count_recordings(wanted)
    if not n_recordings or archive.n_recordings not in {0, n_recordings}:
        expected = archive.n_recordings or "some"
        raise DownloadError(f"{archive.name}: nothing unpacked; expected {expected} recordings, found {n_recordings}")
    return wanted


def _unusable(member: zipfile.ZipInfo, name: str, suffixes: tuple[str, ...]) -> str | None:
    """Return why a member is neither a folder nor a file that can be unpacked; None where it is one."""
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the packing system has no modes
    checks = (
        (_SAFE_NAME.fullmatch(name) is None, "its name is not safe"),
        (kind not in {0, stat.S_IFREG, stat.S_IFDIR}, "it is a link or a special file"),
        (bool(member.flag_bits & 0x1), "it is encrypted"),
        (member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}, "it is compressed in an unusual way"),
        (not member.is_dir() and not name.lower().endswith(suffixes), f"it is not a {' or '.join(suffixes)} file"),
    )
    return next((reason for is_so, reason in checks if is_so), None)
