"""Segments filled up with others of the same speaker and label."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from ser_batch.config.features import FeatureSpec
from ser_batch.config.segmentation import Segmentation
from ser_batch.network.cmvn import Scaler
from ser_batch.network.recipes import RECIPES
from ser_batch.tables.features import Features
from ser_batch.training.batches import Joiner, TrainingSegments
from ser_batch.training.multi_corpus import Corpora, Targets

SPEC = FeatureSpec(n_mfcc=3, n_mels=4, n_frames=30)
VARIANTS = ("clean", "g711")
QUIET, LOUD = -50.0, 4.0  # of the first coefficient: its half is the level in dB


def made(clips, speech=8, silence=4):
    """Features of clips, each given as speaker, emotion and vocal channel: silence, speech, silence.

    The second coefficient of its frames is the clip's number, the third that of the variant.
    """
    rows, mfcc = [], []
    for number, (speaker, emotion, vocal_channel) in enumerate(clips):
        for place, variant in enumerate(VARIANTS):
            rows.append(
                {
                    "dataset": "d",
                    "path": f"{number:03}.wav",
                    "channel": 0,
                    "segment": 0,
                    "variant": variant,
                    "speaker": speaker,
                    "emotion": emotion,
                    "vocal_channel": vocal_channel,
                    "corpus": "d",
                }
            )
            frames = np.zeros((SPEC.n_frames, 3), dtype=np.float32)
            n = speech + 2 * silence
            frames[:n] = (QUIET, number, place)
            frames[silence : silence + speech, 0] = LOUD
            mfcc.append(frames)
    n_frames = np.full(len(rows), speech + 2 * silence, dtype=np.int64)
    return Features(pl.DataFrame(rows), np.array(mfcc), n_frames, SPEC, (Segmentation(),), 0)


CLIPS = [
    ("s1", "calm", "speech"), ("s1", "calm", "speech"), ("s1", "sad", "speech"), ("s2", "calm", "speech"),
    ("s1", "calm", "song"), (None, "calm", "speech"), ("s1", "calm", "speech"),
]  # fmt: skip


def joiner(data):
    rows = np.arange(len(data.rows))
    y = np.unique(data.rows["emotion"].to_numpy(), return_inverse=True)[1]
    first = np.arange(0, len(rows), len(VARIANTS))
    return Joiner(data, rows, first, np.full(len(first), len(VARIANTS)), y)


@pytest.mark.parametrize(("number", "alike"), [(0, {0, 1, 6}), (1, {0, 1, 6}), (2, {2}), (3, {3}), (4, {4})], ids=str)
def test_a_segment_is_filled_with_the_same_voice_label_and_variant(number, alike):
    data = made(CLIPS)
    own = joiner(data)
    seen = set()
    for seed in range(20):
        for variant in (0, 1):
            frames = own.joined(number, variant, np.random.default_rng(seed))
            assert frames.shape == (SPEC.n_frames, 3)
            assert set(frames[:, 2]) == {variant}
            seen |= set(frames[:, 1].astype(int))
    assert seen == alike


def test_nobody_is_joined_with_nobody():
    own = joiner(made(CLIPS))
    assert [own.is_possible(number) for number in range(len(CLIPS))] == [True] * 5 + [False, True]


def test_speech_fills_most_of_it_and_pauses_are_short():
    own = joiner(made(CLIPS))
    shares = [(own.joined(0, 0, np.random.default_rng(seed))[:, 0] == LOUD).mean() for seed in range(50)]
    assert 0.3 < np.mean(shares) < 0.7  # of a lone clip 8 of 30
    begins = [own.joined(0, 0, np.random.default_rng(seed))[0, 0] == LOUD for seed in range(50)]
    assert 0.2 < np.mean(begins) < 0.8  # cut anywhere


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_batch_has_the_share_of_the_recipe_and_comes_out_the_same_again(share):
    data = made([("s1", "calm", "speech"), ("s1", "sad", "speech")] * 200)
    recipe = dataclasses.replace(RECIPES["robust"], augmentation=None, mixup=0.0, joined_share=share)
    rows, scaler = np.arange(len(data.rows)), Scaler((0.0,) * 3, (1.0,) * 3)
    several = Corpora(("d", "e"), np.zeros(len(rows), dtype=np.int64), np.ones((2, 2), dtype=np.bool_))
    targets = Targets.of(data, ["calm", "sad"], rows)
    alone = TrainingSegments(data, rows, targets, scaler, recipe).batch(np.arange(400), np.random.default_rng(5))[0]
    assert not alone[:, -1].any()  # the clips of one corpus are fed as they are
    segments = TrainingSegments(data, rows, dataclasses.replace(targets, corpora=several), scaler, recipe)
    first, again = (segments.batch(np.arange(400), np.random.default_rng(5))[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    is_full = first[:, -1].any(axis=1)
    assert is_full.mean() == pytest.approx(share, abs=0.1)
