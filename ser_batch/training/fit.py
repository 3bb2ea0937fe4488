"""Fitting of one model on a fold, its temperature on development rows, and its predictions of held-out rows."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.config.features import EncoderSpec
from ser_batch.config.options import HEAD_RECIPE
from ser_batch.errors import InputError
from ser_batch.network.cmvn import Scaler
from ser_batch.network.out_of_domain import summary_features
from ser_batch.network.recipes import RECIPES, Recipe
from ser_batch.network.state import State
from ser_batch.report.metrics import restricted
from ser_batch.splits.development import development
from ser_batch.tables.features import Features
from ser_batch.tables.mfcc_array import chunks
from ser_batch.training.batches import Scaled, TrainingSegments, fit_scaler, segment_numbers
from ser_batch.training.heads import fit_heads
from ser_batch.training.multi_corpus import Targets, target_shares
from ser_batch.training.references import SpeakerStats
from ser_batch.training.tasks import (
    EpochLog,
    FitTask,
    FoldResult,
    FoldTask,
    Predictions,
    Settings,
    widened,
)
from ser_batch.training.temperature import mean_loss, temperature_of


def fit_fold(
    data: Features, labels: Sequence[str], fold: FoldTask, kind: str, settings: Settings, *, prefix: str = ""
) -> FoldResult:
    """Fit one model and predict what is held out."""
    is_network = kind in RECIPES or kind == HEAD_RECIPE
    shares = target_shares(data, labels, soft_labels=settings.soft_labels and is_network)
    learned = np.flatnonzero(shares[fold.train].any(axis=0))
    own_labels = np.asarray(labels)[learned].tolist()
    missing = sorted(set(labels) - set(own_labels))
    if missing and fold.common is None:
        raise InputError(f"{prefix}no training row is {missing[0]!r}; use another --split, or label more recordings")
    task = FitTask(data, Targets.of(data, own_labels, fold.train, shares[:, learned]), fold, settings, prefix)
    if is_network and task.targets.corpora is not None:
        task.targets.corpora.check(own_labels, prefix)
    if kind == HEAD_RECIPE:
        result = fit_heads(task)
    elif is_network:
        result = _fit_network(task, kind)
    else:
        result = _fit_classical(task, kind)
    return result if len(learned) == len(labels) else _on_all_labels(result, learned, len(labels))


def _on_all_labels(result: FoldResult, learned: Numbers, n_labels: int) -> FoldResult:
    """Return the result of a model with some of the labels as one of all."""
    raw, alone = result.raw, result.raw_per_recording
    return dataclasses.replace(
        result,
        raw=widened(raw, learned, n_labels),
        raw_per_recording=None if alone is None else widened(alone, learned, n_labels),
        development=result.development.widened(learned, n_labels),
        heads=result.heads and result.heads.widened(learned, n_labels),
        learned=learned,
    )


def _fit_classical(task: FitTask, kind: str) -> FoldResult:
    data, fold = task.data, task.fold
    task.say(f"fitting {kind} on {len(fold.train)} rows")
    x_train, x_test = (np.concatenate([_inputs(data, c) for c in chunks(rows)]) for rows in (fold.train, fold.test))
    estimator = _classical(kind, fold.seed)
    estimator.fit(x_train, task.targets.y[fold.train])
    nothing = np.empty((0, len(task.targets.labels)))
    probabilities = estimator.predict_proba(x_test) if len(x_test) else nothing
    no_rows = Predictions(nothing, np.empty(0, dtype=np.int64))
    return FoldResult(fold, estimator, None, [], probabilities, no_rows, 1.0)


def _inputs(data: Features, rows: Numbers) -> Array:
    """Return what a classical model takes of rows: embeddings, or mean and deviation of MFCCs."""
    if isinstance(data.spec, EncoderSpec):
        return data.embedding[rows]
    return summary_features(data.mfcc[rows], data.n_frames[rows])


def _fit_network(task: FitTask, kind: str) -> FoldResult:
    from ser_batch.network import architectures, optimization

    data, fold, settings = task.data, task.fold, task.settings
    recipe = RECIPES[kind] if settings.start is None else RECIPES[kind].tuning
    scaler = fit_scaler(data.mfcc, data.n_frames, fold.train) if settings.start is None else settings.start.scaler
    apart = (fold.train[:0],) * recipe.members
    if recipe.has_development and fold.has_dev_split:
        apart = development(data.rows, fold.train, by_speaker=fold.by_speaker, seed=fold.seed, n_parts=recipe.members)
    fitting = _NetworkFit(task, kind, recipe, scaler)
    members = [fitting.train_member(number, rows) for number, rows in enumerate(apart, start=1)]
    network = architectures.join(kind, [member.network for member in members])
    developed = Predictions(
        np.concatenate([member.development for member in members]), task.targets.y[np.concatenate(apart)]
    )

    def held_out(stats: SpeakerStats | None) -> Floats:
        return optimization.predict(network, Scaled(data, fold.test, scaler, stats.of(fold.test) if stats else None))

    return FoldResult(
        fold,
        network,
        scaler,
        [row for member in members for row in member.history],
        held_out(settings.speaker_stats),
        developed,
        temperature_of([developed]),
        None if settings.recording_stats is None else held_out(settings.recording_stats),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Member:
    """One trained network, its history, and its probabilities for the rows that were set apart for it."""

    network: Any
    history: list[dict[str, Any]]
    development: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class _NetworkFit:
    """What the members of a network have in common."""

    task: FitTask
    kind: str
    recipe: Recipe
    scaler: Scaler
    epoch_seconds: list[float] = dataclasses.field(default_factory=list)

    def train_member(self, number: int, development: Numbers) -> _Member:
        """Train the member of a number from 1 on what is left beside its development rows."""
        from ser_batch.network import architectures, optimization

        recipe, targets, fold, settings = self.recipe, self.task.targets, self.task.fold, self.task.settings
        data, spec = self.task.data, self.task.data.mfcc_spec
        epochs = settings.epochs or recipe.epochs
        # the members of two seeds have none in common
        seed = (fold.seed * recipe.members + number - 1) % 2**32
        optimization.set_seed(seed)
        network = architectures.build(self.kind, spec.n_frames, spec.n_mfcc, len(targets.labels))
        if settings.start is not None:
            settings.start.begin(network, number, targets.labels)
        checkpoint = None
        if settings.checkpoints is not None:
            is_tuned = settings.start is not None  # a baseline of the same recipe is not
            checkpoint = settings.checkpoints.of(self.kind, is_tuned, fold.name, fold.seed, number)
        resume_from = checkpoint.load() if checkpoint else None
        history = resume_from.history if resume_from else []
        log = EpochLog(self.task, epochs, "", number, recipe.members, self.epoch_seconds, history)
        # each segment once: the epochs are to be spent on training
        watched = development[np.unique(segment_numbers(data)[development], return_index=True)[1]]

        def on_epoch(epoch: int, logs: dict[str, float]) -> None:
            trained = time.monotonic()
            values = {"loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])}
            if len(watched):
                found, truth = self._developed(network, watched), targets.y[watched]
                values["dev_loss"] = mean_loss(found, truth)
                values["dev_accuracy"] = float((found.argmax(axis=1) == truth).mean())
            log.add(epoch, values, trained=trained)

        def keep(epoch: int, state: Callable[[], State]) -> None:
            if checkpoint is not None:
                checkpoint.keep(state, history, is_last=epoch == epochs)

        rows = np.setdiff1d(fold.train, development)
        if resume_from is None or resume_from.state.epoch < epochs:
            log.begin()
        optimization.fit(
            network,
            TrainingSegments(data, rows, targets, self.scaler, recipe, settings.speaker_stats),
            recipe,
            epochs=epochs,
            seed=seed,
            on_epoch=on_epoch,
            on_compiled=log.compiled,
            resume_from=resume_from.state if resume_from else None,
            keep=keep,
        )
        return _Member(network, history, self._developed(network, development))

    def _developed(self, network: Any, rows: Numbers) -> Floats:
        """Return the probabilities of development rows, each on the labels that its corpus has."""
        from ser_batch.network import optimization

        stats, corpora = self.task.settings.speaker_stats, self.task.targets.corpora
        scaled = Scaled(self.task.data, rows, self.scaler, stats.of(rows) if stats else None)
        probabilities = optimization.predict(network, scaled)
        return probabilities if corpora is None else restricted(probabilities, corpora.allowed(rows))


def _classical(kind: str, seed: int) -> Any:
    """Return the scikit-learn pipeline of a classical model."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    # fixed settings, none of them chosen on the data that is reported on
    estimators: dict[str, Callable[[], Any]] = {
        "svm": lambda: CalibratedClassifierCV(SVC(C=10.0), ensemble=False, cv=3),
        "forest": lambda: RandomForestClassifier(300, random_state=seed, n_jobs=1),
        "logistic": lambda: LogisticRegression(max_iter=2000),
        "majority": lambda: DummyClassifier(strategy="prior"),
    }
    return make_pipeline(StandardScaler(), estimators[kind]())
