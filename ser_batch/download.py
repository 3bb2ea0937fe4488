"""Download of corpora and encoder weights, verified by the publishers' checksums."""

import hashlib
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

import pooch
import requests
from msgspec import Meta

from ser_batch.corpus.known_corpora import SOURCES
from ser_batch.errors import DownloadError, OutputError, UsageError, did_you_mean
from ser_batch.summary import Summary

Report = Callable[[str, int, int], None]  # called with the file's name, bytes done and bytes in all (0 if unknown)


@dataclass(frozen=True, kw_only=True)
class Release:
    """The zip archives of one corpus."""

    url: str  # the folder on the web that holds them
    archives: Mapping[str, str]  # file name to the MD5 that the publisher states


# by the name of the corpus; Zenodo states the checksums on the page of each record
RELEASES: dict[str, Release] = {
    "ravdess": Release(
        url="https://zenodo.org/records/1188976/files",
        archives={
            "Audio_Speech_Actors_01-24.zip": "bc696df654c87fed845eb13823edef8a",
            "Audio_Song_Actors_01-24.zip": "5411230427d67a21e18aa4d466e6d1b9",
        },
    ),
    "subesco": Release(
        url="https://zenodo.org/records/4526477/files", archives={"SUBESCO.zip": "13d702cf944bf54d70d66bffc036ed7a"}
    ),
    "emozionalmente": Release(
        url="https://zenodo.org/records/12616095/files",
        archives={"emozionalmente.zip": "398c6502dd2b0e1e810f927c12897547"},
    ),
}
_TIMEOUTS_S = (10.0, 60.0)  # to connect, between two reads
_CHUNK_BYTES = 64 * 1024  # at most this much of what came is lost when a transfer breaks
_MAX_RETRIES = 5
_PROGRESS_BYTES = 1024**2  # an attempt that brought this much starts the count of retries anew
_sleep = time.sleep  # tests replace it


@dataclass
class _Transfer:
    """A downloader for pooch that keeps what came in a .part file and continues from there."""

    part: Path
    report: Callable[[int, int], None]
    answered: bool = False  # by the server, at least once

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        """Fetch `url` and move it to `output_file`, as pooch expects of a downloader."""
        failures = 0
        while True:
            n_before = self._n_bytes()
            try:
                self._attempt(url, n_before)
                break
            except requests.RequestException as error:
                failures = 0 if self._n_bytes() - n_before >= _PROGRESS_BYTES else failures
                if not self.answered:
                    raise DownloadError(
                        f"{url}: no connection ({error}). Check the network; --url names a mirror"
                    ) from error
                if failures == _MAX_RETRIES:
                    raise DownloadError(
                        f"{url}: the transfer broke off after {failures} retries ({error}). {self._n_bytes()} bytes "
                        "are kept; run the same command to continue, or name a mirror with --url"
                    ) from error
            _sleep(2**failures)
            failures += 1
        self.part.replace(output_file)

    def _attempt(self, url: str, n_bytes: int) -> None:
        """Fetch what is missing; a server that knows no ranges sends all of it again."""
        # identity: ranges and lengths shall count the bytes of the file
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={n_bytes}-"} if n_bytes else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUTS_S) as response:
            self.answered = True
            status = response.status_code
            if status == 416 and n_bytes:
                return  # no byte follows those that are here; whether they are the right ones, the checksum says
            if status in {408, 429} or status >= 500:
                raise requests.HTTPError(f"the server answered {status} {response.reason}")
            if status not in {200, 206}:
                found = f"the server answered {status} {response.reason}"
                raise DownloadError(f"{url}: expected the file, {found}. --url names a mirror")
            n_bytes = n_bytes if status == 206 else 0
            length = int(response.headers.get("Content-Length", 0))
            total = n_bytes + length if length else 0
            with self.part.open("ab" if n_bytes else "wb") as file:
                self.report(n_bytes, total)
                for chunk in response.iter_content(_CHUNK_BYTES):
                    n_bytes += file.write(chunk)
                    self.report(n_bytes, total)
        if n_bytes < total:  # urllib3 before 2.0 takes a closed connection for the end
            raise requests.ConnectionError("the connection was closed early")

    def _n_bytes(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def _fetch(address: str, name: str, checksum: str, folder: Path, report: Report | None) -> bool:
    """Have a file in a folder with the right checksum; return whether it came over the network."""
    kind, _, expected = checksum.partition(":")
    path = folder / name
    transfer = _Transfer(folder / f"{name}.part", partial(report, name) if report else lambda _done, _total: None)
    url = f"{address.rstrip('/')}/{name}"
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would write to stderr, between the lines of our progress
    if kind == "git" and path.is_file() and _git_hash(path.read_bytes()) != expected:
        path.unlink()  # pooch, which does not know this checksum, would keep it
    try:
        pooch.retrieve(url, None if kind == "git" else checksum, fname=name, path=folder, downloader=transfer)
        if kind == "git" and (found := _git_hash(path.read_bytes())) != expected:
            raise ValueError(f"expected {checksum} but got {found}")
    except ValueError as error:  # pooch's names both checksums
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{url}: {error} The file was removed. Run the same command again, or name a mirror with --url"
        ) from error
    finally:
        logger.setLevel(level)
    return transfer.answered


