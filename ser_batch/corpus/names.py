"""What file names of the known corpora say: one table a corpus.

A corpus more is a `Corpus` here, its name among the choices of ``--corpus`` (config/options.py and the command line),
and its row in docs/tables.md.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ser_batch.corpus.records import Metadata


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """How one corpus names its recordings.

    Parameters
    ----------
    name
        As the column ``corpus`` and the option ``--corpus`` have it.
    licence
        What a model trained on it inherits.
    source
        Who made it, and where it is described: the attribution that licences ask for.
    pattern
        Of the whole file name, or of folder/name where the folder says something. Its groups are columns of the
        tables, and all of them are codes: what `meanings` and `speakers` do not know is no name of this corpus.
    meanings
        Column to code to what the tables say; None where the corpus says something that has no place in them.
    speakers
        Code to sex.
    misprints
        Speakers' codes of the distribution that are wrong, and what they stand for.
    sentence
        Where names hold a word instead of the code of a statement: what was said around it.
    modality, vocal_channel
        Of all recordings, where names do not tell.
    """

    name: str
    licence: str
    source: str
    pattern: re.Pattern[str]
    meanings: Mapping[str, Mapping[str, Any]]
    speakers: Mapping[str, str]
    misprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sentence: str = "{}"
    modality: str = "audio"
    vocal_channel: str = "speech"

    def parse(self, name: str, folder: str) -> Metadata | None:
        """Return what a name says, or None where it is none of this corpus."""
        match = self.pattern.fullmatch(name)
        if match is None and "/" in self.pattern.pattern:
            match = self.pattern.fullmatch(f"{folder}/{name}")
        if match is None:
            return None
        codes = match.groupdict()
        if self.pattern.flags & re.IGNORECASE:
            codes = {column: code.lower() for column, code in codes.items()}
        speaker = codes.pop("speaker")
        speaker = self.misprints.get(speaker, speaker)
        known = all(code in self.meanings[column] for column, code in codes.items() if column in self.meanings)
        if not known or speaker not in self.speakers:
            return None
        said: dict[str, Any] = {"modality": self.modality, "vocal_channel": self.vocal_channel}
        for column, code in codes.items():
            said[column] = self.meanings[column][code] if column in self.meanings else self.sentence.format(code)
        return Metadata(
            **said,
            corpus=self.name,
            actor=int(speaker) if speaker.isdecimal() else None,
            sex=self.speakers[speaker],
            speaker=f"{self.name}-{speaker.lower()}",
        )


def _sexes(*, female: Iterable[object] = (), male: Iterable[object] = ()) -> dict[str, str]:
    return {str(code): "female" for code in female} | {str(code): "male" for code in male}


# Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391; licence: https://zenodo.org/records/1188976.
# Modality, vocal channel, emotion, intensity, statement, repetition, actor; odd actors are male
RAVDESS = Corpus(
    name="ravdess",
    licence="CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)",
    source="RAVDESS: Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391",
    pattern=re.compile(
        r"(?P<modality>\d\d)-(?P<vocal_channel>\d\d)-(?P<emotion>\d\d)-(?P<intensity>\d\d)-(?P<statement>\d\d)"
        r"-(?P<repetition>\d\d)-(?P<speaker>\d\d)\.\w+",
        re.ASCII,
    ),
    meanings={
        "modality": {"01": "audio-video", "02": "video", "03": "audio"},
        "vocal_channel": {"01": "speech", "02": "song"},
        "emotion": {
            "01": "neutral",
            "02": "calm",
            "03": "happy",
            "04": "sad",
            "05": "angry",
            "06": "fearful",
            "07": "disgust",
            "08": "surprised",
        },
        "intensity": {"01": "normal", "02": "strong"},
        "statement": {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"},
        "repetition": {"01": 1, "02": 2},
    },
    speakers=_sexes(
        female=(f"{actor:02d}" for actor in range(2, 25, 2)), male=(f"{actor:02d}" for actor in range(1, 25, 2))
    ),
)

_CREMA_D_WOMEN = (
    *(1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029, 1030),
    *(1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073, 1074, 1075),
    *(1076, 1078, 1079, 1082, 1084, 1089, 1091),
)

# Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244; licence, sexes (VideoDemographics.csv) and sentences:
# https://github.com/CheyneyComputerScience/CREMA-D. Actor, sentence, emotion, level; one name ends in X for XX
CREMA_D = Corpus(
    name="crema-d",
    licence="ODbL 1.0 (CREMA-D; commercial use allowed with attribution, a changed database is shared alike)",
    source="CREMA-D: Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244",
    pattern=re.compile(
        r"(?P<speaker>\d{4})_(?P<statement>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<intensity>LO|MD|HI|XX?)\.\w+", re.ASCII
    ),
    meanings={
        "statement": {
            "DFA": "Don't forget a jacket",
            "IEO": "It's eleven o'clock",
            "IOM": "I'm on my way to the meeting",
            "ITH": "I think I have a doctor's appointment",
            "ITS": "I think I've seen this before",
            "IWL": "I would like a new alarm clock",
            "IWW": "I wonder what this is about",
            "MTI": "Maybe tomorrow it will be cold",
            "TAI": "The airplane is almost full",
            "TIE": "That is exactly what happened",
            "TSI": "The surface is slick",
            "WSI": "We'll stop in a couple of minutes",
        },
        "emotion": {
            "ANG": "angry",
            "DIS": "disgust",
            "FEA": "fearful",
            "HAP": "happy",
            "NEU": "neutral",
            "SAD": "sad",
        },
        "intensity": {"LO": "low", "MD": "medium", "HI": "high", "XX": None, "X": None},
    },
    speakers=_sexes(female=_CREMA_D_WOMEN, male=set(range(1001, 1092)) - set(_CREMA_D_WOMEN)),
)

# Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446; texts, sexes and licence as published by
# https://github.com/audeering/emodb. Speaker, text, the German word for the emotion, version
EMODB = Corpus(
    name="emodb",
    licence="CC0 1.0 (EmoDB, as published by audEERING)",
    source="EmoDB: Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446",
    pattern=re.compile(
        r"(?P<speaker>\d\d)(?P<statement>[ab]\d\d)(?P<emotion>[A-Z])(?P<repetition>[a-f])\.\w+", re.ASCII
    ),
    meanings={
        "statement": {
            "a01": "Der Lappen liegt auf dem Eisschrank",
            "a02": "Das will sie am Mittwoch abgeben",
            "a04": "Heute abend könnte ich es ihm sagen",
            "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück",
            "a07": "In sieben Stunden wird es soweit sein",
            "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen",
            "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter",
            "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht",
            "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen",
            "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen",
        },
        "emotion": {
            "W": "angry",
            "L": None,  # boredom
            "E": "disgust",
            "A": "fearful",
            "F": "happy",
            "T": "sad",
            "N": "neutral",
        },
        "repetition": {letter: number for number, letter in enumerate("abcdef", start=1)},
    },
    speakers=_sexes(female=("08", "09", "13", "14", "16"), male=("03", "10", "11", "12", "15")),
)

# Haq & Jackson 2009, Speaker-dependent audio-visual emotion recognition, AVSP 2009; http://kahlan.eps.surrey.ac.uk/savee.
# DC_a01.wav, in the older distribution DC/a01.wav; 15 sentences an emotion, 30 neutral. Which sentence is 04 or later
# depends on the emotion, so the number is no statement
SAVEE = Corpus(
    name="savee",
    licence="free of charge for research (SAVEE; not for commercial use)",
    source="SAVEE: Haq & Jackson 2009, http://kahlan.eps.surrey.ac.uk/savee",
    pattern=re.compile(
        r"(?P<speaker>[A-Z]{2})[_/](?P<emotion>sa|su|[adfhn])(?:0[1-9]|1[0-5]|(?<=n)(?:1[6-9]|2\d|30))\.\w+", re.ASCII
    ),
    meanings={
        "emotion": {
            "a": "angry",
            "d": "disgust",
            "f": "fearful",
            "h": "happy",
            "n": "neutral",
            "sa": "sad",
            "su": "surprised",
        },
    },
    speakers=_sexes(male=("DC", "JE", "JK", "KL")),
)

# Pichora-Fuller & Dupuis 2020, https://doi.org/10.5683/SP2/E8H2MF. Speaker (the older, the younger woman), word,
# emotion; one name begins with OA for OAF
TESS = Corpus(
    name="tess",
    licence="CC BY-NC-ND 4.0 (TESS; not for commercial use, no derivatives)",
    source="TESS: Pichora-Fuller & Dupuis 2020, https://doi.org/10.5683/SP2/E8H2MF",
    pattern=re.compile(
        r"(?P<speaker>OAF|YAF|OA(?=_bite_neutral\.))_(?P<statement>[a-z]+)_"
        r"(?P<emotion>[a-z]+|pleasant_surprised?)\.\w+",
        re.ASCII | re.IGNORECASE,
    ),
    meanings={
        "emotion": {
            "angry": "angry",
            "disgust": "disgust",
            "fear": "fearful",
            "happy": "happy",
            "neutral": "neutral",
            "ps": "surprised",
            "pleasant_surprise": "surprised",
            "pleasant_surprised": "surprised",
            "sad": "sad",
        },
    },
    speakers=_sexes(female=("oaf", "yaf")),
    misprints={"oa": "oaf"},
    sentence="Say the word {}",
)

CORPORA = {corpus.name: corpus for corpus in (RAVDESS, CREMA_D, EMODB, SAVEE, TESS)}


def parse_name(name: str, *, folder: str = "", corpus: str = "auto") -> Metadata | None:
    """Read what a file name says, by the corpus whose names look like that.

    Parameters
    ----------
    name
        File name without folders, such as ``03-01-06-01-02-01-12.wav``.
    folder
        Name of the folder it lies in, which tells the speaker in one distribution of SAVEE.
    corpus
        ``auto`` for any, ``none`` for none, or the one that the name is to belong to.

    Returns
    -------
    Metadata or None
        None where the name is of no such corpus, impossible codes (RAVDESS's emotion 09, actor 25) included.

    Examples
    --------
    >>> parse_name("03-01-06-01-02-01-12.wav").emotion
    'fearful'
    >>> parse_name("1001_DFA_ANG_XX.wav").speaker
    'crema-d-1001'
    >>> parse_name("03-01-09-01-02-01-12.wav") is None
    True
    """
    tried = CORPORA.values() if corpus == "auto" else [CORPORA[corpus]] if corpus in CORPORA else []
    return next((said for one in tried if (said := one.parse(name, folder)) is not None), None)


def licence_of(corpora: Iterable[str]) -> str:
    """Return the licences that a model trained on some corpora inherits, in words; empty where none is known.

    Corpora that are not known here are the user's own.
    """
    licences = [CORPORA[name].licence for name in sorted(set(corpora)) if name in CORPORA]
    return ("all of these hold: " if len(licences) > 1 else "") + "; ".join(licences)


def sources_of(corpora: Iterable[str]) -> list[str]:
    """Return who made the corpora, for a model's attribution; those that are not known here are left out."""
    return [CORPORA[name].source for name in sorted(set(corpora)) if name in CORPORA]
