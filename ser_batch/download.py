"""Fetch corpora and encoder weights, and verify their checksums."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
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


@dataclasses.dataclass(frozen=True)
class Archive:
    """One zip file."""

    name: str  # its file name, on the server and in ``.archives/``
    md5: str  # the checksum its publisher states, 32 hex digits
    n_recordings: int  # how many .wav files it holds; 0 if unknown
    # whether it holds tables beside the recordings: .csv files are unpacked too, all others stay in the archive.
    # Without tables, a file that is no .wav is refused
    has_tables: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """The archives of one corpus."""

    url: str  # the folder on the web that holds them
    archives: tuple[Archive, ...]  # what to fetch, all of it


# By the name of the corpus. Zenodo states the checksums on the page of each record; size, members and checksum of
# SUBESCO as its users pinned them
RELEASES: dict[str, Release] = {
    "ravdess": Release(
        url="https://zenodo.org/records/1188976/files",
        archives=(
            Archive("Audio_Speech_Actors_01-24.zip", "bc696df654c87fed845eb13823edef8a", 1440),
            Archive("Audio_Song_Actors_01-24.zip", "5411230427d67a21e18aa4d466e6d1b9", 1012),
        ),
    ),
    "subesco": Release(
        url="https://zenodo.org/records/4526477/files",
        archives=(Archive("SUBESCO.zip", "13d702cf944bf54d70d66bffc036ed7a", 7000),),
    ),
    "emozionalmente": Release(
        url="https://zenodo.org/records/12616095/files",
        archives=(Archive("emozionalmente.zip", "398c6502dd2b0e1e810f927c12897547", 6902, has_tables=True),),
    ),
}
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
        max_bytes = self._bytes_here()
        with requests.Session() as session:
            complete = False
            while not complete:
                try:
                    complete = self._go_on(session, url)
                except requests.RequestException as error:
                    if self._bytes_here() - max_bytes >= _NEW_START_BYTES:
                        max_bytes = self._bytes_here()
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
    """Have a file in a folder with the right checksum."""
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
    fetched = f"download has checksums of {', '.join(RELEASES)} only"
    if corpus in SOURCES:
        source = SOURCES[corpus]
        raise UsageError(
            f"{corpus}: no archive of it can be verified; {fetched}. Get {source.title.partition(',')[0]} from "
            f"{source.page} ({source.access}). License: {source.terms}"
        )
    raise UsageError(f"{corpus}: no such corpus; {fetched}{did_you_mean(corpus, SOURCES)}")


def download_corpus(
    out: Path, *, release: Release, url: str | None = None, report: Report | None = None
) -> DownloadSummary:
    """Fetch the archives of a corpus and unpack them into `out`.

    The archives stay in ``out/.archives/``, each with a JSON file that lists what was unpacked from it. The
    same call does only what is missing: a broken transfer goes on where it stopped, an archive with the right
    checksum is not fetched again, and one whose recordings are all there is not needed any more.

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
        If an archive cannot be fetched, has another checksum, or holds something else than its recordings.
    OutputError
        If `out` cannot be written.
    """
    url = release.url if url is None else url
    check_address(url)
    kept = (out / ".archives").absolute()  # pooch would expand a leading ~
    n_recordings = 0
    fetched: list[str] = []
    already_here: list[str] = []
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for archive in release.archives:
            came = False
            files = unpacked_before(archive, kept, out)
            if not files:
                came = fetch(archive.name, f"md5:{archive.md5}", f"{url.rstrip('/')}/{archive.name}", kept, report)
                files = unpack(archive, kept, out)
            (fetched if came else already_here).append(archive.name)
            n_recordings += count_recordings(files)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}). Name another folder with --out") from error
    return DownloadSummary(out=out, n_recordings=n_recordings, fetched=tuple(fetched), already_here=tuple(already_here))


def check_address(url: str) -> None:
    """Refuse what is no address on the web."""
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise UsageError(f"--url {url}: expected an address that begins with http:// or https://")


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
    name: str,
    out: Path,
    *,
    url: str | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report | None = None,
) -> DownloadSummary:
    """Fetch the weights of an encoder, for `ser-batch encoder convert`.

    The same call does only what is missing, as `download_ravdess`.

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
    address = url or f"{HUGGING_FACE}/{name}/resolve/{checkpoint.revision}"
    check_address(address)
    checksums = {"config.json": f"git:{checkpoint.config}", "model.safetensors": f"sha256:{checkpoint.weights}"}
    fetched: list[str] = []
    already_here: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, checksum in checksums.items():
            came = fetch(file, checksum, f"{address.rstrip('/')}/{file}", out.absolute(), report)
            (fetched if came else already_here).append(file)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}). Name another folder with --out") from error
    return DownloadSummary(out=out, n_recordings=0, fetched=tuple(fetched), already_here=tuple(already_here))
