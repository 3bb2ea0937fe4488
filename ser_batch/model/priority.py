"""Priority of a channel: the chance that it holds a stretch of a label, by the stretch that sounds most of it."""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from ser_batch.arrays import Floats
from ser_batch.config.structs import Positive
from ser_batch.network.heads import NEUTRAL

# a stretch is judged by this much speech, in seconds
STRETCH_S = 10.0
# a channel with less speech has no priority
MIN_SPEECH_S = 4.0
# a pause as long as this, such as the other side's turn, ends a stretch
MAX_PAUSE_S = 10.0
# a stretch with little speech in it lasts no longer
MAX_SPAN_S = 60.0
# the log-odds that a segment counts at most, and at least; speech that a stretch lacks counts as the least
_MAX_LOG_ODDS = 6.0
_TINY = 1e-9


class Chance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A logistic regression from the log-odds of a stretch to the chance that there is one."""

    intercept: float
    slope: Positive  # weight of the log-odds against neutral speech
    against: dict[str, float] = {}  # weights of the log-odds against other labels

    def __call__(self, stretch: "Stretch") -> float:
        """Return the chance, 0 to 1."""
        total = self.intercept + self.slope * stretch.log_odds
        total += sum(self.against.get(label, 0.0) * log_odds for label, log_odds in stretch.against.items())
        return 1 / (1 + math.exp(-total))


# of models whose training fitted none: about what heads have that were tried on other corpora
UNFITTED = Chance(intercept=-2.0, slope=0.6)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Where a channel sounds of a label most, compared with neutral speech."""

    start_s: float
    end_s: float
    log_odds: float  # of the label against neutral speech; mean over `STRETCH_S` of speech
    against: Mapping[str, float]  # the same against each other label
    probability: float  # of the label: mean over the segments that sound so, else of the one that sounds most so
    sounds_so: bool  # whether any segment sounds of the label rather than neutral


@dataclasses.dataclass(frozen=True)
class _Segment:
    start_s: float
    end_s: float
    speech_s: float
    new_speech_s: float  # what no earlier segment holds
    probability: float
    all_log_odds: Floats  # against neutral speech, then against each other label
    begin_s: float  # where the run of segments that sound so begins

    @property
    def log_odds(self) -> float:
        return float(self.all_log_odds[0])

    @property
    def sounds_so(self) -> bool:
        return self.log_odds > 0


class StretchFinder:
    """Finds the stretch of a channel that sounds most of a label, segment by segment in constant memory.

    It is the one with the highest mean log-odds of the label against neutral speech. Against all other labels
    together, anger that is half taken for disgust would count as none.
    """

    def __init__(self, labels: Sequence[str], label: str) -> None:
        self._own = labels.index(label)
        neutral = [number for number, name in enumerate(labels) if name in NEUTRAL]
        others = [number for number in range(len(labels)) if number != self._own]
        # without another neutral label, all others stand for it
        first = others if label in NEUTRAL or not neutral else neutral
        self.rivals = tuple(labels[number] for number in others if number not in first)
        names = np.array(labels)
        self._groups = np.array([np.isin(names, names[first]), *(names == name for name in self.rivals)])
        self.best: Stretch | None = None
        self.speech_s = 0.0  # of the segments, each second once
        self._recent: collections.deque[_Segment] = collections.deque()
        self._is_open = False  # whether the best stretch goes on with the next segment that sounds so

    def add(self, start_s: float, end_s: float, speech_ratio: float, probabilities: Floats) -> None:
        """Take the next segment, with probabilities of shape (labels,); segments come by time, and may overlap."""
        own = float(probabilities[self._own])
        all_log_odds = np.log(own + _TINY) - np.log(self._groups @ probabilities + _TINY)
        all_log_odds = np.clip(all_log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)
        sounds_so = bool(all_log_odds[0] > 0)
        recent = self._recent
        last_s = recent[-1].end_s if recent else -math.inf
        if start_s - last_s > MAX_PAUSE_S:
            recent.clear()
            self._is_open = False
        new_speech_s = max(0.0, end_s - max(start_s, last_s)) * speech_ratio
        self.speech_s += new_speech_s
        # of two windows that overlap, each up to the middle of what they share
        goes_on = sounds_so and bool(recent) and recent[-1].sounds_so
        begin_s = recent[-1].begin_s if goes_on else (start_s + max(start_s, last_s)) / 2
        speech_s = (end_s - start_s) * speech_ratio
        recent.append(_Segment(start_s, end_s, speech_s, new_speech_s, own, all_log_odds, begin_s))
        while (
            sum(own.new_speech_s for own in recent) - recent[0].new_speech_s >= STRETCH_S
            or start_s - recent[0].start_s > MAX_SPAN_S
        ):
            recent.popleft()
        found = self._stretch_of(recent)
        if self.best is None or found.log_odds > self.best.log_odds:
            self.best, self._is_open = found, sounds_so
        elif self._is_open and sounds_so:
            self.best = dataclasses.replace(self.best, end_s=max(self.best.end_s, end_s))
        else:
            self._is_open = False

    def _stretch_of(self, segments: Sequence[_Segment]) -> Stretch:
        lacking_s = max(0.0, STRETCH_S - sum(own.new_speech_s for own in segments))
        weights = np.array([own.speech_s for own in segments])
        mean = np.full(1 + len(self.rivals), -_MAX_LOG_ODDS)
        if weights.any():
            mean = weights @ np.array([own.all_log_odds for own in segments]) / weights.sum()
        mean = (mean * (STRETCH_S - lacking_s) - _MAX_LOG_ODDS * lacking_s) / STRETCH_S
        so = [own for own in segments if own.sounds_so]
        shown = so or [max(segments, key=lambda own: own.log_odds)]
        return Stretch(
            start_s=shown[0].begin_s,
            end_s=shown[-1].end_s,
            log_odds=float(mean[0]),
            against=dict(zip(self.rivals, mean[1:].tolist(), strict=True)),
            probability=sum(own.probability for own in shown) / len(shown),
            sounds_so=bool(so),
        )
