"""The curves of the priority, fitted on the evidence of stretches in composed calls of held-out speakers."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from ser_batch.arrays import Flags, Floats
from ser_batch.model.priority import Chance, StretchFinder

# of the emotional stretch of a call; segments are taken again where a speaker has fewer
STRETCH_OF_CALLS_S = 15.0
# the share of channels that hold a stretch of a label
PREVALENCE = 0.1
# with fewer calls that hold one, no curve is fitted
MIN_CALLS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class ComposedCall:
    """One composed call, and what a model that never met its speaker says of it."""

    group: int  # calls of a group, such as a corpus, count as much together as those of another one
    probabilities: Floats  # of its segments, after temperature and prior, shape (n, labels)
    speech_s: Floats  # of its segments, shape (n,)
    is_emotional: Flags  # segments of the one emotion, not of neutral speech, shape (n,)
    label: int  # number of that emotion


def fitted_chances(calls: Sequence[ComposedCall], labels: Sequence[str]) -> dict[str, Chance]:
    """Return the curve of each label that enough calls hold."""
    from sklearn.linear_model import LogisticRegression

    chances = {}
    for number, label in enumerate(labels):
        groups = {call.group for call in calls if call.label == number}
        found = [
            (call.group, *own) for call in calls if call.group in groups for own in _evidences(call, labels, number)
        ]
        if sum(is_held for *_, is_held in found) < MIN_CALLS:
            continue
        group, evidence, holds = map(np.array, zip(*found, strict=True))
        weight = np.zeros(len(evidence))
        for one in groups:
            for is_held, share in ((True, PREVALENCE), (False, 1 - PREVALENCE)):
                own = (group == one) & (holds == is_held)
                weight[own] = share / own.sum()
        curve = LogisticRegression().fit(evidence[:, None], holds, sample_weight=weight * len(weight) / weight.sum())
        intercept, slope = float(curve.intercept_[0]), float(curve.coef_[0, 0])
        if slope > 0:
            chances[label] = Chance(intercept=round(intercept, 4), slope=round(slope, 4))
    return chances


def _evidences(call: ComposedCall, labels: Sequence[str], label: int) -> Iterator[tuple[float, bool]]:
    """Give the evidence of a label in a call, and in its neutral speech alone, and whether a stretch of it is there."""
    emotional, neutral = np.flatnonzero(call.is_emotional), np.flatnonzero(~call.is_emotional)
    n_taken = int(np.searchsorted(np.cumsum(np.tile(call.speech_s[emotional], 100)), STRETCH_OF_CALLS_S)) + 1
    half = len(neutral) // 2
    with_stretch = [*neutral[:half], *np.resize(emotional, n_taken), *neutral[half:]]
    for order, holds in ((with_stretch, call.label == label), (neutral, False)):
        finder, at_s = StretchFinder(labels, labels[label]), 0.0
        for i in order:
            finder.add(at_s, at_s + call.speech_s[i], 1.0, call.probabilities[i])
            at_s += call.speech_s[i]
        assert finder.best is not None
        yield finder.best.evidence, holds
