"""What is speech and what is not: a direction in the embeddings of segments, applied with NumPy."""

import dataclasses

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Domain:
    """A line from speech to sounds that are not speech, through the embeddings of segments.

    It points from the speech that was trained on to music, telephone signals and noise, and not away from the training
    data: other people, rooms and languages are unlike these data, too, and are scored.

    Parameters
    ----------
    direction
        One weight per number of an embedding.
    offset
        What is added, so that the strangeness of typical speech is 0; that of typical other sounds is almost 2.
    """

    direction: tuple[float, ...]
    offset: float

    def strangeness(self, embedding: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return how far segments are from speech, shape (n,): above 1 they are out of domain.

        Parameters
        ----------
        embedding
            float32, shape (n, d).
        """
        return np.asarray(embedding.astype(np.float64) @ np.asarray(self.direction) + self.offset)
