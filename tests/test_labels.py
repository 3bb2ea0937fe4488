"""What a labels file says beyond emotions: votes of listeners, and what names say too."""

import csv
import math
from unittest.mock import Mock

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.config.features import PRESETS
from ser_batch.config.options import FeaturizeOptions, ScoreOptions
from ser_batch.corpus import labels
from ser_batch.corpus.labels import join_labels
from ser_batch.corpus.manifest import LabelRow, Metadata, Recording, emotion_of, metadata_of
from ser_batch.corpus.walk import walk
from ser_batch.errors import InputError, OutputError
from ser_batch.featurization import featurize
from ser_batch.scoring.run import score
from ser_batch.tables.features import load_features
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import features_schema

HAPPY = "1001_DFA_HAP_XX.wav"


@pytest.fixture
def join(tmp_path):
    """Joins a labels file of the given text to the recordings a.wav and b.wav."""
    for name in ("a.wav", "b.wav"):
        (tmp_path / "audio" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "audio" / name).write_bytes(b"")
    recordings = walk(tmp_path / "audio").recordings

    def join(text, *, timed=False):
        (tmp_path / "labels.csv").write_text(text)
        return join_labels(recordings, tmp_path / "labels.csv", timed=timed)

    return join


def row_of(joined, path="a.wav") -> LabelRow:
    (recording,) = (recording for recording in joined.recordings if recording.path == path)
    (label,) = recording.labels
    return label


def recording_of(label: LabelRow | None, **said) -> Recording:
    labels = () if label is None else (label,)
    return Recording(path="a.wav", file=b"a.wav", size=0, mtime_ns=0, metadata=Metadata(**said), labels=labels)


# --- votes ----------------------------------------------------------------------------------------------------------


def test_votes_become_shares_in_the_order_of_the_labels(join):
    joined = join("p_sad,path,p_angry,emotion\n6,a.wav,2,angry\n0.25,b.wav,,sad\n")
    assert joined.voted == ("angry", "sad")
    assert row_of(joined) == LabelRow(emotion="angry", votes=(("angry", 0.25), ("sad", 0.75)))
    assert row_of(joined, "b.wav").votes == (("angry", 0.0), ("sad", 1.0))
    assert joined.warnings == ()


def test_an_empty_emotion_is_the_one_of_most_votes_and_a_tie_is_told(join):
    joined = join("path,emotion,p_angry,p_sad,p_calm\na.wav,,1,3,0\nb.wav,,2,2,1\n")
    assert row_of(joined).emotion == "sad"
    assert row_of(joined, "b.wav").emotion is None
    (warning,) = joined.warnings
    assert "1 rows have no emotion and votes that are tied" in warning
    assert warning.endswith(": b.wav")


def test_a_row_that_says_its_emotion_is_not_outvoted(join):
    assert row_of(join("path,emotion,p_angry,p_sad\na.wav,angry,1,3\nb.wav,,1,0\n")).emotion == "angry"


def test_with_votes_no_column_of_emotions_is_needed(join):
    assert row_of(join("path,p_angry,p_sad\na.wav,1,3\nb.wav,1,0\n")).emotion == "sad"


def test_votes_that_sum_to_nothing_are_told_and_empty_cells_are_not(join):
    joined = join("path,emotion,p_angry,p_sad\na.wav,sad,0,0\nb.wav,sad,,\n")
    assert row_of(joined).votes == row_of(joined, "b.wav").votes == ()
    (warning,) = joined.warnings
    assert "1 rows have votes that sum to 0" in warning
    assert warning.endswith(": a.wav")


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        ("p_angry,p_sad", "1,-0.5", "row 2: p_sad -0.5; expected votes or a share, 0 or more"),
        ("p_angry,p_sad", "1,many", "row 2: p_sad 'many'; expected a number"),
        ("p_angry,p_sad", "inf,1", "row 2: p_angry 'inf'"),
        ("p_,p_sad", "1,1", "row 1: column p_;"),
        ("p_accuracy,p_sad", "1,1", "row 1: column p_accuracy"),
        ("p_sad,p_so so", "1,1", "row 1: column p_so so"),
    ],
)
def test_votes_that_cannot_be_counted_are_named_by_row_and_column(join, header, row, told):
    with pytest.raises(InputError) as caught:
        join(f"path,{header}\na.wav,{row}\n")
    assert "labels.csv, " + told in str(caught.value)


