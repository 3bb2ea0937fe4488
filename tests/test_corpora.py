"""What the names of each known corpus say."""

import csv
import re
import typing
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.cli import cli
from ser_batch.config import CorpusName, FeaturizeOptions, ScoreOptions
from ser_batch.corpus import CORPORA, Metadata, licence_of, name_warnings, parse_name, walk
from ser_batch.errors import UsageError

EMOTIONS = {"angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised"}
EXAMPLES = {
    "03-02-06-02-02-01-12.wav": "ravdess",
    "1001_DFA_ANG_XX.wav": "crema-d",
    "03a01Fa.wav": "emodb",
    "DC_a01.wav": "savee",
    "OAF_back_angry.wav": "tess",
}


def touch(root, *names):
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return root


def said_of(folder) -> dict[str, Metadata]:
    return {recording.path: recording.metadata for recording in walk(folder).recordings}


# --- each corpus ----------------------------------------------------------------------------------------------------


def test_crema_d():
    said = parse_name("1001_IEO_HAP_MD.flac")
    assert said == Metadata(
        corpus="crema-d",
        modality="audio",
        vocal_channel="speech",
        emotion="happy",
        intensity="medium",
        statement="It's eleven o'clock",
        actor=1001,
        sex="male",
        speaker="crema-d-1001",
    )
    assert parse_name("1091_WSI_NEU_XX.mp3").intensity is None
    assert parse_name("1040_ITH_SAD_X.wav").emotion == "sad"  # so it is called in the distribution


def test_crema_d_has_48_men_and_43_women():
    assert Counter(CORPORA["crema-d"].speakers.values()) == {"male": 48, "female": 43}
    assert sorted(map(int, CORPORA["crema-d"].speakers)) == list(range(1001, 1092))


def test_emodb():
    assert parse_name("16b10Td.wav") == Metadata(
        corpus="emodb",
        modality="audio",
        vocal_channel="speech",
        emotion="sad",
        statement="Die wird auf dem Platz sein, wo wir sie immer hinlegen",
        repetition=4,
        actor=16,
        sex="female",
        speaker="emodb-16",
    )
    assert parse_name("03a01Wa.wav").sex == "male"
    assert parse_name("03a01Wa.wav").emotion == "angry"
    bored = parse_name("03a01Lb.wav")
    assert (bored.corpus, bored.emotion) == ("emodb", None)


@pytest.mark.parametrize("path", ["JK_su15.wav", "AudioData/JK/su15.wav", "other/JK_su15.WAV", "KL/JK_su15.wav"])
def test_savee_has_the_speaker_in_the_name_or_in_the_folder(tmp_path, path):
    touch(tmp_path, path)
    assert said_of(tmp_path) == {
        path: Metadata(
            corpus="savee",
            modality="audio",
            vocal_channel="speech",
            emotion="surprised",
            sex="male",
            speaker="savee-jk",
        )
    }


def test_savee_of_one_speaker_alone_is_understood_by_the_folder_that_is_walked(tmp_path):
    touch(tmp_path, "DC/n30.wav", "x/n30.wav")
    assert said_of(tmp_path / "DC")["n30.wav"].speaker == "savee-dc"
    (recording,) = walk(tmp_path / "DC" / "n30.wav").recordings
    assert recording.metadata.emotion == "neutral"
    assert said_of(tmp_path)["x/n30.wav"] == Metadata()


@pytest.mark.parametrize("name", ["OAF_back_ps.wav", "oaf_BACK_Ps.wav", "OAF_back_pleasant_surprised.wav"])
def test_tess_in_any_case(name):
    said = parse_name(name)
    assert said == Metadata(
        corpus="tess",
        modality="audio",
        vocal_channel="speech",
        emotion="surprised",
        statement="Say the word back",
        sex="female",
        speaker="tess-oaf",
    )


def test_the_misprint_of_tess_is_the_older_woman_and_no_other_name_begins_so():
    assert parse_name("OA_bite_neutral.wav").speaker == "tess-oaf"
    assert parse_name("YAF_bite_neutral.wav").speaker == "tess-yaf"
    assert parse_name("OA_back_neutral.wav") is None


