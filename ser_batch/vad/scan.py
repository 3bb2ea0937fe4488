"""A recording to its speech, in blocks."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ser_batch.audio.reader import AudioReader
from ser_batch.audio.resampling import Resampler
from ser_batch.audio.sound import Samples
from ser_batch.vad.activity import Activity
from ser_batch.vad.channels import listened_samples
from ser_batch.vad.frames import FRAME_SAMPLES, VAD_RATE, Features, decibels, features, speech

# features are computed of so many frames at a time whatever the blocks: 7.5 s, which stays in the processor's cache
_BATCH_SAMPLES = 250 * FRAME_SAMPLES
# a channel is a copy of another one if their difference is this share of its power: 40 dB below
_COPY_SHARE = 1e-4
# and it is none as soon as a batch this loud differs by more than this share of it, 20 dB below
_LOUD_POWER, _OTHER_SHARE = 1e-6, 1e-2


class _ChannelScan:
    """Listens to one channel."""

    def __init__(self, sampling_rate: int) -> None:
        self._resampler = Resampler(sampling_rate, VAD_RATE)
        self._waiting: list[Samples] = []
        self._n_waiting = 0
        self._features: list[Features] = []

    def feed(self, samples: Samples, *, last: bool) -> Iterator[Samples]:
        """Take the next samples of the source, shape (n,); yield the batches that are full, and the rest at the end."""
        resampled = self._resampler.feed(samples, last=last)
        self._waiting.append(resampled)
        self._n_waiting += len(resampled)
        while self._n_waiting >= _BATCH_SAMPLES or (last and self._n_waiting):
            waiting = np.concatenate(self._waiting)
            batch = waiting[:_BATCH_SAMPLES]
            self._waiting = [waiting[len(batch) :]]
            self._n_waiting -= len(batch)
            whole = np.pad(batch, (0, -len(batch) % FRAME_SAMPLES))
            self._features.append(features(np.ascontiguousarray(whole)))
            yield batch

    def finish(self) -> Features:
        """Return the features of all frames."""
        return Features.join(self._features)


class _Pair:
    """Whether a channel is a copy of a lower one, as far as is heard."""

    def __init__(self) -> None:
        self.is_open = True
        self._power = self._difference = 0.0

    def feed(self, lower: Samples, own: Samples) -> None:
        """Compare a batch of both, shape (n,) each."""
        apart = own - lower
        power, difference = float(np.dot(own, own)), float(np.dot(apart, apart))
        self._power += power
        self._difference += difference
        loudest = max(power, float(np.dot(lower, lower)))
        self.is_open = not (loudest > _LOUD_POWER * len(own) and difference > _OTHER_SHARE * loudest)

    @property
    def is_copy(self) -> bool:
        """Whether the two are the same, both not silent."""
        return self.is_open and self._power > 0 and self._difference <= _COPY_SHARE * self._power


def scan(reader: AudioReader, channels: Callable[[int], Iterable[int]] = range) -> Activity:
    """Find the speech of a recording; memory holds a block and a few numbers for each frame.

    Parameters
    ----------
    reader
        The recording.
    channels
        Which channels are wanted: gets the number that the recording has, gives the table's channel numbers, -1 for
        the mean of all. Where one of several is wanted all of them are listened to, because overlap and copies are
        between channels.

    Raises
    ------
    RecordingError
        It cannot be decoded, lasts too long, or `channels` raises it.
    """
    sound = reader.sound
    wanted = set(channels(sound.n_channels))
    numbers = [channel for channel in wanted if channel < 0]
    if len(numbers) < len(wanted):
        numbers += range(sound.n_channels)
    scans = {channel: _ChannelScan(sound.sampling_rate) for channel in numbers}
    pairs = {pair: _Pair() for pair in itertools.combinations(sorted(n for n in numbers if n >= 0), 2)}
    # one block is held back, because the resampler wants to be told of the last one
    blocks = reader.blocks()
    block = next(blocks)
    for following in itertools.chain(blocks, (None,)):
        feeds = [
            channel_scan.feed(listened_samples(block, number), last=following is None)
            for number, channel_scan in scans.items()
        ]
        for batches in zip(*feeds, strict=True):
            _compare(dict(zip(scans, batches, strict=True)), pairs)
        if following is not None:
            block = following
    return _activity(reader.n_samples / sound.sampling_rate, scans, pairs)


def _compare(batches: dict[int, Samples], pairs: dict[tuple[int, int], _Pair]) -> None:
    for (lower, channel), pair in pairs.items():
        if pair.is_open:
            pair.feed(batches[lower], batches[channel])


def _activity(duration_s: float, scans: dict[int, _ChannelScan], pairs: dict[tuple[int, int], _Pair]) -> Activity:
    copies: dict[int, int] = {}
    for (lower, channel), pair in pairs.items():  # by the lower one: the lowest there is counts
        if pair.is_copy and lower not in copies:
            copies.setdefault(channel, lower)
    known = {channel: channel_scan.finish() for channel, channel_scan in scans.items()}
    return Activity(
        frames={channel: speech(own) for channel, own in known.items()},
        duration_s=duration_s,
        copies=copies,
        levels={channel: decibels(own.power).astype(np.float16) for channel, own in known.items()},
    )
