"""The archives that `download` fetches, and what their publishers state about them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Archive:
    """One zip file.

    Parameters
    ----------
    name
        Its file name, on the server and in ``.archives/``.
    md5
        The checksum its publisher states, 32 hex digits.
    n_recordings
        How many .wav files it holds; 0 if unknown.
    has_tables
        Whether it holds tables beside the recordings: .csv files are unpacked too, all others stay in the archive.
        Without tables, a file that is no .wav is refused.
    """

    name: str
    md5: str
    n_recordings: int
    has_tables: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """The archives of one corpus.

    Parameters
    ----------
    url
        The folder on the web that holds them.
    archives
        What to fetch, all of it.
    """

    url: str
    archives: tuple[Archive, ...]


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
