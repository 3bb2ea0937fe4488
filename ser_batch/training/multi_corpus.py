"""Targets of a training, and several corpora in one: the labels of each, how often its segments are drawn.

A corpus says nothing about labels that it lacks. Nobody in CREMA-D was asked to be calm, so a clip of it is no evidence
against calm: it is trained on as one of the labels that its corpus has.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from ser_batch.arrays import Array, Flags, Floats, Numbers
from ser_batch.errors import InputError
from ser_batch.network.recipes import HeadRecipe, Recipe
from ser_batch.tables.features import Features, corpora, vote_columns

# in targets, where a label is not allowed
MASKED = np.float32(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Corpora:
    """The corpora of a training part."""

    names: tuple[str, ...]  # sorted
    number: Numbers  # of each row of the table, shape (rows,); -1 where its corpus is not among them
    has: Flags  # which labels they have, shape (corpora, labels): those that occur, as emotions or in votes

    def allowed(self, rows: Numbers) -> Flags:
        """Return the labels that rows may have, shape (n, labels); those of other corpora may have any."""
        return np.vstack([self.has, np.ones_like(self.has[:1])])[self.number[rows]]

    def weights(self, rows: Numbers, y: Numbers, recipe: Recipe | HeadRecipe) -> Floats:
        """Return how often each of some rows is drawn in an epoch of as many, shape (n,)."""
        cells = self.number[rows], y[rows]
        counts = np.zeros(self.has.shape)
        np.add.at(counts, cells, 1)
        of_label = _powers(counts, recipe.label_power)
        of_label /= np.maximum(of_label.sum(axis=1, keepdims=True), 1)
        of_corpus = _powers(counts.sum(axis=1), recipe.corpus_power) * (self.has.sum(axis=1) > 1)
        of_cell = of_corpus[:, None] / of_corpus.sum() * of_label
        return np.asarray((of_cell * len(rows) / np.maximum(counts, 1))[cells])

    def check(self, labels: Sequence[str], prefix: str) -> None:
        """Refuse labels that nothing tells from any other."""
        is_told = self.has[self.has.sum(axis=1) > 1].any(axis=0)
        for i, label in enumerate(labels):
            alone = [name for name, has in zip(self.names, self.has[:, i], strict=True) if has]
            if alone and not is_told[i]:
                raise InputError(
                    f"{prefix}the label {label!r} is the only one of {' and '.join(alone)}, and no corpus has it "
                    "beside another, so nothing tells it from the rest. If recordings of several folders belong "
                    "together, give the labels file a column corpus with one name for them; else label more recordings"
                )

    def labels_of(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """Return the labels that each corpus has, of all those of the model."""
        return {
            name: [label for label, is_there in zip(labels, has, strict=True) if is_there]
            for name, has in zip(self.names, self.has, strict=True)
        }


def even_weights(of_corpus: npt.NDArray[Any]) -> Floats:
    """Return weights with which each corpus counts the same, sum 1, shape (n,); corpora are names or numbers."""
    _, inverse, counts = np.unique(of_corpus, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[inverse] / len(counts))


def _powers(counts: Floats, power: float) -> Floats:
    """Return counts to a power; 0 stays 0 even to the power of 0."""
    return np.where(counts > 0, np.maximum(counts, 1) ** power, 0.0)


def corpora_of(data: Features, targets: Array, rows: Numbers) -> Corpora | None:
    """Return the corpora of a training part; None where there is one."""
    of_row = corpora(data.rows)
    names = of_row.gather(rows).unique().sort().to_list()
    if len(names) < 2:
        return None
    number = of_row.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64).to_numpy()
    has = np.zeros((len(names), targets.shape[1]), dtype=np.bool_)
    np.logical_or.at(has, number[rows], targets[rows] > 0)
    return Corpora(tuple(names), number, has)


def target_shares(data: Features, labels: Sequence[str], *, soft_labels: bool = False) -> Array:
    """Return what each row of the table is to be learned as, shape (rows, labels)."""
    # That is 1 for its emotion, or, with `soft_labels`, the shares of its votes where it has any (see `check_votes`).
    hard = np.asarray(data.rows["emotion"].to_numpy()[:, None] == np.asarray(labels), dtype=np.float32)
    if not soft_labels:
        return hard
    columns = vote_columns(data.rows)
    votes = np.zeros(hard.shape)
    for i, label in enumerate(labels):
        if label in columns:
            votes[:, i] = data.rows[columns[label]].fill_null(0).to_numpy()
    sums = votes.sum(axis=1, keepdims=True)
    return np.where(sums > 0, votes / np.where(sums > 0, sums, 1), hard).astype(np.float32)


def label_numbers(data: Features, labels: Sequence[str]) -> Numbers:
    """Return the number of each row's emotion in `labels`, which are sorted; any number where it is not there."""
    return np.searchsorted(labels, data.rows["emotion"].to_numpy()).astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """What the rows of a table are learned as, and the corpora of those that are trained on."""

    labels: Sequence[str]
    y: Numbers  # label number of each row, shape (rows,); any number where its emotion is no label
    shares: Array  # shape (rows, labels)
    corpora: Corpora | None  # None where there is one

    @classmethod
    def of(cls, data: Features, labels: Sequence[str], rows: Numbers, shares: Array | None = None) -> Self:
        """Return targets for training on `rows`; `shares` are by default those of the emotions."""
        shares = target_shares(data, labels) if shares is None else shares
        return cls(labels, label_numbers(data, labels), shares, corpora_of(data, shares, rows))

    def cells(self, rows: Numbers) -> Numbers:
        """Return a number for corpus and label of each row, shape (n,)."""
        own = self.y[rows]
        return own if self.corpora is None else self.corpora.number[rows] * len(self.labels) + own

    def allowed(self, rows: Numbers) -> Flags:
        """Return the labels that each row may have, shape (n, labels)."""
        return np.ones((len(rows), len(self.labels)), np.bool_) if self.corpora is None else self.corpora.allowed(rows)


def check_votes(data: Features, labels: Sequence[str], rows: Numbers) -> None:
    """Refuse to train on votes where there are none, or where they name what is no label of the model."""
    columns = vote_columns(data.rows)
    sums = data.rows.select(pl.col(columns.values()).gather(rows).sum()).row(0) if columns else ()
    voted = {label: total for label, total in zip(columns, sums, strict=True) if total}
    if not voted:
        raise InputError(
            "--soft-labels: no row to train on has votes; featurize with a labels file that has columns p_<label>, or "
            "leave the option out"
        )
    unknown = sorted(set(voted) - set(labels))
    if unknown:
        raise InputError(
            f"--soft-labels: there are votes for {', '.join(unknown)}, which no row to train on has as its emotion; "
            f"expected some of {', '.join(labels)}. Leave p_{unknown[0]} out of the labels file, or give rows that "
            "emotion"
        )
