"""Which rows each fold trains on, and with which settings."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.config.option_values import held_out_corpora, holds_out_corpora
from ser_batch.config.options import TrainOptions
from ser_batch.errors import InputError
from ser_batch.model.prediction import tempered
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import NEUTRAL, HeadModel
from ser_batch.report.metrics import restricted
from ser_batch.splits.folds import shared_speakers, split_rows
from ser_batch.tables.features import Features, corpora
from ser_batch.training.batches import SpeakerStats
from ser_batch.training.checkpoints import Checkpoints
from ser_batch.training.finetune import Start

Numbers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class FoldTask:
    """What one model is trained on and tried on.

    Parameters
    ----------
    fold
        Name of the fold; None for all rows.
    seed
        Of weights, shuffling, augmentation and what is set apart.
    train, test
        Row numbers; `test` is empty where nothing is held out.
    by_speaker
        Whether development parts are drawn by speaker, else by recording.
    spares
        Whether anything may be set apart of `train` at all.
    common
        Labels that held-out rows may have: those of both sides. Labels that no training row has are not learned then.
        None is all labels of the model, and each has to have a training row.
    calm
        Row numbers of held-out calm speech, where it is no label of the model: neutral speech of composed calls.
    """

    fold: str | None
    seed: int
    train: Numbers
    test: Numbers
    by_speaker: bool
    has_dev_split: bool
    common: tuple[str, ...] | None = None
    calm: Numbers = dataclasses.field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Settings:
    """How a model is trained, whatever the part."""

    epochs: int | None = None  # none for those of the recipe
    start: Start | None = None  # what a network is fine-tuned from; None is nothing
    soft_labels: bool = False  # whether a network learns votes where there are any; other models learn emotions
    voices: SpeakerStats | None = None  # what a network is normalized by, if by anything
    # what is known of the voices of held-out rows where nothing else of their speakers is heard; None where that is
    # `voices` already
    voices_alone: SpeakerStats | None = None
    checkpoints: Checkpoints | None = None  # where networks are kept while they are trained; None is nowhere
    # whether other folds tell how sure a model may be, so that heads need nothing set apart for that
    has_other_folds: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """One model trained, and what it says of the held-out rows."""

    part: FoldTask  # what it was trained and tried on
    # A Keras network and its scaler, or a scikit-learn estimator and None
    model: Any
    scaler: Scaler | None
    history: list[dict[str, Any]]  # A row an epoch and member
    raw: Probabilities  # probabilities of the held-out rows without temperature, shape (test rows, labels)
    # probabilities without temperature, and label numbers, of the rows set apart; of several corpora, on the labels
    # that the row's corpus has
    development: tuple[Probabilities, Numbers]
    temperature: float  # fitted on them, or on left-out corpora; 1.0 where there are none
    # as `raw`, where that is of a network that heard other speech of the same speakers: without that
    raw_alone: Probabilities | None = None
    # heads that say it, with labels and temperatures, and what they say of the held-out rows; None of other models
    heads: "HeadsTried | None" = None
    learned: Numbers | None = None  # label numbers that the model has, where these are not all

    def probabilities(self, labels: Sequence[str]) -> Probabilities:
        """Return those of the held-out rows, tempered, on the labels that they may have; shape (rows, labels)."""
        probabilities = tempered(self.raw, self.temperature)
        return (
            probabilities if self.part.common is None else restricted(probabilities, np.isin(labels, self.part.common))
        )

    @property
    def alone(self) -> "FoldResult | None":
        """As if nothing but each held-out recording itself had been heard; None where that is what it is."""
        if self.raw_alone is None:
            return None
        temperature = self.heads.model.temperature_without if self.heads else self.temperature
        return dataclasses.replace(self, raw=self.raw_alone, raw_alone=None, temperature=temperature)


@dataclasses.dataclass(frozen=True, eq=False)
class HeadsTried:
    """Trained heads, and what they say of rows that they did not learn from, before temperature and prior."""

    model: HeadModel  # the heads; their labels are those that the part has
    # probabilities where archive and speaker are known, then where the archive is, shape (2 * rows, labels)
    known: Probabilities
    unknown: Probabilities  # where neither is, shape (rows, labels)
    truth: Numbers  # label numbers of the rows, shape (rows,)
    weights: Probabilities  # how much each row counts, so that corpora count the same, shape (rows,)
    # as `known`, `truth` and `weights`, of the segments of composed calls, each in its call
    called: Probabilities
    called_truth: Numbers
    called_weights: Probabilities


def label_numbers(data: Features, labels: Sequence[str]) -> Numbers:
    """Return the number of each row's emotion in `labels`, which are sorted; any number where it is not there."""
    return np.searchsorted(labels, data.rows["emotion"].to_numpy()).astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Usable:
    """Row numbers that may be trained on, and those that models may be tried on, whatever the split."""

    train: Numbers
    test: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The trainings of a call."""

    parts: tuple[FoldTask, ...]  # one for each seed and fold
    final: FoldTask  # the training whose model is kept: of the first seed's hold-out, or of all rows
    is_cross_validation: bool  # whether it is trained on all rows, after the folds
    n_shared_speakers: int  # how many speakers stand on both sides of a split, the most of any
    n_left_out: int  # held-out rows with an emotion that no training row has


def usable_rows(data: Features, options: TrainOptions) -> Usable:
    """Choose rows by variant, and speech or song."""
    there = set(data.rows["variant"])
    conditions, variants = options.condition_names, options.train_variant_names
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
    """Apply the split, once for each seed."""
    known = np.flatnonzero(data.rows["emotion"].is_in(list(labels)).to_numpy())
    test, unknown = np.intersect1d(usable.test, known), np.setdiff1d(usable.test, known)
    by_speaker = options.split not in ("stratified", "none")
    nothing = np.empty(0, dtype=np.int64)
    parts: list[FoldTask] = []
    left_out: set[int] = set()
    n_shared = 0
    for seed in range(options.seed, options.seed + options.seeds):
        split = split_rows(data.rows, options.split, seed=seed)
        for fold in split.folds:
            n_shared = max(n_shared, shared_speakers(data.rows, fold))
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
                FoldTask(
                    fold.name,
                    seed,
                    train_rows,
                    test_rows,
                    by_speaker,
                    has_dev_split=True,
                    common=common,
                    calm=np.setdiff1d(held_out[is_calm], test_rows),
                )
            )
    whole = FoldTask(None, options.seed, usable.train, nothing, by_speaker, has_dev_split=False)
    return Plan(
        parts=tuple(parts),
        final=whole if split.is_cross_validation else parts[0],
        is_cross_validation=split.is_cross_validation,
        n_shared_speakers=n_shared,
        n_left_out=len(left_out),
    )


def _common_labels(data: Features, train: Numbers, test: Numbers, fold: str) -> tuple[str, ...]:
    """Return the labels of both sides of a fold that holds a corpus out."""
    on_train, on_test = (set(data.rows["emotion"].gather(side)) for side in (train, test))
    common = tuple(sorted(on_train & on_test))
    if len(common) < 2:
        raise InputError(
            f"fold {fold}: what is held out has {', '.join(sorted(on_test)) or 'no rows'}, what is trained on "
            f"{', '.join(sorted(on_train)) or 'no rows'}; expected 2 labels or more that both have. Leave that corpus "
            "out, or use another --split"
        )
    return common
