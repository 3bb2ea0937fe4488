"""What is heard of each channel of a recording while its segments come in, for models that are normalized by voice."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_batch.network.scaling import Heard


class ChannelVoices:
    """Sums over the MFCCs of each channel so far: a channel of a recording is taken for one speaker.

    Sums, not segments, so that it stays as small however long the recording is. A segment is scaled by all that was
    heard up to the end of its batch; the first batch of a recording is a long one, so that its beginning is not left
    with nothing. Where little is heard in all, what the model was trained on has its part (`Scaler.of`).

    Parameters
    ----------
    n_mels
        Mel bands that the MFCCs are made of.
    """

    def __init__(self, n_mels: int) -> None:
        self._n_mels = n_mels
        self._totals: dict[int, Heard] = {}

    def hear(self, channels: Sequence[int], mfcc: npt.NDArray[np.float32], n_frames: npt.NDArray[np.int64]) -> Heard:
        """Add segments, and return what has been heard by then of the channel of each.

        Parameters
        ----------
        channels
            Of the segments, n numbers.
        mfcc
            Shape (n, n_frames, n_mfcc), padded with 0.0.
        n_frames
            Real frames, shape (n,); 0 of a segment that is not to be heard.
        """
        numbers, group = np.unique(np.asarray(channels, dtype=np.int64), return_inverse=True)
        new = Heard.of(mfcc, n_frames, self._n_mels).together(group, len(numbers))
        for place, channel in enumerate(numbers.tolist()):
            own = new[np.array([place])]
            self._totals[channel] = self._totals[channel] + own if channel in self._totals else own
        return Heard.concatenated([self._totals[channel] for channel in channels])
