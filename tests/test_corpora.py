"""File names, label tables and licenses of the known corpora."""

import csv
import dataclasses
import io
import re
import typing
from collections import Counter

import polars as pl
import pytest
from helpers import touch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.config.options import CorpusName, FeaturizeOptions, ScoreOptions
from ser_batch.corpus.known_corpora import CORPORA, SOURCES, license_of, parse_name, performance_of, sources_of
from ser_batch.corpus.labels import is_label, join_labels
from ser_batch.corpus.manifest import Metadata
from ser_batch.corpus.publisher_tables import PUBLISHER_TABLES
from ser_batch.corpus.walk import name_warnings, walk
from ser_batch.errors import InputError, UsageError

EMOTIONS = {"angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised"}
# that only some corpora have
OTHER_EMOTIONS = {
    *("anxious", "apologetic", "assertive", "concerned", "encouraging", "excited"),  # JL
    "enthusiastic",  # RESD
}
EXAMPLES = {
    "03-02-06-02-02-01-12.wav": "ravdess",
    "1001_DFA_ANG_XX.wav": "crema-d",
    "03a01Fa.wav": "emodb",
    "DC_a01.wav": "savee",
    "OAF_back_angry.wav": "tess",
    "female1_angry_1a_1.wav": "jl",
    "F_02_MONIKA_S_1_NEUTRAL_5.wav": "subesco",
    "Anger_F_A_tarde.wav": "mesd",
    "32_happiness_enthusiasm_h_120.wav": "resd",
    "s19_an_4.wav": "enterface",
    "01-C-1-3.wav": "cafe",
    "EB0_anger_1.wav": "nemo",
    "dis-f1-b1.wav": "emovo",
}
# where a name alone is not enough
EXAMPLES_BY_FOLDER = {"f/sessn/10a01Na.wav": "oreau", "male/M04N54.wav": "shemo", "0011/Angry/0011_000351.wav": "esd"}


def understood(name: str, folder: str = "", corpus: str = "auto") -> Metadata:
    said = parse_name(name, folder=folder, corpus=corpus)
    assert said is not None, name
    return said


def said_of(folder) -> dict[str, Metadata]:
    return {recording.path: recording.metadata for recording in walk(folder).recordings}


# --- each corpus ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["JK_su15.wav", "AudioData/JK/su15.wav", "other/JK_su15.WAV", "KL/JK_su15.wav"])
def test_savee_has_the_speaker_in_the_name_or_in_the_folder(tmp_path, path):
    touch(tmp_path, path)
    (metadata,) = said_of(tmp_path).values()
    assert (metadata.corpus, metadata.emotion, metadata.sex, metadata.speaker) == (
        *("savee", "surprised", "male", "savee-jk"),
    )


def test_savee_of_one_speaker_is_understood_by_the_folder_walked(tmp_path):
    touch(tmp_path, "DC/n30.wav", "x/n30.wav")
    assert said_of(tmp_path / "DC")["n30.wav"].speaker == "savee-dc"
    (recording,) = walk(tmp_path / "DC" / "n30.wav").recordings
    assert recording.metadata.emotion == "neutral"
    assert said_of(tmp_path)["x/n30.wav"] == Metadata()


@pytest.mark.parametrize("name", ["OAF_back_ps.wav", "oaf_BACK_Ps.wav", "OAF_back_pleasant_surprised.wav"])
def test_tess_in_any_case(name):
    assert said_by(name) == {
        "emotion": "surprised", "statement": "Say the word back", "sex": "female", "speaker": "tess-oaf",
    }  # fmt: skip


def test_the_misprint_of_tess_is_the_older_woman():
    assert understood("OA_bite_neutral.wav").speaker == "tess-oaf"
    assert understood("YAF_bite_neutral.wav").speaker == "tess-yaf"
    assert parse_name("OA_back_neutral.wav") is None


