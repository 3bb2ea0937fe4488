"""Evaluation tables of a trained model, by condition and subset, with intervals over speakers or recordings."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ser_batch.arrays import Floats, Numbers
from ser_batch.report.calibration import accuracy_at, mean_calibration_error
from ser_batch.report.metrics import (
    MEASURES,
    by_corpus,
    conditions,
    figures,
    figures_frame,
    headline_figure,
    label_numbers,
    ratio,
)

SUBSET_COLUMNS = ("vocal_channel", "sex", "intensity")
LEVEL = 0.95
# so many speakers, or recordings, are needed for an interval: of two, three outcomes would make one
MIN_UNITS = 8
# what stands beside intervals, by what was drawn for them
RESAMPLED: Mapping[str | None, str] = {
    "speaker": "In brackets: 95 % intervals, from drawing speakers anew.",
    "recording": "In brackets: 95 % intervals, from drawing recordings anew, because fewer than "
    f"{MIN_UNITS} speakers are known. They do not tell how much other speakers differ.",
    None: "",
}
COVERAGES = (50, 70, 90)  # percent

SUMMARY_SCHEMA = {
    "estimator": pl.String,
    "condition": pl.String,
    "subset": pl.String,
    "n": pl.Int64,
    "n_speakers": pl.Int64,
    "resampled": pl.String,
    **{f"{name}{end}": pl.Float64 for name in ("accuracy", "uar", "macro_f1") for end in ("", "_low", "_high")},
    "weighted_f1": pl.Float64,
    "ece": pl.Float64,
    **{f"accuracy_at_{percent}": pl.Float64 for percent in COVERAGES},
    **{f"{name}_sd": pl.Float64 for name in ("uar", "accuracy", "macro_f1")},
}


def report_table(
    predictions: pl.DataFrame,
    labels: Sequence[str],
    *,
    corpus_labels: Mapping[str, Sequence[str]] | None = None,
    n_resamples: int = 1000,
) -> pl.DataFrame:
    """Return the frame of report.parquet: the rows of `classification` for each condition and subset.

    Parameters
    ----------
    predictions
        The frame of predictions.parquet. Each seed is evaluated by itself; figures are means over the seeds.
    labels
        Of the model, in its order.
    corpus_labels
        Labels of each corpus, on which its own rows are evaluated; None: those that occur in its rows.
    n_resamples
        Of the bootstrap, see `_interval`.

    Returns
    -------
    polars.DataFrame
        Columns condition, subset, label, precision, recall, f1, support (rows of all seeds), resampled, recall_low,
        recall_high, f1_low and f1_high: 95 % intervals. These are of drawing what `resampled` names: speaker, or
        recording where fewer than 8 speakers are known; null where there are fewer than 8 of either, or no figure.
    """
    frames = []
    for condition, subset, rows in _groups(predictions, labels, corpus_labels or {}):
        evaluated = _evaluate(rows, labels, n_resamples)
        ends = {
            f"{measure}_{end}": values[:, MEASURES.index(measure)]
            for measure in ("recall", "f1")
            for end, values in (("low", evaluated.low), ("high", evaluated.high))
        }
        frames.append(
            figures_frame(evaluated.mean, evaluated.support, labels)
            .with_columns(pl.lit(evaluated.resampled, pl.String).alias("resampled"))
            .with_columns(pl.Series(name, values).fill_nan(None) for name, values in ends.items())
            .select(pl.lit(condition).alias("condition"), pl.lit(subset).alias("subset"), pl.all())
        )
    return pl.concat(frames)


def summary_table(
    predictions: pl.DataFrame,
    labels: Sequence[str],
    *,
    estimator: str,
    corpus_labels: Mapping[str, Sequence[str]] | None = None,
    n_resamples: int = 1000,
) -> pl.DataFrame:
    """Return the figures that people quote: one row for each condition and subset."""
    summary = []
    for condition, subset, rows in _groups(predictions, labels, corpus_labels or {}):
        evaluated = _evaluate(rows, labels, n_resamples)
        row: dict[str, Any] = {
            "estimator": estimator,
            "condition": condition,
            "subset": subset,
            "n": len(rows),
            "n_speakers": rows["speaker"].drop_nulls().n_unique(),
            "resampled": evaluated.resampled,
            "weighted_f1": float(headline_figure(evaluated.mean, "weighted_f1")),
            "ece": mean_calibration_error(rows, labels),
        }
        for name in ("accuracy", "uar", "macro_f1"):
            by_seed = headline_figure(evaluated.by_seed, name)
            row[name] = float(headline_figure(evaluated.mean, name))
            row[f"{name}_low"] = float(headline_figure(evaluated.low, name))
            row[f"{name}_high"] = float(headline_figure(evaluated.high, name))
            row[f"{name}_sd"] = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
        for percent, accuracy in zip(COVERAGES, accuracy_at(rows, labels, COVERAGES), strict=True):
            row[f"accuracy_at_{percent}"] = float(accuracy)
        summary.append(row)
    return pl.DataFrame(summary, schema=SUMMARY_SCHEMA).with_columns(pl.selectors.float().fill_nan(None))


def _groups(
    predictions: pl.DataFrame, labels: Sequence[str], corpus_labels: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Give condition, subset and rows, wherever there are rows."""
    # A column makes subsets only where it tells rows apart: with one value they would repeat those of all. A corpus
    # that is called like another subset is `corpus-<name>`.
    values = {column: predictions[column].drop_nulls().unique().sort().to_list() for column in SUBSET_COLUMNS}
    taken = {"all", *(subset for subsets in values.values() for subset in subsets)}
    of_corpus = list(by_corpus(predictions, labels, corpus_labels))
    for condition in conditions(predictions):
        rows = predictions.filter(pl.col("variant") == condition)
        yield condition, "all", rows
        for corpus, own in of_corpus:
            part = own.filter(pl.col("variant") == condition)
            if len(part):
                yield condition, f"corpus-{corpus}" if corpus in taken else corpus, part
        for column, subsets in values.items():
            for subset in subsets if len(subsets) > 1 else ():
                part = rows.filter(pl.col(column) == subset)
                if len(part):
                    yield condition, subset, part


