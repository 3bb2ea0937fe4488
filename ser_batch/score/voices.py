"""What is heard of each channel of a recording while its segments come in, for models that take it as a reference."""

from collections.abc import Sequence

import numpy as np

from ser_batch.network.scaling import Heard


class ChannelVoices:
    """Sums over what each channel held so far, MFCCs or embeddings: a channel of a recording is taken for one speaker.

    Sums, not segments, so that it stays as small however long the recording is. A segment is compared with all that was
    heard up to the end of its batch; the first batch of a recording is a long one, so that its beginning is not left
    with nothing. Where little is heard in all, what the model was trained on (`Scaler.of`), or the archive
    (`HeadModel`), has its part.
    """

    def __init__(self) -> None:
        self._totals: dict[int, Heard] = {}

    def hear(self, channels: Sequence[int], heard: Heard) -> Heard:
        """Add segments, and return what has been heard by then of the channel of each.

        Parameters
        ----------
        channels
            Of the segments, n numbers.
        heard
            What each of them holds; nothing where it is not to be heard.
        """
        numbers, group = np.unique(np.asarray(channels, dtype=np.int64), return_inverse=True)
        new = heard.together(group, len(numbers))
        for place, channel in enumerate(numbers.tolist()):
            own = new[np.array([place])]
            self._totals[channel] = self._totals[channel] + own if channel in self._totals else own
        return Heard.concatenated([self._totals[channel] for channel in channels])
