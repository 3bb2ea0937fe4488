"""Fetch the official RAVDESS archives, verify their checksums, unpack them.

pooch decides whether an archive is needed and verifies its checksum; it does not resume a broken download, so
the transfer itself is done here, as a downloader that pooch calls.

Source: Livingstone & Russo 2018, PLoS ONE 13(5) e0196391; Zenodo record 1188976, CC BY-NC-SA 4.0.
"""

import json
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import pooch
import requests

from ser_batch.errors import DownloadError, OutputError, UsageError

__all__ = ["RAVDESS", "ZENODO", "Archive", "DownloadSummary", "download_ravdess"]


@dataclass(frozen=True)
class Archive:
    """One zip file of the record.

    Parameters
    ----------
    name
        Its file name, on the server and in ``.archives/``.
    md5
        The checksum its publisher states, 32 hex digits.
    n_recordings
        How many .wav files it holds; 0 if unknown.
    """

    name: str
    md5: str
    n_recordings: int


ZENODO = "https://zenodo.org/records/1188976/files"
RAVDESS: tuple[Archive, ...] = (
    Archive("Audio_Speech_Actors_01-24.zip", "bc696df654c87fed845eb13823edef8a", 1440),
    Archive("Audio_Song_Actors_01-24.zip", "5411230427d67a21e18aa4d466e6d1b9", 1012),
)


@dataclass(frozen=True)
class DownloadSummary:
    """What is there after a download.

    Parameters
    ----------
    folder
        Holds the recordings, in one folder an actor.
    n_recordings
        How many recordings the archives brought.
    fetched, already_here
        Names of the archives that came over the network, and of those that did not have to.
    """

    folder: Path
    n_recordings: int
    fetched: tuple[str, ...]
    already_here: tuple[str, ...]


_Report = Callable[[str, int, int], None]

_TIMEOUTS_S = (10.0, 60.0)  # to connect, between two reads
_CHUNK_BYTES = 64 * 1024  # at most this much of what came is lost when a transfer breaks
_MAX_RETRIES = 5
_NEW_START_BYTES = 1024**2  # a connection that brought this much more is not counted as a failure
_MAX_UNPACKED_BYTES = 4 * 1024**3
_sleep = time.sleep  # tests replace it

# What is allowed, not what is forbidden: so no `..`, nothing absolute, no backslash, colon or NUL.
_NAME_PART = r"\w(?:[\w. -]*\w)?"
_SAFE_NAME = re.compile(rf"{_NAME_PART}(?:/{_NAME_PART})*", re.ASCII)


def download_ravdess(
    out: Path,
    *,
    url: str = ZENODO,
    archives: Sequence[Archive] = RAVDESS,
    report: _Report | None = None,
) -> DownloadSummary:
    """Fetch the audio archives and unpack them into ``out/Actor_XX/``, speech and song side by side.

    The archives stay in ``out/.archives/``, each with a JSON file that lists what was unpacked from it. The
    same call does only what is missing: a broken transfer goes on where it stopped, an archive with the right
    checksum is not fetched again, and one whose recordings are all there is not needed any more.

    Parameters
    ----------
    out
        The folder to write to; made if it is not there.
    url
        The folder on the web that holds the archives, ``http://`` or ``https://``.
    archives
        Which archives to fetch.
    report
        Called as ``report(archive_name, bytes_done, bytes_total)`` for every piece that came; the total is 0
        if the server does not say it.

    Raises
    ------
    UsageError
        If `url` is not an address on the web.
    DownloadError
        If an archive cannot be fetched, has another checksum, or holds something else than its recordings.
    OutputError
        If `out` cannot be written.

    Notes
    -----
    Source: Zenodo record 1188976, https://doi.org/10.5281/zenodo.1188976, which also states the checksums.
    """
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise UsageError(f"--url {url}: expected an address that begins with http:// or https://")
    kept = (out / ".archives").absolute()  # pooch would expand a leading ~
    n_recordings = 0
    fetched: list[str] = []
    already_here: list[str] = []
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            came = False
            files = _unpacked_before(archive, kept, out)
            if not files:
                came = _fetch(archive, f"{url.rstrip('/')}/{archive.name}", kept, report)
                files = _unpack(archive, kept, out)
            (fetched if came else already_here).append(archive.name)
            n_recordings += len(files)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}). Name another folder with --out") from error
    return DownloadSummary(out, n_recordings, tuple(fetched), tuple(already_here))


