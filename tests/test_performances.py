"""Recordings of one performance: in which forms a copy is found, and what becomes of it in splits and figures."""

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import soxr
from helpers import quiet

from ser_batch.config.options import FeaturizeOptions, TrainOptions
from ser_batch.corpus.known_corpora import performance_of
from ser_batch.featurization import featurize
from ser_batch.splits.folds import split_rows
from ser_batch.splits.performances import copy_warnings, originals, with_performances
from ser_batch.tables.features import load_features
from ser_batch.training.run import train
from ser_batch.training.tasks import make_plan, usable_rows

Samples = np.ndarray[Any, np.dtype[np.float64]]


def copies_of(samples: Samples, rate: int) -> Mapping[str, tuple[Samples, int, dict[str, Any]]]:
    """The same sound in other forms: suffix of the name, samples, rate, what is said to libsndfile."""

    def at(other: int) -> Samples:
        return soxr.resample(samples, rate, other)

    # about 64 kbit/s
    mp3 = {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.85 if rate > 32_000 else 0.6}
    return {
        "-flac.flac": (samples, rate, {}),
        "-16k.wav": (at(16_000), 16_000, {}),
        "-48k.wav": (at(48_000), 48_000, {"subtype": "PCM_24"}),
        "-quiet.wav": (samples / 2, rate, {}),
        "-mp3.mp3": (samples, rate, mp3),
        "-ogg.ogg": (samples, rate, {"format": "OGG", "subtype": "VORBIS"}),
    }


def write_copies(clip: Path, folder: Path, name: str) -> None:
    samples, rate = soundfile.read(clip)
    samples = samples if samples.ndim == 1 else samples.mean(axis=1)
    for suffix, (changed, its_rate, options) in copies_of(samples, rate).items():
        soundfile.write(folder / f"{name}{suffix}", changed, its_rate, **options)


def featurized(audio: Path, out: Path, **options: Any) -> Path:
    labels = out.with_suffix(".csv")
    paths = sorted(path.relative_to(audio).as_posix() for path in audio.rglob("*") if path.is_file())
    # two labels: of the first half of the names and the second
    rows = [f"{path},{('calm', 'sad')[2 * i >= len(paths)]}" for i, path in enumerate(paths)]
    labels.write_text("\n".join(["path,emotion", *rows]))
    featurize(audio, FeaturizeOptions(out=out, labels=labels, corpus="none", jobs=1, **options))
    return out


def groups(*folders: Path) -> list[list[str]]:
    """The names of the recordings of each performance."""
    rows = with_performances(load_features(folders)).rows.filter(variant="clean")
    found = rows.group_by("performance").agg(pl.col("path").unique().sort())
    return sorted(found["path"].to_list())


FRONT_ENDS = {"wideband": {}, "telephone": {"preset": "telephone"}, "encoder": {"features": "whisper-tiny.en"}}


