"""Speakers in a random order, groups of speakers that share recordings, rows of one recording."""

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.errors import InputError
from ser_batch.tables.features import corpora


def recordings_of(rows: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return a number for each row's recording, shape (rows,); those of one performance share one."""
    return rows["performance"].to_numpy()


def speaker_groups(rows: pl.DataFrame, seed: int) -> list[list[str]]:
    """Return all speakers in groups, in the order drawn."""
    # Speakers who speak in one recording, or in copies of one, are one group, and so are those they share another
    # with.
    n_speakers, n_unknown = rows["speaker"].drop_nulls().n_unique(), rows["speaker"].null_count()
    if n_speakers < 2:
        raise InputError(
            f"{n_speakers} speakers are known; holding out speakers needs 2 or more. Give the labels file a "
            "column speaker, or use --split stratified"
        )
    if n_unknown:
        raise InputError(
            f"{n_unknown} rows have no speaker, so they could stand on either side; give the labels file a column "
            "speaker, or use --split stratified"
        )
    group_of = _connected_speakers(rows)
    groups: dict[int, list[str]] = {}
    for speaker in drawn_speakers(rows, seed):
        groups.setdefault(group_of[speaker], []).append(speaker)
    if len(groups) == 1:
        count = pl.col("performance").n_unique()
        most = rows.group_by("speaker").agg(count).sort("performance", "speaker", descending=[True, False]).row(0)
        raise InputError(
            f"recordings that hold several speakers, or copies of each other, connect all {n_speakers} speakers "
            f"({most[0]} alone is in {most[1]} of {rows['performance'].n_unique()}), and a recording stays on one "
            "side; label one speaker of each recording only, such as the callers, or use --split stratified"
        )
    return list(groups.values())


def _connected_speakers(rows: pl.DataFrame) -> dict[str, int]:
    """Return a number for each speaker; those whom recordings connect, directly or through others, share one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    speakers, number = np.unique(rows["speaker"].to_numpy(), return_inverse=True)
    recordings = recordings_of(rows) + len(speakers)  # speakers and recordings are the nodes, rows the edges
    n = int(recordings.max()) + 1
    _, component = connected_components(coo_array((np.ones(len(rows)), (number, recordings)), shape=(n, n)), False)
    return {str(speaker): int(component[i]) for i, speaker in enumerate(speakers)}


def strata(rows: pl.DataFrame) -> dict[str, tuple[str, str]]:
    """Return corpus and sex of each known speaker, sorted by name; what some rows do not say others may."""
    speakers = (
        rows.select("speaker", "sex", corpora(rows))
        .drop_nulls("speaker")
        .group_by("speaker")
        .agg(pl.col("corpus").min(), pl.col("sex").drop_nulls().sort().first().fill_null(""))
        .sort("speaker")
    )
    return {speaker: (corpus, sex) for speaker, corpus, sex in speakers.rows()}


def drawn_speakers(rows: pl.DataFrame, seed: int) -> list[str]:
    """Return all speakers in a random order."""
    # In each corpus women and men take turns as long as there are both. Of several corpora each has, in however many
    # come first, the share that it has of all: a fifth of the speakers is a fifth of each corpus.
    stratum_of = strata(rows)
    generator = np.random.default_rng(seed)
    ranks: list[tuple[float, str]] = []
    for corpus in sorted({corpus for corpus, _ in stratum_of.values()}):
        by_sex: dict[str, list[str]] = {}
        for speaker, (own, sex) in stratum_of.items():
            if own == corpus:
                by_sex.setdefault(sex, []).append(speaker)
        queues = [list(generator.permutation(np.array(speakers))) for speakers in by_sex.values()]
        generator.shuffle(queues)  # which sex has one more where the number is odd
        drawn: list[str] = []
        while queues:
            drawn += [str(queue.pop()) for queue in queues]
            queues = [queue for queue in queues if queue]
        ranks += [((number + 0.5) / len(drawn), speaker) for number, speaker in enumerate(drawn)]
    return [speaker for _, speaker in sorted(ranks, key=lambda pair: pair[0])]
