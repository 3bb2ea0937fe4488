"""Recordings to rows: the table, how recordings are cut, the same bits whatever the shards, and going on later."""

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import threadpoolctl
from click.testing import CliRunner
from helpers import reader_of
from hypothesis import given, settings
from hypothesis import strategies as st

import ser_batch
from ser_batch.audio import sound
from ser_batch.audio.perturb import changed
from ser_batch.audio.resampling import Resampler
from ser_batch.cli.commands import cli
from ser_batch.cli.console import Output
from ser_batch.cli.summaries import print_featurize
from ser_batch.config.features import PRESETS, FeatureSpec
from ser_batch.config.options import FeaturizeOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.config.variants import Variants
from ser_batch.corpus.manifest import LabelRow, Metadata, Recording
from ser_batch.errors import InputError, OutputError, SerBatchError, UsageError
from ser_batch.featurization import FeaturizeSummary, featurize
from ser_batch.mfcc import SegmentMfcc, kernel
from ser_batch.segments import segmenter
from ser_batch.segments.front_ends import front_end
from ser_batch.segments.segmenter import Segment, segments
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.synth import synth
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import KEY

TELEPHONE = PRESETS["telephone"]
FEARFUL, SONG, PLAIN = "Actor_05/03-01-06-02-01-02-05.wav", "song/03-02-02-01-02-01-12.wav", "calls/a plain name.wav"


def noise(n: int, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    """Shape (n, n_channels); the channels differ, and no two stretches are alike."""
    samples = np.random.default_rng((n, n_channels, seed)).standard_normal((n, n_channels))
    return (0.1 * samples * np.linspace(0.2, 1, n)[:, None]).astype(np.float32)


def write(file: Path, samples: np.ndarray, sampling_rate: int = 8000, subtype: str = "FLOAT") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples, sampling_rate, subtype=subtype, format="WAV")
    return file


def write_labels(
    file: Path, *rows: Iterable[object], columns: str = "path,emotion,speaker,channel,start_s,end_s"
) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns.split(","), *rows])
    return file


def run(root: Path, out: Path, **options: Any) -> FeaturizeSummary:
    return featurize(root, FeaturizeOptions(out=out, **{"jobs": 1, "preset": "telephone", **options}))


def table(out: Path) -> pa.Table:
    """All rows, by key: what has to be the same whatever the shards and the order of work."""
    rows = read_parts(out)
    return rows.sort_by([(name, "ascending") for name in KEY])


def mfcc_of(rows: pa.Table) -> np.ndarray:
    return pl.DataFrame(rows)["mfcc"].to_numpy()


def rows_of(out: Path, *columns: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table(out)[name].to_pylist() for name in columns), strict=True))


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and times of all files: equal means that nothing was written."""
    return {
        file.relative_to(folder).as_posix(): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


def rejects_of(out: Path) -> list[dict[str, str]]:
    return pq.read_table(out / "_meta" / "rejects.parquet").to_pylist()


def recording_of(file: Path, *labels: LabelRow) -> Recording:
    status = file.stat()
    return Recording(
        path=file.name,
        file=os.fsencode(file),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        metadata=Metadata(),
        labels=labels,
    )


def one_thread() -> threadpoolctl.threadpool_limits:
    """As a worker has: products by two threads differ in the last bits, and whoever compares bits needs the same."""
    return threadpoolctl.threadpool_limits(1)


def cut(file: Path, spec: FeatureSpec, segmentation: Segmentation, *labels: LabelRow) -> list[Segment]:
    with one_thread(), reader_of(file) as reader:
        return list(segments(reader, recording_of(file, *labels), front_end(spec), segmentation))


def mfcc_by_kernel(samples: np.ndarray, spec: FeatureSpec = TELEPHONE, source_rate: int | None = None) -> np.ndarray:
    with one_thread():
        return kernel(spec, source_rate).mfcc(samples)


def places(found: list[Segment]) -> list[tuple[float, float]]:
    return [(segment.start_s, segment.end_s) for segment in found]


def expected_mfcc(samples: np.ndarray, rate: int, spec: FeatureSpec, start_s: float, end_s: float) -> np.ndarray:
    """What the kernel makes of a stretch of the recording, resampled in one go."""
    whole = samples if rate == spec.sampling_rate else soxr.resample(samples, rate, spec.sampling_rate, quality="HQ")
    whole = np.pad(whole, (0, 1))[: int(np.ceil(len(samples) * spec.sampling_rate / rate))]  # rounded up, as librosa's
    return mfcc_by_kernel(whole[round(start_s * spec.sampling_rate) : round(end_s * spec.sampling_rate)], spec, rate)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six usable recordings of several rates, lengths and channels, and one that is none."""
    root = tmp_path_factory.mktemp("corpus") / "voices"
    write(root / FEARFUL, noise(16_000), 16_000)
    write(root / SONG, noise(9_600), 24_000, subtype="PCM_16")
    write(root / PLAIN, noise(50_000, 2), 8000)
    write(root / "b/long.wav", noise(60_000, seed=1), 8000, subtype="PCM_16")
    write(root / "b/one sample.wav", noise(1), 8000)
    write(root / "c.wav", noise(4_000, seed=2), 8000, subtype="ULAW")
    (root / "text.wav").write_text("no recording")
    return root


@pytest.fixture(scope="module")
def features(corpus, tmp_path_factory):
    """The corpus in windows, one part a recording or two."""
    out = tmp_path_factory.mktemp("features") / "features"
    run(corpus, out, segments="windows", shard_size=2)
    return out


# ---- the table ----


def test_the_table_has_its_columns_in_order_and_opens_as_an_array(features):
    string, second = pl.String, pl.Float64
    columns = {
        **{"dataset": string, "path": string, "content_hash": string},
        **{"channel": pl.Int16, "segment": pl.Int32, "variant": string},
        **{"start_s": second, "end_s": second, "duration_s": second},
        **{"sampling_rate": pl.Int32, "n_channels": pl.Int16, "n_frames": pl.Int16},
        **{"corpus": string, "modality": string, "vocal_channel": string, "emotion": string, "intensity": string},
        **{"statement": string, "repetition": pl.Int8, "actor": pl.Int16, "sex": string, "speaker": string},
        **{"speech_ratio": pl.Float64, "rms_dbfs": pl.Float64, "mfcc": pl.Array(pl.Float32, (174, 40))},
        **{"mfcc_mean": pl.Array(pl.Float32, 40), "mfcc_std": pl.Array(pl.Float32, 40)},
    }

    frame = pl.scan_parquet(features / "*.parquet").collect()

    assert list(frame.schema.items()) == list(columns.items())
    assert frame["mfcc"].to_numpy().shape == (len(frame), 174, 40)


def test_every_parquet_file_carries_the_version_of_its_schema(features):
    for file in features.rglob("*.parquet"):
        assert (pq.read_schema(file).metadata or {}).get(b"schema_version") == b"1", file


def test_rows_are_unique_by_their_key(features):
    frame = pl.DataFrame(table(features))

    assert len(frame) > 8
    assert not frame.select(KEY).is_duplicated().any()


