"""Labels with times and segments of their own: which window is what."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile

from ser_batch.config.options import FeaturizeOptions, ScoreOptions
from ser_batch.corpus.labels import join_labels
from ser_batch.corpus.manifest import LabelRow, Metadata, Recording, emotion_of, label_at
from ser_batch.errors import InputError
from ser_batch.featurization import featurize
from ser_batch.scoring.run import score


def rows(*labels):
    return [LabelRow(emotion=emotion, start_s=start_s, end_s=end_s) for emotion, start_s, end_s in labels]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([("sad", 2.0, 6.0)], "sad"),
        ([("sad", 4.0, 9.0)], "sad"),
        ([("sad", 4.01, 9.0)], None),
        ([("sad", 0.0, 4.0), ("calm", 3.0, 9.0)], "calm"),
        ([("sad", 0.0, 4.0), ("calm", 4.0, 9.0)], "sad"),
        ([("sad", 0.0, 3.0), ("sad", 3.0, 4.5), ("calm", 4.5, 6.0)], None),
        ([("sad", 0.0, 100.0)], "sad"),
        ([("sad", 6.0, 7.0)], None),
        ([("calm", None, None)], "calm"),
        ([("calm", None, None), ("sad", 3.0, 5.0)], "sad"),
        ([("calm", None, None), ("sad", 3.0, 4.9)], "calm"),
        ([], None),
    ],
)
def test_a_stretch_is_what_the_row_says_that_covers_half_of_it_or_more(labels, expected):
    label = label_at(rows(*labels), 2.0, 6.0)
    assert (label.emotion if label else None) == expected


def test_the_name_does_not_speak_for_what_lies_between_timed_labels():
    named = Recording(path="a", file=b"", size=1, mtime_ns=1, metadata=Metadata(emotion="happy"))
    timed = Recording(
        path="a", file=b"", size=1, mtime_ns=1, metadata=named.metadata, labels=tuple(rows(("sad", 0.0, 1.0)))
    )
    assert emotion_of(named, None) == "happy"
    assert emotion_of(timed, None) is None
    assert emotion_of(timed, LabelRow(emotion=None, start_s=0.0, end_s=1.0)) == "happy"


def test_rows_without_times_are_still_one_a_recording_and_channel(tmp_path):
    (tmp_path / "labels.csv").write_text("path,emotion,start_s,end_s\na,sad,0,1\na,calm,,\na,angry,,\n")
    recordings = [Recording(path="a", file=b"", size=1, mtime_ns=1, metadata=Metadata())]
    with pytest.raises(InputError, match="row 4: a second row for a; one row a recording and channel"):
        join_labels(recordings, tmp_path / "labels.csv", timed=True, cut=False)
    assert len(join_labels(recordings, tmp_path / "labels.csv", timed=True).recordings[0].labels) == 3


@pytest.fixture
def folder(tmp_path):
    """A call of 10 s in stereo, and one in mono."""
    (tmp_path / "calls").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, (80_000, 2))
    soundfile.write(tmp_path / "calls" / "stereo.wav", noise, 8000)
    soundfile.write(tmp_path / "calls" / "mono.wav", noise[:, 0], 8000)
    return tmp_path


def write_labels(folder, *lines):
    (folder / "labels.csv").write_text("path,channel,start_s,end_s,emotion\n" + "\n".join(lines) + "\n")
    return folder / "labels.csv"


WINDOWS: dict[str, Any] = {"segments": "windows", "window": 4.0, "hop": 2.0, "jobs": 1}  # 0..4, 2..6, 4..8, 6..10
LINES = (
    "stereo.wav,0,0,3,angry",
    "stereo.wav,0,3,8,calm",
    "stereo.wav,1,6,9,sad",
    "mono.wav,,5,10,angry",
)
EXPECTED = {
    ("stereo.wav", 0): ["angry", "calm", "calm", "calm"],
    ("stereo.wav", 1): [None, None, "sad", "sad"],
    ("mono.wav", 0): [None, None, "angry", "angry"],
}


def emotions(table):
    return {
        (path, channel): table.filter(path=path, channel=channel).sort("segment")["emotion"].to_list()
        for path, channel in EXPECTED
    }


def test_truth_is_counted_by_window(folder):
    options = ScoreOptions(
        out=folder / "preds.parquet",
        model="fast",
        labels=write_labels(folder, *LINES),
        min_speech=0.0,  # noise is no speech
        **WINDOWS,
    )
    summary = score(folder / "calls", options)
    segments = pl.read_parquet(options.out)
    assert emotions(segments) == EXPECTED
    together = summary.labels
    support = {row["label"]: row["support"] for row in together.iter_rows(named=True)}
    assert (support["angry"], support["calm"], support["sad"], support["accuracy"]) == (3, 3, 2, 8)
    known = segments.drop_nulls("emotion")
    right = (known["predicted"] == known["emotion"]).mean()
    assert together.filter(label="accuracy")["f1"].item() == pytest.approx(right)
    calls = pl.read_parquet(options.out.with_suffix(".calls.parquet"))
    assert calls["emotion"].null_count() == 3, "none is the same throughout"


def test_changed_times_are_joined_anew(folder):
    def run(*lines):
        options = ScoreOptions(out=folder / "p.parquet", model="fast", labels=write_labels(folder, *lines), **WINDOWS)
        summary = score(folder / "calls", options)
        return summary.n_done, emotions(pl.read_parquet(options.out))

    assert run(*LINES) == (2, EXPECTED)
    assert run(*LINES) == (0, EXPECTED)
    moved = {**EXPECTED, ("mono.wav", 0): ["angry", "angry", None, None]}
    assert run(*LINES[:3], "mono.wav,,0,5,angry") == (1, moved)


def test_featurize_has_them_too_and_joins_changed_times_without_decoding(folder):
    def run(*lines):
        options = FeaturizeOptions(out=folder / "features", labels=write_labels(folder, *lines), **WINDOWS)
        summary = featurize(folder / "calls", options)
        return summary.n_done, emotions(pl.read_parquet(folder / "features" / "*.parquet"))

    assert run(*LINES) == (2, EXPECTED)
    moved = {**EXPECTED, ("mono.wav", 0): ["angry", "angry", None, None]}
    assert run(*LINES[:3], "mono.wav,,0,5,angry") == (0, moved)
    one_channel = run(*LINES[:2], "mono.wav,,0,5,angry")
    assert one_channel[0] == 1, "another choice of channels is another cut"
    assert one_channel[1]["stereo.wav", 1] == []


def test_a_row_outside_of_the_recording_is_a_reject(folder):
    labels = write_labels(folder, *LINES[:3], "mono.wav,,11,12,angry")
    summary = score(folder / "calls", ScoreOptions(out=folder / "p.parquet", model="fast", labels=labels, **WINDOWS))
    assert [reject.path for reject in summary.rejected] == ["mono.wav"]
    assert "covers none of its samples" in summary.rejected[0].message


def test_a_clip_is_labelled_as_a_whole(folder):
    options = ScoreOptions(out=folder / "p.parquet", model="fast", labels=write_labels(folder, *LINES), segments="clip")
    with pytest.raises(InputError, match="add --segments labels or windows"):
        score(folder / "calls", options)
