"""MFCCs to probabilities, and how far from anything trained on they are."""

import dataclasses
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ser_batch.network.scaling import Heard

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


class Predictor(Protocol):
    """What turns MFCCs into probabilities."""

    def __call__(
        self, mfcc: npt.NDArray[np.float32], n_frames: npt.NDArray[np.int64], heard: Heard | None = None, /
    ) -> Probabilities:
        """Return probabilities of segments, shape (n, n_labels).

        Parameters
        ----------
        mfcc
            Shape (n, n_frames, n_mfcc), padded with 0.0; or embeddings, shape (n, d), for a model on those.
        n_frames
            Real frames, shape (n,); embeddings have none, and it is not used.
        heard
            Of the voice of each, where the model is normalized by that; None is as if nothing was.
        """
        ...


def tempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return probabilities with logits divided by `temperature` (Guo et al. 2017), shape (n, labels)."""
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, 1e-12)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def summary_features(mfcc: npt.NDArray[np.float32], n_frames: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return mean and deviation over the real frames, shape (n, 2 * coefficients): mfcc_mean beside mfcc_std."""
    out = np.empty((len(mfcc), 2 * mfcc.shape[2]), dtype=np.float32)
    for i, n in enumerate(n_frames):
        frames = mfcc[i, :n]
        out[i] = np.concatenate((frames.mean(axis=0), frames.std(axis=0)))
    return out


@dataclasses.dataclass(frozen=True)
class Familiar:
    """What the recordings trained on are like: mean and deviation of what `summary_features` gives of their segments.

    Of MFCCs and not of what the network makes of them: it was trained to see emotions in whatever it is given, and puts
    white noise and tones where speech is (docs/results.md).

    Parameters
    ----------
    mean, scale
        Two numbers a coefficient: of its means, then of its deviations.
    limit
        The distance beyond which a segment is like nothing trained on.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    limit: float

    def distance(self, mfcc: Array, n_frames: Numbers) -> npt.NDArray[np.float64]:
        """Return how many deviations segments lie off, root mean square over all numbers; shape (n,).

        It is about 1 for what was trained on.

        Parameters
        ----------
        mfcc
            Shape (n, n_frames, n_mfcc), padded with 0.0.
        n_frames
            Real frames, shape (n,), at least 1.
        """
        off = (summary_features(mfcc, n_frames) - np.asarray(self.mean)) / np.asarray(self.scale)
        return np.asarray(np.sqrt((off**2).mean(axis=1)))
