"""Copies of one performance, found by their bytes, the codes in their names, or their sound."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.fft

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.config.features import EncoderSpec, FeatureSpec
from ser_batch.config.variants import CLEAN
from ser_batch.corpus.known_corpora import performance_of
from ser_batch.mfcc import mel_frequencies
from ser_batch.tables.features import Features
from ser_batch.tables.mfcc_array import chunks

# numbers of two recordings each, shape (pairs, 2)
Pairs = npt.NDArray[np.int64]

# copies in another format, at another rate or level last as long, but for what encoders add
_LENGTH_S = 0.1
# what is shorter, or rises and falls less, is not compared
_MIN_S, _MIN_DEVIATION_DB = 0.5, 2.0
# MFCCs are compared by the levels of bands of telephone speech in so many stretches, less the mean of each band; what
# is so many dB below the loudest counts as that. In 32 bands these correlate up to .968 in distinct recordings of
# RAVDESS, and from .993 on in copies: FLAC, 8 to 48 kHz, 12 dB less, MP3 of 64 kbit/s. 8 bands find candidates
_BANDS_HZ, _N_STRETCHES, _RANGE_DB = (150, 3400), 64, 40.0
_N_BANDS, _MIN_CORRELATION = 32, 0.984
_FEW_BANDS, _MIN_CORRELATION_OF_FEW = 8, 0.98
# embeddings are compared by their distance, in units of the deviation over the tokens of a segment: at least .091 in
# distinct recordings of RAVDESS, at most .066 in copies: FLAC, 16 to 48 kHz, 6 dB less, MP3 of 64 kbit/s. A random
# projection to so many numbers, 9 % off, finds the pairs to compare
_MAX_DISTANCE, _MAX_DISTANCE_OF_PROJECTED = 0.078, 0.11
_N_PROJECTED = 256
_ROWS_A_BLOCK = 256


def with_performances(data: Features) -> Features:
    """Return features whose rows have two more columns.

    These are ``recording``, a number, and ``performance``, a number that the recordings of one performance share.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = data.rows.with_columns(recording=pl.struct("dataset", "path").rle_id().cast(pl.Int64))
    recordings = rows.group_by("recording", maintain_order=True).first()
    places = recordings.select("corpus", "path").iter_rows()
    names = [(corpus, performance_of(path, corpus)) for corpus, path in places]
    codes = pl.Series([f"{corpus}/{code}" if code else None for corpus, code in names], dtype=pl.String)
    data = dataclasses.replace(data, rows=rows)
    same = np.concatenate([_equal(recordings["content_hash"]), _equal(codes), _alike(data)])
    graph = coo_array((np.ones(len(same)), tuple(same.T)), shape=(len(recordings), len(recordings)))
    _, group = connected_components(graph, directed=False)
    # in the order of the contents, so that splits do not hang on names
    contents = recordings.select(pl.col("content_hash").min().over(pl.Series(group))).to_series()
    performance = (contents.rank("dense").cast(pl.Int64) - 1).gather(rows["recording"])
    return dataclasses.replace(data, rows=rows.with_columns(performance=performance))


def originals(rows: pl.DataFrame, numbers: Numbers) -> Numbers:
    """Return those of some row numbers that are of the first recording of a performance in the row's variant."""
    first = pl.col("recording").min().over("performance", "variant")
    is_first = rows[numbers].select(pl.col("recording") == first).to_series().to_numpy()
    return np.asarray(numbers[is_first])


def copy_warnings(rows: pl.DataFrame) -> Iterator[str]:
    """Give a sentence on recordings that are copies of others, if there are any."""
    recordings = rows.group_by("recording", maintain_order=True).first().select("path", "emotion", "performance")
    firsts = recordings.group_by("performance", maintain_order=True).first()
    copies = recordings.filter(~pl.col("performance").is_first_distinct()).join(
        firsts, on="performance", suffix="_first"
    )
    if len(copies):
        one = copies.row(0, named=True)
        n_other = len(copies.filter(pl.col("emotion") != pl.col("emotion_first")))
        other = f"; {n_other} of them have another emotion than the first" if n_other else ""
        yield (
            f"{len(copies)} recordings are copies of others, such as {one['path']} of {one['path_first']}; a "
            f"performance is in one part of each split, and counts once in the figures{other}"
        )


def _equal(values: pl.Series) -> Pairs:
    """Return the places of equal values in pairs, each with the first of its kind."""
    places = pl.DataFrame({"value": values, "place": np.arange(len(values))}).drop_nulls()
    pairs = places.select("place", first=pl.col("place").min().over("value"))
    return pairs.filter(pl.col("place") != pl.col("first")).to_numpy().astype(np.int64)


