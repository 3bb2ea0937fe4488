"""One recording to its segments, as a stream."""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import soundfile

from ser_batch.audio import AudioReader, Resampler, Samples, Sound, channel_samples
from ser_batch.config import CLEAN, FeatureSpec, RawFormat, Segmentation, Variants
from ser_batch.corpus import LabelRow, Recording, label_at
from ser_batch.errors import RecordingError
from ser_batch.featurize.intervals import Interval, check_labels_inside, intervals, labels_by_channel
from ser_batch.mfcc import SegmentMfcc, kernel
from ser_batch.vad import Activity
from ser_batch.variants import changed

# a variant is made of its segment's samples, so they are held; of a longer clip they are the beginning
LONGEST_VARIANT_S = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """One window of one channel, or a variant of it.

    Parameters
    ----------
    channel, index
        The table's channel number, and the segment's number within it.
    variant
        ``clean``, or the change made to the waveform before its MFCCs were computed.
    start_s, end_s
        Place in the recording, in seconds.
    mfcc
        float32, shape (frames, n_mfcc), at most `n_frames` frames, not padded; no frames where there is too little
        speech.
    rms_dbfs
        Level of the source's samples in dB below full scale; None for digital silence.
    clipped_ratio
        Share of the source's samples at the encoding's full scale.
    label
        The row of the labels file that is about this segment, if there is one.
    speech_ratio
        Share of it that is speech, 0 to 1; None where the recording was not scanned.
    """

    channel: int
    index: int
    variant: str
    start_s: float
    end_s: float
    mfcc: npt.NDArray[np.float32]
    rms_dbfs: float | None
    clipped_ratio: float
    label: LabelRow | None
    speech_ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """What becomes of every segment of a recording."""

    path: str  # for messages
    spec: FeatureSpec
    variants: Variants
    content_hash: str
    activity: Activity | None
    least_speech: float

    @property
    def has_changes(self) -> bool:
        """Whether anything else than the recording itself is wanted."""
        return self.variants.names != (CLEAN,)


class _OpenSegment:
    """A segment whose samples are still coming."""

    def __init__(self, interval: Interval, speech_ratio: float | None, mfcc: SegmentMfcc | None) -> None:
        self.interval = interval
        self.speech_ratio = speech_ratio
        self.mfcc = mfcc  # None where it has too little speech
        self.square_sum = 0.0
        self.n_clipped = 0
        self.n_source = 0
        self.source: list[Samples] = []  # only where variants are made of them


class _ChannelSegmenter:
    """Cuts one channel's stream into segments; each is computed from its own samples alone.

    Memory holds the segments that overlap at one moment, whatever the recording's length.
    """

    def __init__(
        self, sound: Sound, recipe: _Recipe, channel: int, stretches: Iterator[Interval], *, is_exact: bool
    ) -> None:
        self._sound, self._recipe, self._channel = sound, recipe, channel
        self._mfccs = kernel(recipe.spec, sound.sampling_rate)
        self._is_exact = is_exact  # every interval was asked for; windows go on until the end is reached
        self._intervals = stretches
        self._next = next(stretches, None)
        self._open: list[tuple[float, int, _OpenSegment]] = []  # a heap by end
        self._resampler = Resampler(sound.sampling_rate, recipe.spec.sampling_rate)
        self._n_source = self._n_target = 0
        self._covered = 0  # samples of the source up to the end of the last window

    def feed(self, samples: Samples, *, last: bool = False) -> Iterator[Segment]:
        """Take the next samples of the source, shape (n,); yield the segments that are complete."""
        target = self._resampler.feed(samples, last=last)
        self._begin(samples, target, last=last)
        for _, _, segment in self._open:
            self._measure(segment, samples)
            part = _cut(target, self._n_target, segment.interval, self._recipe.spec.sampling_rate)
            if segment.mfcc is not None and len(part):
                segment.mfcc.feed(part)
        self._n_source += len(samples)
        self._n_target += len(target)
        reached_s = self._n_target / self._recipe.spec.sampling_rate
        while self._open and (last or self._open[0][0] <= reached_s):
            segment = heapq.heappop(self._open)[2]
            if self._is_wanted(segment.interval, last):
                yield from self._finish(segment)

    def _begin(self, samples: Samples, target: Samples, *, last: bool) -> None:
        """Open the segments that begin before the end of the new samples.

        The resampler lags behind: a segment is opened as soon as the source reaches it, for `_measure`. At the end
        of the stream it has to have samples of both.
        """
        ends = (
            (self._sound.sampling_rate, self._n_source + len(samples)),
            (self._recipe.spec.sampling_rate, self._n_target + len(target)),
        )
        is_reached = all if last else any
        while self._next is not None and is_reached(round(self._next.start_s * rate) < end for rate, end in ends):
            end_s = float("inf") if self._next.end_s is None else self._next.end_s
            heapq.heappush(self._open, (end_s, self._next.index, self._opened(self._next, end_s)))
            self._next = next(self._intervals, None)

    def _opened(self, interval: Interval, end_s: float) -> _OpenSegment:
        activity = self._recipe.activity
        if activity is None:
            return _OpenSegment(interval, None, self._mfccs.segment())
        ratio = activity.speech_ratio(self._channel, interval.start_s, end_s)
        return _OpenSegment(interval, ratio, self._mfccs.segment() if ratio >= self._recipe.least_speech else None)

    def _measure(self, segment: _OpenSegment, samples: Samples) -> None:
        own = _cut(samples, self._n_source, segment.interval, self._sound.sampling_rate)
        segment.square_sum += float(np.dot(own, own))
        full_scale = self._sound.full_scale
        if len(own) and (own.max() >= full_scale or own.min() <= -full_scale):  # rare, and quick to rule out
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

    def _finish(self, segment: _OpenSegment) -> Iterator[Segment]:
        if not segment.n_source:
            return  # a label that covers none of the samples; the recording is rejected at its end
        duration_s = self._n_source / self._sound.sampling_rate
        interval = segment.interval
        end_s = duration_s if interval.end_s is None else min(interval.end_s, duration_s)
        label = label_at(interval.labels, interval.start_s, end_s)
        mean_square = segment.square_sum / segment.n_source
        for variant in self._recipe.variants.names:
            yield Segment(
                channel=self._channel,
                index=interval.index,
                variant=variant,
                start_s=interval.start_s,
                end_s=end_s,
                mfcc=self._mfcc(segment, variant),
                rms_dbfs=10 * float(np.log10(mean_square)) if mean_square else None,
                clipped_ratio=segment.n_clipped / segment.n_source,
                label=label,
                speech_ratio=segment.speech_ratio,
            )

    def _mfcc(self, segment: _OpenSegment, variant: str) -> npt.NDArray[np.float32]:
        """Return the MFCCs of a variant, float32, shape (frames, n_mfcc)."""
        if segment.mfcc is None:
            return np.empty((0, self._recipe.spec.n_mfcc), dtype=np.float32)
        return segment.mfcc.finish() if variant == CLEAN else self._changed(segment, variant)

    def _changed(self, segment: _OpenSegment, variant: str) -> npt.NDArray[np.float32]:
        """Return the MFCCs of a changed segment."""
        rate, spec = self._sound.sampling_rate, self._recipe.spec
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
        return kernel(spec, rate).mfcc(Resampler(rate, spec.sampling_rate).feed(samples, last=True))


