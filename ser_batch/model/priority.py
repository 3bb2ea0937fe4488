"""Priority of a channel: the chance that it holds a stretch of a label, by the stretch with the strongest evidence."""

import collections
import dataclasses
import math
from collections.abc import Sequence

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


class Chance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logistic curve from the evidence of a stretch to the chance that there is one."""

    intercept: float
    slope: Positive

    def __call__(self, evidence: float) -> float:
        """Return the chance, 0 to 1."""
        # the logistic curve as a tanh: no exponential that overflows
        return 0.5 + 0.5 * math.tanh(0.5 * (self.intercept + self.slope * evidence))


# of models whose training fitted none: about the curves of heads that were tried on other corpora
UNFITTED = Chance(intercept=-2.0, slope=0.6)


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Where a channel sounds of a label most."""

    start_s: float
    end_s: float
    evidence: float  # mean log-odds over `STRETCH_S` of speech
    probability: float  # of the label: mean over the segments that sound so, else of the one that sounds most so
    sounds_so: bool  # whether any segment sounds of the label rather than neutral


@dataclasses.dataclass(frozen=True)
class _Segment:
    start_s: float
    end_s: float
    speech_s: float
    new_speech_s: float  # what no earlier segment holds
    probability: float
    log_odds: float
    begin_s: float  # where the run of segments that sound so begins

    @property
    def sounds_so(self) -> bool:
        return self.log_odds > 0


class StretchFinder:
    """Finds the stretch of a channel with the strongest evidence of a label, segment by segment in constant memory.

    The evidence of a segment is the logarithm of how much more probable the label is than neutral speech. Compared
    with all other labels instead, anger that is half taken for disgust would count as none.
    """

    def __init__(self, labels: Sequence[str], label: str) -> None:
        self._own = labels.index(label)
        neutral = [number for number, name in enumerate(labels) if name in NEUTRAL]
        others = [number for number in range(len(labels)) if number != self._own]
        self._against = np.array(others if label in NEUTRAL or not neutral else neutral)
        self.best: Stretch | None = None
        self.speech_s = 0.0  # of the segments, each second once
        self._recent: collections.deque[_Segment] = collections.deque()
        self._is_open = False  # whether the best stretch goes on with the next segment that sounds so

    def add(self, start_s: float, end_s: float, speech_ratio: float, probabilities: Floats) -> None:
        """Take the next segment, with probabilities of shape (labels,); segments come by time, and may overlap."""
        own, against = float(probabilities[self._own]), float(probabilities[self._against].sum())
        log_odds = math.log((own + _TINY) / (against + _TINY))
        log_odds = min(max(log_odds, -_MAX_LOG_ODDS), _MAX_LOG_ODDS)
        recent = self._recent
        last_s = recent[-1].end_s if recent else -math.inf
        if start_s - last_s > MAX_PAUSE_S:
            recent.clear()
            self._is_open = False
        new_speech_s = max(0.0, end_s - max(start_s, last_s)) * speech_ratio
        self.speech_s += new_speech_s
        # of two windows that overlap, each up to the middle of what they share
        sounds_so = log_odds > 0
        goes_on = sounds_so and bool(recent) and recent[-1].sounds_so
        begin_s = recent[-1].begin_s if goes_on else (start_s + max(start_s, last_s)) / 2
        speech_s = (end_s - start_s) * speech_ratio
        recent.append(_Segment(start_s, end_s, speech_s, new_speech_s, own, log_odds, begin_s))
        while (
            sum(own.new_speech_s for own in recent) - recent[0].new_speech_s >= STRETCH_S
            or start_s - recent[0].start_s > MAX_SPAN_S
        ):
            recent.popleft()
        found = _stretch_of(recent)
        if self.best is None or found.evidence > self.best.evidence:
            self.best, self._is_open = found, sounds_so
        elif self._is_open and sounds_so:
            self.best = dataclasses.replace(self.best, end_s=max(self.best.end_s, end_s))
        else:
            self._is_open = False


def _stretch_of(segments: Sequence[_Segment]) -> Stretch:
    missing_s = max(0.0, STRETCH_S - sum(own.new_speech_s for own in segments))
    weight = sum(own.speech_s for own in segments)
    mean = sum(own.speech_s * own.log_odds for own in segments) / weight if weight else -_MAX_LOG_ODDS
    so = [own for own in segments if own.sounds_so]
    shown = so or [max(segments, key=lambda own: own.log_odds)]
    return Stretch(
        start_s=shown[0].begin_s,
        end_s=shown[-1].end_s,
        evidence=(mean * (STRETCH_S - missing_s) - _MAX_LOG_ODDS * missing_s) / STRETCH_S,
        probability=sum(own.probability for own in shown) / len(shown),
        sounds_so=bool(so),
    )