def _alike(data: Features) -> Pairs:
    """Return the recordings that sound the same, in pairs, by the segment in the middle of each."""
    variants = data.rows["variant"]
    variant = CLEAN if (variants == CLEAN).any() else variants.min()
    segments = data.rows.with_row_index().filter(variant=variant).group_by("recording", maintain_order=True)
    middle = segments.agg(pl.all().gather(pl.len() // 2).first()).sort("duration_s")
    middle = middle.filter(pl.col("end_s") - pl.col("start_s") >= _MIN_S)
    rows, durations = middle["index"].cast(pl.Int64).to_numpy(), middle["duration_s"].to_numpy()
    if isinstance(data.spec, EncoderSpec):
        pairs = _alike_embeddings(data, rows, durations)
    else:
        pairs = _alike_mfcc(data, rows, durations)
    return middle["recording"].to_numpy()[pairs].astype(np.int64)


def _alike_mfcc(data: Features, rows: Numbers, durations: Floats) -> Pairs:
    few, many = (_band_weights(data.mfcc_spec, n) for n in (_FEW_BANDS, _N_BANDS))

    def shapes(places: Numbers, weights: Array) -> Array:
        of_rows = zip(data.mfcc[rows[places]], data.n_frames[rows[places]], strict=True)
        return np.array([_shape(mfcc[:n], weights) for mfcc, n in of_rows], dtype=np.float32)

    coarse = np.concatenate([shapes(places, few) for places in chunks(np.arange(len(rows)))])
    moving = np.flatnonzero(coarse.any(axis=1))
    pairs = moving[_near(coarse[moving], durations[moving], _distance(_MIN_CORRELATION_OF_FEW))]
    return _confirmed(pairs, lambda places: shapes(places, many), _distance(_MIN_CORRELATION))


def _distance(correlation: float) -> float:
    """Return how far vectors of length 1 are apart that correlate so."""
    return float(np.sqrt(2 * (1 - correlation)))


def _band_weights(spec: FeatureSpec, n_bands: int) -> Array:
    """Return what turns MFCCs into the mean levels of bands, in dB, shape (n_mfcc, bands)."""
    levels = scipy.fft.idct(np.eye(spec.n_mels)[: spec.n_mfcc], norm="ortho", axis=1)
    centers_hz = mel_frequencies(spec.n_mels + 2, fmax_hz=spec.sampling_rate / 2)[1:-1]
    lowest, highest = np.searchsorted(centers_hz, _BANDS_HZ)
    lowest = min(lowest, spec.n_mels - 1)
    edges = np.unique(np.linspace(lowest, max(highest, lowest + 1), n_bands + 1).round().astype(int))
    bands = [levels[:, first:last].mean(axis=1) for first, last in itertools.pairwise(edges)]
    return np.stack(bands, axis=1).astype(np.float32)


def _shape(mfcc: Array, weights: Array) -> Array:
    """Return the rise and fall of a segment's bands as a vector of length 1; of one that is steady, 0."""
    n = len(mfcc)
    sums = np.vstack([np.zeros((1, weights.shape[1])), np.cumsum(mfcc @ weights, axis=0, dtype=np.float64)])
    edges = np.linspace(0, n, _N_STRETCHES + 1)
    whole = np.minimum(edges.astype(int), n - 1)
    levels = np.diff(sums[whole] + (edges - whole)[:, None] * np.diff(sums, axis=0)[whole], axis=0) * (_N_STRETCHES / n)
    levels = np.maximum(levels, levels.max() - _RANGE_DB)
    levels -= levels.mean(axis=0)
    length = np.linalg.norm(levels)
    is_steady = length < _MIN_DEVIATION_DB * np.sqrt(levels.size)
    return np.zeros(levels.size) if is_steady else levels.reshape(-1) / length


def _alike_embeddings(data: Features, rows: Numbers, durations: Floats) -> Pairs:
    spoken = np.flatnonzero(data.n_tokens[rows] * data.encoder_spec.seconds_per_token >= _MIN_S)
    shape = (len(data.encoder_spec.outputs), 2, data.encoder_spec.width)
    deviation = np.zeros(shape[::2])
    for places in chunks(spoken):
        deviation += data.embedding[rows[places]].reshape(-1, *shape)[:, :, 1].sum(axis=0)
    deviation = np.maximum(deviation / max(1, len(spoken)), 1e-6).astype(np.float32)

    def scaled(places: Numbers) -> Array:
        mean, own = np.moveaxis(data.embedding[rows[places]].reshape(-1, *shape), 2, 0) / deviation
        both = np.concatenate([mean, np.log(np.maximum(own, 0.05))], axis=1)
        return np.asarray(both.reshape(len(places), 2 * deviation.size) / np.sqrt(deviation.size))

    projection = np.random.default_rng(0).standard_normal((2 * deviation.size, _N_PROJECTED), dtype=np.float32)
    projected = np.concatenate([scaled(places) @ projection for places in chunks(spoken)]) / np.sqrt(_N_PROJECTED)
    pairs = spoken[_near(projected, durations[spoken], _MAX_DISTANCE_OF_PROJECTED)]
    return _confirmed(pairs, scaled, _MAX_DISTANCE)


def _confirmed(pairs: Pairs, vectors: Callable[[Numbers], Array], limit: float) -> Pairs:
    """Return those pairs of places whose vectors are at most so far from each other."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for some in np.array_split(pairs, 1 + len(pairs) // _ROWS_A_BLOCK) if len(pairs) else ():
        distances = np.linalg.norm(vectors(some[:, 0]) - vectors(some[:, 1]), axis=1)
        found.append(some[distances <= limit])
    return np.concatenate(found)


def _near(vectors: Array, durations: Floats, limit: float) -> Pairs:
    """Return vectors at most so far from each other in pairs, where durations, which are sorted, are about the same."""
    vectors = vectors - vectors.sum(axis=0) / max(1, len(vectors))
    squares = np.square(vectors).sum(axis=1)
    found = [np.empty((0, 2), dtype=np.int64)]
    for first in range(0, len(vectors), _ROWS_A_BLOCK):
        own = slice(first, first + _ROWS_A_BLOCK)
        others = slice(first, int(np.searchsorted(durations, durations[own][-1] + _LENGTH_S, side="right")))
        apart = squares[own, None] + squares[others] - 2 * vectors[own] @ vectors[others].T
        longer = durations[others] - durations[own, None]
        one, other = np.nonzero(np.triu((apart <= limit**2) & (longer <= _LENGTH_S), 1))
        found.append(first + np.stack([one, other], axis=1))
    return np.concatenate(found)
