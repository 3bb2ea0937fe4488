"""One recording to its segments, as a stream."""

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Collection, Container, Iterator
from typing import Generic

import numpy as np
import soundfile

from ser_batch.audio.perturb import changed
from ser_batch.audio.reader import AudioReader
from ser_batch.audio.resampling import Resampler
from ser_batch.audio.sound import Samples, Sound
from ser_batch.config.segmentation import Segmentation
from ser_batch.config.variants import CLEAN, Variants
from ser_batch.corpus.manifest import LabelRow, Recording, label_at
from ser_batch.errors import RecordingError
from ser_batch.segments.boundaries import Interval, check_labels_inside, intervals, labels_by_channel
from ser_batch.segments.front_ends import Features_co, FrontEnd, SegmentFeatures
from ser_batch.vad.activity import Activity
from ser_batch.vad.channels import listened_samples

# a variant is made of its segment's samples, so they are held; of a longer clip they are the beginning
LONGEST_VARIANT_S = 60.0
# samples whose range is smaller, half a step of 16 bits, are digital silence: codecs do not return zeros as such
_SILENT_RANGE = 2**-16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment(Generic[Features_co]):
    """One window of one channel, or a variant of it."""

    # the table's channel number, and the segment's number within it
    channel: int
    index: int
    variant: str  # ``clean``, or the change made to the waveform before its features were computed
    # place in the recording, in seconds
    start_s: float
    end_s: float
    # what the front end computed: of MFCCs float32, shape (frames, n_mfcc), at most `n_frames` frames, not padded; of
    # an encoder an `Embedding`. None where there is too little speech
    features: Features_co | None
    # level of the source's samples in dB below full scale; None for digital silence, which may be any constant
    rms_dbfs: float | None
    clipped_ratio: float  # share of the source's samples at the encoding's full scale
    label: LabelRow | None  # the row of the labels file that is about this segment, if there is one
    speech_ratio: float | None = None  # share of it that is speech, 0 to 1; None where the recording was not scanned


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which segments of a recording are worth their features; finding these is what takes the time."""

    without_channels: Collection[int] = ()  # channels not to cut at all
    min_speech_ratio: float = 0.0  # segments with a smaller share of speech get no features
    only: Container[tuple[int, int]] | None = None  # channel and number of those that get any; None for all


@dataclasses.dataclass(frozen=True)
class _Recipe(Generic[Features_co]):
    """What becomes of every segment of a recording."""

    path: str  # for messages
    front_end: FrontEnd[Features_co]
    variants: Variants
    content_hash: str
    activity: Activity | None
    selection: Selection

    @property
    def has_changes(self) -> bool:
        """Whether anything else than the recording itself is wanted."""
        return self.variants.names != (CLEAN,)


class _OpenSegment(Generic[Features_co]):
    """A segment whose samples are still coming."""

    def __init__(
        self, interval: Interval, speech_ratio: float | None, features: SegmentFeatures[Features_co] | None
    ) -> None:
        self.interval = interval
        self.speech_ratio = speech_ratio
        self.features = features  # None where it has too little speech
        self.square_sum = 0.0
        self.lowest, self.highest = np.inf, -np.inf
        self.n_clipped = 0
        self.n_source = 0
        self.source: list[Samples] = []  # only where variants are made of them


class _ChannelSegmenter(Generic[Features_co]):
    """Cuts one channel's stream into segments; each is computed from its own samples alone.

    Memory holds the segments that overlap at one moment, whatever the recording's length.
    """

    def __init__(
        self, sound: Sound, recipe: _Recipe[Features_co], channel: int, stretches: Iterator[Interval], *, is_exact: bool
    ) -> None:
        self._sound, self._recipe, self._channel = sound, recipe, channel
        self._front_end, self._target_rate = recipe.front_end, recipe.front_end.sampling_rate
        self._is_exact = is_exact  # every interval was asked for; windows go on until the end is reached
        self._intervals = stretches
        self._next = next(stretches, None)
        self._open: list[tuple[float, int, _OpenSegment[Features_co]]] = []  # a heap by end
        self._resampler = Resampler(sound.sampling_rate, self._target_rate)
        self._n_source = self._n_target = 0
        self._covered = 0  # samples of the source up to the end of the last window

    def feed(self, samples: Samples, *, last: bool = False) -> Iterator[Segment[Features_co]]:
        """Take the next samples of the source, shape (n,); yield the segments that are complete."""
        target = self._resampler.feed(samples, last=last)
        self._begin(samples, target, last=last)
        for _, _, segment in self._open:
            self._measure(segment, samples)
            part = _cut(target, self._n_target, segment.interval, self._target_rate)
            if segment.features is not None and len(part):
                segment.features.feed(part)
        self._n_source += len(samples)
        self._n_target += len(target)
        reached_s = self._n_target / self._target_rate
        while self._open and (last or self._open[0][0] <= reached_s):
            segment = heapq.heappop(self._open)[2]
            if self._is_wanted(segment.interval, last):
                yield from self._finish(segment)

    def _begin(self, samples: Samples, target: Samples, *, last: bool) -> None:
        """Open the segments that begin before the end of the new samples."""
        # The resampler lags behind: a segment is opened as soon as the source reaches it, for `_measure`. At the end of
        # the stream it has to have samples of both.
        ends = (
            (self._sound.sampling_rate, self._n_source + len(samples)),
            (self._target_rate, self._n_target + len(target)),
        )
        is_reached = all if last else any
        while self._next is not None and is_reached(round(self._next.start_s * rate) < end for rate, end in ends):
            end_s = float("inf") if self._next.end_s is None else self._next.end_s
            heapq.heappush(self._open, (end_s, self._next.index, self._opened(self._next, end_s)))
            self._next = next(self._intervals, None)

    def _opened(self, interval: Interval, end_s: float) -> _OpenSegment[Features_co]:
        activity, ratio = self._recipe.activity, None
        if activity is not None:
            ratio = activity.speech_ratio(self._channel, interval.start_s, end_s)
        only = self._recipe.selection.only
        is_wanted = ratio is None or ratio >= self._recipe.selection.min_speech_ratio
        is_wanted = is_wanted and (only is None or (self._channel, interval.index) in only)
        features = self._front_end.segment(self._sound.sampling_rate) if is_wanted else None
        return _OpenSegment(interval, ratio, features)

    def _measure(self, segment: _OpenSegment[Features_co], samples: Samples) -> None:
        own = _cut(samples, self._n_source, segment.interval, self._sound.sampling_rate)
        segment.square_sum += float(np.dot(own, own))
        if not len(own):
            return
        full_scale, lowest, highest = self._sound.full_scale, float(own.min()), float(own.max())
        segment.lowest, segment.highest = min(segment.lowest, lowest), max(segment.highest, highest)
        if highest >= full_scale or lowest <= -full_scale:  # rare, and quick to rule out
            segment.n_clipped += int(np.count_nonzero(np.abs(own) >= full_scale))
        segment.n_source += len(own)
        if self._recipe.has_changes and segment.n_source - len(own) < LONGEST_VARIANT_S * self._sound.sampling_rate:
            segment.source.append(own.copy())

    def _is_wanted(self, interval: Interval, last: bool) -> bool:
        """Whether a window adds anything: the last one ends at or past the end, none comes after it."""
        rate = self._sound.sampling_rate
        wanted = self._is_exact or interval.index == 0 or not last or self._covered < self._n_source
        if interval.end_s is not None:
            self._covered = max(self._covered, round(interval.end_s * rate))
        return wanted

    def _finish(self, segment: _OpenSegment[Features_co]) -> Iterator[Segment[Features_co]]:
        if not segment.n_source:
            return  # a label that covers none of the samples; the recording is rejected at its end
        duration_s = self._n_source / self._sound.sampling_rate
        interval = segment.interval
        end_s = duration_s if interval.end_s is None else min(interval.end_s, duration_s)
        label = label_at(interval.labels, interval.start_s, end_s)
        mean_square = segment.square_sum / segment.n_source
        is_silent = segment.highest - segment.lowest < _SILENT_RANGE
        for variant in self._recipe.variants.names:
            yield Segment(
                channel=self._channel,
                index=interval.index,
                variant=variant,
                start_s=interval.start_s,
                end_s=end_s,
                features=self._features(segment, variant),
                rms_dbfs=None if is_silent else 10 * float(np.log10(mean_square)),
                clipped_ratio=segment.n_clipped / segment.n_source,
                label=label,
                speech_ratio=segment.speech_ratio,
            )

    def _features(self, segment: _OpenSegment[Features_co], variant: str) -> Features_co | None:
        """Return the features of a variant."""
        if segment.features is None:
            return None
        return segment.features.finish() if variant == CLEAN else self._changed(segment, variant)

    def _changed(self, segment: _OpenSegment[Features_co], variant: str) -> Features_co:
        """Return the features of a changed segment."""
        rate = self._sound.sampling_rate
        samples = np.concatenate(segment.source)[: round(LONGEST_VARIANT_S * rate)]
        try:
            samples, rate = changed(
                samples,
                rate,
                variant,
                seed=self._recipe.variants.seed,
                content_hash=self._recipe.content_hash,
                place=f"{self._channel}/{segment.interval.index}",
            )
        except soundfile.SoundFileError as error:
            raise RecordingError(
                "variant",
                f"{self._recipe.path}: its segment of {len(samples)} samples at {segment.interval.start_s:g} s cannot "
                f"be made {variant} ({error}); expected sound that every codec takes; leave {variant} out of "
                "--variants, or remove the file",
            ) from error
        features = self._front_end.segment(rate)
        features.feed(Resampler(rate, self._target_rate).feed(samples, last=True))
        return features.finish()


def _cut(samples: Samples, first: int, interval: Interval, rate: int) -> Samples:
    """Return the part of `samples`, which begin at number `first` of the stream, that an interval covers."""
    start = max(0, round(interval.start_s * rate) - first)
    end = len(samples) if interval.end_s is None else max(0, round(interval.end_s * rate) - first)
    return samples[start:end]


def segments(
    reader: AudioReader,
    recording: Recording,
    front_end: FrontEnd[Features_co],
    segmentation: Segmentation,
    *,
    variants: Variants | None = None,
    activity: Activity | None = None,
    selection: Selection | None = None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[Segment[Features_co]]:
    """Decode one recording and yield its segments as they are complete.

    Parameters
    ----------
    reader
        The recording, open.
    recording
        Its label rows decide the segments under ``labels``, and the channels wherever they name one.
    front_end, segmentation
        What computes features, from `front_ends.front_end`, and how recordings are cut.
    variants
        Which variants of each segment to yield; None stands for clean alone. What they draw at random follows from the
        recording's content.
    activity
        Where it has speech, from `activity_of`; gives the segments' `speech_ratio`, and ``turns`` needs it.
    selection
        Which segments get features; None for all.
    warn
        Gets what is wrong with a recording that is cut all the same.

    Yields
    ------
    Segment
        By time, channels side by side; the variants of a segment one after the other.

    Raises
    ------
    RecordingError
        It cannot be decoded, lasts too long, a label row lies outside of it, or a codec cannot take a segment.
    """
    sound, selection = reader.sound, selection or Selection()
    plan = labels_by_channel(recording, segmentation, sound.n_channels)
    recipe = _Recipe(recording.path, front_end, variants or Variants(), reader.content_hash, activity, selection)
    segmenters = {
        channel: _ChannelSegmenter(
            sound,
            recipe,
            channel,
            intervals(channel, labels, segmentation, activity),
            is_exact=segmentation.mode != "windows",
        )
        for channel, labels in plan.items()
        if channel not in selection.without_channels
    }
    # one block is held back, because the resampler wants to be told of the last one
    blocks = reader.blocks()
    block = next(blocks)
    for following in itertools.chain(blocks, (None,)):
        for channel, segmenter in segmenters.items():
            yield from segmenter.feed(listened_samples(block, channel, warn), last=following is None)
        if following is not None:
            block = following
    check_labels_inside(
        recording, reader.n_samples / sound.sampling_rate, (sound.sampling_rate, front_end.sampling_rate)
    )
