"""What one model is trained on and how, and what comes of it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch import bundle
from ser_batch.network.heads import HeadModel
from ser_batch.network.scaling import Scaler
from ser_batch.report import restricted
from ser_batch.tables import Features
from ser_batch.train.checkpoints import Checkpoints
from ser_batch.train.starting import Start
from ser_batch.train.voices import Voices

Numbers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
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
    spares: bool
    common: tuple[str, ...] | None = None
    calm: Numbers = dataclasses.field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Settings:
    """How a model is trained, whatever the part.

    Parameters
    ----------
    epochs
        None for those of the recipe.
    start
        What a network is fine-tuned from; None is nothing.
    soft_labels
        Whether a network learns votes where there are any; other models learn emotions.
    voices
        What a network is normalized by, if by anything.
    voices_alone
        What is known of the voices of held-out rows where nothing else of their speakers is heard; None where that is
        `voices` already.
    checkpoints
        Where networks are kept while they are trained; None is nowhere.
    has_other_folds
        Whether other folds tell how sure a model may be, so that heads need nothing set apart for that.
    """

    epochs: int | None = None
    start: Start | None = None
    soft_labels: bool = False
    voices: Voices | None = None
    voices_alone: Voices | None = None
    checkpoints: Checkpoints | None = None
    has_other_folds: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One model trained, and what it says of the held-out rows.

    Parameters
    ----------
    part
        What it was trained and tried on.
    model, scaler
        A Keras network and its scaler, or a scikit-learn estimator and None.
    history
        A row an epoch and member.
    raw
        Probabilities of the held-out rows without temperature, shape (test rows, labels).
    development
        Probabilities without temperature, and label numbers, of the rows set apart; of several corpora, on the labels
        that the row's corpus has.
    temperature
        Fitted on them, or on left-out corpora; 1.0 where there are none.
    raw_alone
        As `raw`, where that is of a network that heard other speech of the same speakers: without that.
    heads
        Heads that say it, with labels and temperatures, and what they say of the held-out rows; None of other models.
    learned
        Label numbers that the model has, where these are not all.
    """

    part: Part
    model: Any
    scaler: Scaler | None
    history: list[dict[str, Any]]
    raw: Probabilities
    development: tuple[Probabilities, Numbers]
    temperature: float
    raw_alone: Probabilities | None = None
    heads: "HeadsTried | None" = None
    learned: Numbers | None = None

    def probabilities(self, labels: Sequence[str]) -> Probabilities:
        """Return those of the held-out rows, tempered, on the labels that they may have; shape (rows, labels)."""
        probabilities = bundle.tempered(self.raw, self.temperature)
        return (
            probabilities if self.part.common is None else restricted(probabilities, np.isin(labels, self.part.common))
        )

    @property
    def alone(self) -> "Run | None":
        """As if nothing but each held-out recording itself had been heard; None where that is what it is."""
        if self.raw_alone is None:
            return None
        temperature = self.heads.model.temperature_without if self.heads else self.temperature
        return dataclasses.replace(self, raw=self.raw_alone, raw_alone=None, temperature=temperature)


@dataclasses.dataclass(frozen=True, eq=False)
class HeadsTried:
    """Trained heads, and what they say of rows that they did not learn from, before temperature and prior.

    Parameters
    ----------
    model
        The heads; their labels are those that the part has.
    known
        Probabilities where archive and speaker are known, then where the archive is, shape (2 * rows, labels).
    unknown
        Where neither is, shape (rows, labels).
    truth
        Label numbers of the rows, shape (rows,).
    weights
        How much each row counts, so that corpora count the same, shape (rows,).
    called, called_truth, called_weights
        As `known`, `truth` and `weights`, of the segments of composed calls, each in its call.
    """

    model: HeadModel
    known: Probabilities
    unknown: Probabilities
    truth: Numbers
    weights: Probabilities
    called: Probabilities
    called_truth: Numbers
    called_weights: Probabilities


def label_numbers(data: Features, labels: Sequence[str]) -> Numbers:
    """Return the number of each row's emotion in `labels`, which are sorted; any number where it is not there."""
    return np.searchsorted(labels, data.rows["emotion"].to_numpy()).astype(np.int64)