def said_by(name: str, folder: str = "") -> dict[str, object]:
    """What a name says besides what all of these corpora are."""
    said = understood(name, folder)
    assert (said.vocal_channel, said.modality) == ("speech", "audio")
    unsaid = (None, "corpus", "modality", "vocal_channel")
    fields = {field.name: getattr(said, field.name) for field in dataclasses.fields(said)}
    return {name: value for name, value in fields.items() if value is not None and name not in unsaid}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "1001_IEO_HAP_MD.flac",
            {"emotion": "happy", "sex": "male", "speaker": "crema-d-1001", "actor": 1001, "intensity": "medium",
             "statement": "It's eleven o'clock"},
        ),
        (
            "1091_WSI_NEU_XX.mp3",
            {"emotion": "neutral", "sex": "female", "speaker": "crema-d-1091", "actor": 1091,
             "statement": "We'll stop in a couple of minutes"},
        ),
        (
            "1040_ITH_SAD_X.wav",  # so it is called in the distribution
            {"emotion": "sad", "sex": "male", "speaker": "crema-d-1040", "actor": 1040,
             "statement": "I think I have a doctor's appointment"},
        ),
        (
            "16b10Td.wav",
            {"emotion": "sad", "sex": "female", "speaker": "emodb-16", "actor": 16, "repetition": 4,
             "statement": "Die wird auf dem Platz sein, wo wir sie immer hinlegen"},
        ),
        (
            "03a01Lb.wav",  # boredom, which has no label here
            {"sex": "male", "speaker": "emodb-03", "actor": 3, "repetition": 2,
             "statement": "Der Lappen liegt auf dem Eisschrank"},
        ),
        ("female1_angry_1a_1.wav", {"emotion": "angry", "sex": "female", "speaker": "jl-female1"}),
        ("male2_concerned_15b_2.wav", {"emotion": "concerned", "sex": "male", "speaker": "jl-male2"}),
        (
            "F_02_MONIKA_S_10_SURPRISE_5.wav",
            {"emotion": "surprised", "sex": "female", "speaker": "subesco-f_02", "statement": "sentence 10",
             "repetition": 5},
        ),
        (
            "F_02_MONIKA_S_2_SURPRISE_3].wav",  # so one is called in the distribution
            {"emotion": "surprised", "sex": "female", "speaker": "subesco-f_02", "statement": "sentence 2",
             "repetition": 3},
        ),
        ("Fear_M_A_basta_ya.wav", {"emotion": "fearful", "sex": "male", "speaker": "mesd-m", "statement": "basta ya"}),
        ("Happiness_C_A_adios.wav", {"emotion": "happy", "speaker": "mesd-c", "statement": "adios"}),
        ("32_happiness_enthusiasm_e_100.wav", {"emotion": "enthusiastic", "speaker": "resd-32e"}),
        ("02_anger_sadness a_031.wav", {"emotion": "angry", "speaker": "resd-02a"}),
        ("s31_su_5.wav", {"emotion": "surprised", "speaker": "enterface-31", "actor": 31}),
        ("s_3_ha_1.wav", {"emotion": "happy", "speaker": "enterface-3", "actor": 3}),
        (
            "12-T-2-6.wav",
            {"emotion": "sad", "sex": "female", "speaker": "cafe-12", "actor": 12, "intensity": "high",
             "statement": "Six ours aimants domestiqués"},
        ),
        (
            "01-N-1-1.wav",  # neutral has one intensity, which is none
            {"emotion": "neutral", "sex": "male", "speaker": "cafe-01", "actor": 1,
             "statement": "Un cheval fou dans mon jardin"},
        ),
        ("WR0_surprised_64.wav", {"emotion": "surprised", "sex": "male", "speaker": "nemo-wr0",
                                  "statement": "sentence 64"}),
        ("gio-m3-n5.wav", {"emotion": "happy", "sex": "male", "speaker": "emovo-m3",
                           "statement": "Uno quarantatré dieci mille cinquantasette venti"}),
        ("NEU-F1-B1.wav", {"emotion": "neutral", "sex": "female", "speaker": "emovo-f1",
                           "statement": "Gli operai si alzano presto"}),
    ],
)  # fmt: skip
def test_names_say_what_their_corpus_documents(name, said):
    assert said_by(name) == said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("f/sessn/10a01Na.wav", {"emotion": "neutral", "sex": "female", "speaker": "oreau-10", "actor": 10}),
        ("m/sessp/07z03Pa.wav", {"emotion": "fearful", "sex": "male", "speaker": "oreau-07", "actor": 7}),
        ("female/F21W03.wav", {"emotion": "surprised", "sex": "female", "speaker": "shemo-f21"}),
        ("male/M56A01.wav", {"emotion": "angry", "sex": "male", "speaker": "shemo-m56"}),
        ("0011/Surprise/0011_001401.wav", {"emotion": "surprised", "speaker": "esd-0011", "actor": 11}),
    ],
)
def test_folders_say_what_their_corpus_documents(path, said):
    *_, folder, name = path.split("/")
    assert said_by(name, folder) == said


