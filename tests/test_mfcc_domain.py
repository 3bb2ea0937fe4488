"""What a model is familiar with: music is told from speech, new microphones are not told from old ones."""

import json

import numpy as np
import polars as pl
import pytest
import soundfile

from ser_batch.config.features import FeatureSpec
from ser_batch.config.options import ScoreOptions, TrainOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.model.folder import DEFAULT_MODEL, load_model
from ser_batch.model.priority import UNFITTED
from ser_batch.model.schema import ModelSchema
from ser_batch.scoring.call_summary import CallSums
from ser_batch.scoring.run import score
from ser_batch.tables.features import Features
from ser_batch.training.out_of_domain import fit_mfcc_domain
from ser_batch.training.run import train
from ser_batch.training.tasks import FoldTask

N_MFCC = 3


def made(groups, frames=30):
    """Features of segments; groups are (corpus, number, mean, deviation of the MFCCs)."""
    generator = np.random.default_rng(1)
    rows, mfcc = [], []
    for corpus, n, mean, deviation in groups:
        rows += [{"dataset": corpus, "corpus": corpus} for _ in range(n)]
        mfcc.append(generator.normal(mean, deviation, (n, frames, N_MFCC)))
    spec = FeatureSpec(n_mfcc=N_MFCC, n_mels=4, n_frames=frames)
    n_frames = np.full(len(rows), frames, dtype=np.int64)
    return Features(pl.DataFrame(rows), np.concatenate(mfcc).astype(np.float32), n_frames, spec, (Segmentation(),), 0)


def fold(train_rows, test_rows):
    return FoldTask("fold", 0, np.asarray(train_rows), np.asarray(test_rows), by_speaker=False, has_dev_split=True)


def fitted(*arguments):
    domain = fit_mfcc_domain(*arguments)
    assert domain is not None
    return domain


def test_the_distance_is_about_1_for_training_data_and_grows_elsewhere():
    data = made([("a", 400, 0, 1), ("a", 100, 0, 1), ("music", 50, 0, 3), ("louder", 50, 2, 1)])
    known, held_out = np.arange(400), np.arange(400, 500)
    mfcc_domain = fitted(data, fold(known, []), [fold(known, held_out)])
    of = {
        name: mfcc_domain.distance(data.mfcc[rows], data.n_frames[rows])
        for name, rows in {"known": known, "held out": held_out, "rest": np.arange(500, 600)}.items()
    }
    assert of["known"].mean() == pytest.approx(1, abs=0.1)
    assert (of["held out"] <= mfcc_domain.limit).mean() >= 0.99
    assert (of["rest"] > mfcc_domain.limit).all()


def test_each_corpus_counts_the_same_however_small_it_is():
    data = made([("large", 900, 0, 1), ("small", 20, 4, 1)])
    everything = fold(np.arange(920), [])
    mfcc_domain = fitted(data, everything, [fold(np.arange(0, 920, 2), np.arange(1, 920, 2))])
    np.testing.assert_allclose(mfcc_domain.mean[:N_MFCC], 2, atol=0.2)


def test_the_limit_is_one_for_corpora_that_were_left_out():
    data = made([("a", 200, 0, 1), ("b", 200, 1, 1)])
    a, b = np.arange(200), np.arange(200, 400)
    within = fitted(data, fold(np.arange(400), []), [fold(np.r_[a[:100], b[:100]], np.r_[a[100:], b[100:]])])
    across = fitted(data, fold(np.arange(400), []), [fold(a, b), fold(b, a)])
    assert across.limit > 2 * within.limit
    assert across.mean == within.mean


def test_nothing_held_out_gives_no_limit(small_features, tmp_path):
    train(
        [small_features], TrainOptions(out=tmp_path / "model", estimator="logistic", split="none"), say=lambda _: None
    )
    assert load_model(tmp_path / "model").schema.mfcc_domain is None
    assert "mfcc_domain" not in json.loads((tmp_path / "model" / "model.json").read_text())


# --- scored -------------------------------------------------------------------------------------------------------


