"""Fitting of heads on embeddings on a fold, their temperatures, and their predictions of held-out rows."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ser_batch.arrays import Array, Flags, Floats, Numbers
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import (
    ARCHIVE,
    CHANNEL,
    ChannelMean,
    HeadModel,
    Heads,
    log_prior_of,
    prior_of,
    probabilities_of,
)
from ser_batch.network.recipes import HEAD
from ser_batch.report.metrics import restricted
from ser_batch.splits.development import development
from ser_batch.tables.features import Features, corpora
from ser_batch.training.batches import EmbeddedSegments
from ser_batch.training.multi_corpus import Corpora, corpora_of, even_weights, label_numbers
from ser_batch.training.out_of_domain import rounded
from ser_batch.training.priority import fitted_chances
from ser_batch.training.references import channel_mean, group_numbers, mean_references
from ser_batch.training.regimes import composed_calls
from ser_batch.training.tasks import EpochLog, FitTask, FoldResult, FoldTask, HeadPredictions, Predictions
from ser_batch.training.temperature import temperature_of


def fit_heads(task: FitTask) -> FoldResult:
    """Fit heads and predict what is held out: with the archive and speaker known, and with neither."""
    fold, labels = task.fold, tuple(task.targets.labels)
    network, heads, history = _train(task, fold.train)
    found = _predict(task.data, HeadModel(heads, labels), fold.test, fold)
    result = FoldResult(
        fold,
        network,
        heads.scaler,
        history,
        found.known.probabilities[: len(fold.test)],
        Predictions(np.empty((0, len(labels))), np.empty(0, dtype=np.int64)),
        1.0,
        raw_per_recording=found.unknown.probabilities,
        heads=found,
    )
    if task.settings.has_other_folds:
        return result
    # no other fold gives a temperature, so other heads are trained on a part of the training rows
    others = []
    for rest, apart, allowed in _apart(task):
        _, heads, _ = _train(task, rest, "for the temperature: ")
        whole = dataclasses.replace(fold, common=None)
        others.append(_predict(task.data, HeadModel(heads, labels), apart, whole, allowed))
    return with_temperatures(result, others, labels)


def with_temperatures(result: FoldResult, others: Sequence[HeadPredictions], labels: Sequence[str]) -> FoldResult:
    """Return a result of heads with the temperatures that fit the predictions of others like them."""
    if result.heads is None or not others:
        return result
    known = temperature_of([own.known for own in others])
    prior = log_prior_of(labels, prior_of(labels))
    of_calls = temperature_of(
        [
            dataclasses.replace(
                own.calls,
                probabilities=probabilities_of(
                    np.log(np.maximum(own.calls.probabilities, 1e-12)), temperature=known, log_prior=prior
                ),
            )
            for own in others
        ]
    )
    unknown = temperature_of([own.unknown for own in others])
    calls = [
        call
        for number, own in enumerate(others)
        for call in own.composed_calls(number, labels, temperature=known * of_calls, log_prior=prior / of_calls)
    ]
    model = dataclasses.replace(
        result.heads.model, temperature=known, temperature_without=unknown, temperature_of_calls=of_calls
    )
    return dataclasses.replace(
        result,
        temperature=known,
        heads=dataclasses.replace(result.heads, model=model),
        priority=fitted_chances(calls, labels),
    )


def _predict(
    data: Features, model: HeadModel, rows: Numbers, fold: FoldTask, allowed: Flags | None = None
) -> HeadPredictions:
    """Predict rows, where the other rows of their corpora and speakers are known and where not."""

    def limited(own: Floats, allowed: Flags | None) -> Floats:
        if fold.common is not None:
            return restricted(own, np.isin(model.labels, fold.common))
        return own if allowed is None else restricted(own, allowed)

    def predicted(archive: Array | None, channel: ChannelMean | None) -> Floats:
        found = model.log_probabilities(embedding, archive=archive, channel=channel, is_balanced=True)
        return limited(np.exp(found), allowed)

    embedding = data.embedding[rows]
    of_archive, of_speaker = group_numbers(data.rows, ARCHIVE), group_numbers(data.rows, CHANNEL)
    archive = mean_references(embedding, of_archive[rows])
    # all such speech, or song, that the table has of these speakers, without a label: of a random split, the training
    # part too
    is_song = data.rows["vocal_channel"].eq_missing("song").to_numpy()
    known = np.flatnonzero(np.isin(of_speaker, of_speaker[rows]) & np.isin(is_song, is_song[rows]))
    place = np.searchsorted(known, rows)
    of_known = channel_mean(data.embedding[known], of_speaker[known])
    channel = ChannelMean(of_known.mean[place], of_known.count[place])
    calls = [call.rows for call in composed_calls(data.rows, rows)]
    in_calls = np.concatenate([rows[:0], *calls])
    of_call = np.repeat(np.arange(len(calls)), [len(call) for call in calls])
    embedding_in_calls = data.embedding[in_calls]
    log_in_calls = model.log_probabilities(
        embedding_in_calls,
        archive=mean_references(embedding_in_calls, of_archive[in_calls]),
        channel=channel_mean(embedding_in_calls, of_call),
        is_balanced=False,
    )
    allowed_in_calls = None if allowed is None else allowed[np.searchsorted(rows, in_calls)]
    y, corpus = label_numbers(data, model.labels), corpora(data.rows).to_numpy()
    weights = even_weights(corpus[rows])
    return HeadPredictions(
        model,
        Predictions(
            np.concatenate([predicted(archive, channel), predicted(archive, None)]),
            np.tile(y[rows], 2),
            np.tile(weights, 2),
        ),
        Predictions(predicted(None, None), y[rows], weights),
        Predictions(limited(np.exp(log_in_calls), allowed_in_calls), y[in_calls], even_weights(corpus[in_calls])),
        of_call,
        (data.rows["end_s"] - data.rows["start_s"]).to_numpy()[in_calls],
    )


def _apart(task: FitTask) -> Iterator[tuple[Numbers, Numbers, Flags | None]]:
    """Give what is left, rows set apart, and labels they may have: each corpus where corpora are held out."""
    fold, shares, several = task.fold, task.targets.shares, task.targets.corpora
    if several is None or fold.common is None:
        (rows,) = development(task.data.rows, fold.train, by_speaker=fold.by_speaker, seed=fold.seed)
        if len(rows):
            yield np.setdiff1d(fold.train, rows), rows, None if several is None else several.allowed(rows)
        return
    for number, has in enumerate(several.has):
        is_own = several.number[fold.train] == number
        rest, rows = fold.train[~is_own], fold.train[is_own]
        common = has & shares[rest].any(axis=0)
        rows = rows[shares[rows][:, common].any(axis=1)]
        others = corpora_of(task.data, shares, rest)
        is_learned = others is None or bool((others.has.sum(axis=1) > 1).any())
        if common.sum() > 1 and is_learned:
            yield rest, rows, np.tile(common, (len(rows), 1))


def _train(task: FitTask, rows: Numbers, title: str = "") -> tuple[Any, Heads, list[dict[str, Any]]]:
    """Train heads on rows; return the network, the heads in it and its history."""
    from ser_batch.network import head_training, optimization

    data, start, seed = task.data, task.settings.start, task.fold.seed
    targets = dataclasses.replace(task.targets, corpora=corpora_of(data, task.targets.shares, rows))
    scaler = fit_embedding_scaler(data, rows, targets.corpora) if start is None else start.scaler
    segments = EmbeddedSegments(data, rows, targets, scaler, HEAD)
    optimization.set_seed(seed)
    network = head_training.build(data.encoder_spec.embedding_size, len(targets.labels), HEAD.references, HEAD)
    if start is not None:
        start.begin_heads(network, targets.labels)
    epochs = task.settings.epochs or HEAD.epochs
    log = EpochLog(task, epochs, title)
    near = HEAD.near * 100 / max(100, len(segments)) if start is not None else 0.0
    log.begin()
    head_training.fit(
        network,
        segments,
        HEAD,
        epochs=epochs,
        seed=seed,
        on_epoch=lambda epoch, loss: log.add(epoch, {"loss": loss}),
        on_compiled=log.compiled,
        near=near,
    )
    return network, head_training.heads_of(network, scaler), log.rows


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
    return Scaler(rounded(mean), rounded(np.maximum(scale, 1e-6)))