def test_a_short_name_needs_its_folder_or_to_be_asked_for():
    assert parse_name("M04N54.wav") is None
    assert understood("M04N54.wav", corpus="shemo").speaker == "shemo-m04"
    # EmoDB and Oreau call their recordings the same
    assert understood("10a01Na.wav").corpus == understood("10a01Na.wav", folder="wav").corpus == "emodb"
    assert understood("10a01Na.wav", folder="sessn", corpus="emodb").corpus == "emodb"
    assert understood("10a01Na.wav", corpus="oreau").corpus == "oreau"


@pytest.mark.parametrize(
    ("corpus", "female", "male", "unknown"),
    [
        ("crema-d", 43, 48, 0),
        ("emodb", 5, 5, 0),
        ("jl", 2, 2, 0),
        ("subesco", 10, 10, 0),
        ("oreau", 7, 25, 0),
        ("cafe", 6, 6, 0),
        ("nemo", 4, 5, 0),
        ("emovo", 3, 3, 0),
        ("shemo", 31, 56, 0),
        ("enterface", 0, 0, 44),
        ("esd", 0, 0, 20),
    ],
)
def test_each_corpus_has_the_speakers_it_documents(corpus, female, male, unknown):
    assert Counter(CORPORA[corpus].speakers.values()) == Counter(
        {"female": female, "male": male, None: unknown}
    ) - Counter({"female": 0})


# --- which corpus ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("20240131-1200.wav", "call_40_agent.wav", "2024-01-31-12-00-00-01.wav", "1001.wav", "1001_DFA_ANG.wav"),
        *("1092_DFA_ANG_XX.wav", "1000_DFA_ANG_XX.wav", "1001_ABC_ANG_XX.wav", "1001_DFA_CAL_XX.wav"),
        *("1001_DFA_ANG_MX.wav", "1001_dfa_ang_xx.wav", "11001_DFA_ANG_XX.wav", "04a01Fa.wav", "03a03Fa.wav"),
        *("03a01Xa.wav", "03a01fa.wav", "03a01F.wav", "03a01Fg.wav", "10b02ea.wav", "XX_a01.wav", "dc_a01.wav"),
        *("DC_a00.wav", "DC_a16.wav", "DC_sa30.wav", "DC_n31.wav", "DC_c01.wav", "DC_a1.wav", "a01.wav"),
        *("calls/a01.wav", "DC/call_01.wav", "DC/x/a01.wav", "DCx/a01.wav", "OAF_back.wav", "OAF_back_bored.wav"),
        *("OAF_back_surprised.wav", "AF_back_angry.wav", "MAF_back_angry.wav", "agent_back_angry.wav"),
        *("OAF_b4ck_angry.wav", "OAF_back_angry.16k.wav", "female3_angry_1a_1.wav", "female1_bored_1a_1.wav"),
        *("female1_angry_16a_1.wav", "female1_angry_1c_1.wav", "F_11_MONIKA_S_1_NEUTRAL_5.wav"),
        *("F_02_MONIKA_S_11_NEUTRAL_5.wav", "F_02_MONIKA_S_1_BORED_5.wav", "F_02_MONIKA_S_1_NEUTRAL_6.wav"),
        *("Boredom_F_A_tarde.wav", "Anger_X_A_tarde.wav", "Anger_F_C_tarde.wav"),
        *("51_happiness_enthusiasm_h_120.wav", "32_happiness_boredom_h_120.wav"),
        *("32_happiness_enthusiasm_x_120.wav", "s45_an_4.wav", "s19_ne_4.wav", "s19_an_6.wav", "13-C-1-3.wav"),
        *("01-X-1-3.wav", "01-C-3-3.wav", "01-N-2-3.wav", "01-C-1-7.wav", "AB0_anger_1.wav", "EB0_disgust_1.wav"),
        *("EB0_anger_91.wav", "EB0_anger_01.wav", "dis-f4-b1.wav", "xyz-f1-b1.wav", "dis-f1-b4.wav"),
        *("sessn/34a01Na.wav", "sessx/10a03Na.wav", "sessn/10a03Nb.wav", "M04N54.wav", "calls/M04N54.wav"),
        *("male/M57N54.wav", "male/M04X54.wav", "Angry/0021_000351.wav", "angry/0011_000351.wav"),
        *("Angry/x/0011_000351.wav", "0011_000351.wav", "dia0_utt0.mp4", "\u0660\u0663a\u0660\u0661Fa.wav"),
    ],
)
def test_names_that_only_look_like_it_say_nothing(tmp_path, path):
    assert said_of(touch(tmp_path, path)) == {path: Metadata()}


