"""Row of the call table: sums over the segments of a recording and channel, updated segment by segment."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ser_batch.arrays import Floats
from ser_batch.tables.schemas import NEGATIVE, QUARTERS

STATUS_OK = "ok"
STATUS_NO_SPEECH = "no_speech"
STATUS_DUPLICATE_CHANNEL = "duplicate_channel"
STATUS_OUT_OF_DOMAIN = "out_of_domain"
STATUS_LOW_SAMPLING_RATE = "low_sampling_rate"
# all that a recording and channel can have as status, the first that applies; docs/tables.md has the same list
STATUSES: Mapping[str, str] = MappingProxyType(
    {
        STATUS_DUPLICATE_CHANNEL: "the same sound as an earlier channel of the recording",
        STATUS_NO_SPEECH: "no segment has enough speech to be scored",
        STATUS_OUT_OF_DOMAIN: "unlike the training data, by the mean distance of its segments; not labelled",
        STATUS_LOW_SAMPLING_RATE: "scored, though sampled below what the model was trained with",
        STATUS_OK: "scored",
    }
)
# a stretch goes on over this much that no segment covers: a pause between labelled stretches or turns, in seconds
LONGEST_GAP_S = 4.0
# with less speech than this, in seconds, a call is less worth listening to
ENOUGH_SPEECH_S = 10.0
# what makes the priority: the mean of the whole, the highest quarter, the last one with speech
PRIORITY_WEIGHTS = (0.5, 0.25, 0.25)


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """Consecutive segments with the same prediction, in seconds of the recording."""

    label: str
    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    def goes_on(self, label: str | None, start_s: float) -> bool:
        """Whether a segment that begins at `start_s` belongs to it."""
        return label == self.label and start_s <= self.end_s + LONGEST_GAP_S


class CallSums:
    """One channel of a recording while its segments come in; holds sums, not segments, however long it is."""

    def __init__(
        self, labels: Sequence[str], *, duration_s: float, role: str | None = None, is_low_rate: bool = False
    ) -> None:
        self.role = role
        self._labels, self._duration_s, self._is_low_rate = labels, duration_s, is_low_rate
        self._negative = [number for number, label in enumerate(labels) if label in NEGATIVE]
        edges = [duration_s * quarter / len(QUARTERS) for quarter in range(len(QUARTERS))]
        self._starts, self._ends = np.array(edges), np.array([*edges[1:], np.inf])
        self._n_segments = self._n_scored = 0
        self._ood_sum = 0.0
        # by quarter: seconds of speech first, and of the segments themselves, for calls without speech
        self._seconds = np.zeros((2, len(QUARTERS)))
        self._sums = np.zeros((2, len(QUARTERS), len(labels)))
        self._speech_s = self._speech_end_s = 0.0
        self._won: Counter[str] = Counter()
        self._truths: set[str | None] = set()
        self._peaks: dict[str, tuple[float, float]] = {}  # label to (s, probability)
        self._stretch: _Stretch | None = None
        self._longest: dict[str, _Stretch] = {}

    def add(
        self,
        *,
        start_s: float,
        end_s: float,
        speech_ratio: float | None,
        probabilities: Floats | None,
        predicted: str | None,
        truth: str | None,
        ood_score: float = 0.0,
    ) -> None:
        """Count one segment; they come by time."""
        self._n_segments += 1
        self._truths.add(truth)
        self._follow(predicted, start_s, end_s)
        if probabilities is None:
            return
        self._n_scored += 1
        self._ood_sum += ood_score
        ratio = 1.0 if speech_ratio is None else speech_ratio
        seconds = np.maximum(0.0, np.minimum(end_s, self._ends) - np.maximum(start_s, self._starts))
        for kind, weights in enumerate((seconds * ratio, seconds)):
            self._seconds[kind] += weights
            self._sums[kind] += weights[:, np.newaxis] * probabilities
        # windows overlap, and each second counts once
        self._speech_s += max(0.0, end_s - max(start_s, self._speech_end_s)) * ratio
        self._speech_end_s = max(self._speech_end_s, end_s)
        if predicted is not None:
            self._won[predicted] += 1
        for number in self._negative:
            probability = float(probabilities[number])
            if probability > self._peaks.get(self._labels[number], (0.0, -1.0))[1]:
                self._peaks[self._labels[number]] = ((start_s + end_s) / 2, probability)

    def _follow(self, predicted: str | None, start_s: float, end_s: float) -> None:
        """Go on with the stretch at hand, or begin another one."""
        if predicted not in NEGATIVE:
            self._stretch = None
            return
        if self._stretch is not None and self._stretch.goes_on(predicted, start_s):
            # labelled stretches may lie within one another, so the later one may begin first
            start_s, end_s = min(self._stretch.start_s, start_s), max(self._stretch.end_s, end_s)
        self._stretch = _Stretch(predicted, start_s, end_s)
        longest = self._longest.get(predicted)
        if longest is None or self._stretch.length_s > longest.length_s:
            self._longest[predicted] = self._stretch

    def row(
        self,
        *,
        speech_s: float | None = None,
        overlap_s: float | None = None,
        is_duplicate: bool = False,
    ) -> dict[str, Any]:
        """Return the columns of the call table; those left out are null."""
        row: dict[str, Any] = {
            "role": self.role,
            "duration_s": self._duration_s,
            "speech_s": speech_s,
            "overlap_s": overlap_s,
            "n_segments": self._n_segments,
            "emotion": next(iter(self._truths)) if len(self._truths) == 1 else None,
            "status": self._status(is_duplicate=is_duplicate),
        }
        kind = 0 if self._seconds[0].any() else 1
        seconds, sums = self._seconds[kind], self._sums[kind]
        if not seconds.any():
            return row
        mean = sums.sum(axis=0) / seconds.sum()
        quarters = [sums[i] / seconds[i] if seconds[i] else None for i in range(len(QUARTERS))]
        n_won = sum(self._won.values())
        if not self._is_out_of_domain:
            row["predicted"] = self._labels[int(mean.argmax())]
        for number, label in enumerate(self._labels):
            of_quarters = [None if means is None else float(means[number]) for means in quarters]
            first, last = of_quarters[0], of_quarters[-1]
            row[f"p_{label}"] = float(mean[number])
            row[f"share_{label}"] = self._won[label] / n_won if n_won else None
            row |= {f"p_{label}_q{quarter}": p for quarter, p in zip(QUARTERS, of_quarters, strict=True)}
            row[f"change_{label}"] = None if first is None or last is None else last - first
        for label, (peak_s, probability) in self._peaks.items():
            row |= {f"peak_s_{label}": peak_s, f"peak_p_{label}": probability}
        for label, stretch in self._longest.items():
            row |= {f"longest_start_s_{label}": stretch.start_s, f"longest_s_{label}": stretch.length_s}
        if self._is_out_of_domain:  # what is guessed of a piece of music makes no call urgent
            return row
        return row | {"priority": self._priority(mean, [means for means in quarters if means is not None])}

    @property
    def _is_out_of_domain(self) -> bool:
        return self._n_scored > 0 and self._ood_sum / self._n_scored > 1

    def _status(self, *, is_duplicate: bool) -> str:
        """Return the first status that applies, in the order of `STATUSES`."""
        if is_duplicate:
            return STATUS_DUPLICATE_CHANNEL
        if not self._n_scored:
            return STATUS_NO_SPEECH
        if self._is_out_of_domain:
            return STATUS_OUT_OF_DOMAIN
        return STATUS_LOW_SAMPLING_RATE if self._is_low_rate else STATUS_OK

    def _priority(self, mean: Floats, quarters: Sequence[Floats]) -> float | None:
        """Return how much a call is worth listening to first, 0 to 1; None where no label is negative."""
        # A rule of this project, written down in docs/tables.md; it is not fitted to anything.
        if not self._negative:
            return None
        whole = float(mean[self._negative].sum())
        of_quarters = [float(means[self._negative].sum()) for means in quarters]
        terms = (whole, max(of_quarters), of_quarters[-1])
        unrest = sum(weight * term for weight, term in zip(PRIORITY_WEIGHTS, terms, strict=True))
        return min(1.0, unrest) * min(1.0, self._speech_s / ENOUGH_SPEECH_S)
