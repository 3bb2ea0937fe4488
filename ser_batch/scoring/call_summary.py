"""Row of the call table: sums over the segments of a recording and channel, updated segment by segment."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ser_batch.arrays import Floats
from ser_batch.model.priority import MIN_SPEECH_S, Chance, StretchFinder
from ser_batch.tables.schemas import QUARTERS

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
# why a channel has no priority, by its status
_NO_PRIORITY = {
    STATUS_DUPLICATE_CHANNEL: "same sound as an earlier channel",
    STATUS_NO_SPEECH: "no speech",
    STATUS_OUT_OF_DOMAIN: "music, noise or unfamiliar sound",
}
# a stretch goes on over this much that no segment covers: a pause between labelled stretches or turns, in seconds
LONGEST_GAP_S = 4.0


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
    """One channel of a recording while its segments come in; holds sums, not segments, however long it is.

    `prioritized` has the labels that the priority looks for, and the curve that turns evidence of each into a chance.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        duration_s: float,
        prioritized: Mapping[str, Chance],
        role: str | None = None,
        is_low_rate: bool = False,
    ) -> None:
        self.role = role
        self._labels, self._duration_s, self._is_low_rate = labels, duration_s, is_low_rate
        edges = [duration_s * quarter / len(QUARTERS) for quarter in range(len(QUARTERS) + 1)]
        self._edges, self._starts, self._ends = edges, np.array(edges[:-1]), np.array([*edges[1:-1], np.inf])
        self._n_segments = self._n_scored = 0
        self._ood_sum = 0.0
        # by quarter: seconds of speech first, and of the segments themselves, for calls without speech
        self._seconds = np.zeros((2, len(QUARTERS)))
        self._sums = np.zeros((2, len(QUARTERS), len(labels)))
        # of the segments by quarter, each second once
        self._speech_s, self._speech_end_s = np.zeros(len(QUARTERS)), 0.0
        self._won: Counter[str] = Counter()
        self._truths: set[str | None] = set()
        self._peak_s, self._peak_p = np.zeros(len(labels)), np.full(len(labels), -1.0)
        self._stretch: _Stretch | None = None
        self._longest: dict[str, _Stretch] = {}
        self._chances = prioritized
        self._finders = {label: StretchFinder(labels, label) for label in prioritized}

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
        seconds = self._of_quarters(start_s, end_s)
        self._speech_s += self._of_quarters(max(start_s, self._speech_end_s), end_s) * ratio
        self._speech_end_s = max(self._speech_end_s, end_s)
        for kind, weights in enumerate((seconds * ratio, seconds)):
            self._seconds[kind] += weights
            self._sums[kind] += weights[:, np.newaxis] * probabilities
        if predicted is not None:
            self._won[predicted] += 1
        is_higher = probabilities > self._peak_p
        self._peak_p[is_higher] = probabilities[is_higher]
        self._peak_s[is_higher] = (start_s + end_s) / 2
        if ood_score <= 1:  # music on hold is no evidence
            for finder in self._finders.values():
                finder.add(start_s, end_s, ratio, probabilities)

    def _of_quarters(self, start_s: float, end_s: float) -> Floats:
        """Return how many seconds of a stretch lie in each quarter."""
        return np.asarray(np.maximum(0.0, np.minimum(end_s, self._ends) - np.maximum(start_s, self._starts)))

    def _follow(self, predicted: str | None, start_s: float, end_s: float) -> None:
        """Go on with the stretch at hand, or begin another one."""
        if predicted is None:
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
        status = self._status(is_duplicate=is_duplicate)
        row: dict[str, Any] = {
            "role": self.role,
            "status": status,
            **self._priority(status),
            "speech_s": speech_s,
            "overlap_s": overlap_s,
            "duration_s": self._duration_s,
            "n_segments": self._n_segments,
            "emotion": next(iter(self._truths)) if len(self._truths) == 1 else None,
        }
        seconds, sums = self._weights()
        if not seconds.any():
            return row
        mean = sums.sum(axis=0) / seconds.sum()
        n_won = sum(self._won.values())
        if not self._is_out_of_domain:
            row["predicted"] = self._labels[int(mean.argmax())]
        for number, label in enumerate(self._labels):
            row[f"p_{label}"] = float(mean[number])
            row[f"share_{label}"] = self._won[label] / n_won if n_won else None
            row |= {f"peak_s_{label}": float(self._peak_s[number]), f"peak_p_{label}": float(self._peak_p[number])}
            if seconds[0] and seconds[-1]:
                row[f"change_{label}"] = float(sums[-1, number] / seconds[-1] - sums[0, number] / seconds[0])
        for label, stretch in self._longest.items():
            row |= {f"longest_start_s_{label}": stretch.start_s, f"longest_s_{label}": stretch.length_s}
        return row

    def quarters(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the table of quarters; those without scored segments have no probabilities."""
        seconds, sums = self._weights()
        for i, quarter in enumerate(QUARTERS):
            row = {"role": self.role, "quarter": quarter, "start_s": self._edges[i], "end_s": self._edges[i + 1]}
            means = sums[i] / seconds[i] if seconds[i] else [None] * len(self._labels)
            of_labels = {
                f"p_{label}": None if p is None else float(p) for label, p in zip(self._labels, means, strict=True)
            }
            yield row | {"speech_s": float(self._speech_s[i])} | of_labels

    def _weights(self) -> tuple[Floats, Floats]:
        """Return the seconds of each quarter, and the probabilities summed over them."""
        kind = 0 if self._seconds[0].any() else 1
        return self._seconds[kind], self._sums[kind]

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

    def _priority(self, status: str) -> dict[str, Any]:
        """Return the priority, where to listen and why; without a priority only why."""
        if status in _NO_PRIORITY:
            return {"listen_why": _NO_PRIORITY[status]}
        if not self._finders:
            return {"listen_why": "no label of the model is looked for"}
        speech_s = next(iter(self._finders.values())).speech_s
        if speech_s < MIN_SPEECH_S:
            return {"listen_why": f"{int(speech_s)} s of speech"}
        found = [
            (self._chances[label](finder.best.evidence), label, finder.best)
            for label, finder in self._finders.items()
            if finder.best is not None
        ]
        chance, label, stretch = max(found, key=lambda one: one[0])
        how = f"for {stretch.end_s - stretch.start_s:.0f} s," if stretch.sounds_so else "at most"
        return {
            "priority": chance,
            "listen_at_s": stretch.start_s,
            "listen_why": f"{label} {how} {stretch.probability:.2f}",
        }