VOTES = st.floats(0, allow_infinity=False, allow_nan=False)


@given(st.lists(VOTES, min_size=2, max_size=5))
@settings(max_examples=200, deadline=None)
def test_whatever_the_votes_shares_sum_to_one_and_the_most_voted_wins(tmp_path_factory, votes):
    folder = tmp_path_factory.getbasetemp()
    names = [f"p_e{i}" for i in range(len(votes))]
    with (folder / "votes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", *names], ["a.wav", *map(repr, votes)]])
    label = row_of(join_labels([recording_of(None)], folder / "votes.csv", timed=False))
    if any(votes):
        shares = [share for _, share in label.votes]
        assert math.fsum(shares) == pytest.approx(1, abs=1e-12)
        assert min(shares) >= 0
        alone = votes.count(max(votes)) == 1
        assert label.emotion == (f"e{votes.index(max(votes))}" if alone else None)
    else:
        assert label == LabelRow(emotion=None)


# --- columns that names fill too ------------------------------------------------------------------------------------


def test_the_file_tells_what_names_tell_too(join):
    text = "path,emotion,sex,intensity,statement,corpus\na.wav,sad,female,low,Take care,my-calls\nb.wav,sad,,,,\n"
    joined = join(text)
    assert joined.warnings == ()
    assert row_of(joined) == LabelRow(
        emotion="sad", sex="female", intensity="low", statement="Take care", corpus="my-calls"
    )
    assert row_of(joined, "b.wav") == LabelRow(emotion="sad")


@pytest.mark.parametrize(
    ("column", "text", "expected"),
    [
        ("sex", "F", "male or female"),
        ("intensity", "Very Loud", "a lower-case word"),
        ("corpus", "CREMA D", "a lower-case name"),
    ],
)
def test_text_that_no_table_holds_is_refused_by_row_and_column(join, column, text, expected):
    with pytest.raises(InputError, match=rf"labels\.csv, row 2: {column} '{text}'; expected {expected}"):
        join(f"path,emotion,{column}\na.wav,sad,{text}\n")


