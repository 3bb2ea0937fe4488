"""Fitting of the out-of-domain models: a distance on MFCCs, a direction on embeddings."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.config.features import EncoderSpec
from ser_batch.network.out_of_domain import Domain, DomainModel, summary_features
from ser_batch.segments.front_ends import front_end
from ser_batch.sounds.kinds import KINDS, sound
from ser_batch.tables.features import Features, corpora
from ser_batch.tables.mfcc_array import chunks
from ser_batch.training.multi_corpus import even_weights
from ser_batch.training.tasks import FoldTask

# of held-out segments
SHARE_WITHIN = 0.995
# beyond those: a few corpora do not span all microphones and lines that speech comes through (docs/results.md)
MARGIN = 1.25
# in units of an MFCC; what never changes, in digital silence, has no deviation
_MIN_DEVIATION = 0.001


def fit_mfcc_domain(data: Features, final: FoldTask, folds: Sequence[FoldTask]) -> DomainModel | None:
    """Fit the domain of MFCCs; None where nothing is held out that could tell how far new speech lies."""
    if not folds:
        return None
    rows = np.arange(len(data.rows))
    statistics = np.concatenate([summary_features(data.mfcc[chunk], data.n_frames[chunk]) for chunk in chunks(rows)])
    of_corpus = np.unique(corpora(data.rows).to_numpy(), return_inverse=True)[1]
    distances, weights = [], []
    for fold in folds:
        mean, scale = _moments(statistics, of_corpus, fold.train)
        off = (statistics[fold.test] - mean) / scale
        distances.append(np.sqrt((off**2).mean(axis=1)))
        weights.append(even_weights(of_corpus[fold.test]))
    limit = MARGIN * _quantile(np.concatenate(distances), np.concatenate(weights), SHARE_WITHIN)
    mean, scale = _moments(statistics, of_corpus, final.train)
    return DomainModel(rounded(mean), rounded(scale), float(round(limit, 3)))


def _moments(statistics: Array, of_corpus: Numbers, rows: Numbers) -> tuple[Floats, Floats]:
    weights = even_weights(of_corpus[rows])
    own = statistics[rows].astype(np.float64)
    mean = np.average(own, axis=0, weights=weights)
    variance = np.average((own - mean) ** 2, axis=0, weights=weights)
    return mean, np.maximum(np.sqrt(variance), _MIN_DEVIATION)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])


def rounded(values: Floats) -> tuple[float, ...]:
    """Return numbers to six significant digits."""
    return tuple(float(f"{value:.6g}") for value in values)


# as long as the windows of score
SOUND_S = 4.04
SOUNDS_PER_KIND = 16
SEED = 1
# speech that is looked at, shared evenly by the corpora: more changes nothing
MAX_ROWS = 3000
# of the way from typical speech to typical sounds: a segment farther along is out of domain
LIMIT = 0.55
# how far the covariance is shrunk to a multiple of the identity: between .3 and .97, speech of corpora that were left
# out and real music stay farthest apart at .5 to .7
SHRINKAGE = 0.6
# of an embedding; what never changes has no deviation
_MIN_SCALE = 1e-4


def domain_of(data: Features, rows: Numbers) -> Domain:
    """Learn to tell speech from other sounds."""
    # It is a linear discriminant with a shrunk covariance. Corpora count the same.
    speech = data.embedding[_sample(corpora(data.rows).to_numpy()[rows], rows)]
    return between(speech, sounds_of(data))


def sounds_of(data: Features) -> Array:
    """Return embeddings of sounds that are not speech, by the encoder of `data`, shape (n, d)."""
    spec = data.encoder_spec
    return sounds_embedding(spec, data.encoder_folder or spec.encoder)


def between(speech: Array, sounds: Array) -> Domain:
    """Return the domain that separates embeddings of speech from those of sounds, shapes (n, d) and (m, d)."""
    groups = [group.astype(np.float64) for group in (speech, sounds)]
    means = [group.mean(axis=0) for group in groups]
    scale = np.maximum(np.sqrt(np.mean([group.var(axis=0) for group in groups], axis=0)), _MIN_SCALE)
    covariance = np.mean(
        [_covariance((group - mean) / scale) for group, mean in zip(groups, means, strict=True)], axis=0
    )
    shrunk = (1 - SHRINKAGE) * covariance
    shrunk[np.diag_indices_from(shrunk)] += SHRINKAGE * np.trace(covariance) / len(covariance)
    direction = np.linalg.solve(shrunk, (means[1] - means[0]) / scale) / scale
    speech_median, sounds_median = (float(np.median(group @ direction)) for group in groups)
    direction /= LIMIT * (sounds_median - speech_median)
    weights = rounded(direction)
    return Domain(weights, round(-float(np.median(groups[0] @ np.array(weights))), 6))


@functools.lru_cache(maxsize=2)
def sounds_embedding(spec: EncoderSpec, encoder_place: str) -> Array:
    """Return embeddings of sounds of all kinds, shape (n, d), always the same ones; computed once per process."""
    front = front_end(spec, encoder_place)
    out = []
    for number, kind in enumerate(KINDS):
        for i in range(SOUNDS_PER_KIND):
            generator = np.random.default_rng((SEED, number, i))
            segment = front.segment(spec.sampling_rate)
            segment.feed(sound(kind, generator, seconds=SOUND_S, sampling_rate=spec.sampling_rate))
            out.append(segment.finish().values)
    return np.stack(out)


def _covariance(centered: Floats) -> Floats:
    # in float32, twice as fast; it is shrunk anyway
    single = centered.astype(np.float32)
    return (single.T @ single / np.float32(len(single))).astype(np.float64)


def _sample(of_corpus: npt.NDArray[np.object_], rows: Numbers) -> Numbers:
    """Return some `MAX_ROWS` rows, spread evenly over the table: of each corpus as many, some twice if it has few."""
    own = [rows[of_corpus == name] for name in sorted(set(of_corpus.tolist()))]
    n_each = min(MAX_ROWS // len(own), max(len(numbers) for numbers in own))
    return np.concatenate([numbers[np.linspace(0, len(numbers) - 1, n_each).astype(np.int64)] for numbers in own])