def _git_hash(content: bytes) -> str:
    """Return the name that git gives a file of this content; pooch does not know this checksum."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _unpack(archive: Path, out: Path) -> int:
    """Have the recordings and tables of an archive in `out`; return how many recordings these are."""
    with zipfile.ZipFile(archive) as opened:
        sizes = {member.filename: member.file_size for member in opened.infolist() if _is_wanted(member.filename)}
    if not all((out / name).is_file() and (out / name).stat().st_size == size for name, size in sizes.items()):
        # beside the archive, so that a walk never finds half a recording
        unpacked = Path(f"{archive}.unzip")
        try:
            pooch.Unzip()(str(archive), "download", None)
            for name in sizes:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (unpacked / name).replace(out / name)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
    return sum(name.lower().endswith(".wav") for name in sizes)


def _is_wanted(name: str) -> bool:
    """Whether a member of an archive is a recording or a table; macOS adds files of the same suffix."""
    path = PurePosixPath(name)
    return path.suffix.lower() in {".wav", ".csv"} and path.parts[0] != "__MACOSX" and not path.name.startswith("._")


class DownloadSummary(Summary, frozen=True, kw_only=True):
    """What is there after a download."""

    out: Annotated[Path, Meta(description="the folder")]
    n_recordings: Annotated[int, Meta(description="recordings in the archives; 0 for weights")]
    fetched: Annotated[tuple[str, ...], Meta(description="list of the files that were downloaded")]
    already_here: Annotated[tuple[str, ...], Meta(description="list of the files that were there already")]


def find_release(corpus: str) -> Release:
    """Return the archives of a corpus."""
    if corpus in RELEASES:
        return RELEASES[corpus]
    available = f"download has checksums of {', '.join(RELEASES)} only"
    if corpus in SOURCES:
        source = SOURCES[corpus]
        raise UsageError(
            f"{corpus}: no archive of it can be verified; {available}. Get {source.title.partition(',')[0]} from "
            f"{source.page} ({source.access}). License: {source.terms}"
        )
    raise UsageError(f"{corpus}: no such corpus; {available}{did_you_mean(corpus, SOURCES)}")


def download_corpus(
    out: Path, *, release: Release, url: str | None = None, report: Report | None = None
) -> DownloadSummary:
    """Fetch the archives of a corpus and unpack their recordings and tables into `out`.

    The archives stay in ``out/.archives/``. The same call does only what is missing: a broken transfer continues, an
    archive with the right checksum is not fetched again.

    Parameters
    ----------
    out
        The folder to write to; made if it is not there.
    release
        Which archives to fetch; see `find_release`.
    url
        A mirror: the folder on the web that holds the archives, ``http://`` or ``https://``. None stands for the
        publisher's.
    report
        Called as ``report(archive_name, bytes_done, bytes_total)`` for every piece that came; the total is 0
        if the server does not say it.

    Raises
    ------
    UsageError
        If `url` is not an address on the web.
    DownloadError
        If an archive cannot be fetched, or has another checksum.
    OutputError
        If `out` cannot be written.
    """
    archives = (out / ".archives").absolute()  # pooch would expand a leading ~
    checksums = {name: f"md5:{md5}" for name, md5 in release.archives.items()}
    fetched, already_here = _fetch_all(release.url if url is None else url, checksums, archives, report)
    try:
        n_recordings = sum(_unpack(archives / name, out) for name in checksums)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return DownloadSummary(out=out, n_recordings=n_recordings, fetched=fetched, already_here=already_here)


def _fetch_all(
    address: str, checksums: Mapping[str, str], folder: Path, report: Report | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Have files in a folder; return the names of those that came over the network, and of the others."""
    if not re.match(r"https?://[^/]", address, re.IGNORECASE):
        raise UsageError(f"--url {address}: expected an address that begins with http:// or https://")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        came = {name: _fetch(address, name, checksum, folder, report) for name, checksum in checksums.items()}
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return tuple(name for name in came if came[name]), tuple(name for name in came if not came[name])


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder}: cannot be written ({error}). Name another folder with --out")


HUGGING_FACE = "https://huggingface.co/openai"


@dataclass(frozen=True)
class Checkpoint:
    """One revision of the files of a checkpoint, which its publisher cannot change."""

    revision: str  # the commit on Hugging Face
    config: str  # git's hash of config.json as a blob, which names the file there
    weights: str  # SHA-256 of model.safetensors, which names it there


