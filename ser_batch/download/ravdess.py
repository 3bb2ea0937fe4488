"""What the command does: fetch what is missing, unpack it, say what came."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_batch.download.archives import RAVDESS, ZENODO, Archive
from ser_batch.download.fetching import Report, fetch
from ser_batch.download.unpacking import unpack, unpacked_before
from ser_batch.errors import OutputError, UsageError


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


def download_ravdess(
    out: Path,
    *,
    url: str = ZENODO,
    archives: Sequence[Archive] = RAVDESS,
    report: Report | None = None,
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
    check_address(url)
    kept = (out / ".archives").absolute()  # pooch would expand a leading ~
    n_recordings = 0
    fetched: list[str] = []
    already_here: list[str] = []
    try:
        kept.mkdir(parents=True, exist_ok=True)
        for archive in archives:
            came = False
            files = unpacked_before(archive, kept, out)
            if not files:
                came = fetch(archive.name, f"md5:{archive.md5}", f"{url.rstrip('/')}/{archive.name}", kept, report)
                files = unpack(archive, kept, out)
            (fetched if came else already_here).append(archive.name)
            n_recordings += len(files)
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