def _cut(samples: Samples, first: int, interval: Interval, rate: int) -> Samples:
    """Return the part of `samples`, which begin at number `first` of the stream, that an interval covers."""
    start = max(0, round(interval.start_s * rate) - first)
    end = len(samples) if interval.end_s is None else max(0, round(interval.end_s * rate) - first)
    return samples[start:end]


def segments(
    recording: Recording,
    spec: FeatureSpec,
    segmentation: Segmentation,
    *,
    variants: Variants | None = None,
    content_hash: str = "",
    raw_format: RawFormat | None = None,
    max_duration_s: float = math.inf,
    activity: Activity | None = None,
    left_out: Collection[int] = (),
    least_speech: float = 0.0,
) -> Iterator[tuple[Sound, Segment]]:
    """Decode one recording and yield its segments as they are complete.

    Parameters
    ----------
    recording
        To open; its label rows decide the segments under ``labels``, and the channels wherever they name one.
    spec, segmentation
        How features are computed and recordings are cut.
    variants
        Which variants of each segment to yield; None stands for clean alone.
    content_hash
        Of the recording, for what variants draw at random.
    raw_format
        What it holds, if it has no header.
    max_duration_s
        Longer recordings are refused; seconds.
    activity
        Where it has speech, from `activity_of`; gives the segments' `speech_ratio`, and ``turns`` needs it.
    left_out
        Channels not to cut.
    least_speech
        Segments with a smaller share of speech get no MFCCs; they are what takes the time.

    Yields
    ------
    tuple of Sound and Segment
        By time, channels side by side; the variants of a segment one after the other.

    Raises
    ------
    RecordingError
        It cannot be decoded, lasts too long, a label row lies outside of it, or a codec cannot take a segment.
    """
    with AudioReader(recording.file, recording.path, raw_format, max_duration_s=max_duration_s) as reader:
        sound = reader.sound
        plan = labels_by_channel(recording, segmentation, sound.n_channels)
        recipe = _Recipe(recording.path, spec, variants or Variants(), content_hash, activity, least_speech)
        segmenters = {
            channel: _ChannelSegmenter(
                sound,
                recipe,
                channel,
                intervals(channel, labels, segmentation, activity),
                is_exact=segmentation.mode != "windows",
            )
            for channel, labels in plan.items()
            if channel not in left_out
        }
        # one block is held back, because the resampler wants to be told of the last one
        blocks = reader.blocks()
        block = next(blocks)
        for following in itertools.chain(blocks, (None,)):
            for channel, segmenter in segmenters.items():
                for segment in segmenter.feed(channel_samples(block, channel), last=following is None):
                    yield sound, segment
            if following is not None:
                block = following
        check_labels_inside(
            recording, reader.n_samples / sound.sampling_rate, (sound.sampling_rate, spec.sampling_rate)
        )
