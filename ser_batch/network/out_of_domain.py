"""Distance of segments from the training data: on MFCCs a distance, on embeddings a direction."""

from typing import Annotated

import msgspec
import numpy as np

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.config.structs import Positive, Scale, Shift

# embeddings are some units large, and so is what tells speech from other sounds
_Weight = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line from speech to sounds that are not speech, through the embeddings of segments.

    It points from the speech that was trained on to music, telephone signals and noise, and not away from the training
    data: other people, rooms and languages are unlike these data, too, and are scored.
    """

    direction: tuple[_Weight, ...]  # one weight per number of an embedding
    # what is added, so that the score of typical speech is 0; that of typical other sounds is almost 2
    offset: _Weight

    def ood_score(self, embedding: Array) -> Floats:
        """Return how far segments are from speech, shape (n,): above 1 they are out of domain."""
        return np.asarray(embedding.astype(np.float64) @ np.asarray(self.direction) + self.offset)


class DomainModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The training data of a model on MFCCs: mean and deviation of the `summary_features` of its segments.

    Of MFCCs and not of what the network makes of them: it was trained to see emotions in whatever it is given, and puts
    white noise and tones where speech is (docs/results.md).
    """

    # two numbers a coefficient: of its means, then of its deviations
    mean: tuple[Shift, ...]
    scale: tuple[Scale, ...]
    limit: Positive  # the distance beyond which a segment is like nothing trained on

    def distance(self, mfcc: Array, n_frames: Numbers) -> Floats:
        """Return how many deviations segments lie off, root mean square over all numbers; shape (n,)."""
        # It is about 1 for what was trained on.
        off = (summary_features(mfcc, n_frames) - np.asarray(self.mean)) / np.asarray(self.scale)
        return np.asarray(np.sqrt((off**2).mean(axis=1)))


def summary_features(mfcc: Array, n_frames: Numbers) -> Array:
    """Return mean and deviation over the real frames, shape (n, 2 * coefficients): mfcc_mean beside mfcc_std."""
    out = np.empty((len(mfcc), 2 * mfcc.shape[2]), dtype=np.float32)
    for i, n in enumerate(n_frames):
        frames = mfcc[i, :n]
        out[i] = np.concatenate((frames.mean(axis=0), frames.std(axis=0)))
    return out