def test_a_row_tells_what_the_file_and_its_name_say(corpus, features):
    frame = pl.DataFrame(table(features)).drop("mfcc", "mfcc_mean", "mfcc_std", "start_s", "end_s", "n_frames")

    (fearful,) = frame.filter(path=FEARFUL).to_dicts()
    assert 0 <= fearful.pop("speech_ratio") <= 1
    assert -30 < fearful.pop("rms_dbfs") < -20
    assert fearful == {
        "dataset": "voices",
        "path": FEARFUL,
        "content_hash": hashlib.sha256((corpus / FEARFUL).read_bytes()).hexdigest(),
        "channel": 0,
        "segment": 0,
        "variant": "clean",
        "duration_s": 1.0,
        "sampling_rate": 16_000,
        "n_channels": 1,
        "corpus": "ravdess",
        "modality": "audio",
        "vocal_channel": "speech",
        "emotion": "fearful",
        "intensity": "strong",
        "statement": "Kids are talking by the door",
        "repetition": 2,
        "actor": 5,
        "sex": "male",
        "speaker": "ravdess-05",
    }
    (song,) = frame.filter(path=SONG).to_dicts()
    told = ("vocal_channel", "emotion", "intensity", "statement", "sex", "speaker")
    assert [song[name] for name in told] == [
        *("song", "calm", "normal", "Dogs are sitting by the door"),
        *("female", "ravdess-12"),
    ]
    plain = frame.filter(path=PLAIN)
    assert plain.select("corpus", "emotion", "actor", "speaker").null_count().row(0) == (len(plain),) * 4
    assert plain.select("n_channels", "duration_s").unique().rows() == [(2, 6.25)]


def test_frames_beyond_the_real_ones_are_zero_and_the_statistics_leave_them_out(features):
    rows = table(features)
    mfcc, n_frames = mfcc_of(rows), rows["n_frames"].to_pylist()

    assert min(n_frames) == 1
    assert max(n_frames) == 174
    for i, n in enumerate(n_frames):
        assert not mfcc[i, n:].any()
        np.testing.assert_array_equal(rows["mfcc_mean"][i].as_py(), mfcc[i, :n].mean(axis=0))
        np.testing.assert_array_equal(rows["mfcc_std"][i].as_py(), mfcc[i, :n].std(axis=0))


def test_a_clip_is_the_beginning_of_the_whole_recordings_mfccs(tmp_path):
    samples = noise(48_000)[:, 0]  # louder and louder: the floor comes from past the kept frames
    write(tmp_path / "audio/a.wav", samples)

    run(tmp_path / "audio", tmp_path / "out")

    rows = table(tmp_path / "out")
    assert rows.num_rows == 1
    assert (rows["start_s"][0].as_py(), rows["end_s"][0].as_py(), rows["n_frames"][0].as_py()) == (0.0, 6.0, 174)
    np.testing.assert_array_equal(mfcc_of(rows)[0], mfcc_by_kernel(samples))


def test_spec_json_says_how_it_was_made_and_its_hash_is_of_the_numbers_alone(corpus, features, tmp_path):
    run(corpus, tmp_path / "clips", name="other")
    run(corpus, tmp_path / "wide", preset="wideband")

    windows, clips, wide = (
        json.loads((out / "spec.json").read_text()) for out in (features, tmp_path / "clips", tmp_path / "wide")
    )

    assert windows["feature_spec"] == TELEPHONE.to_dict()
    assert (windows["segmentation"]["mode"], clips["segmentation"]["mode"]) == ("windows", "clip")
    assert (windows["dataset"], clips["dataset"]) == ("voices", "other")
    assert windows["feature_spec_hash"] == clips["feature_spec_hash"] != wide["feature_spec_hash"]


# ---- windows ----


@pytest.mark.parametrize("rate", [8000, 22050])
@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in PRESETS.items()])
@pytest.mark.parametrize(
    ("duration_s", "more", "starts"),
    [
        (0.5, 0, [0]),
        (4.04, -1, [0]),
        (4.04, 0, [0]),
        (4.04, 1, [0, 2.02]),
        (6.06, 0, [0, 2.02]),
        (6.06, 1, [0, 2.02, 4.04]),
        (9.0, 0, [0, 2.02, 4.04, 6.06]),
    ],
)
def test_windows_follow_each_other_until_the_end_is_covered(rate, spec, duration_s, more, starts, tmp_path):
    n = round(duration_s * rate) + more
    file = write(tmp_path / "a.wav", np.zeros((n, 1)), rate, subtype="PCM_16")

    found = cut(file, spec, Segmentation(mode="windows"))

    assert [segment.index for segment in found] == list(range(len(starts)))
    np.testing.assert_allclose(places(found), [(start, min(start + 4.04, n / rate)) for start in starts], atol=1e-9)
    assert found[0].features is not None
    assert len(found[0].features) == min(1 + round(min(n / rate, 4.04) * spec.sampling_rate) // spec.hop_length, 174)


def test_a_hop_longer_than_the_window_leaves_gaps(tmp_path):
    file = write(tmp_path / "a.wav", noise(28_000))

    assert places(cut(file, TELEPHONE, Segmentation(mode="windows", window_s=0.5, hop_s=1.25))) == [
        (0.0, 0.5),
        (1.25, 1.75),
        (2.5, 3.0),
    ]


def test_no_window_begins_where_only_the_rounding_up_of_the_resampler_reaches(tmp_path):
    file = write(tmp_path / "a.wav", noise(16_001))  # 2.000125 s; the next window would begin at sample 16001

    found = cut(file, PRESETS["wideband"], Segmentation(mode="windows", window_s=1.0, hop_s=2.0001))

    assert places(found) == [(0.0, 1.0)]


SMALL = FeatureSpec(
    sampling_rate=1000, n_mfcc=8, n_fft=128, win_length=100, hop_length=40, n_mels=16, n_frames=50
)  # 2 s are too long for it


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([1000, 1600, 4410]),
    n=st.integers(1, 12_000),
    window_s=st.integers(20, 1990).map(lambda ms: ms / 1000),
    hop_s=st.integers(50, 2500).map(lambda ms: ms / 1000),
    block=st.integers(300, 5000),
)
def test_any_windows_of_any_recording_hold_what_the_kernel_makes_of_their_own_samples(
    rate, n, window_s, hop_s, block, tmp_path_factory
):
    samples = noise(n)[:, 0]
    file = write(tmp_path_factory.getbasetemp() / "any.wav", samples, rate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sound, "BLOCK_S", block / rate)
        found = cut(file, SMALL, Segmentation(mode="windows", window_s=window_s, hop_s=hop_s))

    duration_s = n / rate
    expected = [(i * hop_s, min(i * hop_s + window_s, duration_s)) for i in range(len(found))]
    np.testing.assert_allclose(places(found), expected, atol=1e-9)
    assert all(segment.start_s < duration_s for segment in found)
    if hop_s <= window_s:  # to the end, and only one window ends there
        assert found[-1].end_s == pytest.approx(duration_s, abs=1 / rate)
        assert all(segment.end_s < duration_s for segment in found[:-1])
    for segment in found:
        end_s = round(segment.start_s + window_s, 6)
        np.testing.assert_array_equal(segment.features, expected_mfcc(samples, rate, SMALL, segment.start_s, end_s))
        own = samples[round(segment.start_s * rate) : round(end_s * rate)]
        level = 10 * np.log10(np.mean(own.astype(np.float64) ** 2)) if np.ptp(own) else None  # one sample is constant
        assert segment.rms_dbfs == pytest.approx(level, abs=1e-3)


@pytest.mark.parametrize("preset", PRESETS)
def test_windows_beyond_the_first_block_of_thirty_seconds_are_right(preset, tmp_path):
    spec, samples = PRESETS[preset], noise(8000 * 63)[:, 0]
    file = write(tmp_path / "a.wav", samples)

    found = cut(file, spec, Segmentation(mode="windows", window_s=4.0, hop_s=9.9))

    np.testing.assert_allclose(places(found), [(i * 9.9, min(i * 9.9 + 4, 63)) for i in range(7)], atol=1e-9)
    for segment in found[2:]:
        expected = expected_mfcc(samples, 8000, spec, segment.start_s, segment.start_s + 4)
        np.testing.assert_array_equal(segment.features, expected)