def claims(name: str, folder: str = "") -> list[str]:
    """The corpora that recognize a name without being asked for, or with their folder if one does so."""
    claiming = [corpus for corpus in CORPORA.values() if corpus.parse(name, folder, is_asked_for=False) is not None]
    by_folder = [corpus.name for corpus in claiming if corpus.folder]
    return by_folder or [corpus.name for corpus in claiming]


FOLDERS = ["", "DC", "KL", "calls", "sessn", "female", "Angry", "0011"]
SHAPES = st.one_of(
    st.text(),
    *(st.from_regex(corpus.pattern, fullmatch=True) for corpus in CORPORA.values()),
    st.from_regex(
        re.compile(
            r"(\d{4}_[A-Z]{3}_|\d\d[ab]\d\d|DC_|OAF_[a-z]+_|[FM]_\d\d_|Anger_F_|\d\d_anger_fear_|EB0_anger_|s1_|[FM]\d\d)"
            r"(ANG_XX|Fa|Na|n16|sad|A_1|S_1_SAD_1|a_010|an_1|N01)\.wav",
            re.ASCII,
        ),
        fullmatch=True,
    ),
)


@given(SHAPES, st.sampled_from(FOLDERS))
@settings(max_examples=200, deadline=None)
def test_no_name_is_claimed_by_two_corpora(name, folder):
    claimed = claims(name, folder)
    said = parse_name(name, folder=folder)
    assert len(claimed) <= 1
    assert ([said.corpus] if said else []) == claimed
    if said:
        assert said.emotion in {*EMOTIONS, *OTHER_EMOTIONS, None}
        assert said.sex in {"male", "female", None}
        assert said.speaker is not None
        assert said.speaker.startswith(f"{said.corpus}-")
        assert said.speaker == said.speaker.lower()
        assert said.intensity in {"normal", "strong", "low", "medium", "high", None}


@pytest.mark.parametrize(
    ("path", "corpus"), [*EXAMPLES.items(), *EXAMPLES_BY_FOLDER.items(), *((f"x/{n}", c) for n, c in EXAMPLES.items())]
)
def test_each_corpus_is_found_out_and_may_be_asked_for_alone(path, corpus):
    *_, folder, name = f"/{path}".split("/")
    assert understood(name, folder).corpus == corpus
    assert claims(name, folder) == [corpus]
    assert parse_name(name, folder=folder, corpus=corpus) == parse_name(name, folder=folder)
    assert parse_name(name, folder=folder, corpus="none") is None


MARKS = (" (1)", "(2)", " - Copy", " - Copy (2)", " copy", " copy 2", " (copy)", " (another copy)", " - Copy (1) (3)")


@pytest.mark.parametrize("mark", MARKS)
def test_the_name_of_a_copy_says_what_that_of_the_recording_says(mark):
    for path, corpus in (EXAMPLES | EXAMPLES_BY_FOLDER).items():
        *_, folder, name = f"/{path}".split("/")
        stem, _, suffix = name.rpartition(".")
        copy = f"{stem}{mark}.{suffix}"
        assert understood(copy, folder) == understood(name, folder)
        assert claims(copy, folder) == [corpus]
        assert performance_of(f"other/{folder}/{copy}", corpus) == performance_of(path, corpus)


