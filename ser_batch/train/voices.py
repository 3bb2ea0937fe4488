"""Whose mean and deviation each row of the table is scaled by, where a model is normalized by recording or speaker."""

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.config import Normalize
from ser_batch.network.scaling import Heard
from ser_batch.tables import Features, chunks

Numbers = npt.NDArray[np.int64]
_RECORDING = ("dataset", "path", "channel")


@dataclasses.dataclass(frozen=True, eq=False)
class Voices:
    """What is known of all voices in the table, without any label.

    Parameters
    ----------
    heard
        Of each voice: all its rows of one variant, because a telephone line or a room is a part of how a voice sounds.
    number
        Of the voice of each row of the table, shape (rows,).
    """

    heard: Heard
    number: Numbers

    def of(self, rows: Numbers) -> Heard:
        """Return what was heard of the voice of each of some rows."""
        return self.heard[self.number[rows]]


def voices_of(data: Features, by: Normalize) -> Voices | None:
    """Return the voices of a table; None where nothing is normalized.

    Parameters
    ----------
    data
        The table.
    by
        ``recording``: a channel of a recording is a voice. ``speaker``: a speaker is one, and where none is known a
        channel of a recording.
    """
    if by == "none":
        return None
    recording = pl.struct(*_RECORDING, "variant").rank("dense").cast(pl.Int64) - 1
    number = data.rows.select(recording).to_series()
    if by == "speaker":
        nobody = pl.when(pl.col("speaker").is_null()).then(number)
        number = data.rows.select(pl.struct("speaker", "variant", nobody=nobody).rank("dense").cast(pl.Int64) - 1)[
            "speaker"
        ]
    numbers = number.to_numpy()
    rows = np.arange(len(numbers))
    n_mels = data.mfcc_spec.n_mels
    heard = Heard.concatenated([Heard.of(data.mfcc[chunk], data.n_frames[chunk], n_mels) for chunk in chunks(rows)])
    return Voices(heard.together(numbers, int(numbers.max()) + 1), numbers)


def n_nameless(data: Features) -> int:
    """Return how many recordings have rows whose speaker is not known."""
    return data.rows.filter(pl.col("speaker").is_null()).select(_RECORDING[:2]).n_unique()