def test_a_recording_shorter_than_a_window_is_the_same_as_a_clip(tmp_path):
    for i, n in enumerate((1, 400, 8000, 32_320)):
        write(tmp_path / f"audio/{i}.wav", noise(n))
    run(tmp_path / "audio", tmp_path / "clips")
    run(tmp_path / "audio", tmp_path / "windows", segments="windows")

    # only windows are scanned for speech
    clips, windows = (table(tmp_path / name).drop_columns("speech_ratio") for name in ("clips", "windows"))
    assert windows.equals(clips)


# ---- channels ----


@pytest.mark.parametrize(
    ("options", "stereo", "mono"),
    [
        ({}, [-1], [0]),
        ({"segments": "windows"}, [0, 1], [0]),
        ({"channels": "split"}, [0, 1], [0]),
        ({"segments": "windows", "channels": "mix"}, [-1], [0]),
        ({"channels": "1"}, [1], []),
        ({"channels": "1,0"}, [0, 1], [0]),
    ],
)
def test_channels_are_mixed_split_or_chosen(options, stereo, mono, tmp_path):
    samples = noise(4000, 2)
    write(tmp_path / "audio/stereo.wav", samples)
    write(tmp_path / "audio/mono.wav", samples[:, 0])

    summary = run(tmp_path / "audio", tmp_path / "out", **options)

    rows = table(tmp_path / "out")
    assert rows_of(tmp_path / "out", "path", "channel") == [
        *(("mono.wav", channel) for channel in mono),
        *(("stereo.wav", channel) for channel in stereo),
    ]
    for path, channel, mfcc, n_frames in zip(
        *(rows[name].to_pylist() for name in ("path", "channel")),
        mfcc_of(rows),
        rows["n_frames"].to_pylist(),
        strict=True,
    ):
        own = samples.mean(axis=1) if channel == -1 else samples[:, 0 if path == "mono.wav" else channel]
        np.testing.assert_array_equal(mfcc[:n_frames], mfcc_by_kernel(own.astype(np.float32)))
    assert bool(summary.warnings) == (not mono)  # who has no row is not silently left out


# ---- labels ----


def test_a_labels_file_cuts_the_segments_and_names_channel_emotion_and_speaker(tmp_path):
    samples = noise(24_000, 2)
    write(tmp_path / "audio/calls/a.wav", samples)
    write(tmp_path / "audio/unlabelled.wav", samples)
    labels = write_labels(
        tmp_path / "labels.csv",
        ("calls/a.wav", "sad", "anna", 0, 0.5, 1.5),
        ("calls/a.wav", "angry", "anna", 0, 1.0, 2.25),  # overlaps
        ("calls/a.wav", "happy", "ben", 1, 2.5, 99),  # beyond the end
        ("calls/a.wav", "calm", "", -1, 0, 0.25),
    )

    summary = run(tmp_path / "audio", tmp_path / "out", segments="labels", labels=labels)

    rows = rows_of(tmp_path / "out", "path", "channel", "segment", "start_s", "end_s", "emotion", "speaker")
    assert rows == [
        ("calls/a.wav", -1, 0, 0.0, 0.25, "calm", None),
        ("calls/a.wav", 0, 0, 0.5, 1.5, "sad", "anna"),
        ("calls/a.wav", 0, 1, 1.0, 2.25, "angry", "anna"),
        ("calls/a.wav", 1, 0, 2.5, 3.0, "happy", "ben"),
    ]
    found = table(tmp_path / "out")
    for (_, channel, _, start_s, end_s, _, _), mfcc, n in zip(
        rows, mfcc_of(found), found["n_frames"].to_pylist(), strict=True
    ):
        own = samples.mean(axis=1) if channel == -1 else samples[:, channel]
        np.testing.assert_array_equal(mfcc[:n], expected_mfcc(own, 8000, TELEPHONE, start_s, end_s))
    assert any("unlabelled.wav" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    ("start_s", "end_s", "channel"),
    [
        (3.0, 4.0, 0),  # begins where the recording ends
        (2.99999, 4.0, 0),  # less than a sample before
        (1.0, 1.00001, 0),  # between two samples
        (1.0, 2.0, 1),  # a channel it does not have
    ],
)
def test_a_label_that_covers_nothing_rejects_its_recording_and_no_other(start_s, end_s, channel, tmp_path):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "audio" / name, noise(24_000))
    labels = write_labels(
        tmp_path / "labels.csv",
        ("a.wav", "sad", "", 0, 0.5, 1.5),
        ("a.wav", "sad", "", channel, start_s, end_s),
        ("b.wav", "angry", "", 0, 0.5, 1.5),
    )

    run(tmp_path / "audio", tmp_path / "out", segments="labels", labels=labels)

    assert rows_of(tmp_path / "out", "path", "emotion") == [("b.wav", "angry")]
    (reject,) = rejects_of(tmp_path / "out")
    assert (reject["path"], reject["stage"], reject["error"]) == ("a.wav", "segment", "RecordingError")
    assert "a.wav: " in reject["message"]
    assert "correct the labels" in reject["message"]


def test_labels_of_whole_clips_override_what_the_name_says_where_they_say_something(corpus, tmp_path):
    labels = write_labels(
        tmp_path / "labels.csv",
        (FEARFUL, "bored", "eve"),
        (SONG, "", ""),
        (PLAIN, "sad", ""),
        columns="path,emotion,speaker",
    )

    summary = run(corpus, tmp_path / "out", labels=labels)

    said = {
        path: (emotion, speaker) for path, emotion, speaker in rows_of(tmp_path / "out", "path", "emotion", "speaker")
    }
    assert said[FEARFUL] == ("bored", "eve")
    assert said[SONG] == ("calm", "ravdess-12")
    assert said[PLAIN] == ("sad", None)
    assert (summary.emotions, summary.n_without_emotion) == ({"bored": 1, "calm": 1, "sad": 1}, 3)


