"""English corpora: what their file names say.

The facts are from the pages named; names were checked against the listings of https://github.com/emo-box/EmoBox.
"""

import re

from ser_batch.corpus.conventions import Corpus, sexes

# Livingstone & Russo 2018, https://doi.org/10.1371/journal.pone.0196391; licence: https://zenodo.org/records/1188976.
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
    speakers=sexes(
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
    pattern=re.compile(
        r"(?P<speaker>(?:fe)?male[12])_(?P<emotion>[a-z]+)_(?:[1-9]|1[0-5])[ab]_[12]\.\w+",
        re.ASCII,
    ),
    meanings={
        "emotion": {
            "angry": "angry",
            "anxious": "anxious",
            "apologetic": "apologetic",
            "assertive": "assertive",
            "concerned": "concerned",
            "encouraging": "encouraging",
            "excited": "excited",
            "happy": "happy",
            "neutral": "neutral",
            "sad": "sad",
        },
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
    pattern=re.compile(
        r"s_?(?P<speaker>[1-9]|[1-3]\d|4[0-4])_(?P<emotion>an|di|fe|ha|sa|su)_[1-5]\.\w+",
        re.ASCII,
    ),
    meanings={
        "emotion": {
            "an": "angry",
            "di": "disgust",
            "fe": "fearful",
            "ha": "happy",
            "sa": "sad",
            "su": "surprised",
        },
    },
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
        r"(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/(?P<speaker>00(?:0[1-9]|1\d|20))_\d{6}\.\w+",
        re.ASCII,
    ),
    meanings={
        "emotion": {
            "Angry": "angry",
            "Happy": "happy",
            "Neutral": "neutral",
            "Sad": "sad",
            "Surprise": "surprised",
        },
    },
    speakers=sexes(unknown=(f"{speaker:04d}" for speaker in range(1, 21))),
)