CHECKPOINTS: dict[str, Checkpoint] = {
    "whisper-tiny.en": Checkpoint(
        "87c7102498dcde7456f24cfd30239ca606ed9063",
        "31c9f364d610705cd391e465d49df5f8e77fd868",
        "db59695928ded6043adaef491a53ef4e12da9611184d77c53baa691a60b958ad",
    ),
    "whisper-tiny": Checkpoint(
        "169d4a4341b33bc18d8881c4b69c2e104e1cc0af",
        "417aa9de49a132dd3eb6a56d3be2718b15f08917",
        "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
    ),
    "whisper-base.en": Checkpoint(
        "911407f4214e0e1d82085af863093ec0b66f9cd6",
        "0e9af059a5d452f97d3493ffb4da98712c8fd711",
        "d4dd5542fd6a1d35639e21384238f3bfe6c557c849d392b5905d33ee29e71db5",
    ),
    "whisper-base": Checkpoint(
        "e37978b90ca9030d5170a5c07aadb050351a65bb",
        "708cca09e7e8a9364e444efe8b4f9c2691fc5f51",
        "07cadb9f25677c8d50df603e66a98fbd842cce45047139baeb16e6219a1e807b",
    ),
    "whisper-small.en": Checkpoint(
        "e8727524f962ee844a7319d92be39ac1bd25655a",
        "441d82a4be08ee59609c374a4d5082641677466e",
        "6014ac49b506df900f66f4aca6b0801eed7245594ace97bcaf73e0ae5b863066",
    ),
    "whisper-small": Checkpoint(
        "973afd24965f72e36ca33b3055d56a652f456b4d",
        "113bb3efe3a7396f2ea629eef12637bd8085238d",
        "1d7734884874f1a1513ed9aa760a4f8e97aaa02fd6d93a3a85d27b2ae9ca596b",
    ),
    "whisper-medium": Checkpoint(
        "abdf7c39ab9d0397620ccaea8974cc764cd0953e",
        "eda91ab1edc34a7c54512ed7a53e643b202387af",
        "62f73550fa6db24b0c6f6c5962bd0dae80fa644e93cde9cd9c3792971b47fd28",
    ),
    "whisper-large-v2": Checkpoint(
        "ae4642769ce2ad8fc292556ccea8e901f1530655",
        "1ce74630ed587e80f3db2b3d434f7026327f131e",
        "57a1ba2a82c093cabff2541409ae778c97145378b9ddfa722763cb1cb8f9020b",
    ),
    "whisper-large-v3": Checkpoint(
        "06f233fe06e710322aca913c1bc4249a0d71fce1",
        "14c6c8cf48b64ebb1cb8b637e2b0fab3a9774972",
        "a8e94b85976e5864ba3e9525c7e6c83b2a1eca42d4b797a0c7c24d778e40fd95",
    ),
    "whisper-large-v3-turbo": Checkpoint(
        "41f01f3fe87f28c78e2fbf8b568835947dd65ed9",
        "ad2f44ff1ed66e12765b2392dc041469db91a462",
        "542566a422ae4f3fd23f1ba11add198fca01bbf82e66e6a2857b3f608b1eb9d1",
    ),
}


def download_checkpoint(
    name: str, out: Path, *, url: str | None = None, checkpoint: Checkpoint | None = None, report: Report | None = None
) -> DownloadSummary:
    """Fetch the weights of an encoder, for `ser-batch encoder convert`.

    The same call does only what is missing, as `download_corpus`.

    Parameters
    ----------
    name
        Such as ``whisper-base``.
    out
        The folder to write to; made if it is not there.
    url
        The folder on the web that holds config.json and model.safetensors; None: the fixed revision on Hugging Face.
    checkpoint
        The checksums; None takes those that are known for `name`.
    report
        Called as ``report(file_name, bytes_done, bytes_total)`` for every piece that came.

    Raises
    ------
    UsageError
        There is no checkpoint of that name, or `url` is not an address on the web.
    DownloadError
        A file cannot be fetched, or has another checksum.
    OutputError
        `out` cannot be written.
    """
    checkpoint = checkpoint or CHECKPOINTS.get(name)
    if checkpoint is None:
        raise UsageError(
            f"{name}: no such checkpoint; expected one of {', '.join(CHECKPOINTS)}{did_you_mean(name, CHECKPOINTS)}"
        )
    address = f"{HUGGING_FACE}/{name}/resolve/{checkpoint.revision}" if url is None else url
    checksums = {"config.json": f"git:{checkpoint.config}", "model.safetensors": f"sha256:{checkpoint.weights}"}
    fetched, already_here = _fetch_all(address, checksums, out.absolute(), report)
    return DownloadSummary(out=out, n_recordings=0, fetched=fetched, already_here=already_here)