def test_words_in_capitals_are_lowered(join):
    joined = join("path,emotion,sex,intensity,corpus,P_Sad\na.wav,ANGRY,Male,Low,CREMA-D,1\nb.wav,Angry,,,,\n")
    votes = (("sad", 1.0),)
    assert row_of(joined) == LabelRow(emotion="angry", sex="male", intensity="low", corpus="crema-d", votes=votes)
    assert row_of(joined, "b.wav") == LabelRow(emotion="angry")


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        ("path,emotion,channel", "a.wav,sad,1e300", "row 2: channel 1e\\+300; expected -1"),
        ("path,emotion,channel", "a.wav,sad,32768", "row 2: channel 32768; expected -1"),
        ("path,emotion,start_s,end_s", "a.wav,sad,0,1e308", "row 2: end_s 1e\\+308; expected seconds"),
    ],
)
def test_numbers_that_no_table_or_recording_holds_are_refused(tmp_path, header, row, told):
    (tmp_path / "labels.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=told):
        join_labels([], tmp_path / "labels.csv", timed=True)


def test_columns_that_are_still_unknown_are_told_with_those_that_are_known(join):
    (warning,) = join("path,emotion,p_sad,sad,actor\na.wav,sad,1,x,3\nb.wav,sad,1,x,3\n").warnings
    assert "columns not used: sad, actor (known: path, emotion, speaker, sex, " in warning
    assert "p_<label>" in warning


def test_a_row_goes_before_the_name_where_it_says_something():
    label = LabelRow(emotion=None, sex="female", statement="Hello")
    recording = recording_of(label, emotion="sad", sex="male", speaker="crema-d-1001", actor=1001)
    said = metadata_of(recording, label)
    assert (said["emotion"], said["sex"], said["statement"]) == ("sad", "female", "Hello")
    assert (said["speaker"], said["actor"], said["corpus"]) == ("crema-d-1001", 1001, None)
    assert metadata_of(recording, None)["sex"] == "male"


def test_tied_votes_leave_the_emotion_unknown_whatever_the_name_says():
    tied = LabelRow(emotion=None, votes=(("angry", 0.5), ("sad", 0.5)))
    assert emotion_of(recording_of(tied, emotion="happy"), tied) is None
    silent = LabelRow(emotion=None)
    assert emotion_of(recording_of(silent, emotion="happy"), silent) == "happy"


# --- in the features ------------------------------------------------------------------------------------------------


@pytest.fixture
def audio(tmp_path):
    """Three recordings, one of them named as CREMA-D's."""
    folder = tmp_path / "audio"
    folder.mkdir()
    for i, name in enumerate((HAPPY, "call.wav", "other.wav")):
        samples = np.random.default_rng(i).normal(scale=0.1, size=8000)
        soundfile.write(folder / name, samples, 8000)
    return folder


def run(audio, out, text=None, **options):
    if text is not None:
        options["labels"] = audio.parent / "labels.csv"
        options["labels"].write_text(text)
    return featurize(audio, FeaturizeOptions(out=out, preset="telephone", jobs=1, **options))


def columns_of(out, *names) -> dict[str, tuple]:
    rows = read_parts(out).to_pylist()
    return {row["path"]: tuple(row[name] for name in names) for row in rows}


VOTED = f"path,emotion,sex,p_sad,p_angry\n{HAPPY},,,1,3\ncall.wav,,female,2,2\n"


def test_votes_are_columns_after_all_others_and_only_where_they_are_given(audio, tmp_path):
    summary = run(audio, tmp_path / "voted", VOTED)
    run(audio, tmp_path / "plain")
    parts, plain = ([pq.read_schema(part) for part in (tmp_path / out).glob("part-*")] for out in ("voted", "plain"))
    assert all(part.names == [*plain[0].names, "p_angry", "p_sad"] for part in parts)
    assert all(part.equals(features_schema(PRESETS["telephone"], ("angry", "sad"))) for part in parts)
    assert columns_of(tmp_path / "voted", "emotion", "sex", "speaker", "p_angry", "p_sad") == {
        HAPPY: ("angry", "male", "crema-d-1001", 0.75, 0.25),
        "call.wav": (None, "female", None, 0.5, 0.5),
        "other.wav": (None, None, None, None, None),
    }
    assert (summary.emotions, summary.n_without_emotion) == ({"angry": 1}, 2)
    assert any("tied" in warning for warning in summary.warnings)


def test_changed_votes_are_joined_anew_without_decoding(audio, tmp_path, monkeypatch):
    out = tmp_path / "features"
    run(audio, out, VOTED)
    changed = f"path,emotion,sex,p_angry,p_sad,statement\n{HAPPY},,,0,5,\nother.wav,,male,1,3,Hello\n"
    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", None)
        summary = run(audio, out, changed)
    assert (summary.n_done, summary.n_up_to_date) == (0, 3)
    assert columns_of(out, "emotion", "sex", "statement", "p_angry", "p_sad") == {
        HAPPY: ("sad", "male", "Don't forget a jacket", 0.0, 1.0),
        "call.wav": (None, None, None, None, None),
        "other.wav": ("sad", "male", "Hello", 0.25, 0.75),
    }
    run(audio, tmp_path / "fresh", changed)
    assert read_parts(out).sort_by("path").equals(read_parts(tmp_path / "fresh").sort_by("path"))


@pytest.mark.parametrize(
    ("first", "then"), [(None, VOTED), (VOTED, None), (VOTED, f"path,p_sad,p_angry,p_calm\n{HAPPY},1,1,3\n")]
)
def test_other_columns_of_votes_make_another_table(audio, tmp_path, first, then):
    run(audio, tmp_path / "features", first)
    with pytest.raises(OutputError, match=r"votes was .* and is .*--overwrite"):
        run(audio, tmp_path / "features", then)
    run(audio, tmp_path / "features", then, overwrite=True)


def test_the_corpus_asked_for_decides_the_table(audio, tmp_path):
    summary = run(audio, tmp_path / "features", corpus="crema-d")
    (warning,) = summary.warnings
    assert warning.startswith("2 recordings are not named as those of crema-d")
    assert columns_of(tmp_path / "features", "emotion")[HAPPY] == ("happy",)
    with pytest.raises(OutputError, match=r"corpus was 'crema-d' and is 'none'.*--overwrite"):
        run(audio, tmp_path / "features", corpus="none")
    run(audio, tmp_path / "none", corpus="none")
    assert set(columns_of(tmp_path / "none", "corpus", "emotion", "speaker").values()) == {(None, None, None)}


def test_score_takes_truth_from_names_and_votes_and_its_own_columns_stay(audio, tmp_path):
    (tmp_path / "labels.csv").write_text("path,p_angry,p_bored\ncall.wav,1,3\n")
    options = {"out": tmp_path / "preds.parquet", "model": "fast", "jobs": 1}
    score(audio, ScoreOptions(**options, labels=tmp_path / "labels.csv"))
    frame = pl.read_parquet(tmp_path / "preds.parquet")
    assert dict(frame.select("path", "emotion").rows()) == {HAPPY: "happy", "call.wav": "bored", "other.wav": None}
    assert "p_bored" not in frame.columns
    with pytest.raises(OutputError, match=r"corpus was 'auto' and is 'emodb'.*--overwrite"):
        score(audio, ScoreOptions(**options, corpus="emodb"))
    summary = score(audio, ScoreOptions(**options, corpus="emodb", overwrite=True))
    assert any("3 recordings are not named as those of emodb" in warning for warning in summary.warnings)
    assert pl.read_parquet(tmp_path / "preds.parquet")["emotion"].null_count() == 3


def test_features_are_read_back_with_votes_and_without(audio, tmp_path):
    run(audio, tmp_path / "voted", VOTED, name="one")
    run(audio, tmp_path / "plain", name="two")
    rows = load_features([tmp_path / "plain", tmp_path / "voted"]).rows
    assert rows.select("dataset", "path", "emotion", "p_angry", "p_sad").rows() == [
        ("one", HAPPY, "angry", 0.75, 0.25),
        ("two", HAPPY, "happy", None, None),
    ]
    assert rows["p_sad"].dtype == pl.Float64
    assert not [name for name in load_features([tmp_path / "plain"]).rows.columns if name.startswith("p_")]


def test_an_emotion_that_is_nearly_one_of_ours_gets_a_hint(join):
    (warning,) = join("path,emotion\na.wav,angy\nb.wav,sadness\n").warnings
    assert warning.endswith("labels.csv: 1 rows have the emotion angy; did you mean angry? It is taken as it stands")
    assert not join("path,emotion\na.wav,angry\nb.wav,bored\n").warnings


def test_rows_that_say_the_same_are_read_once(tmp_path, monkeypatch):
    read = Mock(wraps=labels._label_row)
    monkeypatch.setattr(labels, "_label_row", read)
    recordings = [
        Recording(path=f"{number}.wav", file=b"", size=0, mtime_ns=0, metadata=Metadata()) for number in range(1000)
    ]
    rows = [f"{number}.wav,{('sad', 'Sad ', 'NaN', 'calm')[number % 4]}" for number in range(1000)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,emotion", *rows]))
    joined = join_labels(recordings, tmp_path / "labels.csv", timed=False)
    assert read.call_count == 4
    found = [label.emotion for recording in joined.recordings for label in recording.labels]
    assert found == ["sad", "sad", None, "calm"] * 250
    assert joined.warnings == (f"{tmp_path}/labels.csv: 250 cells of emotion are NaN, which is read as missing",)
    (tmp_path / "labels.csv").write_text("\n".join(["path,emotion", *rows, ",sad"]))
    with pytest.raises(InputError, match="row 1002: path is empty"):
        join_labels(recordings, tmp_path / "labels.csv", timed=False)
