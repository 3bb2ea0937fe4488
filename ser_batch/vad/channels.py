"""The samples of a block that are listened to: a channel, or the mean of all."""

from collections.abc import Callable

import numpy as np

from ser_batch.audio.resampling import channel_samples
from ser_batch.audio.sound import Samples

# the mean of channels that cancel each other has less than this share of their power: 30 dB below
_CANCELLED_SHARE = 1e-3


def listened_samples(block: Samples, channel: int, warn: Callable[[str], None] | None = None) -> Samples:
    """Return one channel of a block, or the mean of all for -1; of channels that cancel each other, the first."""
    samples = channel_samples(block, channel)
    if channel >= 0 or block.shape[1] == 1:
        return samples
    power = float(np.vdot(block, block)) / block.shape[1]
    if float(np.dot(samples, samples)) >= _CANCELLED_SHARE * power:
        return samples
    if warn is not None:
        warn("its channels cancel each other in their mean; the first channel is used instead")
    return channel_samples(block, 0)
