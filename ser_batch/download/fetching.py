"""Have a file here, whole.

pooch decides whether a file is needed and verifies its checksum; it does not resume a broken download, so
the transfer itself is done here, as a downloader that pooch calls.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pooch
import requests

from ser_batch.errors import DownloadError

# called with the file's name, bytes done and bytes in all
Report = Callable[[str, int, int], None]

_TIMEOUTS_S = (10.0, 60.0)  # to connect, between two reads
_CHUNK_BYTES = 64 * 1024  # at most this much of what came is lost when a transfer breaks
_MAX_RETRIES = 5
_NEW_START_BYTES = 1024**2  # a connection that brought this much more is not counted as a failure
_sleep = time.sleep  # tests replace it


@dataclass
class _Transfer:
    """A downloader for pooch that keeps what came in a .part file and goes on from there."""

    part: Path
    kind: str  # of checksum
    report: Callable[[int, int], None]
    answered: bool = False  # by the server, at least once
    resumed: bool = False  # the last answer continued what was here
    bytes_total: int = 0  # unknown
    digest: str = ""  # of what came; empty as long as pooch asked for nothing

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
        self.digest = _digest(self.part, self.kind)
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
                raise DownloadError(f"{url}: expected the file, {found}. --url names a mirror")
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


def fetch(name: str, checksum: str, address: str, kept: Path, report: Report | None) -> bool:
    """Have a file in a folder with the right checksum.

    Parameters
    ----------
    name
        Of the file, for messages and in the folder.
    checksum
        ``md5:``, ``sha256:`` or ``git:`` (Git's hash of the file as a blob), and hex digits.
    address
        Where it is on the web.
    kept
        The folder, absolute.
    report
        Called with each piece that came.

    Returns
    -------
    bool
        Whether it had to come over the network.

    Raises
    ------
    DownloadError
        It cannot be fetched, or has another checksum.
    """
    kind, _, wanted = checksum.partition(":")
    path = kept / name
    transfer = _Transfer(kept / f"{name}.part", kind, partial(report, name) if report else lambda _done, _total: None)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would write to stderr, between the lines of our progress
    try:
        for is_last_try in (False, True):
            if kind == "git" and path.exists() and _digest(path, kind) != wanted:
                path.unlink()  # pooch, which does not know this kind, takes what is there
            try:
                pooch.retrieve(address, checksum if kind != "git" else None, fname=name, path=kept, downloader=transfer)
                if kind == "git" and transfer.digest not in {"", wanted}:
                    raise ValueError(f"{path}: git hash {transfer.digest}")
                break
            except ValueError as error:
                # what was kept may come from another version of the file: once more, from its first byte
                if is_last_try or not transfer.resumed:
                    path.unlink(missing_ok=True)  # a damaged one of before
                    raise DownloadError(
                        f"{address}: expected {kind} {wanted}, found {transfer.digest}; the file was removed. "
                        "Run the same command again; --url names a mirror"
                    ) from error
    finally:
        logger.setLevel(level)
    return bool(transfer.digest)


def _digest(path: Path, kind: str) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as stream:
        if kind == "git":
            header = f"blob {path.stat().st_size}\0".encode()
            return hashlib.sha1(header + stream.read(), usedforsecurity=False).hexdigest()
        return hashlib.file_digest(stream, kind).hexdigest()
