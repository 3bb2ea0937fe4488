"""Protocols of held-out data: stratified, by speaker, by statement, published folds, a file of folds."""

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.config.option_values import check_protocol, held_out_corpora, speaker_folds
from ser_batch.corpus.cells import cell_text, read_table
from ser_batch.errors import InputError, did_you_mean
from ser_batch.splits.speakers import recordings_of, speaker_groups, strata
from ser_batch.tables.features import corpora

TEST_SHARE = 0.2

# Held-out actors of RAVDESS. EmoBox: Ma et al. 2024, arXiv 2406.07162. Luna: Luna-Jimenez et al. 2022,
# https://doi.org/10.3390/app12010327.
PUBLISHED_FOLDS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "emobox": ((1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22)),
    "luna": ((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22)),
}


@dataclasses.dataclass(frozen=True)
class Fold:
    """One way to hold rows out."""

    name: str  # as in the column fold of predictions.parquet
    # row numbers, int64, shape (n,); together all rows for folds that cover the table
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Split:
    """A protocol applied to a table."""

    folds: tuple[Fold, ...]  # one for a hold-out, several for cross-validation, none for ``none``
    is_cross_validation: bool  # whether the final network is trained once more, on all rows


def split_rows(rows: pl.DataFrame, protocol: str, *, seed: int) -> Split:
    """Apply a protocol.

    Parameters
    ----------
    rows
        With dataset, path, performance, emotion, speaker, sex, corpus, actor and statement; every emotion known. Rows
        of one performance stay on the same side: of one recording, its variants and its copies.
        Where speakers are held out, so do all speakers whose recordings are connected that way, such as both parties of
        a call.
    protocol
        ``stratified`` (random 80/20 by recording; where recordings hold several labels, as near to that as whole
        recordings allow), ``speaker`` (a fifth of the speakers, corpora and sexes balanced), ``speaker:K`` (each
        speaker once, in K folds), ``emobox`` or ``luna`` (published folds of RAVDESS actors), ``text`` (each of
        RAVDESS's statements in turn), ``corpus`` (each corpus in turn), ``corpus:NAME,...`` (those), ``none``, or a CSV
        or Parquet file with the columns fold and path or speaker.
    seed
        Of the random protocols.

    Raises
    ------
    UsageError
        There is no such protocol.
    InputError
        The table does not allow it: too few recordings of a label, speakers or corpora, no RAVDESS.
    """
    check_protocol(protocol)
    if protocol == "none":
        return Split((), is_cross_validation=True)
    if protocol == "stratified":
        test = _stratified(rows, seed)
    elif protocol == "speaker":
        test = _held_out_speakers(rows, seed)
    elif held_out := held_out_corpora(protocol):
        return Split((_held_out_corpora(rows, held_out),), is_cross_validation=False)
    else:
        return Split(_folds(rows, _fold_of_each(rows, protocol, seed)), is_cross_validation=True)
    return Split((_fold(protocol, test),), is_cross_validation=False)


def _fold_of_each(rows: pl.DataFrame, protocol: str, seed: int) -> pl.Series:
    """Return the name of each row's fold under a protocol of cross-validation."""
    n_folds = speaker_folds(protocol)
    if n_folds is not None:
        return _speakers_in_folds(rows, n_folds, seed)
    if protocol in PUBLISHED_FOLDS:
        return _published(rows, protocol)
    if protocol == "text":
        return _statements(rows)
    return _corpora(rows) if protocol == "corpus" else _from_file(rows, Path(protocol))


def shared_speakers(rows: pl.DataFrame, fold: Fold) -> int:
    """Return how many speakers stand on both sides of a fold; 0 where no speaker is known."""
    train, test = (set(rows["speaker"][side].drop_nulls()) for side in (fold.train, fold.test))
    return len(train & test)


def _fold(name: str, test: npt.NDArray[np.bool_]) -> Fold:
    return Fold(name, np.flatnonzero(~test), np.flatnonzero(test))


