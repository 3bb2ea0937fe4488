"""Temperature scaling, fitted on rows that a model was not trained on."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ser_batch.arrays import Floats, Numbers
from ser_batch.model.prediction import tempered
from ser_batch.tables.features import Features
from ser_batch.training.multi_corpus import label_numbers
from ser_batch.training.tasks import FoldResult, Predictions


def fitted_temperature(probabilities: Floats, truth: Numbers, weights: Floats | None = None) -> float:
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


def temperature_of(predictions: Sequence[Predictions]) -> float:
    """Return the temperature that fits several predictions together; all have weights, or none."""
    weights = [own.weights for own in predictions if own.weights is not None]
    return fitted_temperature(
        np.concatenate([own.probabilities for own in predictions]),
        np.concatenate([own.truth for own in predictions]),
        np.concatenate(weights) if weights else None,
    )


def temperature_across_corpora(data: Features, labels: Sequence[str], runs: Sequence[FoldResult]) -> float:
    """Return the temperature that fits predictions of held-out corpora, each counting the same."""
    # Held-out speakers of a corpus that was trained on make a model look surer than it may be elsewhere.
    if not runs:
        return 1.0
    y = label_numbers(data, labels)
    return temperature_of(
        [
            Predictions(
                dataclasses.replace(run, temperature=1.0).probabilities(labels),
                y[run.fold.test],
                np.full(len(run.fold.test), 1 / max(1, len(run.fold.test))),
            )
            for run in runs
        ]
    )


def mean_loss(probabilities: Floats, truth: Numbers, weights: Floats | None = None) -> float:
    """Return the mean cross-entropy of label numbers, in nats; rows may count by weights."""
    of_truth = np.maximum(probabilities[np.arange(len(truth)), truth], 1e-12)
    return float(np.average(-np.log(of_truth), weights=weights))