def test_an_out_of_domain_call_has_probabilities_but_no_label_or_priority():
    call = CallSums(("angry", "calm"), duration_s=8.0, prioritized={"angry": UNFITTED})
    for start_s, ood_score in ((0.0, 1.4), (4.0, 0.8)):
        call.add(
            start_s=start_s, end_s=start_s + 4, speech_ratio=1.0, probabilities=np.array([0.9, 0.1]),
            predicted=None if ood_score > 1 else "angry", truth=None, ood_score=ood_score,
        )  # fmt: skip
    row = call.row()
    assert row["status"] == "out_of_domain"
    assert row["p_angry"] == pytest.approx(0.9)
    assert "predicted" not in row
    assert "priority" not in row


def music(seconds, rate):
    """Eight decaying chords of sines a second apart."""
    t = np.arange(int(seconds * rate)) / rate
    generator = np.random.default_rng(3)
    out = np.zeros(len(t))
    for start_s in range(int(seconds)):
        after = np.maximum(t - start_s, 0)
        for f_hz in 220 * 2 ** (generator.integers(0, 24, 3) / 12):
            out += (t >= start_s) * np.sin(2 * np.pi * f_hz * after) * np.exp(-2 * after)
    return out / np.abs(out).max() / 2


@pytest.fixture(scope="module")
def scored(small_corpus, small_robust, tmp_path_factory):
    """Music and speech, scored by a model that knows what it is familiar with."""
    folder = tmp_path_factory.mktemp("mfcc_domain")
    (folder / "calls").mkdir()
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:6]])[::2]
    soundfile.write(folder / "calls" / "speech.wav", voice, 8000)
    soundfile.write(folder / "calls" / "music.wav", music(12, 8000), 8000)
    options = ScoreOptions(out=folder / "preds.parquet", model=str(small_robust), jobs=1, min_speech=0.0)
    return folder / "preds.parquet", score(folder / "calls", options)


def test_music_is_abstained_from_and_speech_is_not(scored):
    out, summary = scored
    segments = pl.read_parquet(out)
    assert segments.filter(path="music.wav")["abstained"].all()
    assert segments.filter(path="music.wav")["p_happy"].is_not_null().all()
    assert not segments.filter(path="speech.wav")["abstained"].any()
    calls = pl.read_parquet(out.with_suffix(".calls.parquet"))
    assert dict(calls.select("path", "status").rows()) == {"music.wav": "out_of_domain", "speech.wav": "ok"}
    assert calls.filter(path="music.wav").select("predicted", "priority").row(0) == (None, None)
    assert any("1 recordings have a channel too unlike the training data" in warning for warning in summary.warnings)


def test_music_on_hold_is_no_part_of_a_voice(small_corpus, small_robust, tmp_path, monkeypatch):
    """Speech behind music is scored as speech alone, by a model that is normalized by voice."""
    monkeypatch.setattr(ModelSchema, "normalize", "recording")
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:8]])[::2]
    voice = voice[: 16160 * (len(voice) // 16160)]  # whole hops
    found = {}
    for name, sound in (("alone", voice), ("behind", np.concatenate([music(4 * 2.02, 8000)[: 4 * 16160], voice]))):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "call.wav", sound, 8000)
        out = tmp_path / f"{name}.parquet"
        score(tmp_path / name, ScoreOptions(out=out, model=str(small_robust), jobs=1, min_speech=0.0))
        found[name] = pl.read_parquet(out).sort("start_s")
    alone, behind = found["alone"], found["behind"]
    assert behind["abstained"].to_list()[:3] == [True] * 3
    p = [column for column in alone.columns if column.startswith("p_")]
    # the window that holds the end of the music may be heard, so it is not the same to the last digit
    np.testing.assert_allclose(behind.tail(len(alone))[p].to_numpy()[1:], alone[p].to_numpy()[1:], atol=0.01)


@pytest.mark.slow
def test_real_calls_are_like_speech_and_music_is_not(shared, tmp_path):
    """With the model that `score` takes where nobody names one."""
    (tmp_path / "calls").mkdir()
    soundfile.write(tmp_path / "calls" / "music.wav", music(12, 8000), 8000)
    for call in (shared / "calls").glob("*.wav"):
        (tmp_path / "calls" / call.name).symlink_to(call)
    score(
        tmp_path / "calls",
        ScoreOptions(out=tmp_path / "preds.parquet", model=DEFAULT_MODEL, jobs=1, min_speech=0.1),
    )
    calls = pl.read_parquet(tmp_path / "preds.calls.parquet")
    assert dict(calls.select("path", "status").rows()).pop("music.wav") == "out_of_domain"
    assert set(calls.filter(pl.col("path") != "music.wav")["status"]) == {"ok"}