@dataclass
class _Transfer:
    """A downloader for pooch that keeps what came in a .part file and goes on from there."""

    part: Path
    report: Callable[[int, int], None]
    answered: bool = False  # by the server, at least once
    resumed: bool = False  # the last answer continued what was here
    bytes_total: int = 0  # unknown
    md5: str = ""  # of what came; empty as long as pooch asked for nothing

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        """Fetch `url` and put it in place of `output_file`, as pooch expects of a downloader."""
        failures = 0
        most_bytes = self._bytes_here()
        with requests.Session() as session:
            complete = False
            while not complete:
                try:
                    complete = self._go_on(session, url)
                except requests.RequestException as error:
                    if self._bytes_here() - most_bytes >= _NEW_START_BYTES:
                        most_bytes = self._bytes_here()
                        failures = 0
                    if failures == _MAX_RETRIES or not self.answered:
                        raise self._give_up(url, error) from error
                    _sleep(2**failures)
                    failures += 1
        self.md5 = pooch.file_hash(str(self.part), alg="md5")
        self.part.replace(output_file)

    def _go_on(self, session: requests.Session, url: str) -> bool:
        """Fetch what is missing; False if the server cannot go on from what is here, now removed."""
        bytes_done = self._bytes_here()
        headers = {"Accept-Encoding": "identity"}  # ranges and lengths shall count the bytes of the file
        if bytes_done:
            headers["Range"] = f"bytes={bytes_done}-"
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as response:
            self.answered = True
            status = response.status_code
            start, bytes_total = _extent(response)
            self.resumed = status in {206, 416}
            if bytes_done and status == 416 and bytes_total == bytes_done:
                return True  # stopped last time between the last byte and the checksum
            if bytes_done and (status == 416 or (status == 206 and start != bytes_done)):
                self.part.unlink()
                return False
            if status in {408, 429} or status >= 500:
                raise requests.HTTPError(f"the server answered {status} {response.reason}")
            if status not in {200, 206}:
                found = f"the server answered {status} {response.reason}"
                raise DownloadError(f"{url}: expected the archive, {found}. --url names a mirror")
            self.bytes_total = bytes_total
            if status == 200:  # a server that knows no ranges sends all of it again
                bytes_done = 0
            with self.part.open("ab" if bytes_done else "wb") as file:
                self.report(bytes_done, bytes_total)
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    bytes_done += len(chunk)
                    self.report(bytes_done, bytes_total)
        if bytes_done < bytes_total:  # urllib3 before 2.0 takes a closed connection for the end
            raise requests.ConnectionError("the connection was closed early")
        return True

    def _bytes_here(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _give_up(self, url: str, error: requests.RequestException) -> DownloadError:
        if not self.answered:
            return DownloadError(f"{url}: no connection ({error}). Check the network; --url names a mirror")
        of_total = f" of {self.bytes_total}" if self.bytes_total else ""
        return DownloadError(
            f"{url}: the transfer broke off, retries included ({error}). {self._bytes_here()}{of_total} "
            "bytes came and are kept: the same command goes on from there; --url names a mirror"
        )


def _extent(response: requests.Response) -> tuple[int, int]:
    """Return where in the file an answer begins, and the size of the file (0 if unknown)."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else 0
    match = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", ""))
    start, total = match.groups() if match else (None, "*")
    return int(start or 0), 0 if total == "*" else int(total)


def _fetch(archive: Archive, address: str, kept: Path, report: _Report | None) -> bool:
    """Have the archive in `kept` with the right checksum; return whether it had to come over the network."""
    part = kept / f"{archive.name}.part"
    transfer = _Transfer(part, partial(report, archive.name) if report else lambda _done, _total: None)
    checksum = f"md5:{archive.md5}"
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would write to stderr, between the lines of our progress
    try:
        for is_last_try in (False, True):
            try:
                pooch.retrieve(address, checksum, fname=archive.name, path=kept, downloader=transfer)
                break
            except ValueError as error:
                # what was kept may come from another version of the file: once more, from its first byte
                if is_last_try or not transfer.resumed:
                    (kept / archive.name).unlink(missing_ok=True)  # a damaged one of before
                    raise DownloadError(
                        f"{address}: expected md5 {archive.md5}, found {transfer.md5}; the file was removed. "
                        "Run the same command again; --url names a mirror"
                    ) from error
    finally:
        logger.setLevel(level)
    return bool(transfer.md5)


def _unpacked_before(archive: Archive, kept: Path, out: Path) -> dict[str, int]:
    """Return path -> size of what was unpacked from this very archive, if all of it is still there."""
    try:
        marker = json.loads((kept / f"{archive.name}.json").read_text(encoding="utf-8"))
        files: dict[str, int] = marker["files"]
        intact = marker["md5"] == archive.md5 and archive.n_recordings in {0, len(files)}
        if intact and all((out / path).stat().st_size == n_bytes for path, n_bytes in files.items()):
            return files
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        pass  # no marker, a damaged one, or a file is gone: unpack again
    return {}


def _unpack(archive: Archive, kept: Path, out: Path) -> dict[str, int]:
    """Unpack all recordings, last write down which; return path -> size in bytes."""
    # beside the archive, so that no half recording ever stands where a walk finds it
    temporary = kept / f"{archive.name}.{os.getpid()}.unpacking"
    try:
        with zipfile.ZipFile(kept / archive.name) as opened:
            recordings = _checked(archive, opened.infolist())
            for path, member in recordings.items():
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as content, temporary.open("wb") as file:
                    shutil.copyfileobj(content, file)
                temporary.replace(out / path)
        files = {path: member.file_size for path, member in recordings.items()}
        marker = {"archive": archive.name, "md5": archive.md5, "n_recordings": len(files), "files": files}
        temporary.write_text(json.dumps(marker, indent=1), encoding="utf-8")
        temporary.replace(kept / f"{archive.name}.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DownloadError(f"{archive.name}: expected a sound zip archive, found: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return files


def _checked(archive: Archive, members: Iterable[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the recordings by path, or refuse the archive before anything of it is written."""
    recordings: dict[str, zipfile.ZipInfo] = {}
    # by lower case: on some systems two names that differ in nothing else are one file
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        name = member.orig_filename.removesuffix("/")  # as stored: zipfile rewrites `filename`
        last = name.rpartition("/")[2]
        if name.split("/")[0] == "__MACOSX" or last == ".DS_Store" or last.startswith("._"):
            continue
        reason = _unusable(member, name)
        if reason is None and member.is_dir():
            folders.add(name.lower())
            continue
        if reason is None and name.lower() in files:
            reason = "its name is there twice, or differs in upper and lower case only"
        if reason is not None:
            raise DownloadError(f"{archive.name}: nothing unpacked; member {name!r} is refused: {reason}")
        recordings[name] = member
        files.add(name.lower())
        folders.update(str(folder).lower() for folder in PurePosixPath(name).parents)
    for name in sorted(files & folders):
        raise DownloadError(f"{archive.name}: nothing unpacked; {name!r} is both a recording and a folder in it")
    n_bytes = sum(member.file_size for member in recordings.values())
    if n_bytes > _MAX_UNPACKED_BYTES:
        raise DownloadError(
            f"{archive.name}: nothing unpacked; expected at most {_MAX_UNPACKED_BYTES} bytes, found {n_bytes}"
        )
    if not recordings or archive.n_recordings not in {0, len(recordings)}:
        expected = archive.n_recordings or "some"
        raise DownloadError(
            f"{archive.name}: nothing unpacked; expected {expected} recordings, found {len(recordings)}"
        )
    return recordings


def _unusable(member: zipfile.ZipInfo, name: str) -> str | None:
    """Return why a member is neither a folder nor a recording that can be unpacked; None where it is one."""
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the packing system has no modes
    checks = (
        (_SAFE_NAME.fullmatch(name) is None, "its name is not safe"),
        (kind not in {0, stat.S_IFREG, stat.S_IFDIR}, "it is a link or a special file"),
        (bool(member.flag_bits & 0x1), "it is encrypted"),
        (member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}, "it is compressed in an unusual way"),
        (not member.is_dir() and not name.lower().endswith(".wav"), "it is not a .wav file"),
    )
    return next((reason for is_so, reason in checks if is_so), None)