def test_a_label_of_a_clip_chooses_its_channel(tmp_path):
    samples = noise(4000, 2)
    write(tmp_path / "audio/a.wav", samples)
    labels = write_labels(tmp_path / "l.csv", ("a.wav", "sad", 1), columns="path,emotion,channel")

    run(tmp_path / "audio", tmp_path / "out", labels=labels)

    assert rows_of(tmp_path / "out", "channel", "emotion") == [(1, "sad")]
    mfcc = mfcc_of(table(tmp_path / "out"))[0, : 1 + 4000 // TELEPHONE.hop_length]
    np.testing.assert_array_equal(mfcc, mfcc_by_kernel(samples[:, 1]))


# ---- level ----


def test_level_and_clipping_are_measured_on_the_sources_samples(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 100 * np.arange(8000) / 8000)
    square = np.where(np.arange(8000) % 4 < 3, 0.25, -1.0)  # a quarter of it at full scale
    file = write(tmp_path / "a.wav", np.concatenate([tone, np.zeros(8000), square]), subtype="PCM_16")
    seconds = [LabelRow(emotion="sad", start_s=float(i), end_s=float(i + 1)) for i in range(3)]

    tone_, silence, square_ = cut(file, TELEPHONE, Segmentation(mode="labels"), *seconds)

    assert tone_.rms_dbfs == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert (tone_.clipped_ratio, silence.clipped_ratio) == (0, 0)
    assert silence.rms_dbfs is None
    assert square_.rms_dbfs == pytest.approx(10 * np.log10((3 * 0.25**2 + 1) / 4), abs=0.01)
    assert square_.clipped_ratio == 0.25


def test_nothing_is_left_out_of_the_level_where_a_segment_begins_just_before_a_block_ends(tmp_path):
    samples = noise(8000 * 31)
    samples[round(29.999 * 8000) : 30 * 8000] = 0.9  # the resampler has not let go of these when the block ends
    file = write(tmp_path / "a.wav", samples)
    label = LabelRow(emotion="sad", start_s=29.999, end_s=30.002)

    (segment,) = cut(file, PRESETS["wideband"], Segmentation(mode="labels"), label)

    own = samples[round(29.999 * 8000) : round(30.002 * 8000)]
    assert segment.rms_dbfs == pytest.approx(10 * np.log10(np.mean(own.astype(np.float64) ** 2)), abs=1e-3)


# ---- whatever the shards ----


def test_features_are_the_same_bit_for_bit_whatever_the_jobs_and_shards(corpus, features, tmp_path):
    expected = table(features)
    for jobs, shard_size in ((1, 64), (1, 1), (2, 3), (2, 1)):
        out = tmp_path / f"{jobs}-{shard_size}"

        summary = run(corpus, out, segments="windows", jobs=jobs, shard_size=shard_size)

        assert table(out).equals(expected, check_metadata=True)
        assert rejects_of(out) == rejects_of(features)
        assert summary.n_segments == expected.num_rows


# ---- again ----


def remove_a_ledger_entry(out: Path) -> None:
    min(out.glob("_meta/ledger/*.json")).unlink()


def remove_all_ledger_entries(out: Path) -> None:
    for entry in out.glob("_meta/ledger/*.json"):
        entry.unlink()


def remove_a_part(out: Path) -> None:
    min(out.glob("part-*.parquet")).unlink()


def truncate_a_part(out: Path) -> None:
    part = min(out.glob("part-*.parquet"))
    os.truncate(part, part.stat().st_size // 2)


def empty_a_part(out: Path) -> None:
    os.truncate(min(out.glob("part-*.parquet")), 0)


def leave_temporaries(out: Path) -> None:
    remove_a_ledger_entry(out)
    (out / f".part-000009.parquet{TEMPORARY_MARK}1-abc").write_bytes(b"half a part")
    (out / "_meta" / "ledger" / f".part-000009.json{TEMPORARY_MARK}1-abc").write_bytes(b"{")


def lose_rejects(out: Path) -> None:
    remove_a_part(out)
    (out / "_meta" / "rejects.parquet").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        remove_a_ledger_entry,
        remove_all_ledger_entries,
        remove_a_part,
        truncate_a_part,
        empty_a_part,
        leave_temporaries,
        lose_rejects,
    ],
)
def test_an_interrupted_run_goes_on_to_the_very_same_table(damage, corpus, features, tmp_path):
    out = shutil.copytree(features, tmp_path / "features")
    damage(out)

    summary = run(corpus, out, segments="windows", shard_size=2)

    assert summary.n_done > 0
    assert (summary.n_up_to_date == 0) == (damage is remove_all_ledger_entries)  # the rest is not done again
    assert table(out).equals(table(features))
    assert rejects_of(out) == rejects_of(features)
    assert not list(out.rglob(f"*{TEMPORARY_MARK}*"))


def test_the_same_command_again_reads_no_recording(corpus, features, tmp_path, monkeypatch):
    out = shutil.copytree(features, tmp_path / "features")
    parts = {part.name: part.read_bytes() for part in out.glob("part-*")}
    monkeypatch.setattr(soundfile, "SoundFile", None)
    monkeypatch.setattr(hashlib, "file_digest", None)

    summary = run(corpus, out, segments="windows")

    assert (summary.n_done, summary.n_up_to_date, summary.n_missing) == (0, 7, 0)
    assert (summary.n_recordings, summary.n_segments) == (7, table(features).num_rows)
    assert {part.name: part.read_bytes() for part in out.glob("part-*")} == parts


@pytest.fixture
def small(tmp_path):
    """Four short recordings, done in two parts, and a reject."""
    root = tmp_path / "audio"
    for i in range(4):
        write(root / f"{i}.wav", noise(800, seed=i))
    (root / "text.wav").write_text("no recording")
    run(root, tmp_path / "out", shard_size=2)
    return root


def fresh(root: Path, **options: object) -> pa.Table:
    run(root, root.parent / "fresh", overwrite=True, **options)
    return table(root.parent / "fresh")


def test_added_recordings_are_done_and_no_others(small, tmp_path):
    write(small / "later/4.wav", noise(800, seed=4))

    summary = run(small, tmp_path / "out")

    assert (summary.n_done, summary.n_up_to_date) == (1, 5)
    assert table(tmp_path / "out").equals(fresh(small))