def test_there_is_an_example_of_each_corpus():
    assert sorted([*EXAMPLES.values(), *EXAMPLES_BY_FOLDER.values()]) == sorted(CORPORA)


def test_every_emotion_of_ours_is_said_by_some_corpus_and_no_other():
    said = {emotion for corpus in CORPORA.values() for emotion in corpus.meanings["emotion"].values()}
    assert said == {*EMOTIONS, *OTHER_EMOTIONS, None}
    assert all(is_label(emotion) for emotion in said if emotion)


def test_speakers_are_unique_across_corpora():
    speakers = [f"{corpus.name}-{code}" for corpus in CORPORA.values() for code in corpus.speakers]
    assert len(speakers) == len(set(speakers))
    assert sum(len(CORPORA[name].speakers) for name in ("ravdess", "crema-d", "emodb", "savee", "tess")) == 131


def test_the_option_names_the_corpora_there_are():
    assert typing.get_args(CorpusName) == ("auto", "none", *CORPORA)


@pytest.mark.parametrize("options", [FeaturizeOptions, ScoreOptions])
def test_a_corpus_that_is_not_known_is_refused_by_name(options):
    with pytest.raises(
        UsageError, match=r"--corpus 'cremad'; expected one of auto, none, ravdess, crema-d.*mean crema-d"
    ):
        options(corpus="cremad")


def test_a_mixed_folder_is_told_apart_file_by_file(tmp_path):
    said = said_of(touch(tmp_path, *EXAMPLES, "call.wav"))
    assert {path: metadata.corpus for path, metadata in said.items()} == {**EXAMPLES, "call.wav": None}


def test_a_forced_corpus_leaves_other_names_alone_and_counts_them(tmp_path):
    manifest = walk(touch(tmp_path, *EXAMPLES), corpus="savee")
    assert {recording.path: recording.metadata.corpus for recording in manifest.recordings} == {
        name: corpus if corpus == "savee" else None for name, corpus in EXAMPLES.items()
    }
    (warning,) = name_warnings(manifest.recordings, corpus="savee")
    assert warning.startswith(f"{len(EXAMPLES) - 1} recordings are not named as those of savee")
    assert warning.endswith(": 01-C-1-3.wav, 03-02-06-02-02-01-12.wav, 03a01Fa.wav, ...")


@pytest.mark.parametrize("corpus", ["auto", "none"])
def test_without_a_forced_corpus_nothing_is_said_of_other_names(tmp_path, corpus):
    manifest = walk(touch(tmp_path, *EXAMPLES, "call.wav"), corpus=corpus)
    assert name_warnings(manifest.recordings, corpus=corpus) == ()


# --- licenses -------------------------------------------------------------------------------------------------------


def test_a_model_inherits_every_license():
    assert license_of(["ravdess"]) == "CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)"
    assert license_of([]) == license_of(["my-calls"]) == ""
    both = license_of(["ravdess", "my-calls", "crema-d", "crema-d"])
    assert both.startswith("all of these hold: ODbL 1.0 (CREMA-D; ")
    assert both.endswith("; CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)")
    assert both.count("CREMA-D") == 1


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_terms_and_attribution_of_each_corpus(name):
    source = SOURCES[name]
    terms = license_of([name])
    assert ("not for commercial use" in terms) == (not source.commercial)
    # what a model started from is found again by these names
    assert name in terms.lower()
    assert source.license in terms
    assert "https://" in source.citation or "http://" in source.citation
    assert sources_of([name]) == [source.attribution]
    assert source.page.startswith(("https://", "http://"))


def test_the_terms_of_the_first_five_stay():
    assert [CORPORA[name].terms for name in ("ravdess", "crema-d", "emodb", "savee", "tess")] == [
        "CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)",
        "ODbL 1.0 (CREMA-D; commercial use allowed with attribution, a changed database is shared alike)",
        "CC0 1.0 (EmoDB, as published by audEERING)",
        "free of charge for research (SAVEE; not for commercial use)",
        "CC BY-NC-ND 4.0 (TESS; not for commercial use, no derivatives)",
    ]
    assert CORPORA["emodb"].attribution == "EmoDB: Burkhardt et al. 2005, https://doi.org/10.21437/Interspeech.2005-446"


