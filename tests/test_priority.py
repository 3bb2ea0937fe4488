"""The stretch with the strongest evidence of a label, and the curves that turn evidence into a chance."""

import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_batch.errors import ModelError
from ser_batch.model.folder import load_model
from ser_batch.model.priority import MAX_SPAN_S, STRETCH_S, Chance, StretchFinder
from ser_batch.training.priority import MIN_CALLS, PREVALENCE, ComposedCall, fitted_chances

LABELS = ("angry", "disgust", "happy", "neutral")
ANGRY, MIXED, HAPPY, NEUTRAL = (
    (0.9, 0.05, 0.0, 0.05),
    (0.45, 0.45, 0.05, 0.05),
    (0.1, 0.0, 0.8, 0.1),
    (0.0, 0.0, 0.1, 0.9),
)


def found(*windows, label="angry", labels=LABELS, ratio=1.0):
    """The best stretch of windows of 4 s, one each 2 s."""
    finder = StretchFinder(labels, label)
    for number, p in enumerate(windows):
        if p is not None:
            finder.add(2.0 * number, 2.0 * number + 4, ratio, np.array(p))
    return finder.best


def test_anger_that_is_half_taken_for_disgust_is_evidence_all_the_same():
    best = found(*[NEUTRAL] * 5, *[MIXED] * 5, *[NEUTRAL] * 5)
    assert best.sounds_so
    assert best.evidence == pytest.approx(math.log(0.45 / 0.05))
    assert (best.start_s, best.end_s, best.probability) == (11.0, 22.0, 0.45)


def test_a_label_of_a_model_without_neutral_stands_against_all_others():
    best = found(*[(0.8, 0.2)] * 6, label="bored", labels=("bored", "keen"))
    assert best.evidence == pytest.approx(math.log(4))
    neutral = found(*[NEUTRAL] * 6, label="neutral")
    assert neutral.evidence == pytest.approx(math.log(9))


def test_a_stretch_with_little_speech_in_each_segment_ends_somewhere():
    finder = StretchFinder(LABELS, "angry")
    for number in range(200):
        finder.add(2.0 * number, 2.0 * number + 4, 0.02, np.array(ANGRY))
    assert len(finder._recent) <= MAX_SPAN_S / 2 + 1
    assert finder.best is not None
    assert finder.best.end_s == 402.0, "what sounds so goes on"


@given(st.lists(st.sampled_from([ANGRY, MIXED, HAPPY, NEUTRAL, None]), min_size=1, max_size=40))
def test_the_evidence_is_the_highest_mean_over_ten_seconds(windows):
    best = found(*windows)
    if best is None:
        return
    log_odds = {i: np.clip(math.log((p[0] + 1e-9) / (p[3] + 1e-9)), -6, 6) for i, p in enumerate(windows) if p}
    means = []
    for last in log_odds:
        taken, speech_s = [], 0.0
        for i in sorted(log_odds, reverse=True):
            later = [j for j in log_odds if i < j <= last]
            if i > last or (later and 2 * min(later) - (2 * i + 4) > 10) or speech_s >= STRETCH_S:
                continue
            before = [j for j in log_odds if j < i]
            taken.append(log_odds[i])
            speech_s += 4 if not before else min(4, 2 * i + 4 - (2 * max(before) + 4))
        lacking = max(0.0, STRETCH_S - speech_s)
        means.append((np.mean(taken) * (STRETCH_S - lacking) - 6 * lacking) / STRETCH_S)
    assert best.evidence == pytest.approx(max(means))


def composed(n, *, group=0, noise=1.0, seed=0):
    """Calls of half a minute of neutral speech and an angry or happy stretch, by a model that is right on the whole."""
    generator = np.random.default_rng(seed)
    calls = []
    for number in range(n):
        label = (0, 2)[number % 2]
        is_emotional = np.arange(16) >= 12
        logits = generator.normal(0, noise, (16, len(LABELS)))
        logits[is_emotional, label] += 3
        logits[~is_emotional, 3] += 3
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        calls.append(ComposedCall(group, p, np.full(16, 2.5), is_emotional, label))
    return calls


def test_the_curves_give_chances_where_one_channel_in_ten_holds_the_label():
    chances = fitted_chances([*composed(60), *composed(40, group=1, seed=1)], LABELS)
    assert set(chances) == {"angry", "happy"}
    tried = composed(300, seed=2)
    found: list[tuple[float, bool]] = []
    for call in tried:
        for rows, is_held in ((slice(None), call.label == 0), (~call.is_emotional, False)):
            finder = StretchFinder(LABELS, "angry")
            for i, p in enumerate(call.probabilities[rows]):
                finder.add(2.5 * i, 2.5 * i + 2.5, 1.0, p)
            assert finder.best is not None
            found.append((chances["angry"](finder.best.evidence), is_held))
    values, holds = np.array([value for value, _ in found]), np.array([is_held for _, is_held in found])
    weights = np.where(holds, PREVALENCE / holds.sum(), (1 - PREVALENCE) / (~holds).sum())
    assert np.average(values, weights=weights) == pytest.approx(PREVALENCE, abs=0.05)
    assert values[holds].mean() > 0.5
    assert values[~holds].mean() < 0.1


def test_few_calls_or_evidence_that_points_the_wrong_way_give_no_curve():
    assert fitted_chances(composed(2 * MIN_CALLS - 2), LABELS) == {}
    wrong = [
        ComposedCall(call.group, call.probabilities[:, ::-1], call.speech_s, call.is_emotional, call.label)
        for call in composed(60, noise=0.1)
    ]
    assert "angry" not in fitted_chances(wrong, LABELS)


def test_a_chance_is_a_logistic_curve_of_the_evidence():
    assert Chance(intercept=-2.0, slope=0.5)(4.0) == 0.5
    assert [round(Chance(intercept=0.0, slope=1.0)(x), 3) for x in (-6, 6)] == [0.002, 0.998]
    assert [Chance(intercept=0.0, slope=1e300)(x) for x in (-6, 6)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("priority", "said"),
    [
        ({"angry": {"intercept": 0.0, "slope": 0.0}}, "slope: expected a number > 0"),
        ({"bored": {"intercept": 0.0, "slope": 1.0}}, "priority: expected labels of the model"),
        ({"angry": {"slope": 1.0}}, "intercept; it is not complete"),
    ],
)
def test_curves_that_make_no_sense_are_refused(small_heads, tmp_path, priority, said):
    for file in small_heads.iterdir():
        shutil.copy(file, tmp_path)
    values = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(values | {"priority": priority}))
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path)
