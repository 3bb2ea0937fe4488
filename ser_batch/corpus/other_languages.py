"""Corpora in other languages than English: what their file names say.

The facts are from the pages named; names were checked against the listings of https://github.com/emo-box/EmoBox.
"""

import re

from ser_batch.corpus.conventions import REPETITIONS, Corpus, sexes

# Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446; texts, sexes and licence as published by
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
        "emotion": {
            "ANGRY": "angry",
            "DISGUST": "disgust",
            "FEAR": "fearful",
            "HAPPY": "happy",
            "NEUTRAL": "neutral",
            "SAD": "sad",
            "SURPRISE": "surprised",
        },
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
        "emotion": {
            "Anger": "angry",
            "Disgust": "disgust",
            "Fear": "fearful",
            "Happiness": "happy",
            "Neutral": "neutral",
            "Sadness": "sad",
        },
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
    meanings={
        "emotion": {
            "C": "angry",
            "D": "disgust",
            "J": "happy",
            "N": "neutral",
            "P": "fearful",
            "S": "surprised",
            "T": "sad",
        },
    },
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
        "emotion": {
            "C": "angry",
            "D": "disgust",
            "J": "happy",
            "N": "neutral",
            "P": "fearful",
            "S": "surprised",
            "T": "sad",
        },
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
    meanings={
        "emotion": {
            "anger": "angry",
            "fear": "fearful",
            "happiness": "happy",
            "neutral": "neutral",
            "sadness": "sad",
            "surprised": "surprised",
        },
    },
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
        "emotion": {
            "dis": "disgust",
            "gio": "happy",
            "neu": "neutral",
            "pau": "fearful",
            "rab": "angry",
            "sor": "surprised",
            "tri": "sad",
        },
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
    meanings={
        "emotion": {
            "A": "angry",
            "F": "fearful",
            "H": "happy",
            "N": "neutral",
            "S": "sad",
            "W": "surprised",
        },
    },
    speakers=sexes(
        female=(f"F{speaker:02d}" for speaker in range(1, 32)), male=(f"M{speaker:02d}" for speaker in range(1, 57))
    ),
    folder=re.compile("female|male"),
)

_RESD_EMOTIONS = {
    "anger": "angry",
    "disgust": "disgust",
    "enthusiasm": "enthusiastic",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
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