# --- which corpus ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "20240131-1200.wav",
        "call_40_agent.wav",
        "2024-01-31-12-00-00-01.wav",
        "1001.wav",
        "1001_DFA_ANG.wav",
        "1092_DFA_ANG_XX.wav",
        "1000_DFA_ANG_XX.wav",
        "1001_ABC_ANG_XX.wav",
        "1001_DFA_CAL_XX.wav",
        "1001_DFA_ANG_MX.wav",
        "1001_dfa_ang_xx.wav",
        "11001_DFA_ANG_XX.wav",
        "04a01Fa.wav",
        "03a03Fa.wav",
        "03a01Xa.wav",
        "03a01fa.wav",
        "03a01F.wav",
        "03a01Fg.wav",
        "10b02ea.wav",
        "XX_a01.wav",
        "dc_a01.wav",
        "DC_a00.wav",
        "DC_a16.wav",
        "DC_sa30.wav",
        "DC_n31.wav",
        "DC_c01.wav",
        "DC_a1.wav",
        "a01.wav",
        "calls/a01.wav",
        "DC/call_01.wav",
        "DC/x/a01.wav",
        "DCx/a01.wav",
        "OAF_back.wav",
        "OAF_back_bored.wav",
        "OAF_back_surprised.wav",
        "AF_back_angry.wav",
        "MAF_back_angry.wav",
        "agent_back_angry.wav",
        "OAF_b4ck_angry.wav",
        "OAF_back_angry.16k.wav",
        "\u0660\u0663a\u0660\u0661Fa.wav",
    ],
)
def test_names_that_only_look_like_it_say_nothing(tmp_path, path):
    assert said_of(touch(tmp_path, path)) == {path: Metadata()}


def claims(name: str, folder: str = "") -> list[str]:
    return [corpus for corpus in CORPORA if parse_name(name, folder=folder, corpus=corpus) is not None]


SHAPES = st.one_of(
    st.text(),
    *(st.from_regex(corpus.pattern, fullmatch=True) for corpus in CORPORA.values()),
    st.from_regex(
        re.compile(r"(\d{4}_[A-Z]{3}_|\d\d[ab]\d\d|DC_|OAF_[a-z]+_)(ANG_XX|Fa|n16|sad)\.wav", re.ASCII), fullmatch=True
    ),
)


@given(SHAPES, st.sampled_from(["", "DC", "KL", "calls"]))
@settings(max_examples=400, deadline=None)
def test_no_name_is_claimed_by_two_corpora_and_what_is_said_is_of_the_tables(name, folder):
    claimed = claims(name, folder)
    said = parse_name(name, folder=folder)
    assert len(claimed) <= 1
    assert ([said.corpus] if said else []) == claimed
    if said:
        assert said.emotion in {*EMOTIONS, None}
        assert said.sex in {"male", "female"}
        assert said.speaker.startswith(f"{said.corpus}-")
        assert said.speaker == said.speaker.lower()
        assert said.intensity in {"normal", "strong", "low", "medium", "high", None}


@pytest.mark.parametrize(("name", "corpus"), EXAMPLES.items())
def test_each_corpus_is_found_out_and_may_be_asked_for_alone(name, corpus):
    assert parse_name(name).corpus == corpus
    assert claims(name) == [corpus]
    assert parse_name(name, corpus="none") is None


def test_every_emotion_of_ours_is_said_by_some_corpus_and_no_other():
    said = {emotion for corpus in CORPORA.values() for emotion in corpus.meanings["emotion"].values()}
    assert said == {*EMOTIONS, None}


def test_speakers_are_unique_across_corpora():
    speakers = [f"{corpus.name}-{code}" for corpus in CORPORA.values() for code in corpus.speakers]
    assert len(speakers) == len(set(speakers)) == 24 + 91 + 10 + 4 + 2


def test_the_option_names_the_corpora_there_are():
    assert typing.get_args(CorpusName) == ("auto", "none", *CORPORA)
    for command in ("featurize", "score"):
        (option,) = (option for option in cli.commands[command].params if option.name == "corpus")
        assert tuple(option.type.choices) == typing.get_args(CorpusName)
        assert option.default == FeaturizeOptions().corpus == "auto"


@pytest.mark.parametrize("options", [FeaturizeOptions, ScoreOptions])
def test_a_corpus_that_is_not_known_is_refused_by_name(options):
    with pytest.raises(UsageError, match="corpus 'cremad'; expected one of auto, none, ravdess, crema-d"):
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
    assert warning.startswith("4 recordings are not named as those of savee")
    assert warning.endswith(": 03-02-06-02-02-01-12.wav, 03a01Fa.wav, 1001_DFA_ANG_XX.wav, ...")


@pytest.mark.parametrize("corpus", ["auto", "none"])
def test_without_a_forced_corpus_nothing_is_told_of_other_names(tmp_path, corpus):
    manifest = walk(touch(tmp_path, *EXAMPLES, "call.wav"), corpus=corpus)
    assert name_warnings(manifest.recordings, corpus=corpus) == ()


# --- licences -------------------------------------------------------------------------------------------------------


def test_a_model_inherits_every_licence():
    assert licence_of(["ravdess"]) == "CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)"
    assert licence_of([]) == licence_of(["my-calls"]) == ""
    both = licence_of(["ravdess", "my-calls", "crema-d", "crema-d"])
    assert both.startswith("all of these hold: ODbL 1.0 (CREMA-D; ")
    assert both.endswith("; CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)")
    assert both.count("CREMA-D") == 1


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
