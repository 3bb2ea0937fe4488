"""Learning what is not speech: from the training data, and from sounds that are made for it."""

import functools

import numpy as np
import numpy.typing as npt

from ser_batch.config import EncoderSpec
from ser_batch.featurize.front_ends import front_end
from ser_batch.network.domain import Domain
from ser_batch.sounds import KINDS, sound
from ser_batch.tables import Features, corpora
from ser_batch.train.parts import Numbers

Floats = npt.NDArray[np.float64]

# as long as the windows of score
SOUND_S = 4.04
SOUNDS_PER_KIND = 16
SEED = 1
# speech that is looked at, shared evenly by the corpora: more changes nothing
MOST_ROWS = 3000
# of the way from typical speech to typical sounds: a segment farther along is out of domain
LIMIT = 0.55
# how far the covariance is shrunk to a multiple of the identity: between .3 and .97, speech of corpora that were left
# out and real music stay farthest apart at .5 to .7
SHRINKAGE = 0.6
# of an embedding; what never changes has no deviation
_LEAST_SCALE = 1e-4
_DIGITS = 6


def domain_of(data: Features, rows: Numbers) -> Domain:
    """Learn to tell speech from other sounds.

    It is a linear discriminant with a shrunk covariance. Corpora count the same.

    Parameters
    ----------
    data
        Embeddings; the encoder is found where `data` says, or among those that ship.
    rows
        Numbers of the rows that are trained on, at least two.

    Raises
    ------
    InputError
        The features are MFCCs.
    UsageError
        The encoder is not there.
    EncoderError
        It is incomplete or altered, or not the one of `data`.
    """
    speech = data.embedding[_sample(corpora(data.rows).to_numpy()[rows], rows)]
    return between(speech, sounds_of(data))


def sounds_of(data: Features) -> npt.NDArray[np.float32]:
    """Return embeddings of sounds that are not speech, by the encoder of `data`, shape (n, d).

    Raises
    ------
    UsageError
        The encoder is not there.
    EncoderError
        It is incomplete or altered, or not the one of `data`.
    """
    spec = data.encoder_spec
    return sounds_embedding(spec, data.encoder_folder or spec.encoder)


def between(speech: npt.NDArray[np.float32], sounds: npt.NDArray[np.float32]) -> Domain:
    """Return the domain that separates embeddings of speech from those of sounds, shapes (n, d) and (m, d)."""
    groups = [group.astype(np.float64) for group in (speech, sounds)]
    means = [group.mean(axis=0) for group in groups]
    scale = np.maximum(np.sqrt(np.mean([group.var(axis=0) for group in groups], axis=0)), _LEAST_SCALE)
    covariance = np.mean(
        [_covariance((group - mean) / scale) for group, mean in zip(groups, means, strict=True)], axis=0
    )
    shrunk = (1 - SHRINKAGE) * covariance
    shrunk[np.diag_indices_from(shrunk)] += SHRINKAGE * np.trace(covariance) / len(covariance)
    direction = np.linalg.solve(shrunk, (means[1] - means[0]) / scale) / scale
    typical, strange = (float(np.median(group @ direction)) for group in groups)
    direction /= LIMIT * (strange - typical)
    rounded = np.array([float(f"{weight:.{_DIGITS}g}") for weight in direction])
    return Domain(tuple(rounded.tolist()), round(-float(np.median(groups[0] @ rounded)), _DIGITS))


@functools.lru_cache(maxsize=2)
def sounds_embedding(spec: EncoderSpec, encoder_place: str) -> npt.NDArray[np.float32]:
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
    """Return some `MOST_ROWS` rows, spread evenly over the table: of each corpus as many, some twice if it has few."""
    own = [rows[of_corpus == name] for name in sorted(set(of_corpus.tolist()))]
    n_each = min(MOST_ROWS // len(own), max(len(numbers) for numbers in own))
    return np.concatenate([numbers[np.linspace(0, len(numbers) - 1, n_each).astype(np.int64)] for numbers in own])
