"""Recordings composed as calls are: one voice, four fifths neutral speech, one fifth one emotion."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import polars as pl

from ser_batch.arrays import Flags, Floats, Numbers
from ser_batch.network.heads import ARCHIVE, CHANNEL, NEUTRAL, log_prior_of
from ser_batch.report.metrics import restricted
from ser_batch.report.regimes import ALONE, BALANCED, MOSTLY_NEUTRAL, NO_REFERENCE
from ser_batch.tables.features import corpora
from ser_batch.tables.schemas import KEY, LABEL_PREFIX
from ser_batch.training.references import group_numbers

# neutral segments per call, at most, and how many of them there are for each one of the emotion
MAX_NEUTRAL = 24
NEUTRAL_PER_EMOTIONAL = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """The segments of one composed call."""

    name: str  # speaker and emotion. The call of the same name in another condition has the same segments
    rows: Numbers  # row numbers of the features table


def is_speech(rows: pl.DataFrame) -> Flags:
    """Return which rows are not known to be song, shape (rows,)."""
    return rows["vocal_channel"].ne_missing("song").to_numpy()


def composed_calls(rows: pl.DataFrame, numbers: Numbers) -> list[Call]:
    """Compose a call for each emotion of each speaker who has neutral speech as well."""
    taken = rows.select(*KEY, "speaker", "emotion", corpora(rows), row=pl.int_range(pl.len(), dtype=pl.Int64))[numbers]
    taken = taken.filter(is_speech(rows)[numbers]).drop_nulls("speaker").sort(KEY)
    calls = []
    groups = taken.partition_by("corpus", "variant", "speaker", as_dict=True, maintain_order=True)
    for (corpus, _, speaker), own in sorted(groups.items()):
        is_neutral = own["emotion"].is_in(NEUTRAL)
        neutral = own.filter(is_neutral)["row"].to_numpy()
        if not len(neutral):
            continue
        for emotion in own.filter(~is_neutral)["emotion"].unique().sort():
            emotional = own.filter(emotion=emotion)["row"].to_numpy()
            # the same in every condition, whatever else is held out
            generator = np.random.default_rng(list(f"{corpus}/{speaker}/{emotion}".encode()))
            n_neutral = min(MAX_NEUTRAL, len(neutral))
            n_emotional = min(max(1, n_neutral // NEUTRAL_PER_EMOTIONAL), len(emotional))
            drawn = (
                generator.choice(neutral, n_neutral, replace=False),
                generator.choice(emotional, n_emotional, replace=False),
            )
            calls.append(Call(f"{speaker}-{emotion}", np.sort(np.concatenate(drawn))))
    return calls


class Decide(Protocol):
    """A trained model, and how it decides by what is known of its reference."""

    def __call__(self, rows: Numbers, *, archive: Numbers | None, channel: Numbers | None, log_prior: Floats) -> Floats:
        """Return probabilities after the prior, shape (n, labels)."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Trial:
    """What is asked of a model in one regime."""

    regime: str
    rows: Numbers
    archive: Numbers | None
    channel: Numbers | None
    log_prior: Floats
    call: Sequence[str] | None = None


def regime_predictions(
    rows: pl.DataFrame,
    test: Numbers,
    decide: Decide,
    labels: Sequence[str],
    *,
    log_prior: Floats,
    calm: Numbers,
    common: Sequence[str] | None = None,
    corpus_labels: Mapping[str, Sequence[str]] | None = None,
    is_out_of_domain: Flags | None = None,
) -> pl.DataFrame:
    """Predict the held-out speech of one run in each regime of `report.regimes.REGIMES`."""
    # An archive is the held-out speech of one corpus in one condition, or all of its composed calls. The prior is
    # balanced where each emotion is about as frequent as the others, and `log_prior` in composed calls.
    names = corpora(rows)
    schema = {
        **dict.fromkeys(("corpus", "condition", "regime", "call", "emotion", "predicted"), pl.String),
        **dict.fromkeys((LABEL_PREFIX + label for label in labels), pl.Float64),
        "is_out_of_domain": pl.Boolean,
    }
    frames = [pl.DataFrame(schema=schema)]
    # nothing is a call to a model that takes no speech for neutral
    has_neutral = bool(set(NEUTRAL) & set(labels if common is None else common))
    for trial in _trials(rows, test, calm if has_neutral else None, labels, log_prior):
        own, corpus = rows[trial.rows], names[trial.rows]
        probabilities = decide(trial.rows, archive=trial.archive, channel=trial.channel, log_prior=trial.log_prior)
        with_calm = trial.regime == MOSTLY_NEUTRAL
        allowed = _allowed(corpus, own["emotion"], labels, common, corpus_labels or {}, with_calm=with_calm)
        probabilities = restricted(probabilities, allowed)
        columns = {
            "corpus": corpus,
            "condition": own["variant"],
            "regime": [trial.regime] * len(own),
            "call": trial.call,
            "emotion": own["emotion"],
            "predicted": np.asarray(labels)[probabilities.argmax(axis=1)],
            **{LABEL_PREFIX + label: probabilities[:, i] for i, label in enumerate(labels)},
            "is_out_of_domain": None if is_out_of_domain is None else is_out_of_domain[trial.rows],
        }
        frames.append(pl.DataFrame(columns, schema=schema))
    return pl.concat(frames)


def _trials(
    rows: pl.DataFrame, test: Numbers, calm: Numbers | None, labels: Sequence[str], log_prior: Floats
) -> Iterator[_Trial]:
    """Give the regimes in their order; no composed calls without `calm`."""
    balanced = log_prior_of(labels, None)
    spoken = test[is_speech(rows)[test]]
    archive, channel = group_numbers(rows, ARCHIVE), group_numbers(rows, CHANNEL)
    yield _Trial(NO_REFERENCE, spoken, None, None, balanced)
    yield _Trial(ALONE, spoken, archive[spoken], None, balanced)
    yield _Trial(BALANCED, spoken, archive[spoken], channel[spoken], balanced)
    calls = [] if calm is None else composed_calls(rows, np.union1d(spoken, calm))
    if calls:
        called = np.concatenate([call.rows for call in calls])
        number = np.repeat(np.arange(len(calls)), [len(call.rows) for call in calls])
        yield _Trial(MOSTLY_NEUTRAL, called, archive[called], number, log_prior, [calls[i].name for i in number])


def _allowed(
    corpus: pl.Series,
    emotion: pl.Series,
    labels: Sequence[str],
    common: Sequence[str] | None,
    corpus_labels: Mapping[str, Sequence[str]],
    *,
    with_calm: bool,
) -> Flags:
    """Return which labels each row may get, shape (n, labels)."""
    allowed = np.ones((len(corpus), len(labels)), dtype=np.bool_)
    for name in corpus.unique():
        is_own = (corpus == name).to_numpy()
        # a corpus that was held out is tried on the labels it shares, calls of it on all that held-out corpora share
        own = corpus_labels.get(name, labels if common is None else ())
        known = {*(labels if with_calm else own), *emotion.filter(is_own)}
        known &= set(labels if common is None else common)
        # calm speech counts as neutral there
        known |= set(NEUTRAL) if with_calm and known & set(NEUTRAL) else set()
        allowed[is_own] = np.isin(labels, list(known))
    return allowed