def _stratified(rows: pl.DataFrame, seed: int) -> npt.NDArray[np.bool_]:
    from sklearn.model_selection import train_test_split

    recordings = recordings_of(rows)
    numbers, first = np.unique(recordings, return_index=True)
    if rows.select(pl.struct(number=pl.Series(recordings), emotion="emotion").n_unique()).item() > len(numbers):
        return _stratified_calls(rows, recordings, seed)
    labels = rows["emotion"].to_numpy()[first]
    names, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise InputError(
            f"label {names[counts.argmin()]!r} has 1 recording; a stratified split needs 2 of each label. "
            "Label more recordings, or give --split none"
        )
    if math.ceil(TEST_SHARE * len(numbers)) < len(names):
        raise InputError(
            f"{len(numbers)} recordings with {len(names)} labels; a fifth of them cannot hold each label. "
            "Label more recordings, or give --split none"
        )
    _, test = train_test_split(numbers, test_size=TEST_SHARE, stratify=labels, random_state=seed)
    return np.isin(recordings, test)


def _stratified_calls(rows: pl.DataFrame, recordings: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.bool_]:
    """Hold out about a fifth of recordings that hold several labels each, labels shared out as well as they go."""
    from sklearn.model_selection import StratifiedGroupKFold

    n = len(np.unique(recordings))
    if n < 2:
        raise InputError(
            "all labels are of 1 recording, whose segments stay together; a split needs 2 or more. "
            "Label more recordings, or give --split none"
        )
    labels = np.unique(rows["emotion"].to_numpy(), return_inverse=True)[1]
    folds = StratifiedGroupKFold(min(round(1 / TEST_SHARE), n), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # a label rarer than the number of folds is missing in some of them; training says so if it matters
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        _, test = next(folds.split(labels, labels, recordings))
    return np.isin(np.arange(len(rows)), test)


def _held_out_speakers(rows: pl.DataFrame, seed: int) -> npt.NDArray[np.bool_]:
    """Hold out a fifth of the speakers, women and men in the same number where the sex is known."""
    # Of the groups that stay together as many are taken, in the order drawn, as fit into the fifth; where none does,
    # the smallest one.
    groups = speaker_groups(rows, seed)
    wanted = max(1, round(TEST_SHARE * sum(map(len, groups))))
    held_out: list[str] = []
    for group in groups:
        if len(held_out) + len(group) <= wanted:
            held_out += group
    held_out = held_out or min(groups, key=len)
    return rows["speaker"].is_in(held_out).to_numpy()


def _speakers_in_folds(rows: pl.DataFrame, n_folds: int, seed: int) -> pl.Series:
    """Deal the speakers out to folds, those of each corpus and sex evenly; groups that stay together as one."""
    groups = speaker_groups(rows, seed)
    if len(groups) < n_folds:
        n_speakers = sum(map(len, groups))
        grouped = f"{len(groups)} groups that share no recording, " if len(groups) < n_speakers else ""
        raise InputError(
            f"--split speaker:{n_folds} needs {n_folds} speakers or more; there are {grouped}{n_speakers} speakers. "
            "Give a smaller number, or use --split stratified"
        )
    stratum_of = strata(rows)
    n_of_stratum: list[Counter[tuple[str, str]]] = [Counter() for _ in range(n_folds)]
    fold_of: dict[str, int] = {}
    # the large groups first, what fits beside them last
    for group in sorted(groups, key=len, reverse=True):
        own = [stratum_of[speaker] for speaker in group]
        fold = min(
            range(n_folds), key=lambda fold: (sum(n_of_stratum[fold][one] for one in own), n_of_stratum[fold].total())
        )
        n_of_stratum[fold].update(own)
        fold_of |= dict.fromkeys(group, fold)
    names = {speaker: f"speaker-{fold + 1:0{len(str(n_folds))}}" for speaker, fold in fold_of.items()}
    return rows["speaker"].replace_strict(names, return_dtype=pl.String)


def _corpora(rows: pl.DataFrame) -> pl.Series:
    names = corpora(rows)
    if names.n_unique() < 2:
        raise InputError(
            f"--split corpus holds each corpus out in turn; all rows are of {names[0]}. Train on the features of "
            "several, such as `ser-batch train FEATURES FEATURES --split corpus`, or use --split speaker"
        )
    return pl.Series([f"corpus-{name}" for name in names])


def _held_out_corpora(rows: pl.DataFrame, held_out: Sequence[str]) -> Fold:
    names = corpora(rows)
    unknown = [name for name in held_out if name not in names]
    if unknown or names.n_unique() <= len(held_out):
        raise InputError(
            f"--split corpus:{','.join(held_out)} holds what it names out and trains on others; there are "
            f"{', '.join(names.unique().sort())}. Name some of several, or give the features of more of them"
            + did_you_mean((unknown or held_out)[0], names.unique())
        )
    # copies of what is held out are not trained on, whatever corpus they are said to be of
    test = names.is_in(list(held_out)).to_numpy()
    recordings = recordings_of(rows)
    fold = f"corpus-{'-'.join(held_out)}"
    return Fold(fold, np.flatnonzero(~np.isin(recordings, recordings[test])), np.flatnonzero(test))


def _statements(rows: pl.DataFrame) -> pl.Series:
    unknown = rows.filter(pl.col("statement").is_null())
    if len(unknown):
        raise InputError(
            f"--split text holds out statements; {len(unknown)} rows have none, such as {unknown['path'][0]}. "
            "Featurize recordings that are named as RAVDESS's, or use --split speaker"
        )
    return rows.select(pl.concat_str(pl.lit("text-"), "statement")).to_series()


def _published(rows: pl.DataFrame, protocol: str) -> pl.Series:
    fold_of = {
        actor: f"{protocol}-{number}"
        for number, actors in enumerate(PUBLISHED_FOLDS[protocol], start=1)
        for actor in actors
    }
    # a labels file may call any recording RAVDESS's, but only a name of RAVDESS tells which of its actors speaks
    is_ravdess = pl.col("corpus").eq_missing("ravdess") & pl.col("actor").is_in(list(fold_of)).fill_null(False)
    others = rows.filter(~is_ravdess)
    if len(others):
        raise InputError(
            f"--split {protocol} is made of RAVDESS actors; {len(others)} rows are of other recordings, such as "
            f"{others['path'][0]}. Featurize RAVDESS alone, or use --split speaker"
        )
    return rows["actor"].replace_strict(fold_of, return_dtype=pl.String)


def _from_file(rows: pl.DataFrame, file: Path) -> pl.Series:
    columns, cells = read_table(file)
    key = next((name for name in ("path", "speaker") if name in columns), None)
    if key is None or "fold" not in columns:
        raise InputError(f"{file}: has {', '.join(columns)}; expected the columns fold and path or speaker")
    texts = []
    for number, row in cells:
        texts.append([cell_text(row.get(name)) for name in (key, "fold")])
        empty = next((name for name, text in zip((key, "fold"), texts[-1], strict=True) if text is None), None)
        if empty is not None:
            raise InputError(f"{file}, row {number}: {empty} is empty or missing; expected a value in each row")
    table = pl.DataFrame(texts, {key: pl.String, "fold": pl.String}, orient="row")
    twice = table[key].filter(table[key].is_duplicated())
    if len(twice):
        raise InputError(f"{file}: {key} {twice[0]} stands there twice; one row each")
    folds = rows.select(key).join(table, on=key, how="left", maintain_order="left")["fold"]
    if folds.null_count():
        raise InputError(f"{file}: gives no fold for {key} {rows.filter(folds.is_null())[key][0]}; add a row for it")
    return folds


def _folds(rows: pl.DataFrame, fold_of: pl.Series) -> tuple[Fold, ...]:
    # copies of a recording follow its first row, or a copy would stand on both sides
    recordings = recordings_of(rows)
    _, first, inverse = np.unique(recordings, return_index=True, return_inverse=True)
    names = fold_of.to_numpy()[first][inverse]
    folds = tuple(_fold(str(name), names == name) for name in sorted(set(names)))
    if len(folds) < 2:
        raise InputError(f"all rows fall into the fold {folds[0].name}; cross-validation needs 2 or more folds")
    return folds
