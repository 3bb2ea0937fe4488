"""One model: fitted on a training part, its temperature on a development part, tried on what is held out."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.config.features import EncoderSpec
from ser_batch.config.options import HEAD_RECIPE
from ser_batch.errors import InputError
from ser_batch.network.cmvn import Scaler
from ser_batch.network.optimization import State
from ser_batch.network.out_of_domain import summary_features
from ser_batch.network.recipes import RECIPES, Recipe
from ser_batch.report.metrics import restricted
from ser_batch.splits.development import development
from ser_batch.tables.features import Features
from ser_batch.tables.mfcc_array import chunks
from ser_batch.training.batches import Scaled, SpeakerStats, TrainingSegments, fit_scaler, segment_numbers
from ser_batch.training.heads import run_heads
from ser_batch.training.multi_corpus import Array, Corpora, corpora_of, target_shares
from ser_batch.training.tasks import FoldResult, FoldTask, Numbers, Probabilities, Say, Settings, label_numbers
from ser_batch.training.temperature import fitted_temperature, mean_loss


def run_part(
    data: Features,
    labels: Sequence[str],
    part: FoldTask,
    kind: str,
    settings: Settings,
    *,
    say: Say,
    prefix: str,
) -> FoldResult:
    """Fit one model and predict what is held out."""
    is_network = kind in RECIPES or kind == HEAD_RECIPE
    soft_labels = settings.soft_labels and is_network
    shares = target_shares(data, labels, soft_labels=soft_labels)
    learned = np.flatnonzero(shares[part.train].any(axis=0))
    own = np.asarray(labels)[learned].tolist()
    missing = sorted(set(labels) - set(own))
    if missing and part.common is None:
        raise InputError(f"{prefix}no training row is {missing[0]!r}; use another --split, or label more recordings")
    own_shares = shares[:, learned] if soft_labels else None
    if kind == HEAD_RECIPE:
        run = run_heads(data, own, own_shares, part, settings, say, prefix)
    elif kind in RECIPES:
        run = _run_network(data, own, own_shares, part, kind, settings, say, prefix)
    else:
        run = _run_classical(data, own, part, kind, say, prefix)
    return run if len(learned) == len(labels) else _on_all_labels(run, labels, learned)


def _on_all_labels(run: FoldResult, labels: Sequence[str], learned: Numbers) -> FoldResult:
    """Return a run of a model with some of the labels as one of all."""

    def widened(probabilities: Probabilities) -> Probabilities:
        out = np.zeros((len(probabilities), len(labels)))
        out[:, learned] = probabilities
        return out

    developed, y = run.development
    heads = run.heads
    if heads is not None:
        heads = dataclasses.replace(
            heads,
            known=widened(heads.known),
            unknown=widened(heads.unknown),
            truth=learned[heads.truth],
            called=widened(heads.called),
            called_truth=learned[heads.called_truth],
        )
    return dataclasses.replace(
        run,
        raw=widened(run.raw),
        raw_alone=None if run.raw_alone is None else widened(run.raw_alone),
        development=(widened(developed), learned[y]),
        heads=heads,
        learned=learned,
    )


def _run_classical(
    data: Features, labels: Sequence[str], part: FoldTask, kind: str, say: Say, prefix: str
) -> FoldResult:
    y = label_numbers(data, labels)
    say(f"{prefix}fitting {kind} on {len(part.train)} rows")
    x_train, x_test = (np.concatenate([_numbers_of(data, c) for c in chunks(rows)]) for rows in (part.train, part.test))
    estimator = _classical(kind, part.seed)
    estimator.fit(x_train, y[part.train])
    probabilities = estimator.predict_proba(x_test) if len(x_test) else np.empty((0, len(labels)))
    nothing = np.empty((0, len(labels))), np.empty(0, dtype=np.int64)
    return FoldResult(part, estimator, None, [], probabilities, nothing, 1.0)


def _numbers_of(data: Features, rows: Numbers) -> Array:
    """Return what a classical model takes of rows: embeddings, or mean and deviation of MFCCs."""
    if isinstance(data.spec, EncoderSpec):
        return data.embedding[rows]
    return summary_features(data.mfcc[rows], data.n_frames[rows])


def _run_network(
    data: Features,
    labels: Sequence[str],
    shares: Array | None,
    part: FoldTask,
    kind: str,
    settings: Settings,
    say: Say,
    prefix: str,
) -> FoldResult:
    from ser_batch.network import architectures, optimization

    start = settings.start
    recipe = RECIPES[kind] if start is None else RECIPES[kind].tuning
    scaler = fit_scaler(data.mfcc, data.n_frames, part.train) if start is None else start.scaler
    apart = (part.train[:0],) * recipe.members
    if recipe.has_development and part.has_dev_split:
        apart = development(data.rows, part.train, by_speaker=part.by_speaker, seed=part.seed, n_parts=recipe.members)
    corpora = corpora_of(data, target_shares(data, labels) if shares is None else shares, part.train)
    if corpora is not None:
        corpora.check(labels, prefix)
    y = label_numbers(data, labels)
    task = _NetworkTask(data, labels, y, shares, corpora, part, kind, recipe, settings, scaler, say, prefix)
    members = [task.train_member(number, development) for number, development in enumerate(apart, start=1)]
    network = architectures.join(kind, [member.network for member in members])
    development_probabilities = np.concatenate([member.development for member in members])
    development_y = y[np.concatenate(apart)]
    temperature = fitted_temperature(development_probabilities, development_y)

    def held_out(voices: SpeakerStats | None) -> Probabilities:
        return optimization.predict(network, Scaled(data, part.test, scaler, voices.of(part.test) if voices else None))

    return FoldResult(
        part,
        network,
        scaler,
        [row for member in members for row in member.history],
        held_out(settings.voices),
        (development_probabilities, development_y),
        temperature,
        None if settings.voices_alone is None else held_out(settings.voices_alone),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Member:
    """One trained network, its history, and its probabilities for the rows that were set apart for it."""

    network: Any
    history: list[dict[str, Any]]
    development: npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class _NetworkTask:
    """What the members of a network have in common."""

    data: Features
    labels: Sequence[str]
    y: Numbers
    shares: Array | None
    corpora: Corpora | None
    part: FoldTask
    kind: str
    recipe: Recipe
    settings: Settings
    scaler: Scaler
    say: Say
    prefix: str
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def epochs(self) -> int:
        """Passes over the training segments."""
        return self.settings.epochs or self.recipe.epochs

    def train_member(self, number: int, development: Numbers) -> _Member:
        """Train the member of a number from 1 on what is left beside its development rows."""
        from ser_batch.network import architectures, optimization

        recipe, spec = self.recipe, self.data.mfcc_spec
        # the members of two seeds have none in common
        seed = (self.part.seed * recipe.members + number - 1) % 2**32
        optimization.set_seed(seed)
        network = architectures.build(self.kind, spec.n_frames, spec.n_mfcc, len(self.labels))
        if self.settings.start is not None:
            self.settings.start.begin(network, number, self.labels)
        # each segment once: the epochs are to be spent on training
        watched = development[np.unique(segment_numbers(self.data)[development], return_index=True)[1]]
        place = None
        if self.settings.checkpoints is not None:
            is_tuned = self.settings.start is not None  # a baseline of the same recipe is not
            place = self.settings.checkpoints.of(self.kind, is_tuned, self.part.fold, self.part.seed, number)
        resume_from = place.load() if place else None
        history: list[dict[str, Any]] = resume_from.history if resume_from else []

        def on_epoch(epoch: int, logs: dict[str, float]) -> None:
            values = {"loss": float(logs["loss"]), "accuracy": float(logs["accuracy"])}
            if len(watched):
                values |= _figures(self._developed(network, watched), self.y[watched])
            history.append({"fold": self.part.fold, "seed": self.part.seed, "member": number, "epoch": epoch} | values)
            self._tell(number, epoch, values)

        rows = np.setdiff1d(self.part.train, development)
        segments = TrainingSegments(
            self.data,
            rows,
            self.y,
            len(self.labels),
            self.scaler,
            recipe,
            shares=self.shares,
            corpora=self.corpora,
            voices=self.settings.voices,
        )

        def keep(epoch: int, state: Callable[[], State]) -> None:
            if place is not None:
                place.keep(state, history, is_last=epoch == self.epochs)

        optimization.fit(
            network,
            segments,
            recipe,
            epochs=self.epochs,
            seed=seed,
            on_epoch=on_epoch,
            resume_from=resume_from.state if resume_from else None,
            keep=keep,
        )
        return _Member(network, history, self._developed(network, development))

    def _developed(self, network: Any, rows: Numbers) -> npt.NDArray[np.float64]:
        """Return the probabilities of development rows, each on the labels that its corpus has."""
        from ser_batch.network import optimization

        voices = self.settings.voices
        heard = voices.of(rows) if voices else None
        probabilities = optimization.predict(network, Scaled(self.data, rows, self.scaler, heard))
        return probabilities if self.corpora is None else restricted(probabilities, self.corpora.allowed(rows))

    def _tell(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        n_members = self.recipe.members
        done = (number - 1) * self.epochs + epoch
        left_s = (time.monotonic() - self.started) / done * (n_members * self.epochs - done)
        figures = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
        which = f"network {number} of {n_members}: " if n_members > 1 else ""
        self.say(f"{self.prefix}{which}epoch {epoch}/{self.epochs}  {figures}  {left_s:.0f} s left")


def _figures(probabilities: npt.NDArray[np.float64], truth: Numbers) -> dict[str, float]:
    return {
        "dev_loss": mean_loss(probabilities, truth),
        "dev_accuracy": float((probabilities.argmax(axis=1) == truth).mean()),
    }


def _classical(kind: str, seed: int) -> Any:
    """Return the scikit-learn pipeline of a classical model on mean and deviation."""
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
