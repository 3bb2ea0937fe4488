"""The corpora that are recognized by their file names, and their licenses."""

import re
from collections.abc import Iterable

from ser_batch.corpus.filenames import REPETITIONS, Corpus, Source, codes, sexes
from ser_batch.corpus.manifest import Metadata
from ser_batch.corpus.publisher_tables import PUBLISHER_TABLES

# Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391; license: https://zenodo.org/records/1188976.
# Modality, vocal channel, emotion, intensity, statement, repetition, actor; odd actors are male
RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS",
    license="CC BY-NC-SA 4.0",
    commercial=False,
    citation="Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391",
    page="https://zenodo.org/records/1188976",
    access="two zip files",
    pattern=re.compile(
        r"(?P<modality>\d\d)-(?P<vocal_channel>\d\d)-(?P<emotion>\d\d)-(?P<intensity>\d\d)-(?P<statement>\d\d)"
        r"-(?P<repetition>\d\d)-(?P<speaker>\d\d)\.\w+",
        re.ASCII,
    ),
    meanings={
        "modality": {"01": "audio-video", "02": "video", "03": "audio"},
        "vocal_channel": {"01": "speech", "02": "song"},
        "emotion": codes("01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful, 07 disgust, 08 surprised"),
        "intensity": {"01": "normal", "02": "strong"},
        "statement": {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"},
        "repetition": {"01": 1, "02": 2},
    },
    speakers=sexes(
        female=(f"{actor:02d}" for actor in range(2, 25, 2)), male=(f"{actor:02d}" for actor in range(1, 25, 2))
    ),
)
_CREMA_D_WOMEN = (
    *(1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029, 1030),
    *(1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073, 1074, 1075),
    *(1076, 1078, 1079, 1082, 1084, 1089, 1091),
)
# Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244; license, sexes (VideoDemographics.csv) and sentences:
# https://github.com/CheyneyComputerScience/CREMA-D. Actor, sentence, emotion, level; one name ends in X for XX
CREMA_D = Corpus(
    name="crema-d",
    title="CREMA-D",
    license="ODbL 1.0",
    commercial=True,
    conditions="commercial use allowed with attribution, a changed database is shared alike",
    citation="Cao et al. 2014, https://doi.org/10.1109/TAFFC.2014.2336244",
    page="https://github.com/CheyneyComputerScience/CREMA-D",
    access="git lfs clone; the folder AudioWAV",
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
        "emotion": codes("ANG angry, DIS disgust, FEA fearful, HAP happy, NEU neutral, SAD sad"),
        "intensity": {"LO": "low", "MD": "medium", "HI": "high", "XX": None, "X": None},
    },
    speakers=sexes(female=_CREMA_D_WOMEN, male=set(range(1001, 1092)) - set(_CREMA_D_WOMEN)),
)
# Haq & Jackson 2009, Speaker-dependent audio-visual emotion recognition, AVSP 2009; http://kahlan.eps.surrey.ac.uk/savee.
# DC_a01.wav, in the older distribution DC/a01.wav; 15 sentences an emotion, 30 neutral. Which sentence is 04 or later
# depends on the emotion, so the number is no statement
SAVEE = Corpus(
    name="savee",
    title="SAVEE",
    license="free of charge for research",
    commercial=False,
    citation="Haq & Jackson 2009, http://kahlan.eps.surrey.ac.uk/savee",
    page="http://kahlan.eps.surrey.ac.uk/savee",
    access="register there",
    pattern=re.compile(
        r"(?P<speaker>[A-Z]{2})[_/](?P<emotion>sa|su|[adfhn])(?:0[1-9]|1[0-5]|(?<=n)(?:1[6-9]|2\d|30))\.\w+", re.ASCII
    ),
    meanings={"emotion": codes("a angry, d disgust, f fearful, h happy, n neutral, sa sad, su surprised")},
    speakers=sexes(male=("DC", "JE", "JK", "KL")),
)
# Pichora-Fuller & Dupuis 2020, https://doi.org/10.5683/SP2/E8H2MF. Speaker (the older, the younger woman), word,
# emotion; one name begins with OA for OAF
TESS = Corpus(
    name="tess",
    title="TESS",
    license="CC BY-NC-ND 4.0",
    commercial=False,
    conditions="no derivatives",
    citation="Pichora-Fuller & Dupuis 2020, https://doi.org/10.5683/SP2/E8H2MF",
    page="https://doi.org/10.5683/SP2/E8H2MF",
    access="one file per recording",
    pattern=re.compile(
        r"(?P<speaker>OAF|YAF|OA(?=_bite_neutral\.))_(?P<statement>[a-z]+)_"
        r"(?P<emotion>[a-z]+|pleasant_surprised?)\.\w+",
        re.ASCII | re.IGNORECASE,
    ),
    meanings={
        "emotion": codes(
            "angry, disgust, fear fearful, happy, neutral, sad, "
            "ps surprised, pleasant_surprise surprised, pleasant_surprised surprised"
        )
    },
    speakers=sexes(female=("oaf", "yaf")),
    misprints={"oa": "oaf"},
    sentence="Say the word {}",
)
# James, Tian & Watson 2018, https://doi.org/10.21437/Interspeech.2018-1349; license:
# https://www.kaggle.com/datasets/tli725/jl-corpus. Speaker, one of five primary and five secondary emotions, numbers of
# sentence and session; the texts are not in the names
JL = Corpus(
    name="jl",
    title="JL corpus",
    license="CC0 1.0",
    commercial=True,
    citation="James, Tian & Watson 2018, https://doi.org/10.21437/Interspeech.2018-1349",
    page="https://www.kaggle.com/datasets/tli725/jl-corpus",
    access="needs an account of Kaggle",
    pattern=re.compile(r"(?P<speaker>(?:fe)?male[12])_(?P<emotion>[a-z]+)_(?:[1-9]|1[0-5])[ab]_[12]\.\w+", re.ASCII),
    meanings={
        "emotion": codes("angry, anxious, apologetic, assertive, concerned, encouraging, excited, happy, neutral, sad")
    },
    speakers=sexes(female=("female1", "female2"), male=("male1", "male2")),
)
# Martin et al. 2006, ICDEW; https://enterface.net/enterface05/main.php?frame=emotion.
# Subject, emotion, sentence: five sentences an emotion, so the number is no statement. The films of subject 3 begin
# with s_3. Those in the folder "subject 11" are called s12, as those of subject 12 are
ENTERFACE = Corpus(
    name="enterface",
    title="eNTERFACE'05",
    license="no license stated",
    commercial=False,
    citation="Martin et al. 2006, https://enterface.net/enterface05/main.php?frame=emotion",
    page="https://enterface.net/enterface05/main.php?frame=emotion",
    access="films (.avi), turn them into .wav first",
    pattern=re.compile(r"s_?(?P<speaker>[1-9]|[1-3]\d|4[0-4])_(?P<emotion>an|di|fe|ha|sa|su)_[1-5]\.\w+", re.ASCII),
    meanings={"emotion": codes("an angry, di disgust, fe fearful, ha happy, sa sad, su surprised")},
    speakers=sexes(unknown=range(1, 45)),
)
# Zhou et al. 2022; paper and license: https://github.com/HLTSingapore/Emotional-Speech-Data.
# The emotion is the folder's name: 0011/Angry/0011_000351.wav. Speakers 1 to 10 speak Mandarin, 11 to 20 English
ESD = Corpus(
    name="esd",
    title="ESD",
    license="for research only",
    commercial=False,
    citation="Zhou et al. 2022, https://www.sciencedirect.com/science/article/pii/S0167639321001308",
    page="https://github.com/HLTSingapore/Emotional-Speech-Data",
    access="sign its license there",
    pattern=re.compile(
        r"(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/(?P<speaker>00(?:0[1-9]|1\d|20))_\d{6}\.\w+", re.ASCII
    ),
    meanings={"emotion": codes("Angry angry, Happy happy, Neutral neutral, Sad sad, Surprise surprised")},
    speakers=sexes(unknown=(f"{speaker:04d}" for speaker in range(1, 21))),
)
# Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446; texts, sexes and license as published by
# https://github.com/audeering/emodb. Speaker, text, the German word for the emotion, version
EMODB = Corpus(
    name="emodb",
    title="EmoDB, as published by audEERING",
    license="CC0 1.0",
    commercial=True,
    citation="Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446",
    page="https://github.com/audeering/emodb",
    access="linked there",
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
        "emotion": codes("W angry, E disgust, A fearful, F happy, T sad, N neutral") | {"L": None},  # boredom
        "repetition": {letter: number for number, letter in enumerate("abcdef", start=1)},
    },
    speakers=sexes(female=("08", "09", "13", "14", "16"), male=("03", "10", "11", "12", "15")),
)
# Sultana et al. 2021, https://doi.org/10.1371/journal.pone.0250173; license: https://zenodo.org/records/4526477.
# Sex, number and first name of the speaker, S and the sentence, emotion, take; one name has a ] behind the take
SUBESCO = Corpus(
    name="subesco",
    title="SUBESCO",
    license="CC BY 4.0",
    commercial=True,
    conditions="commercial use allowed with attribution",
    citation="Sultana et al. 2021, https://doi.org/10.1371/journal.pone.0250173",
    page="https://zenodo.org/records/4526477",
    access="one zip file",
    pattern=re.compile(
        r"(?P<speaker>[FM]_\d\d)_[A-Z]+_S_(?P<statement>[1-9]|10)_(?P<emotion>[A-Z]+)_(?P<repetition>[1-5])\]?\.\w+",
        re.ASCII,
    ),
    meanings={
        "emotion": codes(
            "ANGRY angry, DISGUST disgust, FEAR fearful, HAPPY happy, NEUTRAL neutral, SAD sad, SURPRISE surprised"
        ),
        "repetition": REPETITIONS,
    },
    speakers=sexes(
        female=(f"F_{speaker:02d}" for speaker in range(1, 11)), male=(f"M_{speaker:02d}" for speaker in range(1, 11))
    ),
    sentence="sentence {}",
)
# Duville et al. 2021, https://doi.org/10.3390/data6120130; license: https://data.mendeley.com/datasets/cy34mh68j9/5.
# Emotion, voice, list of words, word. Three women, two men and six children spoke, and names do not tell them apart:
# all women are one speaker here, so that none of them stands on both sides of a split
MESD = Corpus(
    name="mesd",
    title="MESD",
    license="CC BY 4.0",
    commercial=True,
    conditions="commercial use allowed with attribution",
    citation="Duville et al. 2021, https://doi.org/10.3390/data6120130",
    page="https://data.mendeley.com/datasets/cy34mh68j9/5",
    access="one zip file",
    pattern=re.compile(
        r"(?P<emotion>[A-Z][a-z]+)_(?P<speaker>[FMC])_[AB]_(?P<statement>[a-z]+(?:_[a-z]+)*)\.\w+", re.ASCII
    ),
    meanings={
        "emotion": codes("Anger angry, Disgust disgust, Fear fearful, Happiness happy, Neutral neutral, Sadness sad")
    },
    speakers=sexes(female=("F",), male=("M",), unknown=("C",)),
)
# Kerkeni et al. 2020, https://doi.org/10.5281/zenodo.4405783, which states the license. Speaker, sentence, the French
# word for the emotion, version; each emotion has sentences of its own, so the number is no statement. EmoDB's names
# look the same, but these lie in a folder per emotion: f/sessn/10a01Na.wav. Sexes are those of the folders f and m
OREAU = Corpus(
    name="oreau",
    title="Oreau",
    license="CC BY 4.0",
    commercial=True,
    conditions="commercial use allowed with attribution",
    citation="Kerkeni et al. 2020, https://doi.org/10.5281/zenodo.4405783",
    page="https://zenodo.org/records/4405783",
    access="the folder OréauFR_02",
    pattern=re.compile(r"(?P<speaker>\d\d)[az]\d\d(?P<emotion>[A-Z])a\.\w+", re.ASCII),
    meanings={"emotion": codes("C angry, D disgust, J happy, N neutral, P fearful, S surprised, T sad")},
    speakers=sexes(
        female=("10", "11", "13", "21", "24", "37", "42"),
        male=(
            *("07", "08", "09", "12", "14", "16", "18", "19", "20", "22", "23", "25", "26", "27", "28", "29", "30"),
            *("31", "32", "33", "36", "38", "39", "40", "41"),
        ),
    ),
    folder=re.compile("sess[cdjnpst]"),
)
# Gournay, Lahaie & Lefebvre 2018, https://zenodo.org/records/1478765, which states the license. Actor (odd: male), the
# French word for the emotion, intensity (neutral has one), sentence
CAFE = Corpus(
    name="cafe",
    title="CaFE",
    license="CC BY-NC-SA 4.0",
    commercial=False,
    citation="Gournay, Lahaie & Lefebvre 2018, https://doi.org/10.5281/zenodo.1478765",
    page="https://zenodo.org/records/1478765",
    access="zip files",
    pattern=re.compile(
        r"(?P<speaker>\d\d)-(?P<emotion>[A-Z])-(?:(?<=N-)1|(?<!N-)(?P<intensity>[12]))-(?P<statement>[1-6])\.\w+",
        re.ASCII,
    ),
    meanings={
        "emotion": codes("C angry, D disgust, J happy, N neutral, P fearful, S surprised, T sad"),
        "intensity": {"1": "low", "2": "high"},
        "statement": {
            "1": "Un cheval fou dans mon jardin",
            "2": "Deux ânes aigris au pelage brun",
            "3": "Trois cygnes aveugles au bord du lac",
            "4": "Quatre vieilles truies éléphantesques",
            "5": "Cinq pumas fiers et passionnés",
            "6": "Six ours aimants domestiqués",
        },
    },
    speakers=sexes(
        female=(f"{actor:02d}" for actor in range(2, 13, 2)), male=(f"{actor:02d}" for actor in range(1, 13, 2))
    ),
)
# Christop 2024; license, sexes and sentences: README.md and data.tsv of https://github.com/amu-cai/nEMO. Speaker,
# emotion, sentence: the same 90 of all speakers and emotions
NEMO = Corpus(
    name="nemo",
    title="nEMO",
    license="CC BY-NC-SA 4.0",
    commercial=False,
    citation="Christop 2024, https://github.com/amu-cai/nEMO",
    page="https://github.com/amu-cai/nEMO",
    access="git clone; the folder samples",
    pattern=re.compile(r"(?P<speaker>[A-Z]{2}0)_(?P<emotion>[a-z]+)_(?P<statement>[1-8]?[1-9]|[1-9]0)\.\w+", re.ASCII),
    meanings={"emotion": codes("anger angry, fear fearful, happiness happy, neutral, sadness sad, surprised")},
    speakers=sexes(female=("EB0", "IC0", "KD0", "MK0"), male=("KS0", "MP0", "SM0", "TP0", "WR0")),
    sentence="sentence {}",
)
# Costantini et al. 2014, https://aclanthology.org/L14-1478. The Italian word for the emotion, actor, sentence
EMOVO = Corpus(
    name="emovo",
    title="EMOVO",
    license="no license stated",
    commercial=False,
    citation="Costantini et al. 2014, https://aclanthology.org/L14-1478",
    page="http://voice.fub.it/activities/corpora/emovo/index.html",
    access="one zip file",
    pattern=re.compile(
        r"(?P<emotion>[a-z]{3})-(?P<speaker>[fm][123])-(?P<statement>[bdln]\d)\.\w+", re.ASCII | re.IGNORECASE
    ),
    meanings={
        "emotion": codes("dis disgust, gio happy, neu neutral, pau fearful, rab angry, sor surprised, tri sad"),
        "statement": {
            "b1": "Gli operai si alzano presto",
            "b2": "I vigili sono muniti di pistola",
            "b3": "La cascata fa molto rumore",
            "l1": "L'autunno prossimo Tony partirà per la Spagna: nella prima metà di ottobre",
            "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata",
            "l3": "Un attimo dopo s'è incamminato... ed è inciampato",
            "l4": "Vorrei il numero telefonico del Signor Piatti",
            "n1": "La casa forte vuole col pane",
            "n2": "La forza trova il passo e l'aglio rosso",
            "n3": "Il gatto sta scorrendo nella pera",
            "n4": "Insalata pastasciutta coscia d'agnello limoncello",
            "n5": "Uno quarantatré dieci mille cinquantasette venti",
            "d1": "Sabato sera cosa farà?",
            "d2": "Porti con te quella cosa?",
        },
    },
    speakers=sexes(female=("f1", "f2", "f3"), male=("m1", "m2", "m3")),
)
# Mohamad Nezami et al. 2019, https://doi.org/10.1007/s10579-018-9427-x; https://github.com/mansourehk/ShEMO. Sex and
# number of the speaker, emotion, number of the utterance. So short a name needs its folder, female or male
SHEMO = Corpus(
    name="shemo",
    title="ShEMO",
    license="free of charge for academic purposes",
    commercial=False,
    citation="Mohamad Nezami et al. 2019, https://doi.org/10.1007/s10579-018-9427-x",
    page="https://github.com/mansourehk/ShEMO",
    access="two zip files",
    pattern=re.compile(r"(?P<speaker>[FM]\d\d)(?P<emotion>[A-Z])\d\d\.\w+", re.ASCII),
    meanings={"emotion": codes("A angry, F fearful, H happy, N neutral, S sad, W surprised")},
    speakers=sexes(
        female=(f"F{speaker:02d}" for speaker in range(1, 32)), male=(f"M{speaker:02d}" for speaker in range(1, 57))
    ),
    folder=re.compile("female|male"),
)
_RESD_EMOTIONS = codes(
    "anger angry, disgust, enthusiasm enthusiastic, fear fearful, happiness happy, neutral, sadness sad"
)
_RESD_EMOTION = "|".join(_RESD_EMOTIONS)
# Amentes, Lubenets & Davidchuk 2022, https://huggingface.co/datasets/Aniemore/resd_annotated, which states the license.
# Dialogue, the emotions of its two sides, the first letter of the one who speaks, number. Which actor that is is not
# published: a speaker is one side of one dialogue
RESD = Corpus(
    name="resd",
    title="RESD",
    license="MIT",
    commercial=True,
    conditions="commercial use allowed with attribution",
    citation="Amentes, Lubenets & Davidchuk 2022, https://doi.org/10.57967/hf/1272",
    page="https://huggingface.co/datasets/Aniemore/resd_annotated",
    access="the sound is a column of its Parquet files, write it to files named by the column name",
    pattern=re.compile(
        rf"(?P<speaker>\d\d)_(?:{_RESD_EMOTION})_(?:{_RESD_EMOTION})[_ ](?P<emotion>[a-z])_\d{{3}}\.\w+", re.ASCII
    ),
    meanings={"emotion": {name[0]: label for name, label in _RESD_EMOTIONS.items()}},
    speakers=sexes(unknown=(f"{dialogue:02d}{name[0]}" for dialogue in range(1, 51) for name in _RESD_EMOTIONS)),
    speaker_code="{speaker}{emotion}",
)
# corpora whose file names hold the labels
CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        *(RAVDESS, CREMA_D, EMODB, SAVEE, TESS),
        *(JL, SUBESCO, MESD, OREAU, RESD, ENTERFACE, CAFE, NEMO, EMOVO, SHEMO, ESD),
    )
}
# first the corpora that are recognized by the folder too: others may have such names
_IN_ORDER = sorted(CORPORA.values(), key=lambda corpus: corpus.folder is None)
# and corpora whose labels are in a table
SOURCES: dict[str, Source] = {**CORPORA, **{table.source.name: table.source for table in PUBLISHER_TABLES}}