def test_the_documentation_tells_of_each_corpus(root):
    text = (root / "docs" / "tables.md").read_text(encoding="utf-8")
    for name, source in SOURCES.items():
        (row,) = re.findall(rf"^\| `{name}` \| (?:{re.escape(source.license)})[:,]? .*$", text, re.MULTILINE)
        assert ("not for commercial use" in row) == (not source.commercial)
    for name in CORPORA:
        assert re.search(rf"^\| `{name}` \| `", text, re.MULTILINE), name


# --- tables of publishers -------------------------------------------------------------------------------------------

EMOZIONALMENTE = """file_name,actor,emotion_expressed,sentence
2021_a.wav,Mario R,joy,Il sole
2021_b.wav,Mario R,neutrality,La luna
"""
EMNS = """id|utterance|description|emotion|date_created|status|gender|age|level|audio_recording|user_id
1|"Well, | said she"|d|Sarcastic|2022|Complete|Female|20s|9|wavs/x1.webm|3
2|Two|d|Surprised|2022|Complete|prefer not to say|20s|9|wavs/x2.webm|3
"""
MELD = """Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime
1,"Oh, my",The Interviewer,surprise,positive,0,0,8,21,"00:16:16,059","00:16:21,731"
2,No,Chandler,anger,negative,0,1,8,21,"00:16:21,940","00:16:23,442"
"""


def labels_of(folder, text, *recordings, name="table.csv"):
    touch(folder / "audio", *recordings)
    (folder / name).write_text(text, encoding="utf-8")
    return join_labels(walk(folder / "audio").recordings, folder / name, timed=False)


def row_of(recording):
    (label,) = recording.labels
    return label.emotion, label.speaker, label.sex, label.statement, label.corpus


@pytest.mark.parametrize(
    ("text", "recordings", "rows"),
    [
        (
            EMOZIONALMENTE,
            ("emozionalmente/audio/2021_a.wav", "2021_b.flac"),
            {
                "emozionalmente/audio/2021_a.wav": (
                    "happy",
                    "emozionalmente-mario-r",
                    None,
                    "Il sole",
                    "emozionalmente",
                ),
                "2021_b.flac": ("neutral", "emozionalmente-mario-r", None, "La luna", "emozionalmente"),
            },
        ),
        (
            EMNS,
            ("cleaned_webm/x1.webm", "wavs/x2.wav"),
            {
                "cleaned_webm/x1.webm": ("sarcastic", "emns-3", "female", "Well, | said she", "emns"),
                "wavs/x2.wav": ("surprised", "emns-3", None, "Two", "emns"),
            },
        ),
        (
            MELD,
            ("train_splits/dia0_utt0.mp4", "train_splits/dia0_utt1.wav"),
            {
                "train_splits/dia0_utt0.mp4": ("surprised", "meld-the-interviewer", None, "Oh, my", "meld"),
                "train_splits/dia0_utt1.wav": ("angry", "meld-chandler", None, "No", "meld"),
            },
        ),
    ],
)
def test_a_publishers_table_is_a_labels_file(tmp_path, text, recordings, rows):
    joined = labels_of(tmp_path, text, *recordings)
    assert {recording.path: row_of(recording) for recording in joined.recordings} == rows
    assert joined.warnings == ()


def test_a_publishers_table_in_parquet(tmp_path):
    pl.read_csv(io.StringIO(MELD)).write_parquet(tmp_path / "t.parquet")
    recordings = walk(touch(tmp_path / "audio", "dia0_utt1.mp4")).recordings
    joined = join_labels(recordings, tmp_path / "t.parquet", timed=False)
    assert row_of(joined.recordings[0])[:2] == ("angry", "meld-chandler")
    (warning,) = joined.warnings
    assert "1 row paths name no recording" in warning
    assert warning.endswith(": dia0_utt0")


def test_a_speaker_who_is_missing_in_a_publishers_table_is_nobody(tmp_path):
    joined = labels_of(tmp_path, MELD.replace("Chandler", "NaN"), "dia0_utt0.mp4", "dia0_utt1.mp4")
    assert [row_of(recording)[1] for recording in joined.recordings].count(None) == MELD.count("Chandler")


