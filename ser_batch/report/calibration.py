"""Calibration of a model's probabilities: error, reliability, and accuracy by coverage."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ser_batch.arrays import Flags, Floats, Numbers
from ser_batch.report.metrics import conditions, label_numbers, ratio

COVERAGE_PERCENT = tuple(range(5, 101, 5))
N_BINS = 15


def expected_calibration_error(confidence: Floats, is_right: Flags, n_bins: int = N_BINS) -> float:
    """Return the expected calibration error (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3).

    Parameters
    ----------
    confidence
        The highest probability of each row, shape (n,), n at least 1.
    is_right
        Whether the label with it is the truth, shape (n,).
    n_bins
        Bins of equal width from 0 to 1; each has its upper end.

    Returns
    -------
    float
        The mean over rows of the distance between accuracy and mean confidence of their bin: from 0 to 1.
    """
    n, confidences, hits = _bins(confidence, is_right, n_bins)
    return float(np.abs(hits - confidences).sum() / n.sum())


def reliability_table(predictions: pl.DataFrame, labels: Sequence[str], n_bins: int = N_BINS) -> pl.DataFrame:
    """Return the frame of reliability.parquet: accuracy by confidence, for each condition."""
    edges = np.linspace(0, 1, n_bins + 1)
    frames = []
    for condition in conditions(predictions):
        rows = predictions.filter(pl.col("variant") == condition)
        n, confidences, hits = _bins(_confidence(rows, labels), _is_right(rows), n_bins)
        frames.append(
            pl.DataFrame(
                {
                    "condition": [condition] * n_bins,
                    "bin_low": edges[:-1],
                    "bin_high": edges[1:],
                    "n": n,
                    "mean_confidence": ratio(confidences, n),
                    "accuracy": ratio(hits, n),
                }
            )
        )
    return pl.concat(frames).with_columns(pl.col("mean_confidence", "accuracy").fill_nan(None))


def coverage_table(predictions: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """Return the frame of coverage.parquet: what is right among the most confident rows, for each condition."""
    # This is the risk-coverage curve of a model that may abstain (El-Yaniv & Wiener 2010, On the Foundations of
    # Noise-free Selective Classification), with the highest probability as its confidence (Geifman & El-Yaniv 2017,
    # Selective Classification for Deep Neural Networks); risk is 1 - accuracy.
    frames = []
    for condition in conditions(predictions):
        rows = predictions.filter(pl.col("variant") == condition)
        by_seed = _kept_by_seed(rows, labels, COVERAGE_PERCENT)
        mean = by_seed.mean(axis=0)
        frames.append(
            pl.DataFrame(
                {
                    "condition": [condition] * len(COVERAGE_PERCENT),
                    "coverage": np.array(COVERAGE_PERCENT) / 100,
                    "confidence": mean[:, 1],
                    "n": by_seed[:, :, 0].sum(axis=0).astype(np.int64),
                    "accuracy": mean[:, 2],
                    "uar": mean[:, 3],
                }
            )
        )
    return pl.concat(frames)


def mean_calibration_error(rows: pl.DataFrame, labels: Sequence[str]) -> float:
    """Return the expected calibration error of each seed's rows, and of these the mean."""
    errors = [expected_calibration_error(_confidence(own, labels), _is_right(own)) for own in _seeds(rows)]
    return float(np.mean(errors))


def accuracy_at(rows: pl.DataFrame, labels: Sequence[str], percents: Sequence[int]) -> Floats:
    """Return the accuracy of the `percents` most confident rows, shape (percents,): the mean over seeds."""
    return np.asarray(_kept_by_seed(rows, labels, percents)[:, :, 2].mean(axis=0))


def _kept_by_seed(rows: pl.DataFrame, labels: Sequence[str], percents: Sequence[int]) -> Floats:
    """Return n, lowest confidence, accuracy and UAR of the most confident rows, shape (seeds, percents, 4)."""
    return np.stack([_kept(own, labels, np.array(percents)) for own in _seeds(rows)])


def _kept(rows: pl.DataFrame, labels: Sequence[str], percents: Numbers) -> Floats:
    """Return the same of one seed, shape (percents, 4)."""
    confidence = _confidence(rows, labels)
    order = np.argsort(-confidence, kind="stable")
    truth = label_numbers(rows["emotion"], labels)[order]
    occurs = truth[:, None] == np.arange(len(labels))
    hits = occurs & _is_right(rows)[order, None]
    n = -(-len(rows) * percents // 100)  # whole numbers: 0.55 * 20 is more than 11 in floating point
    n_occurs, n_hits = occurs.cumsum(axis=0)[n - 1], hits.cumsum(axis=0)[n - 1]  # (percents, labels)
    uar = np.nanmean(ratio(n_hits, n_occurs), axis=1)
    return np.stack([n, confidence[order][n - 1], n_hits.sum(axis=1) / n, uar], axis=1)


def _bins(confidence: Floats, is_right: Flags, n_bins: int) -> tuple[Numbers, Floats, Numbers]:
    """Return the number of rows, the sum of their confidence and the number of right ones, each of shape (bins,)."""
    # a probability may be more than 1 by rounding
    place = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], confidence, side="left")
    return (
        np.bincount(place, minlength=n_bins),
        np.asarray(np.bincount(place, weights=confidence, minlength=n_bins), dtype=np.float64),
        np.bincount(place[is_right], minlength=n_bins),
    )


def _seeds(rows: pl.DataFrame) -> list[pl.DataFrame]:
    return rows.partition_by("seed", maintain_order=True)


def _confidence(rows: pl.DataFrame, labels: Sequence[str]) -> Floats:
    """Return the highest probability of each row, shape (n,)."""
    return rows.select(pl.max_horizontal(f"p_{label}" for label in labels)).to_series().to_numpy()


def _is_right(rows: pl.DataFrame) -> Flags:
    return (rows["predicted"] == rows["emotion"]).to_numpy()
