"""Normalization by recording and speaker: what is heard of a voice, in training and in score."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import soundfile
from helpers import quiet, values_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.config.features import FeatureSpec
from ser_batch.config.options import FeaturizeOptions, Normalize, ScoreOptions, TrainOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.errors import UsageError
from ser_batch.featurization import featurize
from ser_batch.model.folder import load_model
from ser_batch.network.cmvn import PRIOR_FRAMES, FrameStats, OnlineCmvn, Scaler, moved
from ser_batch.network.recipes import RECIPES
from ser_batch.scoring.run import score
from ser_batch.scoring.scorers import FIRST_SEGMENTS
from ser_batch.tables.features import Features, load_features
from ser_batch.training.batches import TrainingSegments
from ser_batch.training.multi_corpus import Targets
from ser_batch.training.references import SpeakerStats, n_nameless, speaker_stats_of
from ser_batch.training.run import train

N_MFCC = 3
N_MELS = 4
SCALER = Scaler(mean=(1.0, -2.0, 0.5), scale=(2.0, 1.0, 4.0))


def segments(counts, seed=0, frames=20):
    """MFCCs of segments with some real frames each, padded with 0.0, and those numbers."""
    generator = np.random.default_rng(seed)
    n_frames = np.array(counts, dtype=np.int64)
    mfcc = generator.normal(3, 2, (len(counts), frames, N_MFCC)).astype(np.float32)
    mfcc[np.arange(frames) >= n_frames[:, None]] = 0
    return mfcc, n_frames


def stats_of(data: Features, by: Normalize) -> SpeakerStats:
    found = speaker_stats_of(data, by)
    assert found is not None
    return found


# --- what is heard ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.data())
def test_what_is_heard_of_segments_together_is_that_of_all_their_frames(counts, data):
    mfcc, n_frames = segments(counts)
    group = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(counts), max_size=len(counts))))
    stats = FrameStats.of(mfcc, n_frames, N_MELS).together(group, 3)
    for number in range(3):
        frames = np.concatenate(
            [np.empty((0, N_MFCC)), *(mfcc[i, : n_frames[i]] for i in np.flatnonzero(group == number))]
        )
        mean, variance = (values[number] for values in stats.moments())
        assert stats.n_frames[number] == len(frames)
        np.testing.assert_allclose(mean, frames.mean(axis=0) if len(frames) else 0, atol=1e-5)
        np.testing.assert_allclose(variance, frames.var(axis=0) if len(frames) else 0, atol=1e-4)


def test_pauses_are_not_heard():
    frames = np.full((2, 30, N_MFCC), 5.0, dtype=np.float32)
    # 26 dB below the loudest frame in all bands: that much times the root of their number in the first coefficient
    frames[0, 10:20] = (5.0 - 26 * N_MELS**0.5, 90.0, -90.0)
    frames[1, 10:20, 0] -= 24 * N_MELS**0.5
    stats = FrameStats.of(frames, np.array([30, 30]), N_MELS)
    assert stats.n_frames.tolist() == [20, 30]
    mean, variance = stats.moments()
    np.testing.assert_allclose(mean[0], 5)
    np.testing.assert_allclose(variance[0], 0, atol=1e-9)


def test_nothing_heard_is_scaled_as_by_what_was_trained_on():
    mfcc, n_frames = segments([20, 7])
    nothing = FrameStats.of(mfcc[:, :0], np.array([0, 0]), N_MELS)
    np.testing.assert_allclose(
        SCALER.transform(mfcc, n_frames, nothing), SCALER.transform(mfcc, n_frames), rtol=1e-5, atol=1e-6
    )


def test_much_speech_has_mean_0_and_deviation_1_whatever_gain_and_offset():
    mfcc, n_frames = segments([20] * 4000)
    everybody = np.zeros(4000, dtype=np.int64)

    def normalized(changed):
        stats = FrameStats.of(changed, n_frames, N_MELS).together(everybody, 1)
        return SCALER.transform(changed[:5], n_frames[:5], stats[everybody[:5]])

    plain, changed = normalized(mfcc), normalized(mfcc * np.float32(1.5) + np.float32(4))
    np.testing.assert_allclose(plain.mean(), 0, atol=0.1)
    np.testing.assert_allclose(plain.std(), 1, atol=0.1)
    np.testing.assert_allclose(changed, plain, atol=0.05)  # what was trained on is 1 part of 400


def test_as_many_frames_as_the_prior_weigh_as_much():
    n = int(PRIOR_FRAMES)
    frames = np.full((1, n, N_MFCC), 5.0, dtype=np.float32)
    mean, scale = SCALER.of(FrameStats.of(frames, np.array([n]), N_MELS))
    np.testing.assert_allclose(mean[0], (np.array(SCALER.mean) + 5) / 2)
    np.testing.assert_allclose(scale[0], np.array(SCALER.scale) / np.sqrt(2))


def test_padding_stays_zero():
    mfcc, n_frames = segments([4, 20])
    out = SCALER.transform(mfcc, n_frames, FrameStats.of(mfcc, n_frames, N_MELS))
    assert out.dtype == np.float32
    assert not out[0, 4:].any()
    assert out[0, :4].all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_a_batch_is_scaled_by_what_it_holds_itself(share):
    rows = [(f"{clip:03}.wav", 0, 0, "clean", "s1") for clip in range(300)]
    data = made(rows)
    data = dataclasses.replace(data, rows=data.rows.with_columns(pl.lit("calm").alias("emotion"), corpus=pl.lit("d")))
    data.mfcc[:] += np.arange(300, dtype=np.float32)[:, None, None]  # each clip at a place of its own
    recipe = dataclasses.replace(RECIPES["robust"], augmentation=None, mixup=0.0, alone_share=share)
    numbers = np.arange(300)
    voices = stats_of(data, "speaker")
    segments = TrainingSegments(data, numbers, Targets.of(data, ["calm"], numbers), SCALER, recipe, voices)
    x, _ = segments.batch(numbers, np.random.default_rng(0))
    alone = SCALER.transform(data.mfcc[:], data.n_frames, FrameStats.of(data.mfcc[:], data.n_frames, N_MELS))
    together = SCALER.transform(data.mfcc[:], data.n_frames, voices.of(numbers))
    is_alone = np.isclose(x, alone, atol=1e-4).all(axis=(1, 2))
    assert is_alone.mean() == pytest.approx(share, abs=0.1)
    np.testing.assert_allclose(x[~is_alone], together[~is_alone], atol=1e-3)


def test_a_change_of_a_segment_moves_its_voice_as_far():
    mfcc, n_frames = segments([20, 20])
    of_voice = SCALER.of(FrameStats.of(mfcc, n_frames, N_MELS))
    mean, scale = moved(of_voice, FrameStats.of(mfcc, n_frames, N_MELS), FrameStats.of(mfcc * 2 + 3, n_frames, N_MELS))
    own_mean = mfcc.mean(axis=1)
    np.testing.assert_allclose(mean, of_voice[0] + own_mean + 3, rtol=1e-4)  # from m to 2 m + 3
    np.testing.assert_allclose(scale, 2 * of_voice[1], rtol=1e-4)


# --- in the table -------------------------------------------------------------------------------------------------


def made(rows):
    """Features of rows given as path, channel, segment, variant, speaker; each with MFCCs of its own."""
    names = ("path", "channel", "segment", "variant", "speaker")
    frame = pl.DataFrame([dict(zip(names, row, strict=True)) for row in rows]).with_columns(dataset=pl.lit("d"))
    mfcc, n_frames = segments([20] * len(rows))
    return Features(frame, mfcc, n_frames, FeatureSpec(n_mfcc=N_MFCC, n_mels=N_MELS, n_frames=20), (Segmentation(),), 0)


ROWS = [
    ("a.wav", 0, 0, "clean", "s1"),
    ("a.wav", 0, 0, "g711", "s1"),
    ("a.wav", 0, 1, "clean", "s1"),
    ("b.wav", 0, 0, "clean", "s1"),
    ("c.wav", 0, 0, "clean", None),
    ("c.wav", 1, 0, "clean", None),
    ("d.wav", 0, 0, "clean", None),
]


@pytest.mark.parametrize(
    ("by", "voices"),
    [
        ("recording", [{0, 2}, {1}, {3}, {4}, {5}, {6}]),
        ("speaker", [{0, 2, 3}, {1}, {4}, {5}, {6}]),
    ],
)
def test_a_voice_is_a_speaker_or_a_channel_in_one_variant(by, voices):
    data = made(ROWS)
    found = stats_of(data, by)
    assert [set(np.flatnonzero(found.number == number)) for number in dict.fromkeys(found.number.tolist())] == voices
    for voice in voices:
        own = found.of(np.array(sorted(voice)))
        np.testing.assert_array_equal(own.n_frames, 20 * len(voice))
        total = data.mfcc[sorted(voice)].astype(np.float64).sum(axis=(0, 1))
        np.testing.assert_allclose(own.sums, np.tile(total, (len(voice), 1)))


def test_without_normalization_there_are_no_statistics():
    assert speaker_stats_of(made(ROWS), "none") is None
    assert n_nameless(made(ROWS)) == 2


# --- trained ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_recording(small_features, smaller, tmp_path_factory):
    out = tmp_path_factory.mktemp("by_recording") / "model"
    with smaller():
        train([small_features], TrainOptions(out=out, recipe="published", epochs=2, normalize="recording"), say=quiet)
    return out


@pytest.fixture(scope="module")
def by_speaker(small_variants, smaller, tmp_path_factory):
    out = tmp_path_factory.mktemp("by_speaker") / "model"
    options = TrainOptions(
        out=out,
        recipe="robust",
        epochs=2,
        split="speaker",
        normalize="speaker",
        conditions="clean,g711",
        baselines="logistic",
    )
    with smaller():
        summary = train([small_variants], options, say=quiet)
    return out, summary


def test_clips_of_the_training_audio_are_scored_as_in_training(small_corpus, by_recording, tmp_path):
    assert values_of(by_recording)["normalize"] == "recording"
    options = ScoreOptions(out=tmp_path / "preds.parquet", model=str(by_recording), segments="clip", jobs=1)
    score(small_corpus, options)
    own, mine = (pl.read_parquet(path) for path in (by_recording / "predictions.parquet", tmp_path / "preds.parquet"))
    both = own.join(mine, on="path", suffix="_scored")
    assert len(both) == len(own) > 0
    labels = load_model(by_recording).labels
    np.testing.assert_allclose(
        both.select(f"p_{label}" for label in labels).to_numpy(),
        both.select(f"p_{label}_scored" for label in labels).to_numpy(),
        atol=1e-5,  # Keras there, NumPy here
    )


def test_figures_stand_with_and_without_other_speech_of_the_speaker(by_speaker):
    out, summary = by_speaker
    table = pl.read_parquet(out / "summary.parquet")
    assert table["estimator"].unique(maintain_order=True).to_list() == [
        "robust", "robust, recordings alone", "logistic",
    ]  # fmt: skip
    alone = table.filter(estimator="robust, recordings alone")
    assert set(alone["condition"]) == {"clean", "g711"}
    values = values_of(out)
    assert values["metrics"]["per_recording"]["uar"] == alone.filter(condition="clean", subset="all")["uar"].item()
    assert values["metrics"]["uar"] == table.filter(estimator="robust", condition="clean", subset="all")["uar"].item()
    description = values["metrics"]["description"]
    assert description.endswith("; MFCCs are normalized by all speech of the speaker, without labels.")
    assert "With each recording alone, nothing else of its speaker heard" in (out / "MODEL_CARD.md").read_text()
    assert "recordings alone" in (out / "report.html").read_text()
    assert summary.warnings == ()


def test_the_figures_are_those_of_the_model_with_these_voices(by_speaker, small_variants):
    out, _ = by_speaker
    own = pl.read_parquet(out / "predictions.parquet").filter(variant="g711")
    data = load_features([small_variants])
    key = ["path", "variant"]
    places = own.select(key).join(data.rows.select(key).with_row_index(), on=key, how="left", maintain_order="left")
    rows = places["index"].to_numpy()
    model = load_model(out)
    p = model.predictor()(data.mfcc[rows], data.n_frames[rows], stats_of(data, "speaker").of(rows))
    np.testing.assert_allclose(p, own.select(f"p_{label}" for label in model.labels).to_numpy(), atol=1e-5)
    alone = model.predictor()(data.mfcc[rows], data.n_frames[rows], stats_of(data, "recording").of(rows))
    accuracy = (np.asarray(model.labels)[alone.argmax(axis=1)] == own["emotion"].to_numpy()).mean()
    table = pl.read_parquet(out / "summary.parquet")
    row = table.filter(estimator="robust, recordings alone", condition="g711", subset="all")
    assert row["accuracy"].item() == pytest.approx(accuracy)


def test_what_decides_a_model_has_normalize_only_where_it_is_given(small_model, by_recording):
    assert "normalize" not in values_of(small_model)
    assert load_model(small_model).schema.normalize == "none"
    assert load_model(by_recording).schema.normalize == "recording"


@pytest.mark.usefixtures("small_networks")
def test_speakers_that_are_not_known_are_counted(small_corpus, tmp_path):
    featurize(
        small_corpus,
        FeaturizeOptions(out=tmp_path / "f", corpus="none", labels=labels_file(small_corpus, tmp_path), jobs=1),
    )
    options = TrainOptions(out=tmp_path / "m", recipe="published", epochs=1, normalize="speaker")
    summary = train([tmp_path / "f"], options, say=quiet)
    n = pl.read_parquet(tmp_path / "f" / "*.parquet")["path"].n_unique()
    assert f"{n} recordings have rows without speaker; these are normalized by recording" in summary.warnings


def labels_file(corpus, folder):
    path = folder / "labels.csv"
    clips = sorted(corpus.rglob("*.wav"))
    names = ["angry" if clip.name.split("-")[2] == "05" else "calm" for clip in clips]
    pl.DataFrame({"path": [str(clip.relative_to(corpus)) for clip in clips], "emotion": names}).write_csv(path)
    return path


@pytest.mark.parametrize("options", [{"normalize": "speaker", "estimator": "svm"}, {"normalize": "room"}])
def test_what_cannot_be_normalized_is_refused(options):
    with pytest.raises(UsageError, match="normalize"):
        TrainOptions(**options)


@pytest.mark.usefixtures("small_networks")
def test_a_model_is_tuned_as_it_was_normalized(by_recording, small_features, tmp_path):
    tune = {"init": str(by_recording), "epochs": 1, "out": tmp_path / "tuned"}
    with pytest.raises(UsageError, match="normalized by recording, --normalize says speaker"):
        train([small_features], TrainOptions(**tune, normalize="speaker"), say=quiet)
    train([small_features], TrainOptions(**tune), say=quiet)
    assert load_model(tmp_path / "tuned").schema.normalize == "recording"


# --- scored -------------------------------------------------------------------------------------------------------


def test_a_channel_is_heard_from_its_beginning_to_the_end_of_each_batch():
    mfcc, n_frames = segments([20] * 6)
    voices = OnlineCmvn()
    first = voices.update([0, 1, 0], FrameStats.of(mfcc[:3], n_frames[:3], N_MELS))
    assert first.n_frames.tolist() == [40, 20, 40]
    second = voices.update([1, 1, 0], FrameStats.of(mfcc[3:], n_frames[3:], N_MELS))
    assert second.n_frames.tolist() == [60, 60, 60]
    np.testing.assert_allclose(second.sums[0], mfcc[[1, 3, 4]].astype(np.float64).sum(axis=(0, 1)))


def test_calls_are_scored_by_what_is_heard_of_each_channel(small_corpus, by_recording, tmp_path):
    (tmp_path / "calls").mkdir()
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:12]])
    soundfile.write(tmp_path / "calls" / "call.wav", voice, 16000)
    options = ScoreOptions(
        out=tmp_path / "preds.parquet", model=str(by_recording), jobs=1, min_speech=0.0, prior="balanced"
    )
    score(tmp_path / "calls", options)
    found = pl.read_parquet(tmp_path / "preds.parquet").drop_nulls("predicted")
    featurize(
        tmp_path / "calls", FeaturizeOptions(out=tmp_path / "f", segments="windows", corpus="none", jobs=1, name="d")
    )
    parts = pl.read_parquet(tmp_path / "f" / "*.parquet").sort("segment")
    assert 1 < len(found) == len(parts) < FIRST_SEGMENTS
    mfcc, n_frames = parts["mfcc"].to_numpy(), parts["n_frames"].cast(pl.Int64).to_numpy()
    model = load_model(by_recording)
    everything = np.zeros(len(parts), dtype=np.int64)
    stats = FrameStats.of(mfcc, n_frames, model.spec.n_mels).together(everything, 1)[everything]
    expected = model.predictor()(mfcc, n_frames, stats)
    np.testing.assert_allclose(found.select(f"p_{label}" for label in model.labels).to_numpy(), expected, atol=1e-5)
    without = model.predictor()(mfcc, n_frames)
    assert np.abs(without - expected).max() > 1e-3