@dataclasses.dataclass(frozen=True)
class _Evaluated:
    """Figures in the shapes of `figures`, NaN where not defined."""

    by_seed: Floats  # (seeds, labels + 3, 3)
    mean: Floats  # (labels + 3, 3), over the seeds
    low: Floats  # (labels + 3, 3)
    high: Floats  # (labels + 3, 3)
    support: Numbers  # (labels,), rows of all seeds
    resampled: str | None  # what was drawn for the intervals: speaker or recording; None where there are none


def _evaluate(rows: pl.DataFrame, labels: Sequence[str], n_resamples: int) -> _Evaluated:
    by_speaker = rows["speaker"].drop_nulls().n_unique() >= MIN_UNITS
    counts = _unit_counts(rows, labels, by_speaker=by_speaker)
    by_seed = figures(counts.sum(axis=0))
    low, high = _interval(counts, n_resamples)
    resampled = None if len(counts) < MIN_UNITS else "speaker" if by_speaker else "recording"
    return _Evaluated(by_seed, _mean_of_known(by_seed, axis=0), low, high, counts.sum(axis=(0, 1, 3)), resampled)


def _unit_counts(rows: pl.DataFrame, labels: Sequence[str], *, by_speaker: bool) -> Numbers:
    """Return confusion counts of shape (units, seeds, labels, labels): truth, then prediction."""
    # A unit is what is drawn in a resample: a speaker, or a recording. One of nobody known is a unit of its own.
    recording = pl.concat_str(pl.lit("recording "), "content_hash")
    unit = pl.coalesce(pl.concat_str(pl.lit("speaker "), "speaker"), recording) if by_speaker else recording
    numbers = rows.select(unit=unit.rank("dense").cast(pl.Int64) - 1, seed=pl.col("seed").rank("dense") - 1)
    places = (
        numbers["unit"].to_numpy(),
        numbers["seed"].cast(pl.Int64).to_numpy(),
        label_numbers(rows["emotion"], labels),
        label_numbers(rows["predicted"], labels),
    )
    shape = (places[0].max() + 1, places[1].max() + 1, len(labels), len(labels))
    flat = np.ravel_multi_index(places, shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)


def _interval(counts: Numbers, n_resamples: int) -> tuple[Floats, Floats]:
    """Return the ends of the percentile bootstrap intervals of all figures (Efron & Tibshirani 1993, chapter 13)."""
    # Whole units are drawn with replacement, because the rows of one speaker resemble each other and those of a
    # recording under several seeds even more (Field & Welsh 2007, Bootstrapping clustered data).
    n_units, _, n_labels, _ = counts.shape
    low, high = np.full((2, n_labels + 3, len(MEASURES)), np.nan)
    if n_units < MIN_UNITS:
        return low, high
    # units with the same counts are one with a higher chance: the same distribution, and 10 000 recordings cost
    # no more than the few ways in which one can turn out
    distinct, n_same = np.unique(counts.reshape(n_units, -1), axis=0, return_counts=True)
    weights = np.random.default_rng(0).multinomial(n_units, n_same / n_units, size=n_resamples)
    resampled = weights.astype(np.float64) @ distinct.astype(np.float64)
    drawn = _mean_of_known(figures(resampled.reshape(n_resamples, *counts.shape[1:])), axis=1)
    defined = ~np.isnan(drawn).all(axis=0)
    tail = 50 * (1 - LEVEL)  # percent
    low[defined], high[defined] = np.nanpercentile(drawn[:, defined], (tail, 100 - tail), axis=0)
    return low, high


def _mean_of_known(values: Floats, *, axis: int) -> Floats:
    """Return the mean of what is not NaN; NaN, without a warning, where nothing is known."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis))
