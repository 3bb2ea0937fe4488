"""From the source's channels and rate to those that features are computed of."""

import numpy as np
import soxr

from ser_batch.audio.sound import Samples

# a stream of soxr is fed this many samples at a time: what it works on then stays in the processor's cache
_SAMPLES_A_FEED = 16_384


def channel_samples(block: Samples, channel: int) -> Samples:
    """Return one channel of a block, or the mean of all for -1."""
    if channel >= 0:
        return block[:, channel]
    # as librosa.to_mono: the mean over the channel axis of channels-first data
    return np.asarray(np.mean(block.T, axis=0), dtype=np.float32)


class Resampler:
    """soxr HQ over a stream: the numbers of ``librosa.load`` whatever the blocks.

    Parameters
    ----------
    from_rate, to_rate
        In Hz. Equal rates pass through.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._from_rate, self._to_rate = from_rate, to_rate
        self._stream: soxr.ResampleStream | None = None
        self._given = self._returned = 0

    def feed(self, samples: Samples, *, last: bool = False) -> Samples:
        """Resample the next samples.

        Parameters
        ----------
        samples
            Shape (n,); may be empty with `last`.
        last
            Whether the stream ends with these; the result is then brought to ceil(n * ratio) in all, as
            librosa does.

        Returns
        -------
        array of float32, shape (m,)
        """
        if self._from_rate == self._to_rate:
            return samples
        out = self._resampled(np.ascontiguousarray(samples), last=last)
        self._given += len(samples)
        self._returned += len(out)
        if last:
            missing = int(np.ceil(self._given * (self._to_rate / self._from_rate))) - self._returned
            out = np.pad(out, (0, missing)) if missing > 0 else out[: len(out) + missing]
        return out

    def _resampled(self, samples: Samples, *, last: bool) -> Samples:
        if last and len(samples) and not self._given:
            # all there is: one call is a fifth quicker than a stream, and its numbers are the same
            return np.asarray(soxr.resample(samples, self._from_rate, self._to_rate, quality="HQ"))
        if self._stream is None:
            self._stream = soxr.ResampleStream(self._from_rate, self._to_rate, 1, dtype="float32", quality="HQ")
        feeds = range(0, max(1, len(samples)), _SAMPLES_A_FEED)
        return np.concatenate(
            [
                self._stream.resample_chunk(samples[first : first + _SAMPLES_A_FEED], last=last and first == feeds[-1])
                for first in feeds
            ]
        )