# --- by sound -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copied(small_corpus, tmp_path_factory):
    """Eight voices of the made-up corpus, each in seven forms, under names that tell nothing."""
    folder = tmp_path_factory.mktemp("copied")
    clips = sorted(small_corpus.rglob("*-01-0?.wav"))[::4][:8]
    assert len(clips) == 8
    for number, clip in enumerate(clips):
        shutil.copy(clip, folder / f"{number}.wav")
        write_copies(clip, folder, str(number))
    return folder


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_copies_in_another_format_rate_or_level_are_one_performance(copied, tmp_path, front_end):
    audio = tmp_path / "audio"
    # the encoder hears what codecs do to a voice without any noise; real recordings are below
    unheard = ("*.mp3", "*.ogg") if front_end == "encoder" else ()
    shutil.copytree(copied, audio, ignore=shutil.ignore_patterns(*unheard))
    found = groups(featurized(audio, tmp_path / "features", **FRONT_ENDS[front_end]))
    assert found == [sorted(path.name for path in audio.glob(f"{number}[-.]*")) for number in range(8)]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_distinct_recordings_of_one_sentence_by_one_voice_are_distinct(small_corpus, tmp_path, front_end):
    audio = tmp_path / "audio"
    audio.mkdir()
    for number, clip in enumerate(sorted(small_corpus.rglob("*.wav"))):
        shutil.copy(clip, audio / f"{number:03}.wav")
    assert max(map(len, groups(featurized(audio, tmp_path / "features", **FRONT_ENDS[front_end])))) == 1


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_real_recordings_are_found_in_other_forms_and_by_nothing_else(shared, tmp_path, front_end):
    audio = tmp_path / "audio"
    audio.mkdir()
    clips = sorted((shared / "ravdess" / "Actor_07").glob("*.flac"))
    for number, clip in enumerate(clips):
        shutil.copy(clip, audio / f"{number:03}.flac")
        if number % 8 == 0:
            write_copies(clip, audio, f"{number:03}")
    found = groups(featurized(audio, tmp_path / "features", **FRONT_ENDS[front_end]))
    mixed = [own for own in found if len({name[:3] for name in own}) > 1]
    # the publisher has two names for one recording
    names = [[clips[int(number)].stem for number in sorted({name[:3] for name in own})] for own in mixed]
    assert names == [["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]]
    assert [len(own) for own in found if own not in mixed] == [
        1 if int(own[0][:3]) % 8 else 7 for own in found if own not in mixed
    ]


def test_steady_sounds_and_short_ones_are_not_compared(tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    seconds = np.arange(16_000) / 16_000
    for number, hz in enumerate((200, 440, 1000, 2500)):
        soundfile.write(audio / f"tone{number}.wav", 0.3 * np.sin(2 * np.pi * hz * seconds), 16_000)
        soundfile.write(audio / f"click{number}.wav", 0.3 * np.sin(2 * np.pi * hz * seconds[:3200]), 16_000)
    assert max(map(len, groups(featurized(audio, tmp_path / "features")))) == 1


def test_a_table_of_one_recording_has_no_copies(small_corpus, tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    shutil.copy(next(small_corpus.rglob("*.wav")), audio / "a.wav")
    for front_end, options in FRONT_ENDS.items():
        assert groups(featurized(audio, tmp_path / front_end, **options)) == [["a.wav"]]


def test_variants_and_windows_are_no_copies_and_those_of_copies_belong_together(copied, tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in ("0.wav", "0-flac.flac", "3.wav"):
        shutil.copy(copied / name, audio)
    features = featurized(audio, tmp_path / "f", segments="windows", window=0.6, hop=0.3, variants="clean,noise10")
    rows = with_performances(load_features([features])).rows
    assert len(rows) > 20
    per_recording = rows.group_by("path").agg(pl.col("performance").unique())
    assert per_recording["performance"].list.len().max() == 1
    one, copy, other = (rows.filter(path=name)["performance"][0] for name in ("0.wav", "0-flac.flac", "3.wav"))
    assert one == copy != other


def test_numbers_follow_the_contents_not_the_names(small_features):
    rows = with_performances(load_features([small_features])).rows
    assert rows["performance"].to_list() == (rows["content_hash"].rank("dense") - 1).to_list()


# --- by name --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "path", "other"),
    [
        ("ravdess", "Actor_01/03-01-06-01-02-01-01.wav", "Video/01-01-06-01-02-01-01.mp4"),
        ("ravdess", "02-01-06-01-02-01-01.mp4", "16k/03-01-06-01-02-01-01.flac"),
        ("crema-d", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioMP3/1001_DFA_ANG_XX.mp3"),
        ("tess", "OAF_back_angry.wav", "TESS/YAF/oaf_back_ANGRY.flac"),
        ("savee", "DC/a01.wav", "x/DC/a01.flac"),
        ("emodb", "wav/03a01Fa.wav", "16k/03a01Fa.wav"),
        ("esd", "0011/Angry/0011_000351.wav", "copy/Angry/0011_000351.wav"),
    ],
)
def test_names_of_one_performance_differ_in_modality_format_and_folder(corpus, path, other):
    assert performance_of(path, corpus) == performance_of(other, corpus) is not None


@pytest.mark.parametrize(
    ("corpus", "path", "other"),
    [
        ("ravdess", "03-01-06-01-02-01-01.wav", "03-01-06-01-02-02-01.wav"),
        ("ravdess", "03-01-06-01-02-01-01.wav", "03-02-06-01-02-01-01.wav"),
        ("savee", "DC_a01.wav", "DC_a02.wav"),
        ("savee", "DC/a01.wav", "JE/a01.wav"),
        ("jl", "female1_angry_1a_1.wav", "female1_angry_1a_2.wav"),
        ("emodb", "03a01Fa.wav", "03a01Fb.wav"),
        ("esd", "Angry/0011_000351.wav", "Sad/0011_000351.wav"),
    ],
)
def test_names_of_other_performances_differ(corpus, path, other):
    assert performance_of(path, corpus) != performance_of(other, corpus)


def test_names_of_no_known_corpus_tell_nothing():
    assert performance_of("1.wav", None) is None
    assert performance_of("1.wav", "ravdess") is None
    assert performance_of("03-01-06-01-02-01-01.wav", "my-corpus") is None
    assert performance_of("dia0_utt0.mp4", "meld") is None


# --- what becomes of copies -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(small_corpus, tmp_path_factory):
    """Features of the made-up corpus as audio and as films, whose sound is another one."""
    folder = tmp_path_factory.mktemp("films")
    for clip in small_corpus.rglob("*.wav"):
        samples, rate = soundfile.read(clip)
        place = folder / "audio" / clip.relative_to(small_corpus)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, place)
        film = place.parent / clip.name.replace("03-", "01-", 1)
        noise = np.random.default_rng(1).normal(0, 0.01, len(samples) // 2)
        soundfile.write(film, samples[: len(noise)] + noise, rate)
    featurize(folder / "audio", FeaturizeOptions(out=folder / "features", jobs=1))
    return folder / "features"


@pytest.mark.parametrize("split", ["stratified", "speaker", "speaker:2", "text"])
def test_no_performance_stands_on_two_sides_and_each_is_in_the_figures_once(films, split):
    data = with_performances(load_features([films]))
    options = TrainOptions(split=split)
    plan = make_plan(data, usable_rows(data, options), sorted(set(data.rows["emotion"])), options)
    performances = data.rows["performance"]
    for fold in plan.folds:
        assert len(fold.train) % 2 == 0
        assert not set(performances.gather(fold.train)) & set(performances.gather(fold.test))
        assert performances.gather(fold.test).is_unique().all()
    assert len(set(itertools.chain(*(performances.gather(fold.test) for fold in plan.folds)))) >= 24


def test_copies_are_counted_in_a_warning_and_support_counts_originals(films, tmp_path):
    options = TrainOptions(out=tmp_path / "model", estimator="logistic", split="speaker:4")
    summary = train([films], options, say=quiet)
    (warning,) = summary.warnings
    assert warning == (
        "120 recordings are copies of others, such as Actor_01/03-01-01-01-01-01-01.wav of "
        "Actor_01/01-01-01-01-01-01-01.wav; a performance is in one part of each split, and counts once in the figures"
    )
    assert summary.n_test == 120
    assert summary.report is not None
    assert summary.report.filter(label="accuracy")["support"].item() == 120


def test_copies_with_another_emotion_are_counted(tmp_path):
    rows = pl.DataFrame(
        {
            "recording": [0, 0, 1, 2, 3], "performance": [0, 0, 0, 1, 0], "variant": "clean",
            "path": ["a", "a", "b", "c", "d"], "emotion": ["sad", "sad", "calm", "sad", "sad"],
        }
    )  # fmt: skip
    (warning,) = copy_warnings(rows)
    assert warning.startswith("2 recordings are copies of others, such as b of a;")
    assert warning.endswith("; 1 of them have another emotion than the first")
    assert originals(rows, np.array([0, 1, 2, 3, 4])).tolist() == [0, 1, 3]
    assert originals(rows, np.array([2, 3, 4])).tolist() == [2, 3]  # of what is held out, one copy counts


def test_a_variant_that_the_original_lacks_is_that_of_its_copy():
    rows = pl.DataFrame(
        {
            "recording": [0, 1, 1],
            "performance": [0, 0, 0],
            "variant": ["clean", "clean", "g711"],
            "path": ["a", "b", "b"],
        }
    )
    assert originals(rows, np.arange(3)).tolist() == [0, 2]


def test_copies_in_another_folder_go_with_the_fold_of_the_first(films):
    data = with_performances(load_features([films]))
    for fold in split_rows(data.rows, "emobox", seed=0).folds:
        assert not set(data.rows["performance"].gather(fold.train)) & set(data.rows["performance"].gather(fold.test))
