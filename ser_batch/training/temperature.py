"""Temperatures: how sure a model should be, by what it says of rows that it did not learn from."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_batch.model.prediction import tempered
from ser_batch.tables.features import Features
from ser_batch.training.tasks import FoldResult, Numbers, Probabilities, label_numbers


def fitted_temperature(
    probabilities: Probabilities, truth: Numbers, weights: npt.NDArray[np.float64] | None = None
) -> float:
    """Return the temperature that makes the truth most likely (Guo et al. 2017), between 0.25 and 4."""
    if not len(truth):
        return 1.0
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: mean_loss(tempered(probabilities, float(np.exp(log))), truth, weights),
        bounds=(np.log(0.25), np.log(4)),
        method="bounded",
    )
    return round(float(np.exp(found.x)), 4)


def temperature_across_corpora(data: Features, labels: Sequence[str], runs: Sequence[FoldResult]) -> float:
    """Return the temperature that fits what models say of corpora that they have not heard, each counting the same."""
    # Speakers of a corpus that was heard, who else would be asked, make a model look surer than it may be elsewhere.
    if not runs:
        return 1.0
    untempered = [dataclasses.replace(run, temperature=1.0).probabilities(labels) for run in runs]
    y = label_numbers(data, labels)
    weights = [np.full(len(run.part.test), 1 / max(1, len(run.part.test))) for run in runs]
    return fitted_temperature(
        np.concatenate(untempered), np.concatenate([y[run.part.test] for run in runs]), np.concatenate(weights)
    )


def mean_loss(probabilities: Probabilities, truth: Numbers, weights: npt.NDArray[np.float64] | None = None) -> float:
    """Return the mean cross-entropy of label numbers, in nats; rows may count by weights."""
    of_truth = np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)
    return float(np.average(-np.log(of_truth), weights=weights))