def test_changed_recordings_are_done_again_even_at_the_same_size(small, tmp_path):
    before = (small / "1.wav").stat()
    write(small / "1.wav", noise(800, seed=11))
    os.utime(small / "1.wav", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (small / "1.wav").stat().st_size == before.st_size

    summary = run(small, tmp_path / "out")

    assert (summary.n_done, summary.n_up_to_date) == (1, 4)
    assert table(tmp_path / "out").equals(fresh(small))


def test_a_recording_that_was_only_touched_is_not_done_again(small, tmp_path):
    os.utime(small / "1.wav")
    os.utime(small / "text.wav")
    parts = files_of(tmp_path / "out")

    summary = run(small, tmp_path / "out")

    assert (summary.n_done, summary.n_up_to_date) == (0, 5)
    assert {name: parts[name] for name in parts if name.startswith("part-")}.items() <= files_of(
        tmp_path / "out"
    ).items()


def test_a_repaired_recording_leaves_the_rejects(small, tmp_path):
    assert [reject["path"] for reject in rejects_of(tmp_path / "out")] == ["text.wav"]
    write(small / "text.wav", noise(800, seed=5))

    summary = run(small, tmp_path / "out")

    assert (summary.n_done, summary.rejected, rejects_of(tmp_path / "out")) == (1, (), [])
    assert table(tmp_path / "out").equals(fresh(small))


def test_a_recording_that_breaks_leaves_the_table(small, tmp_path):
    (small / "1.wav").write_bytes(b"")

    run(small, tmp_path / "out")

    assert [reject["path"] for reject in rejects_of(tmp_path / "out")] == ["1.wav", "text.wav"]
    assert table(tmp_path / "out").equals(fresh(small))


def test_a_recording_that_could_not_be_opened_is_tried_again(small, tmp_path, monkeypatch):
    def locked(file: bytes, *arguments: Any, **options: Any) -> BinaryIO:
        if file.endswith(b"4.wav"):
            raise PermissionError(13, "Permission denied")
        return open(file, *arguments, **options)  # noqa: PTH123 - pathlib knows no bytes

    write(small / "4.wav", noise(800, seed=4))
    with monkeypatch.context() as patch:
        patch.setattr("ser_batch.audio.recording_file.open", locked, raising=False)
        told = {reject.path: reject.message for reject in run(small, tmp_path / "out").rejected}
        assert told["4.wav"] == "4.wav: cannot be read (Permission denied); change its permissions or remove it"

    summary = run(small, tmp_path / "out")

    assert (summary.n_done, [reject.path for reject in summary.rejected]) == (1, ["text.wav"])
    assert table(tmp_path / "out").equals(fresh(small))


def test_rows_of_vanished_recordings_stay_until_they_are_pruned(small, tmp_path):
    before = table(tmp_path / "out")
    (small / "1.wav").rename(small / "renamed.wav")
    (small / "text.wav").unlink()

    kept = run(small, tmp_path / "out")

    assert (kept.n_done, kept.n_missing) == (1, 2)
    assert rows_of(tmp_path / "out", "path") == [(f"{name}.wav",) for name in (0, 1, 2, 3, "renamed")]
    assert table(tmp_path / "out").slice(0, 4).equals(before)
    assert [reject["path"] for reject in rejects_of(tmp_path / "out")] == ["text.wav"]

    pruned = run(small, tmp_path / "out", prune=True)

    assert (pruned.n_done, pruned.n_recordings) == (0, 4)
    assert table(tmp_path / "out").equals(fresh(small))
    assert rejects_of(tmp_path / "out") == []


@pytest.mark.parametrize("segments_", ["clip", "windows", "labels"])
def test_a_changed_labels_file_is_joined_anew_without_decoding(segments_, tmp_path, monkeypatch):
    root = tmp_path / "audio"
    write(root / FEARFUL, noise(9000), 8000)
    write(root / "call.wav", noise(9000, 2), 8000)
    times = (0.25, 0.75) if segments_ == "labels" else ("", "")
    options = {"segments": segments_, "labels": tmp_path / "labels.csv", "window": 0.5, "hop": 0.25}
    write_labels(options["labels"], (FEARFUL, "sad", "", 0, *times), ("call.wav", "calm", "ann", 1, *times))
    run(root, tmp_path / "out", **options)
    before = table(tmp_path / "out")
    write_labels(options["labels"], (FEARFUL, "", "", 0, *times), ("call.wav", "angry", "zoe", 1, *times))

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", None)
        summary = run(root, tmp_path / "out", **options)

    after = table(tmp_path / "out")
    assert (summary.n_done, summary.n_up_to_date) == (0, 2)
    assert after.equals(fresh(root, **options))
    assert after.drop_columns(["emotion", "speaker"]).equals(before.drop_columns(["emotion", "speaker"]))
    assert set(rows_of(tmp_path / "out", "path", "emotion", "speaker")) == {
        (FEARFUL, "fearful", "ravdess-05"),
        ("call.wav", "angry", "zoe"),
    }


def test_rows_that_overlap_are_joined_anew_to_their_own_segments(tmp_path):
    root = write(tmp_path / "audio" / "a.wav", noise(16_000)).parent
    options = {"segments": "labels", "labels": tmp_path / "labels.csv"}
    for emotions in (("sad", "calm"), ("angry", "happy")):
        rows = (("a.wav", emotions[0], "", 0, 0, 2), ("a.wav", emotions[1], "", 0, 0.5, 1.5))
        write_labels(options["labels"], *rows)
        run(root, tmp_path / "out", **options)
        assert [emotion for (emotion,) in rows_of(tmp_path / "out", "emotion")] == [*emotions]


def test_labels_that_cut_otherwise_are_decoded_again(tmp_path):
    root = tmp_path / "audio"
    for name in ("a.wav", "b.wav"):
        write(root / name, noise(9000))
    options = {"segments": "labels", "labels": tmp_path / "labels.csv"}
    write_labels(options["labels"], ("a.wav", "sad", "", 0, 0, 0.5), ("b.wav", "sad", "", 0, 0, 0.5))
    run(root, tmp_path / "out", **options)
    write_labels(options["labels"], ("a.wav", "sad", "", 0, 0, 0.5), ("b.wav", "sad", "", 0, 0.25, 1))

    summary = run(root, tmp_path / "out", **options)

    assert (summary.n_done, summary.n_up_to_date) == (1, 1)
    assert table(tmp_path / "out").equals(fresh(root, **options))


def test_labels_no_longer_given_leave_what_the_names_say(tmp_path):
    root = write(tmp_path / "audio" / FEARFUL, noise(900)).parent.parent
    labels = write_labels(tmp_path / "labels.csv", (FEARFUL, "sad"), columns="path,emotion")
    run(root, tmp_path / "out", labels=labels)

    run(root, tmp_path / "out")

    assert rows_of(tmp_path / "out", "emotion") == [("fearful",)]


# ---- another run into the same folder ----


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"root": "elsewhere"}, "root was .*audio'.* and is .*elsewhere'"),
        ({"preset": "wideband"}, "feature_spec.sampling_rate was 8000 and is 22050"),
        ({"name": "other"}, "dataset was 'audio' and is 'other'"),
        ({"segments": "windows"}, "segmentation.mode was 'clip' and is 'windows'"),
        ({"channels": "split"}, "segmentation.channels was 'mix' and is 'split'"),
    ],
)
def test_another_run_into_the_same_folder_is_refused_with_what_differs(change, differs, small, tmp_path):
    shutil.copytree(small, tmp_path / "elsewhere")
    root, options = tmp_path / change.get("root", "audio"), {key: change[key] for key in change if key != "root"}
    before = files_of(tmp_path / "out")

    with pytest.raises(OutputError, match=f"{differs}.*--overwrite"):
        run(root, tmp_path / "out", **options)
    assert files_of(tmp_path / "out") == before

    run(root, tmp_path / "out", overwrite=True, **options)
    run(root, tmp_path / "new", **options)
    assert table(tmp_path / "out").equals(table(tmp_path / "new"))
    assert rejects_of(tmp_path / "out") == rejects_of(tmp_path / "new")


def test_options_that_change_no_value_are_no_other_run(small, tmp_path):
    summary = run(small, tmp_path / "out", shard_size=1, jobs=2, strict=True)

    assert (summary.n_done, summary.n_up_to_date) == (0, 5)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["thesis.txt", "part-000001.parquet", "_meta/notes.txt"])
def test_a_folder_of_something_else_is_refused_and_left_alone(overwrite, content, small, tmp_path):
    foreign = tmp_path / "foreign"
    (foreign / content).parent.mkdir(parents=True)
    (foreign / content).write_text("three years of work")
    before = files_of(foreign)

    with pytest.raises(OutputError, match=r"something else.*--out"):
        run(small, foreign, overwrite=overwrite)

    assert files_of(foreign) == before


# ---- nothing to do ----


