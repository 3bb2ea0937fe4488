"""Recordings composed as calls are: one voice, four fifths neutral speech, one fifth one emotion."""

import dataclasses

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.network.heads import NEUTRAL
from ser_batch.tables import KEY, corpora

Numbers = npt.NDArray[np.int64]

# neutral segments per call, at most, and how many of them there are for each one of the emotion
MOST_NEUTRAL = 24
NEUTRAL_PER_EMOTIONAL = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """The segments of one composed call.

    Parameters
    ----------
    name
        Speaker and emotion. The call of the same name in another condition has the same segments.
    rows
        Row numbers of the features table.
    """

    name: str
    rows: Numbers


def is_speech(rows: pl.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows are not known to be song, shape (rows,)."""
    return rows["vocal_channel"].ne_missing("song").to_numpy()


def composed_calls(rows: pl.DataFrame, numbers: Numbers) -> list[Call]:
    """Compose a call for each emotion of each speaker who has neutral speech as well.

    Parameters
    ----------
    rows
        Of the features table.
    numbers
        Of the rows to take from, in any order; the calls do not depend on it. Song and rows without a speaker are left
        out. Calm speech counts as neutral.

    Returns
    -------
    list of Call
        By corpus, variant, speaker and emotion. A segment may be in several calls of its speaker, once in each.
    """
    taken = rows.select(*KEY, "speaker", "emotion", corpora(rows), row=pl.int_range(pl.len(), dtype=pl.Int64))[numbers]
    taken = taken.filter(is_speech(rows)[numbers]).drop_nulls("speaker").sort(KEY)
    calls = []
    groups = taken.partition_by("corpus", "variant", "speaker", as_dict=True, maintain_order=True)
    for (corpus, _, speaker), own in sorted(groups.items()):
        is_neutral = own["emotion"].is_in(NEUTRAL)
        neutral = own.filter(is_neutral)["row"].to_numpy()
        if not len(neutral):
            continue
        for emotion in own.filter(~is_neutral)["emotion"].unique().sort():
            emotional = own.filter(emotion=emotion)["row"].to_numpy()
            # the same in every condition, whatever else is held out
            generator = np.random.default_rng(list(f"{corpus}/{speaker}/{emotion}".encode()))
            n_neutral = min(MOST_NEUTRAL, len(neutral))
            n_emotional = min(max(1, n_neutral // NEUTRAL_PER_EMOTIONAL), len(emotional))
            drawn = (
                generator.choice(neutral, n_neutral, replace=False),
                generator.choice(emotional, n_emotional, replace=False),
            )
            calls.append(Call(f"{speaker}-{emotion}", np.sort(np.concatenate(drawn))))
    return calls
