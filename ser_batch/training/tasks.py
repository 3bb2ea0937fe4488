"""Tasks and results of the trainings: rows of each fold, settings, predictions."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ser_batch.arrays import Floats, Numbers
from ser_batch.config.features import AnyFeatureSpec
from ser_batch.config.option_values import held_out_corpora, holds_out_corpora
from ser_batch.config.options import TrainOptions
from ser_batch.errors import InputError
from ser_batch.model.prediction import tempered
from ser_batch.model.priority import Chance
from ser_batch.model.schema import Identity
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import NEUTRAL, HeadModel, probabilities_of
from ser_batch.report.metrics import restricted
from ser_batch.splits.folds import shared_speakers, split_rows
from ser_batch.splits.performances import originals
from ser_batch.tables.features import Features, corpora
from ser_batch.training.checkpoints import Checkpoints
from ser_batch.training.finetune import Start
from ser_batch.training.multi_corpus import Targets
from ser_batch.training.priority import ComposedCall
from ser_batch.training.references import SpeakerStats

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class FoldTask:
    """Rows that one model is trained and tried on.

    Parameters
    ----------
    name
        Name of the fold; None for all rows.
    seed
        Seed of weights, shuffling, augmentation and development parts.
    train, test
        Row numbers; `test` is empty where nothing is held out.
    by_speaker
        Whether development parts are drawn by speaker, else by recording.
    has_dev_split
        Whether development rows may be set apart of `train` at all.
    common
        Labels that held-out rows may have: those of both sides. Labels that no training row has are not learned then.
        None is all labels of the model, and each has to have a training row.
    calm
        Row numbers of held-out calm speech, where it is no label of the model: neutral speech of composed calls.
    """

    name: str | None
    seed: int
    train: Numbers
    test: Numbers
    by_speaker: bool
    has_dev_split: bool
    common: tuple[str, ...] | None = None
    calm: Numbers = dataclasses.field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Settings:
    """How a model is trained, whatever the fold."""

    epochs: int | None = None  # None for those of the recipe
    start: Start | None = None  # what a network is fine-tuned from
    soft_labels: bool = False  # whether a network learns votes where there are any; other models learn emotions
    speaker_stats: SpeakerStats | None = None  # CMVN statistics of a normalized network
    # those of each recording by itself, for figures without other speech of the speaker; None where they are the same
    recording_stats: SpeakerStats | None = None
    checkpoints: Checkpoints | None = None  # where networks are kept while they are trained
    has_other_folds: bool = False  # then heads get their temperatures from the other folds
    say: Say = lambda _line: None  # gets lines of progress


@dataclasses.dataclass(frozen=True, eq=False)
class FitTask:
    """One model to fit: the rows of a fold, what they are learned as, and settings."""

    data: Features
    targets: Targets
    fold: FoldTask
    settings: Settings
    prefix: str = ""  # of its lines of progress

    def say(self, line: str) -> None:
        """Give a line of progress."""
        self.settings.say(self.prefix + line)


@dataclasses.dataclass(eq=False)
class EpochLog:
    """The epochs of one network or of heads: rows of history.parquet, and lines of progress."""

    task: FitTask
    epochs: int
    title: str = ""
    member: int = 1
    n_members: int = 1
    seconds: list[float] = dataclasses.field(default_factory=list)  # of each epoch, those of other members among them
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    _n_steps: int = 0  # of the first epoch; 0 in later ones
    _since: float = 0.0

    def begin(self) -> None:
        """Show that JAX compiles the network; it does so in the first step."""
        self._say("compiling")

    def compiled(self, n_steps: int) -> None:
        """Show that the first of an epoch's steps is done."""
        self._n_steps, self._since = n_steps, time.monotonic()
        self._say("training")

    def add(self, epoch: int, values: Mapping[str, float], *, trained: float | None = None) -> None:
        """Keep the figures of an epoch and show them; `trained` is when its last step was done."""
        fold, now = self.task.fold, time.monotonic()
        self.rows.append({"fold": fold.name, "seed": fold.seed, "member": self.member, "epoch": epoch, **values})
        if self._n_steps > 1:  # what predicts the development rows is compiled after the first epoch
            self.seconds.append(((trained or now) - self._since) / (1 - 1 / self._n_steps))
        elif not self._n_steps:
            self.seconds.append(now - self._since)
        self._n_steps, self._since = 0, now
        n_left = (self.n_members - self.member + 1) * self.epochs - epoch
        left = f"  {np.mean(self.seconds) * n_left:.0f} s left" if self.seconds else ""
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
        self._say(f"epoch {epoch}/{self.epochs}  {figures}{left}")

    def _say(self, line: str) -> None:
        which = f"network {self.member} of {self.n_members}: " if self.n_members > 1 else ""
        self.task.say(f"{self.title}{which}{line}")


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of labelled rows, before temperature and prior."""

    probabilities: Floats  # shape (n, labels)
    truth: Numbers  # label numbers, shape (n,)
    weights: Floats | None = None  # how much each row counts, shape (n,); None is the same for all

    def widened(self, learned: Numbers, n_labels: int) -> "Predictions":
        """Return them on all labels of a model, of which these are the `learned` ones."""
        return Predictions(widened(self.probabilities, learned, n_labels), learned[self.truth], self.weights)


def widened(probabilities: Floats, learned: Numbers, n_labels: int) -> Floats:
    """Return probabilities of some labels on all labels; the others have 0."""
    out = np.zeros((len(probabilities), n_labels))
    out[:, learned] = probabilities
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class HeadPredictions:
    """Trained heads, and their predictions of rows that they were not trained on."""

    model: HeadModel  # its labels are those that the training rows have
    known: Predictions  # archive and speaker known, then the same rows with the archive known
    unknown: Predictions  # neither known
    calls: Predictions  # segments of composed calls: archive and call known
    call: Numbers  # number of the call of each of these segments
    duration_s: Floats  # of these segments

    def composed_calls(
        self, group: int, labels: Sequence[str], *, temperature: float, log_prior: Floats
    ) -> Iterator[ComposedCall]:
        """Yield the composed calls, with probabilities of all labels of a model, after temperature and prior."""
        found = probabilities_of(
            np.log(np.maximum(self.calls.probabilities, 1e-12)), temperature=temperature, log_prior=log_prior
        )
        is_neutral = np.isin(np.asarray(labels)[self.calls.truth], NEUTRAL)
        for number in np.unique(self.call):
            own = np.flatnonzero(self.call == number)
            emotional = own[~is_neutral[own]]
            yield ComposedCall(
                group, found[own], self.duration_s[own], ~is_neutral[own], int(self.calls.truth[emotional[0]])
            )

    def widened(self, learned: Numbers, n_labels: int) -> "HeadPredictions":
        """Return them on all labels of a model, of which these are the `learned` ones."""
        known, unknown, calls = (own.widened(learned, n_labels) for own in (self.known, self.unknown, self.calls))
        return dataclasses.replace(self, known=known, unknown=unknown, calls=calls)


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """One trained model, and its predictions of the held-out rows."""

    fold: FoldTask
    model: Any  # a Keras network, or a scikit-learn estimator
    scaler: Scaler | None  # of a network
    history: list[dict[str, Any]]  # one row per epoch and member
    raw: Floats  # of the held-out rows, without temperature, shape (test rows, labels)
    # of the rows set apart; of several corpora, on the labels that the row's corpus has
    development: Predictions
    temperature: float  # fitted on them, or on left-out corpora; 1.0 where there are none
    # as `raw`, without other speech of the same speakers; None where `raw` is without it
    raw_per_recording: Floats | None = None
    heads: HeadPredictions | None = None  # of heads
    learned: Numbers | None = None  # label numbers that the model has, where these are not all
    priority: Mapping[str, Chance] = dataclasses.field(default_factory=dict)  # the curves of heads

    def probabilities(self, labels: Sequence[str]) -> Floats:
        """Return those of the held-out rows, tempered, on the labels that they may have; shape (rows, labels)."""
        found = tempered(self.raw, self.temperature)
        return found if self.fold.common is None else restricted(found, np.isin(labels, self.fold.common))

    @property
    def per_recording(self) -> "FoldResult | None":
        """The result without other speech of the same speakers; None where this is it."""
        if self.raw_per_recording is None:
            return None
        temperature = self.heads.model.temperature_without if self.heads else self.temperature
        return dataclasses.replace(self, raw=self.raw_per_recording, raw_per_recording=None, temperature=temperature)


@dataclasses.dataclass(frozen=True, eq=False)
class Usable:
    """Row numbers that may be trained on, and those that models may be tried on, whatever the split."""

    train: Numbers
    test: Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The folds of a training."""

    folds: tuple[FoldTask, ...]  # one per seed and fold
    final: FoldTask  # the training whose model is kept: of the first seed's hold-out, or of all rows
    is_cross_validation: bool  # whether it is trained on all rows, after the folds
    n_shared_speakers: int  # speakers on both sides of a split, the most of any
    n_left_out: int  # held-out rows with an emotion that no training row has


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """One call of `train`."""

    data: Features
    labels: Sequence[str]
    options: TrainOptions
    start: Start | None
    identity: Identity[AnyFeatureSpec]
    plan: Plan
    started: float  # monotonic, in s


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
    return Usable(train, _chosen(data, conditions, options.test_vocal_channel))


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
    folds: list[FoldTask] = []
    left_out: set[int] = set()
    n_shared = 0
    for seed in range(options.seed, options.seed + options.seeds):
        split = split_rows(data.rows, options.split, seed=seed)
        for fold in split.folds:
            n_shared = max(n_shared, shared_speakers(data.rows, fold))
            # a performance counts once, however many copies of it there are
            held_out = originals(data.rows, np.intersect1d(fold.test, usable.test))
            left_out.update(np.intersect1d(held_out, unknown).tolist())
            train_rows, test_rows = np.intersect1d(fold.train, usable.train), np.intersect1d(held_out, test)
            common = None
            if holds_out_corpora(options.split):
                common = _common_labels(data, train_rows, test_rows, fold.name)
                is_common = data.rows["emotion"].gather(test_rows).is_in(list(common)).to_numpy()
                left_out.update(test_rows[~is_common].tolist())
                test_rows = test_rows[is_common]
            if not (len(train_rows) and len(test_rows)):
                side = "train on" if not len(train_rows) else "hold out"
                raise InputError(f"fold {fold.name} has no rows to {side} with these variants and vocal channels")
            is_calm = np.isin(data.rows["emotion"].gather(held_out).to_numpy(), NEUTRAL)
            folds.append(
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
        folds=tuple(folds),
        final=whole if split.is_cross_validation else folds[0],
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