def test_a_publishers_table_with_a_column_path_is_a_labels_file(tmp_path):
    joined = labels_of(tmp_path, "path,emotion,Emotion,Speaker,Utterance\na.wav,sad,anger,X,Y\n", "a.wav")
    assert row_of(joined.recordings[0]) == ("sad", "X", None, None, None)
    assert "columns not used: Emotion, Utterance" in joined.warnings[0]


@pytest.mark.parametrize(
    ("text", "recordings", "expected"),
    [
        (
            MELD,
            ("train/dia0_utt0.mp4", "dev/dia0_utt0.mp4"),
            r"row 2: dia0_utt0 is the name of 2 recordings \(dev/dia0",
        ),
        (MELD.replace("Utterance_ID", "U"), ("dia0_utt0.mp4",), "row 2: no column Utterance_ID, .* recordings of MELD"),
        (
            MELD.replace("surprise", "Big Joy"),
            ("dia0_utt0.mp4",),
            "row 2: emotion 'Big Joy'; expected a lower-case word",
        ),
        (MELD.replace("No,Ch", "No,,Ch"), ("dia0_utt1.mp4",), "row 3: more cells than the header has columns"),
    ],
)
def test_a_publishers_table_that_cannot_be_used_is_named_by_file_and_row(tmp_path, text, recordings, expected):
    with pytest.raises(InputError, match=rf"table\.csv, {expected}"):
        labels_of(tmp_path, text, *recordings)


def test_all_emotions_of_publishers_tables_are_labels():
    assert all(is_label(emotion) for table in PUBLISHER_TABLES for emotion in table.emotions.values())


# --- real names -----------------------------------------------------------------------------------------------------


def test_all_names_of_crema_d(shared):
    manifest = walk(shared / "crema-d")
    said = [recording.metadata for recording in manifest.recordings]
    assert len(said) == 6131
    assert {metadata.corpus for metadata in said} == {"crema-d"}
    assert len({metadata.speaker for metadata in said}) == 75
    assert {metadata.emotion for metadata in said} == {"angry", "disgust", "fearful", "happy", "neutral", "sad"}
    assert len({metadata.statement for metadata in said}) == 12
    # the level is told for one sentence
    levels = {metadata.statement for metadata in said if metadata.intensity}
    assert levels == {"It's eleven o'clock"}
    with (shared / "crema-d" / "speakers.csv").open() as stream:
        sexes = {f"crema-d-{row['speaker']}": row["sex"] for row in csv.DictReader(stream)}
    assert {metadata.speaker: metadata.sex for metadata in said} == sexes


def test_all_names_of_emodb(shared):
    manifest = walk(shared / "emodb")
    said = [recording.metadata for recording in manifest.recordings]
    assert len(said) == 535
    assert {metadata.corpus for metadata in said} == {"emodb"}
    assert Counter(sex for _, sex in {(metadata.speaker, metadata.sex) for metadata in said}) == {
        "male": 5,
        "female": 5,
    }
    assert Counter(metadata.emotion for metadata in said) == {
        "angry": 127,
        None: 81,  # boredom
        "neutral": 79,
        "happy": 71,
        "fearful": 69,
        "sad": 62,
        "disgust": 46,
    }
    assert len({metadata.statement for metadata in said}) == 10
    assert name_warnings(manifest.recordings, corpus="auto") == (
        "81 recordings of emodb are of an emotion that has no label here; theirs is unknown",
    )


def test_no_real_call_is_taken_for_a_corpus(shared):
    assert {recording.metadata for recording in walk(shared / "calls").recordings} == {Metadata()}


def test_all_names_of_nemo(shared):
    said = [recording.metadata for recording in walk(shared / "nemo").recordings]
    assert len(said) == 1653
    assert {metadata.corpus for metadata in said} == {"nemo"}
    assert {metadata.speaker: metadata.sex for metadata in said} == {
        **dict.fromkeys(("nemo-eb0", "nemo-kd0"), "female"),
        **dict.fromkeys(("nemo-ks0", "nemo-mp0", "nemo-sm0", "nemo-wr0"), "male"),
    }
    assert {metadata.emotion for metadata in said} == {"angry", "fearful", "happy", "neutral", "sad", "surprised"}
    assert len({metadata.statement for metadata in said}) <= 90
