"""One model of heads on embeddings: fitted on a training part, tried on what is held out."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import (
    ARCHIVE,
    CHANNEL,
    NEUTRAL,
    NONE,
    ChannelMean,
    HeadModel,
    Heads,
    log_prior_of,
    prior_of,
    probabilities_of,
)
from ser_batch.network.recipes import HEAD, HeadRecipe
from ser_batch.report.metrics import restricted
from ser_batch.splits.development import development
from ser_batch.tables.features import Features, corpora
from ser_batch.training.batches import drawn_by_weight, segment_numbers
from ser_batch.training.multi_corpus import MASKED, Corpora, corpora_of, even_weights, target_shares
from ser_batch.training.references import DrawnReferences, channel_mean, group_numbers, mean_references, members_of
from ser_batch.training.regimes import composed_calls
from ser_batch.training.tasks import FoldResult, FoldTask, HeadsTried, Say, Settings, label_numbers
from ser_batch.training.temperature import fitted_temperature

Array = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


def run_heads(
    data: Features,
    labels: Sequence[str],
    shares: Array | None,
    part: FoldTask,
    settings: Settings,
    say: Say,
    prefix: str,
) -> FoldResult:
    """Fit heads and predict what is held out: with the archive and speaker known, and with neither."""
    shares = target_shares(data, labels) if shares is None else shares
    several = corpora_of(data, shares, part.train)
    if several is not None:
        several.check(labels, prefix)
    task = _HeadsTask(data, labels, shares, several, part, settings, say, prefix)
    network, heads, history = task.train(part.train, "")
    model = HeadModel(heads, tuple(labels))
    tried = _tried(data, model, part.test, part)
    run = FoldResult(
        part,
        network,
        heads.scaler,
        history,
        tried.known[: len(part.test)],
        (np.empty((0, len(labels))), np.empty(0, dtype=np.int64)),
        1.0,
        raw_alone=tried.unknown,
        heads=tried,
    )
    if settings.has_other_folds:
        return run
    # nothing else tells how sure the heads may be, so others are trained that have not heard all of the training part
    tried_apart = []
    for rest, apart, allowed in task.apart():
        _, others, _ = task.train(rest, "for the temperature: ")
        model = HeadModel(others, tuple(labels))
        tried_apart.append(_tried(data, model, apart, dataclasses.replace(part, common=None), allowed))
    return with_temperatures(run, tried_apart, labels)


def with_temperatures(run: FoldResult, tried: Sequence[HeadsTried], labels: Sequence[str]) -> FoldResult:
    """Return a run of heads with the temperatures that fit what such heads say of rows they did not learn from."""
    if run.heads is None or not tried:
        return run
    truth = np.concatenate([of.truth for of in tried])
    weights = np.concatenate([of.weights for of in tried])
    unknown = fitted_temperature(np.concatenate([of.unknown for of in tried]), truth, weights)
    known = fitted_temperature(
        np.concatenate([of.known for of in tried]),
        np.concatenate([np.tile(of.truth, 2) for of in tried]),
        np.concatenate([np.tile(of.weights, 2) for of in tried]),
    )
    log_called = np.log(np.maximum(np.concatenate([of.called for of in tried]), 1e-12))
    prior = log_prior_of(labels, prior_of(labels))
    of_calls = fitted_temperature(
        probabilities_of(log_called, temperature=known, log_prior=prior),
        np.concatenate([of.called_truth for of in tried]),
        np.concatenate([of.called_weights for of in tried]),
    )
    model = dataclasses.replace(
        run.heads.model, temperature=known, temperature_without=unknown, temperature_of_calls=of_calls
    )
    return dataclasses.replace(run, temperature=known, heads=dataclasses.replace(run.heads, model=model))


def _tried(data: Features, model: HeadModel, rows: Numbers, part: FoldTask, allowed: Flags | None = None) -> HeadsTried:
    """Return what heads say of rows, where the other rows of their corpora and speakers are known and where not."""

    def limited(own: npt.NDArray[np.float64], allowed: Flags | None) -> npt.NDArray[np.float64]:
        if part.common is not None:
            return restricted(own, np.isin(model.labels, part.common))
        return own if allowed is None else restricted(own, allowed)

    embedding = data.embedding[rows]
    of_archive, of_speaker = group_numbers(data.rows, ARCHIVE), group_numbers(data.rows, CHANNEL)
    archive = mean_references(embedding, of_archive[rows])
    # all such speech, or song, that the table has of these speakers, without a label: of a random split, the training
    # part too
    sung = data.rows["vocal_channel"].eq_missing("song").to_numpy()
    heard = np.flatnonzero(np.isin(of_speaker, of_speaker[rows]) & np.isin(sung, sung[rows]))
    place = np.searchsorted(heard, rows)
    of_heard = channel_mean(data.embedding[heard], of_speaker[heard])
    channel = ChannelMean(of_heard.mean[place], of_heard.count[place])

    def said(archive: Array | None, channel: ChannelMean | None) -> npt.NDArray[np.float64]:
        own = np.exp(model.log_probabilities(embedding, archive=archive, channel=channel, is_balanced=True))
        return limited(own, allowed)

    y, corpus = label_numbers(data, model.labels), corpora(data.rows).to_numpy()
    calls = [call.rows for call in composed_calls(data.rows, rows)]
    called = np.concatenate([rows[:0], *calls])
    of_call = np.repeat(np.arange(len(calls)), [len(call) for call in calls])
    embedding_of_calls = data.embedding[called]
    said_of_calls = model.log_probabilities(
        embedding_of_calls,
        archive=mean_references(embedding_of_calls, of_archive[called]),
        channel=channel_mean(embedding_of_calls, of_call),
        is_balanced=False,
    )
    place = np.searchsorted(rows, called)
    return HeadsTried(
        model,
        np.concatenate([said(archive, channel), said(archive, None)]),
        said(None, None),
        y[rows],
        even_weights(corpus[rows]),
        limited(np.exp(said_of_calls), None if allowed is None else allowed[place]),
        y[called],
        even_weights(corpus[called]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _HeadsTask:
    """What the trainings of one part have in common."""

    data: Features
    labels: Sequence[str]
    shares: Array
    corpora: Corpora | None
    part: FoldTask
    settings: Settings
    say: Say
    prefix: str

    def apart(self) -> Iterator[tuple[Numbers, Numbers, Flags | None]]:
        """Give what is left, rows set apart, and labels they may have: each corpus where corpora are held out."""
        train = self.part.train
        if self.corpora is None or self.part.common is None:
            (rows,) = development(self.data.rows, train, by_speaker=self.part.by_speaker, seed=self.part.seed)
            if len(rows):
                yield np.setdiff1d(train, rows), rows, None if self.corpora is None else self.corpora.allowed(rows)
            return
        for number, has in enumerate(self.corpora.has):
            is_own = self.corpora.number[train] == number
            common = has & self.shares[train[~is_own]].any(axis=0)
            rows = train[is_own]
            rows = rows[self.shares[rows][:, common].any(axis=1)]
            others = corpora_of(self.data, self.shares, train[~is_own])
            is_told = others is None or bool((others.has.sum(axis=1) > 1).any())
            if common.sum() > 1 and is_told:
                yield train[~is_own], rows, np.tile(common, (len(rows), 1))

    def train(self, rows: Numbers, what_for: str) -> tuple[Any, Heads, list[dict[str, Any]]]:
        """Train heads on rows; return the network, the heads in it and a row an epoch."""
        from ser_batch.network import head_training, optimization

        start = self.settings.start
        size = self.data.encoder_spec.embedding_size
        several = corpora_of(self.data, self.shares, rows)
        scaler = fit_embedding_scaler(self.data, rows, several) if start is None else start.scaler
        segments = EmbeddedSegments(
            self.data,
            rows,
            label_numbers(self.data, self.labels),
            self.labels,
            scaler,
            HEAD,
            shares=self.shares,
            corpora=several,
        )
        optimization.set_seed(self.part.seed)
        network = head_training.build(size, len(self.labels), HEAD.references, HEAD)
        if start is not None:
            start.begin_heads(network, self.labels)
        epochs = self.settings.epochs or HEAD.epochs
        history: list[dict[str, Any]] = []
        started = time.monotonic()

        def on_epoch(epoch: int, loss: float) -> None:
            history.append({"fold": self.part.fold, "seed": self.part.seed, "member": 1, "epoch": epoch, "loss": loss})
            left_s = (time.monotonic() - started) / epoch * (epochs - epoch)
            self.say(f"{self.prefix}{what_for}epoch {epoch}/{epochs}  loss {loss:.3f}  {left_s:.0f} s left")

        near = HEAD.near * 100 / max(100, len(segments)) if start is not None else 0.0
        head_training.fit(network, segments, HEAD, epochs=epochs, seed=self.part.seed, on_epoch=on_epoch, near=near)
        return network, head_training.heads_of(network, scaler), history


class EmbeddedSegments:
    """The segments of a training part; a batch has each in one of its variants, less the references of the epoch."""

    def __init__(
        self,
        data: Features,
        rows: Numbers,
        y: Numbers,
        labels: Sequence[str],
        scaler: Scaler,
        recipe: HeadRecipe,
        *,
        shares: Array,
        corpora: Corpora | None,
    ) -> None:
        mean, scale = (np.asarray(values, dtype=np.float32) for values in (scaler.mean, scaler.scale))
        self._embedding = (data.embedding[rows] - mean) / scale
        _, self._first, self._n_variants = np.unique(segment_numbers(data)[rows], return_index=True, return_counts=True)
        segments = rows[self._first]
        self._targets = shares[segments]
        n_labels = len(labels)
        if corpora is None:
            counts = np.bincount(y[segments], minlength=n_labels)
            self._weights = 1 / counts[y[segments]]
            self._cell = y[segments]
        else:
            self._targets = np.where(corpora.allowed(segments), self._targets, MASKED)
            self._weights = corpora.weights(segments, y, recipe)
            self._cell = corpora.number[segments] * n_labels + y[segments]
        is_neutral = np.isin(data.rows["emotion"].gather(rows).to_numpy(), NEUTRAL)
        self._group: dict[str, Numbers] = {}
        self._references: dict[str, DrawnReferences] = {}
        for reference in recipe.references:
            if reference == NONE:
                continue
            _, group = np.unique(group_numbers(data.rows, reference)[rows], return_inverse=True)
            self._group[reference] = group
            self._references[reference] = DrawnReferences(
                self._embedding,
                tuple((own[is_neutral[own]], own[~is_neutral[own]]) for own in members_of(group)),
                recipe.neutral_shares,
                (recipe.archive_segments,) if reference == ARCHIVE else recipe.channel_segments,
            )
        self._names = recipe.references
        self._drawn: dict[str, tuple[Array, Array]] = {}

    def __len__(self) -> int:
        return len(self._first)

    def order(self, generator: np.random.Generator) -> Numbers:
        """Begin an epoch: draw its references; return the numbers of its segments, each as often as it weighs."""
        self._drawn = {name: references.draw(generator) for name, references in self._references.items()}
        return drawn_by_weight(self._weights, self._cell, generator)

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[dict[str, tuple[Array, Array]], Array]:
        """Return the inputs of each reference and the targets, see `network.head_training.HeadSegments`."""
        rows = self._first[numbers] + generator.integers(self._n_variants[numbers])
        embedding = self._embedding[rows]
        inputs = {}
        for name in self._names:
            if name == NONE:
                inputs[name] = embedding, np.full(len(rows), 0.5, dtype=np.float32)
                continue
            means, shares = self._drawn[name]
            group = self._group[name][rows]
            inputs[name] = embedding - means[group], shares[group]
        return inputs, self._targets[numbers][:, None]


def fit_embedding_scaler(data: Features, rows: Numbers, corpora: Corpora | None) -> Scaler:
    """Fit mean and deviation of each number of an embedding on `rows`; corpora count the same."""
    weights = np.ones(len(rows))
    if corpora is not None:
        number = corpora.number[rows]
        weights = 1 / np.bincount(number)[number]
    weights /= weights.sum()
    mean, square = np.zeros((2, data.embedding.shape[1]))
    for first in range(0, len(rows), 1024):
        own = data.embedding[rows[first : first + 1024]].astype(np.float64)
        mean += weights[first : first + 1024] @ own
        square += weights[first : first + 1024] @ (own * own)
    scale = np.sqrt(np.maximum(square - mean**2, 1e-12))
    return Scaler(_rounded(mean), _rounded(np.maximum(scale, 1e-6)))


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
