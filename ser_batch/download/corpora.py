"""What the command does for a corpus: fetch what is missing, unpack it, say what came."""

import re
from dataclasses import dataclass
from pathlib import Path

from ser_batch.corpus import SOURCES
from ser_batch.download.archives import RELEASES, Release
from ser_batch.download.fetching import Report, fetch
from ser_batch.download.unpacking import count_recordings, unpack, unpacked_before
from ser_batch.errors import OutputError, UsageError, did_you_mean


@dataclass(frozen=True)
class DownloadSummary:
    """What is there after a download.

    Parameters
    ----------
    folder
        Holds the recordings, in folders as in the archives.
    n_recordings
        How many recordings the archives brought.
    fetched, already_here
        Names of the archives that came over the network, and of those that did not have to.
    """

    folder: Path
    n_recordings: int
    fetched: tuple[str, ...]
    already_here: tuple[str, ...]


def find_release(corpus: str) -> Release:
    """Return the archives of a corpus.

    Raises
    ------
    UsageError
        The corpus is not known, or no archive of it can be verified; the message says where to get it then.
    """
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
    return DownloadSummary(out, n_recordings, tuple(fetched), tuple(already_here))


def check_address(url: str) -> None:
    """Refuse what is no address on the web.

    Raises
    ------
    UsageError
        It begins otherwise.
    """
    if not re.match(r"https?://[^/]", url, re.IGNORECASE):
        raise UsageError(f"--url {url}: expected an address that begins with http:// or https://")
