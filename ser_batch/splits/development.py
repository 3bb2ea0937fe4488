"""Development parts of a training part, for choosing epochs and fitting the temperature, never for figures."""

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.splits.speakers import drawn_speakers, recordings_of

DEVELOPMENT_SHARE = 1 / 16
MIN_SPEAKERS = 4  # of which some can be set apart


def development(
    rows: pl.DataFrame, train: npt.NDArray[np.int64], *, by_speaker: bool, seed: int, n_parts: int = 1
) -> tuple[npt.NDArray[np.int64], ...]:
    """Draw development parts from a training part, as the held-out part was drawn from the whole."""
    own = rows[train]
    recordings = recordings_of(own)
    if by_speaker:
        n = own["speaker"].n_unique()
        wanted = max(1, round(DEVELOPMENT_SHARE * n))
        can_spare = not own["speaker"].null_count() and n >= max(MIN_SPEAKERS, (n_parts + 1) * wanted)
        drawn = drawn_speakers(own, seed) if can_spare else []
        chosen = [drawn[part * wanted : (part + 1) * wanted] for part in range(n_parts)]
        sides = [own["speaker"].is_in(speakers).fill_null(False).to_numpy() for speakers in chosen]
    else:
        sides = _drawn_recordings(own, recordings, seed, n_parts)
    # a copy of a recording on the other side would be known already
    sides = [np.isin(recordings, recordings[side]) for side in sides]
    n_labels = own["emotion"].n_unique()
    return tuple(train[side] if own.filter(~side)["emotion"].n_unique() == n_labels else train[:0] for side in sides)


def _drawn_recordings(
    rows: pl.DataFrame, recordings: npt.NDArray[np.int64], seed: int, n_parts: int
) -> list[npt.NDArray[np.bool_]]:
    from sklearn.model_selection import StratifiedGroupKFold

    n_folds = round(1 / DEVELOPMENT_SHARE)
    rarest = rows.group_by("emotion").agg(pl.col("performance").n_unique())["performance"].min()
    if not isinstance(rarest, int) or rarest < n_folds:
        return [np.zeros(len(rows), dtype=np.bool_)] * n_parts
    labels = rows["emotion"].to_numpy()
    parts = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, recordings)
    return [np.isin(np.arange(len(rows)), part) for _, (_, part) in zip(range(n_parts), parts, strict=False)]
