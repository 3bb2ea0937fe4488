"""Speech activity of a recording: durations, ratios, overlap, turns."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.bool_]

FRAME_S = 0.03
# a shorter pause is part of the turn: stops, breaths, hesitations
PAUSE_S = 0.3
# where speech without a pause has to be cut, no piece gets shorter than this share of it
_MIN_SHARE = 1 / 4


@dataclasses.dataclass(frozen=True, eq=False)
class Activity:
    """Where there is speech in a recording.

    Parameters
    ----------
    frames
        By the table's channel number: bool, shape (n,), one value for each `FRAME_S`; the last frame may be shorter.
    duration_s
        Of the recording, in seconds.
    copies
        Channel to the lower channel whose very sound it is.
    levels
        By channel: dB below full scale, shape (n,); tells `turns` where speech without a pause is quietest.
    """

    frames: Mapping[int, Frames]
    duration_s: float
    copies: Mapping[int, int] = dataclasses.field(default_factory=dict)
    levels: Mapping[int, npt.NDArray[np.float16]] = dataclasses.field(default_factory=dict)

    def speech_s(self, channel: int, start_s: float = 0.0, end_s: float | None = None) -> float:
        """Return the seconds of speech in a stretch; one that ends at None ends with the recording."""
        end_s = self.duration_s if end_s is None else min(end_s, self.duration_s)
        start_s = max(start_s, 0.0)
        if end_s <= start_s:
            return 0.0
        frames = self.frames[channel]
        first = min(int(start_s / FRAME_S), len(frames))
        own = frames[first : int(end_s / FRAME_S) + 1]
        edges_s = np.clip(np.arange(first, first + len(own) + 1) * FRAME_S, start_s, end_s)
        return float(np.diff(edges_s)[own].sum())

    def speech_ratio(self, channel: int, start_s: float, end_s: float) -> float:
        """Return the share of a stretch that is speech, 0 to 1; it ends at the recording's end at the latest."""
        length_s = min(end_s, self.duration_s) - max(start_s, 0.0)
        if length_s <= 0:
            return 0.0
        return min(1.0, self.speech_s(channel, start_s, end_s) / length_s)

    def overlap_s(self, channel: int) -> float | None:
        """Return the seconds in which a channel and any other one speak; None for mono and the mean of all.

        A copy of the channel is no other one.
        """
        if channel < 0 or sum(number >= 0 for number in self.frames) < 2:
            return None
        own = self._root(channel)
        others = [frames for number, frames in self.frames.items() if number >= 0 and self._root(number) != own]
        if not others:
            return 0.0
        both = self.frames[channel] & np.logical_or.reduce(others)
        return dataclasses.replace(self, frames={channel: both}).speech_s(channel)

    def repeated(self, channels: Collection[int]) -> frozenset[int]:
        """Return those of some channels whose very sound a lower one of them has."""
        lowest: dict[int, int] = {}
        for channel in sorted(channels):
            lowest.setdefault(self._root(channel), channel)
        return frozenset(channel for channel in channels if lowest[self._root(channel)] != channel)

    def turns(self, channel: int, *, longest_s: float) -> list[tuple[float, float]]:
        """Return the stretches of speech between pauses of `PAUSE_S` or more.

        One that is longer is cut at its longest inner pause, at its quietest place where it has none, or in halves
        where its levels are not known, and what comes of that again.

        Parameters
        ----------
        channel
            The table's number.
        longest_s
            The most a turn may last, in seconds; at least a frame.

        Returns
        -------
        list of tuple
            Start and end in seconds, in order, at most up to the recording's end.
        """
        longest = max(1, int(longest_s / FRAME_S))
        frames = self.frames[channel]
        starts, ends = runs(frames)
        is_pause = starts[1:] - ends[:-1] >= round(PAUSE_S / FRAME_S)
        firsts = starts[np.flatnonzero(np.concatenate(([True], is_pause)))] if len(starts) else starts
        lasts = ends[np.flatnonzero(np.concatenate((is_pause, [True])))] if len(ends) else ends
        pieces = (
            piece
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
            for piece in self._pieces(channel, first, last, longest)
        )
        # rounded to microseconds, as the starts of windows are
        timed = ((round(start * FRAME_S, 6), min(round(end * FRAME_S, 6), self.duration_s)) for start, end in pieces)
        return [(start_s, end_s) for start_s, end_s in timed if end_s > start_s]

    def _pieces(self, channel: int, first: int, last: int, longest: int) -> Iterator[tuple[int, int]]:
        """Cut frames `first` to `last` until none is longer than `longest`."""
        waiting = [(first, last)]
        while waiting:
            start, end = waiting.pop()
            if end - start <= longest:
                yield start, end
                continue
            pause_start, pause_end = self._cut(channel, start, end)
            waiting += [(pause_end, end), (start, pause_start)]  # the earlier one is taken first

    def _cut(self, channel: int, start: int, end: int) -> tuple[int, int]:
        """Return where the first piece ends and the second one begins."""
        margin = max(1, int((end - start) * _MIN_SHARE))
        low, high = start + margin, end - margin
        ends, starts = (edges + start for edges in runs(~self.frames[channel][start:end]))
        is_inside = (ends >= low) & (starts <= high)
        if is_inside.any():
            ends, starts = ends[is_inside], starts[is_inside]
            longest = int(np.argmax(starts - ends))
            return int(ends[longest]), int(starts[longest])
        if channel in self.levels and high > low:
            inside = self.levels[channel][low - 1 : high + 2].astype(np.float64)
            smooth = np.convolve(inside, np.ones(3) / 3, "valid")
            middle = low + int(np.argmin(smooth[: high - low + 1]))
        else:
            middle = (start + end) // 2
        return middle, middle

    def _root(self, channel: int) -> int:
        return self.copies.get(channel, channel)


def runs(frames: Frames) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the runs of true values begin, and where they end (the first value behind)."""
    steps = np.diff(np.concatenate(([False], frames, [False])).astype(np.int8))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
