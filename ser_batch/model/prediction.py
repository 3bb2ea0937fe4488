"""MFCCs to probabilities."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ser_batch.network.cmvn import FrameStats

Probabilities = npt.NDArray[np.float64]


class Predictor(Protocol):
    """What turns MFCCs into probabilities."""

    def __call__(
        self, mfcc: npt.NDArray[np.float32], n_frames: npt.NDArray[np.int64], stats: FrameStats | None = None, /
    ) -> Probabilities:
        """Return probabilities of segments, shape (n, n_labels)."""
        ...


def tempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return probabilities with logits divided by `temperature` (Guo et al. 2017), shape (n, labels)."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