def parse_name(name: str, *, folder: str = "", corpus: str = "auto") -> Metadata | None:
    """Read what a file name says, by the corpus whose names look like that."""
    if corpus != "auto":
        return CORPORA[corpus].parse(name, folder, is_asked_for=True) if corpus in CORPORA else None
    parsed = (one.parse(name, folder, is_asked_for=False) for one in _IN_ORDER)
    return next((metadata for metadata in parsed if metadata is not None), None)


def performance_of(path: str, corpus: str | None) -> str | None:
    """Return what tells one performance of a known corpus from another in a path; None where the path does not."""
    *_, folder, name = f"/{path}".split("/")
    return CORPORA[corpus].performance(name, folder) if corpus in CORPORA else None


def license_of(corpora: Iterable[str]) -> str:
    """Return the licenses that a model trained on some corpora inherits, in words; empty where none is known."""
    # Corpora that are not known here are the user's own.
    terms = [SOURCES[name].terms for name in sorted(set(corpora)) if name in SOURCES]
    return ("all of these hold: " if len(terms) > 1 else "") + "; ".join(terms)


def sources_of(corpora: Iterable[str]) -> list[str]:
    """Return who made the corpora, for a model's attribution; those that are not known here are left out."""
    return [SOURCES[name].attribution for name in sorted(set(corpora)) if name in SOURCES]
