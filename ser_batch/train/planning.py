"""Which rows each training uses: seeds, folds, variants, speech or song."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ser_batch import splits
from ser_batch.config import TrainOptions, held_out_corpora, holds_out_corpora
from ser_batch.errors import InputError
from ser_batch.network.heads import NEUTRAL
from ser_batch.tables import Features, corpora
from ser_batch.train.parts import Numbers, Part


@dataclasses.dataclass(frozen=True, eq=False)
class Usable:
    """Row numbers that may be trained on, and those that models may be tried on, whatever the split."""

    train: Numbers
    test: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The trainings of a call.

    Parameters
    ----------
    parts
        One for each seed and fold.
    final
        The training whose model is kept: of the first seed's hold-out, or of all rows.
    is_cross_validation
        Whether it is trained on all rows, after the folds.
    n_shared_speakers
        How many speakers stand on both sides of a split, the most of any.
    n_left_out
        Held-out rows with an emotion that no training row has.
    """

    parts: tuple[Part, ...]
    final: Part
    is_cross_validation: bool
    n_shared_speakers: int
    n_left_out: int


def usable_rows(data: Features, options: TrainOptions) -> Usable:
    """Choose rows by variant, and speech or song.

    Raises
    ------
    InputError
        A variant is wanted that no row has, or nothing is left.
    """
    there = set(data.rows["variant"])
    conditions, variants = options.wanted_conditions, options.wanted_train_variants
    asked_for = tuple(dict.fromkeys((*(variants or ()), *conditions)))
    for name in asked_for:
        if name not in there:
            raise InputError(
                f"no row of the features has the variant {name!r}; featurize into another --out with all that are "
                f"wanted, such as --variants {','.join(asked_for)}"
            )
    train = _chosen(data, variants if variants is not None else tuple(there), options.vocal_channel)
    held_out = held_out_corpora(options.split)
    if held_out:  # the model is to have the labels of the others
        others = train[~corpora(data.rows).gather(train).is_in(list(held_out)).to_numpy()]
        train = others if len(others) else train  # the split says what is wrong
    return Usable(
        train=train,
        test=_chosen(data, conditions, options.test_vocal_channel),
    )


def _chosen(data: Features, variants: tuple[str, ...], vocal_channel: str) -> Numbers:
    chosen = data.rows["variant"].is_in(list(variants))
    if vocal_channel != "both":
        chosen &= data.rows["vocal_channel"].eq_missing(vocal_channel)
    if not chosen.any():
        raise InputError(f"no row of the features is {vocal_channel} in {' or '.join(variants)}; choose others")
    return np.flatnonzero(chosen.to_numpy())


def make_plan(data: Features, usable: Usable, labels: Sequence[str], options: TrainOptions) -> Plan:
    """Apply the split, once for each seed.

    Parameters
    ----------
    data, usable
        The table, and its rows that may be used.
    labels
        Of the model.
    options
        Split, seeds, and what may be used.

    Raises
    ------
    InputError
        The table does not allow the split.
    """
    known = np.flatnonzero(data.rows["emotion"].is_in(list(labels)).to_numpy())
    test, unknown = np.intersect1d(usable.test, known), np.setdiff1d(usable.test, known)
    by_speaker = options.split not in ("stratified", "none")
    nothing = np.empty(0, dtype=np.int64)
    parts: list[Part] = []
    left_out: set[int] = set()
    n_shared = 0
    for seed in range(options.seed, options.seed + options.seeds):
        split = splits.split(data.rows, options.split, seed=seed)
        for fold in split.folds:
            n_shared = max(n_shared, splits.shared_speakers(data.rows, fold))
            left_out.update(np.intersect1d(fold.test, unknown).tolist())
            train_rows, test_rows = np.intersect1d(fold.train, usable.train), np.intersect1d(fold.test, test)
            common = None
            if holds_out_corpora(options.split):
                common = _common_labels(data, train_rows, test_rows, fold.name)
                is_common = data.rows["emotion"].gather(test_rows).is_in(list(common)).to_numpy()
                left_out.update(test_rows[~is_common].tolist())
                test_rows = test_rows[is_common]
            if not (len(train_rows) and len(test_rows)):
                side = "train on" if not len(train_rows) else "hold out"
                raise InputError(f"fold {fold.name} has no rows to {side} with these variants and vocal channels")
            held_out = np.intersect1d(fold.test, usable.test)
            is_calm = np.isin(data.rows["emotion"].gather(held_out).to_numpy(), NEUTRAL)
            parts.append(
                Part(
                    fold.name,
                    seed,
                    train_rows,
                    test_rows,
                    by_speaker,
                    spares=True,
                    common=common,
                    calm=np.setdiff1d(held_out[is_calm], test_rows),
                )
            )
    whole = Part(None, options.seed, usable.train, nothing, by_speaker, spares=False)
    return Plan(
        parts=tuple(parts),
        final=whole if split.is_cross_validation else parts[0],
        is_cross_validation=split.is_cross_validation,
        n_shared_speakers=n_shared,
        n_left_out=len(left_out),
    )


def _common_labels(data: Features, train: Numbers, test: Numbers, fold: str) -> tuple[str, ...]:
    """Return the labels of both sides of a fold that holds a corpus out.

    Raises
    ------
    InputError
        There are fewer than two.
    """
    on_train, on_test = (set(data.rows["emotion"].gather(side)) for side in (train, test))
    common = tuple(sorted(on_train & on_test))
    if len(common) < 2:
        raise InputError(
            f"fold {fold}: what is held out has {', '.join(sorted(on_test)) or 'no rows'}, what is trained on "
            f"{', '.join(sorted(on_train)) or 'no rows'}; expected 2 labels or more that both have. Leave that corpus "
            "out, or use another --split"
        )
    return common
