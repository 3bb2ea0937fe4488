"""What a RAVDESS file name says."""

import re

from ser_batch.corpus.records import Metadata

# what a model trained on a corpus inherits; corpora not named here are the user's own
LICENCES = {"ravdess": "CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)"}

_RAVDESS_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)\.\w+")

_RAVDESS_MODALITY = {"01": "audio-video", "02": "video", "03": "audio"}

_RAVDESS_VOCAL_CHANNEL = {"01": "speech", "02": "song"}

_RAVDESS_EMOTION = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}

_RAVDESS_INTENSITY = {"01": "normal", "02": "strong"}

_RAVDESS_STATEMENT = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}

_RAVDESS_ACTORS = 24


def parse_name(name: str) -> Metadata | None:
    """Read what a RAVDESS file name says.

    Seven two-digit codes: modality, vocal channel, emotion, intensity, statement, repetition, actor
    (Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391). Odd actors are male.

    Parameters
    ----------
    name
        File name without folders, such as ``03-01-06-01-02-01-12.wav``.

    Returns
    -------
    Metadata or None
        None where the name is not RAVDESS, impossible codes (emotion 09, actor 25) included.

    Examples
    --------
    >>> parse_name("03-01-06-01-02-01-12.wav").emotion
    'fearful'
    >>> parse_name("03-01-09-01-02-01-12.wav") is None
    True
    """
    match = _RAVDESS_NAME.fullmatch(name)
    if match is None or not name.isascii():
        return None
    modality, vocal_channel, emotion, intensity, statement, repetition, actor_code = match.groups()
    actor = int(actor_code)
    if (
        modality not in _RAVDESS_MODALITY
        or vocal_channel not in _RAVDESS_VOCAL_CHANNEL
        or emotion not in _RAVDESS_EMOTION
        or intensity not in _RAVDESS_INTENSITY
        or statement not in _RAVDESS_STATEMENT
        or repetition not in ("01", "02")
        or not 1 <= actor <= _RAVDESS_ACTORS
    ):
        return None
    return Metadata(
        corpus="ravdess",
        modality=_RAVDESS_MODALITY[modality],
        vocal_channel=_RAVDESS_VOCAL_CHANNEL[vocal_channel],
        emotion=_RAVDESS_EMOTION[emotion],
        intensity=_RAVDESS_INTENSITY[intensity],
        statement=_RAVDESS_STATEMENT[statement],
        repetition=int(repetition),
        actor=actor,
        sex="male" if actor % 2 else "female",
        speaker=f"ravdess-{actor:02d}",
    )