def test_where_nothing_can_be_used_the_rejects_are_written_and_told(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_text("no recording")

    with pytest.raises(InputError, match=r"2 rejected.*a\.wav"):
        run(tmp_path, tmp_path / "out")

    assert [(reject["path"], reject["stage"]) for reject in rejects_of(tmp_path / "out")] == [
        ("a.wav", "open"),
        ("b.wav", "open"),
    ]
    assert not list((tmp_path / "out").glob("part-*"))


def test_segments_by_labels_without_labels_and_a_verification_of_windows_are_wrong_usage(small, tmp_path):
    with pytest.raises(UsageError, match="--labels"):
        run(small, tmp_path / "new", segments="labels")
    with pytest.raises(UsageError, match="--verify"):
        run(small, tmp_path / "new", segments="windows", verify=1)
    assert not (tmp_path / "new").exists()


# ---- against librosa ----


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("preset", PRESETS)
def test_verify_compares_with_librosa_what_librosa_can_open(preset, corpus, tmp_path):
    root = shutil.copytree(corpus, tmp_path / "audio")
    soundfile.write(root / "bare.gsm", noise(1600), 8000, format="RAW", subtype="GSM610")
    soundfile.write(root / "gsm.wav", noise(1600), 8000, format="WAV", subtype="GSM610")

    summary = run(root, tmp_path / "out", preset=preset, verify=100)

    assert summary.verified is not None
    assert (summary.verified.n_recordings, summary.n_segments) == (6, 8)
    assert 0 < summary.verified.largest_difference <= 0.01


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
def test_verify_finds_the_largest_difference_whatever_the_order(small, tmp_path, monkeypatch):
    mfcc, off = SegmentMfcc.finish, iter((0.5, 0.25, 0.25, 0.25))
    monkeypatch.setattr(SegmentMfcc, "finish", lambda self: mfcc(self) + np.float32(next(off)))
    monkeypatch.setattr("ser_batch.featurization.MAX_DIFFERENCE", 1)
    run(small, tmp_path / "out", overwrite=True)

    # in a random order each time
    found = [verified for _ in range(8) if (verified := run(small, tmp_path / "out", verify=4).verified)]

    assert [verified.n_recordings for verified in found] == [4] * 8
    assert [verified.largest_difference for verified in found] == pytest.approx([0.5] * 8, abs=0.01)


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
@pytest.mark.parametrize("off", [0.02, 5.0, float("nan")])
def test_features_that_are_not_librosas_are_no_result(small, tmp_path, monkeypatch, off):
    mfcc = SegmentMfcc.finish
    monkeypatch.setattr(SegmentMfcc, "finish", lambda self: mfcc(self) + np.float32(off))
    told = r"\.wav: its MFCCs in .*checked differ from librosa's by up to .*; expected at most 0\.01"

    with pytest.raises(SerBatchError, match=told):
        ser_batch.featurize(small, out=tmp_path / "checked", jobs=1, verify=2, progress=False)
    command = ["featurize", str(small), "--out", str(tmp_path / "checked"), "--verify", "2", "--jobs", "1"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert re.search(told, result.stderr)


def test_verify_that_compares_nothing_says_so(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "bare.gsm", noise(8000), 8000, format="RAW", subtype="GSM610")

    summary = run(tmp_path / "audio", tmp_path / "out", preset="telephone", verify=5)

    assert "librosa opens none of the recordings, so nothing was compared with it" in summary.warnings


# ---- silence ----


SECONDS = np.arange(16_000) / 8000
SILENT = {
    "zeros": np.zeros(16_000),
    "constant": np.full(16_000, 0.25),
    "least": np.full(16_000, -(2.0**-15)),
    "codec": 2.0**-18 * np.sin(2 * np.pi * 200 * SECONDS),
    "both": np.zeros((16_000, 2)),
    "offsets": np.tile([0.1, -0.3], (16_000, 1)),
}


@pytest.fixture
def silent(tmp_path):
    """Silence of some kinds, beside two quiet recordings."""
    (tmp_path / "audio").mkdir()
    for name, samples in SILENT.items():
        write(tmp_path / "audio" / f"{name}.wav", samples)
    write(tmp_path / "audio" / "step.wav", np.where(SECONDS < 1, 0, 2.0**-15))
    write(tmp_path / "audio" / "voice.wav", noise(16_000) / 100)
    return tmp_path / "audio"


@pytest.mark.parametrize(
    "options", [{"preset": "telephone"}, {"preset": "wideband"}, {"preset": "wideband", "features": "whisper-tiny.en"}]
)
def test_digital_silence_keeps_its_rows_and_is_told(silent, tmp_path, options):
    summary = run(silent, tmp_path / "out", **options, variants="clean,noise10")

    assert summary.n_rows == 16
    assert "6 segments are digital silence; `ser-batch train` leaves them out" in summary.warnings
    levels = rows_of(tmp_path / "out", "path", "rms_dbfs")
    assert {path for path, level in levels if level is None} == {f"{name}.wav" for name in SILENT}


def test_a_channel_that_is_dead_is_silence_and_the_other_is_not(tmp_path):
    (tmp_path / "audio").mkdir()
    write(tmp_path / "audio" / "a.wav", np.stack([noise(8000)[:, 0], np.zeros(8000)], axis=1))

    summary = run(tmp_path / "audio", tmp_path / "out", preset="telephone", channels="split")

    assert "1 segments are digital silence; `ser-batch train` leaves them out" in summary.warnings
    assert [level is None for _, level in sorted(rows_of(tmp_path / "out", "channel", "rms_dbfs"))] == [False, True]


@pytest.mark.parametrize("options", [{"segments": "clip"}, {"segments": "windows", "channels": "mix"}])
@pytest.mark.parametrize("balance", [1.0, 0.98])
def test_of_channels_that_cancel_each_other_the_first_is_used_and_told(tmp_path, options, balance):
    (tmp_path / "audio").mkdir()
    voice = noise(32_000)[:, 0]
    write(tmp_path / "audio" / "a.wav", np.stack([voice, -balance * voice], axis=1))
    write(tmp_path / "mono" / "a.wav", voice)

    summary = run(tmp_path / "audio", tmp_path / "out", preset="telephone", **options)
    run(tmp_path / "mono", tmp_path / "expected", preset="telephone", segments=options["segments"])

    np.testing.assert_array_equal(mfcc_of(table(tmp_path / "out")), mfcc_of(table(tmp_path / "expected")))
    (warning,) = summary.warned
    assert warning.message == "a.wav: its channels cancel each other in their mean; the first channel is used instead"


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
def test_channels_that_cancel_are_verified_too(tmp_path):
    (tmp_path / "audio").mkdir()
    write(tmp_path / "audio" / "a.wav", noise(32_000) * [1, -1])

    summary = run(tmp_path / "audio", tmp_path / "out", preset="telephone", verify=1)

    assert summary.verified is not None
    assert summary.verified.n_recordings == 1


@pytest.mark.parametrize("other", [noise(32_000, seed=1), np.zeros((32_000, 1)), noise(32_000), -noise(32_000) / 2])
def test_other_channels_are_mixed_as_ever(tmp_path, other):
    (tmp_path / "audio").mkdir()
    both = np.hstack([noise(32_000), other])
    write(tmp_path / "audio" / "a.wav", both)

    summary = run(tmp_path / "audio", tmp_path / "out", preset="telephone")

    assert summary.warned == ()
    expected = mfcc_by_kernel(both.astype(np.float32).mean(axis=1))
    np.testing.assert_array_equal(mfcc_of(table(tmp_path / "out"))[0][: len(expected)], expected)


def test_a_label_row_that_is_gone_takes_its_segment_along(small, tmp_path):
    labels = tmp_path / "labels.csv"
    header = "path,emotion,start_s,end_s\n"
    labels.write_text(header + "1.wav,happy,0,0.1\n2.wav,sad,0,0.1\n")
    run(small, tmp_path / "labelled", segments="labels", labels=labels)
    labels.write_text(header + "1.wav,happy,0,0.1\n")
    summary = run(small, tmp_path / "labelled", segments="labels", labels=labels)
    assert summary.n_missing == 0
    assert table(tmp_path / "labelled")["path"].to_pylist() == ["1.wav"]


def test_labels_that_are_not_given_again_are_taken_away_with_a_warning(small, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,emotion\n1.wav,happy\n")
    run(small, tmp_path / "out", labels=labels)
    summary = run(small, tmp_path / "out")
    assert any("1 recordings lost the labels" in warning for warning in summary.warnings)
    assert summary.n_done == 0


def test_a_window_means_nothing_to_clips_and_makes_no_other_run(small, tmp_path):
    run(small, tmp_path / "out")
    assert run(small, tmp_path / "out", window=3.0).n_done == 0


def test_a_touched_file_is_read_once_more_and_then_known(small, tmp_path, monkeypatch):
    run(small, tmp_path / "out")
    for file in small.iterdir():
        os.utime(file, ns=(1, 1))
    assert run(small, tmp_path / "out").n_done == 0
    monkeypatch.setattr("ser_batch.runs.store.content_hash_of", None)  # a call would raise
    assert run(small, tmp_path / "out").n_done == 0


# ---- variants ----

VARIANTS = "clean,speed0.5,noise10,room,gsm,noise15+g711+loss20"


@pytest.fixture(scope="module")
def varied(corpus, tmp_path_factory):
    """The corpus in windows as `features`, in six variants."""
    out = tmp_path_factory.mktemp("varied") / "features"
    run(corpus, out, segments="windows", shard_size=2, variants=VARIANTS)
    return out


def test_each_segment_has_a_row_for_every_variant_and_the_clean_ones_are_those_of_a_run_without(features, varied):
    rows = pl.DataFrame(table(varied))

    assert not rows.select(KEY).is_duplicated().any()
    assert set(rows["variant"].unique()) == set(VARIANTS.split(","))
    assert pl.DataFrame(table(features)).equals(rows.filter(variant="clean"))
    about_the_recording = pl.exclude("variant", "n_frames", "^mfcc.*$")
    for variant in VARIANTS.split(","):
        of_one = rows.filter(variant=variant)
        assert of_one.select(about_the_recording).equals(rows.filter(variant="clean").select(about_the_recording))
        # a short window may lose all of its packets, and silence is 0 relative to its own peak
        assert "loss" in variant or of_one["mfcc"].to_numpy().any(axis=(1, 2)).all()


def test_variants_are_the_same_bit_for_bit_whatever_the_jobs_and_shards(corpus, varied, tmp_path):
    for jobs, shard_size in ((1, 64), (2, 1)):
        out = tmp_path / str(jobs)
        run(corpus, out, segments="windows", jobs=jobs, shard_size=shard_size, variants=VARIANTS)
        assert table(out).equals(table(varied), check_metadata=True)


def test_another_seed_draws_otherwise_and_leaves_alone_what_is_not_drawn(corpus, varied, tmp_path):
    run(corpus, tmp_path / "out", segments="windows", variants=VARIANTS, seed=1)

    one, other = (pl.DataFrame(table(out)).filter(path=FEARFUL) for out in (varied, tmp_path / "out"))
    for variant, is_drawn in {"clean": False, "speed0.5": False, "gsm": False, "noise10": True, "room": True}.items():
        assert one.filter(variant=variant).equals(other.filter(variant=variant)) != is_drawn, variant


def variant_of(
    samples: np.ndarray, rate: int, variant: str, *, content_hash: str, place: str, spec: FeatureSpec = TELEPHONE
) -> np.ndarray:
    """The MFCCs of a variant of some samples, as the modules below featurize make them."""
    heard, heard_rate = changed(samples, rate, variant, seed=7, content_hash=content_hash, place=place)
    return mfcc_by_kernel(Resampler(heard_rate, spec.sampling_rate).feed(heard, last=True), spec, heard_rate)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("segments_", ["clip", "windows", "labels"])
def test_a_variant_is_made_of_the_samples_of_its_own_segment_and_channel(segments_, preset, tmp_path, monkeypatch):
    monkeypatch.setattr(sound, "BLOCK_S", 0.3)  # segments reach over several blocks
    samples = noise(22_000, 2)
    file = write(tmp_path / "audio/a.wav", samples, 11025)
    content_hash = hashlib.sha256(file.read_bytes()).hexdigest()
    options = {"segments": segments_, "channels": "split", "window": 0.75, "hop": 0.5, "preset": preset}
    if segments_ == "labels":
        rows = [("a.wav", "sad", "", channel, start_s, start_s + 0.7) for channel in (0, 1) for start_s in (0.2, 0.6)]
        options["labels"] = write_labels(tmp_path / "labels.csv", *rows)

    run(tmp_path / "audio", tmp_path / "out", variants="room+gsm,loss20,noise10", seed=7, **options)

    found = (
        table(tmp_path / "out").select(["channel", "segment", "variant", "start_s", "end_s", "n_frames"]).to_pylist()
    )
    assert len(found) == 3 * 2 * {"clip": 1, "windows": 4, "labels": 2}[segments_]
    for row, mfcc in zip(found, mfcc_of(table(tmp_path / "out")), strict=True):
        own = samples[round(row["start_s"] * 11025) : round(row["end_s"] * 11025), row["channel"]]
        place = f"{row['channel']}/{row['segment']}"
        expected = variant_of(own, 11025, row["variant"], content_hash=content_hash, place=place, spec=PRESETS[preset])
        np.testing.assert_array_equal(mfcc[: row["n_frames"]], expected[:174])


def test_the_frames_of_speed_variants_are_as_many_more_or_fewer(tmp_path):
    write(tmp_path / "audio/a.wav", noise(8000))

    run(tmp_path / "audio", tmp_path / "out", variants="clean,speed0.5,speed0.8,speed2")

    hop = TELEPHONE.hop_length
    assert dict(rows_of(tmp_path / "out", "variant", "n_frames")) == {
        **{"clean": 1 + 8000 // hop, "speed0.5": 1 + 16_000 // hop},
        **{"speed0.8": 1 + 10_000 // hop, "speed2": 1 + 4000 // hop},
    }


def test_of_a_long_clip_the_beginning_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(sound, "BLOCK_S", 0.4)
    monkeypatch.setattr(segmenter, "LONGEST_VARIANT_S", 1.0)
    samples = noise(24_000)
    file = write(tmp_path / "a.wav", samples)

    variants = Variants(names=("clean", "level-6"), seed=7)
    with reader_of(file) as reader:
        clean, quieter = segments(reader, recording_of(file), front_end(TELEPHONE), Segmentation(), variants=variants)

    np.testing.assert_array_equal(clean.features, mfcc_by_kernel(samples[:, 0]))
    expected = variant_of(samples[:8000, 0], 8000, "level-6", content_hash="", place="0/0")
    np.testing.assert_array_equal(quieter.features, expected)
    assert (quieter.start_s, quieter.end_s) == (clean.start_s, clean.end_s) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("variants", "seed", "differs"),
    [
        ("clean", 0, r"variants\.names was \['clean', 'room'\] and is \['clean'\]"),
        ("clean,room,gsm", 0, r"variants\.names was"),
        ("clean,room", 1, r"variants\.seed was 0 and is 1"),
    ],
)
def test_other_variants_or_another_seed_into_the_same_folder_are_refused(variants, seed, differs, small, tmp_path):
    run(small, tmp_path / "rooms", variants="clean,room")

    with pytest.raises(OutputError, match=f"{differs}.*--overwrite"):
        run(small, tmp_path / "rooms", variants=variants, seed=seed)

    assert run(small, tmp_path / "rooms", variants="clean,room").n_done == 0


def test_clean_features_do_not_hang_on_the_seed(small, tmp_path):
    assert run(small, tmp_path / "out", seed=5).n_done == 0


def test_a_changed_labels_file_reaches_the_rows_of_all_variants(small, tmp_path, monkeypatch):
    options = {"labels": tmp_path / "labels.csv", "variants": "clean,gsm,noise10"}
    write_labels(options["labels"], ("1.wav", "sad", "ann"), columns="path,emotion,speaker")
    run(small, tmp_path / "varied", **options)
    write_labels(options["labels"], ("1.wav", "angry", "zoe"), columns="path,emotion,speaker")

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "SoundFile", None)
        run(small, tmp_path / "varied", **options)

    rows = rows_of(tmp_path / "varied", "path", "variant", "emotion", "speaker")
    assert [row[1:] for row in rows if row[0] == "1.wav"] == [
        (variant, "angry", "zoe") for variant in ("clean", "gsm", "noise10")
    ]
    assert table(tmp_path / "varied").equals(fresh(small, **options))


def test_segments_are_counted_once_by_emotion_and_told_with_their_variants(small, tmp_path, capsys):
    labels = write_labels(tmp_path / "labels.csv", ("1.wav", "sad"), ("2.wav", "sad"), columns="path,emotion")

    summary = run(small, tmp_path / "varied", labels=labels, variants="gsm,level-6,room")
    print_featurize(summary, Output())

    assert (summary.n_rows, summary.n_segments, summary.n_variants) == (12, 4, 3)
    assert (summary.emotions, summary.n_without_emotion) == ({"sad": 2}, 2)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("varied: 4 segments from 5 recordings in 3 variants")
    assert printed[1] == "emotions: sad 2, unknown 2"


def test_a_codec_that_cannot_take_a_segment_rejects_its_recording_and_no_other(small, tmp_path, monkeypatch):
    write(small / "odd.wav", noise(801))
    real = soundfile.write

    def picky(stream: BinaryIO, samples: np.ndarray, *arguments: object, **options: object) -> None:
        if len(samples) == 801 + 8000 // 50:  # a codec is given some silence behind the segment
            raise soundfile.LibsndfileError(0, "no frames: ")
        real(stream, samples, *arguments, **options)

    monkeypatch.setattr(soundfile, "write", picky)
    run(small, tmp_path / "varied", variants="clean,level-6+gsm")

    assert rows_of(tmp_path / "varied", "path", "variant") == [
        (f"{i}.wav", variant) for i in range(4) for variant in ("clean", "level-6+gsm")
    ]
    (reject,) = (reject for reject in rejects_of(tmp_path / "varied") if reject["path"] != "text.wav")
    assert (reject["path"], reject["stage"], reject["error"]) == ("odd.wav", "variant", "RecordingError")
    assert reject["message"].startswith(
        "odd.wav: its segment of 801 samples at 0 s cannot be made level-6+gsm (no frames"
    )
    assert reject["message"].endswith("leave level-6+gsm out of --variants, or remove the file")


@pytest.mark.parametrize("variants", ["clean", "clip12,noise10"])
@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [
        (1.0, 1.00001),  # between two samples
        (1 + 0.49 / 8000, 1 + 0.51 / 8000),  # no sample of the source, but one of those it is resampled to
    ],
)
def test_a_label_without_a_sample_rejects_its_recording_whatever_the_variants(start_s, end_s, variants, tmp_path):
    for name in ("a.wav", "b.wav"):
        write(tmp_path / "audio" / name, noise(32_000), 16_000)
    labels = write_labels(
        tmp_path / "labels.csv", ("a.wav", "sad", "", 0, start_s, end_s), ("b.wav", "sad", "", 0, 0.5, 0.6)
    )

    run(tmp_path / "audio", tmp_path / "out", segments="labels", labels=labels, variants=variants)

    assert set(rows_of(tmp_path / "out", "path")) == {("b.wav",)}
    assert [(reject["path"], reject["stage"]) for reject in rejects_of(tmp_path / "out")] == [("a.wav", "segment")]


@pytest.mark.filterwarnings("ignore:n_fft=.* is too large")
def test_verify_compares_the_clean_rows_and_wants_some(small, tmp_path):
    summary = run(small, tmp_path / "varied", variants="level-20,clean,gsm", verify=100)

    assert summary.verified is not None
    assert summary.verified.n_recordings == 4
    assert 0 < summary.verified.largest_difference <= 0.01
    with pytest.raises(UsageError, match=r"--verify .*add clean to --variants"):
        run(small, tmp_path / "new", variants="level-20,gsm", verify=1)
    assert not (tmp_path / "new").exists()


# ---- speech ----


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A made-up voice for 1.6 s and 6.4 s with 3 s between, and a line that only hisses."""
    root = tmp_path_factory.mktemp("speaking")
    clips = sorted(synth(root / "clips", actors=1, repetitions=1, sampling_rate=8000).out.rglob("*.wav"))
    # without the silence at their ends
    voice = np.concatenate([soundfile.read(clip, dtype="float32")[0][800:-800] for clip in clips[:9]])
    call = np.zeros(13 * 8000, dtype=np.float32)
    call[8000 : 8000 + 12800] = voice[:12800]
    call[44800 : 44800 + 51200] = voice[12800:64000]
    write(root / "calls/call.wav", call)
    write(root / "calls/hiss.wav", 0.01 * np.random.default_rng(0).standard_normal(16000).astype(np.float32))
    return root / "calls"


def test_windows_tell_how_much_of_them_is_speech(speaking, tmp_path):
    run(speaking, tmp_path / "features", segments="windows")
    rows = pl.DataFrame(table(tmp_path / "features")).filter(path="call.wav")
    spoken_s = [(1.0, 2.6), (5.6, 12.0)]
    for start_s, end_s, ratio in rows.select("start_s", "end_s", "speech_ratio").rows():
        inside_s = sum(max(0.0, min(end_s, last) - max(start_s, first)) for first, last in spoken_s)
        assert ratio == pytest.approx(inside_s / (end_s - start_s), abs=0.1)


def test_turns_are_cut_at_pauses_and_where_they_are_long(speaking, tmp_path):
    summary = run(speaking, tmp_path / "features", segments="turns")
    rows = pl.DataFrame(table(tmp_path / "features"))
    assert rows["path"].unique().to_list() == ["call.wav"]
    assert summary.n_recordings == 2
    assert [warning for warning in summary.warnings if warning.startswith("1 recordings have no rows")]
    assert rows["segment"].to_list() == list(range(len(rows)))
    assert len(rows) in (3, 4)  # the second stretch is cut, and what is left of it perhaps again
    assert rows["start_s"].to_list()[:2] == pytest.approx([1.0, 5.6], abs=0.1)
    assert [rows["end_s"][0], rows["end_s"][-1]] == pytest.approx([2.6, 12.0], abs=0.15)
    assert (rows["end_s"] - rows["start_s"]).to_numpy().max() <= 4.04
    assert rows["speech_ratio"].to_numpy().min() > 0.8
    samples, rate = soundfile.read(speaking / "call.wav", dtype="float32")
    for start_s, end_s, n_frames, mfcc in rows.select("start_s", "end_s", "n_frames", "mfcc").rows():
        own = expected_mfcc(samples, rate, TELEPHONE, start_s, end_s)
        np.testing.assert_array_equal(np.array(mfcc)[:n_frames], own)


def test_turns_are_the_same_whatever_the_jobs_and_variants_follow_them(speaking, tmp_path):
    options = {"segments": "turns", "variants": "clean,g711", "window": 3.0}
    run(speaking, tmp_path / "one", **options)
    run(speaking, tmp_path / "two", jobs=2, shard_size=1, **options)
    one = table(tmp_path / "one")
    assert one.equals(table(tmp_path / "two"))
    assert one["variant"].to_pylist() == ["clean", "g711"] * (len(one) // 2)
    with pytest.raises(OutputError, match=r"window_s was 3\.0 and is 2\.0"):
        run(speaking, tmp_path / "one", **options | {"window": 2.0})
    run(speaking, tmp_path / "one", hop=1.0, **options)  # which turns have none of


def test_a_labels_file_names_the_emotion_of_turns(speaking, tmp_path):
    for emotion in ("angry", "sad"):
        labels = write_labels(tmp_path / "labels.csv", ("call.wav", emotion), columns="path,emotion")
        run(speaking, tmp_path / "features", segments="turns", labels=labels)
        assert set(table(tmp_path / "features")["emotion"].to_pylist()) == {emotion}


@pytest.mark.parametrize("segmentation", ["clip", "labels"])
def test_where_the_user_chose_the_segments_nobody_asks_for_speech(speaking, tmp_path, segmentation):
    labels = write_labels(tmp_path / "labels.csv", ("call.wav", "sad", "", "", 1, 2))
    run(speaking, tmp_path / "features", segments=segmentation, labels=labels if segmentation == "labels" else None)
    rows = table(tmp_path / "features")
    assert rows["speech_ratio"].null_count == len(rows) > 0
