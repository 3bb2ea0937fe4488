"""The archives there are, and what their publisher says of them."""

from dataclasses import dataclass


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
