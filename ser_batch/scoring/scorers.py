"""Model applied to the segments of one recording, a batch at a time."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.model.folder import Model
from ser_batch.model.prediction import Predictor
from ser_batch.network.cmvn import FrameStats, OnlineCmvn
from ser_batch.network.heads import ChannelMean, HeadModel
from ser_batch.network.out_of_domain import Domain, DomainModel

if TYPE_CHECKING:
    from ser_batch.encoder.pooling import Embedding  # loads SciPy, and the process that starts a run needs none of it

Features = TypeVar("Features")
# what `load_applied` gives: heads, or what turns MFCCs or embeddings into probabilities
Applied = HeadModel | Predictor
SEGMENTS_A_BATCH = 64
# with online CMVN: 4 minutes of both channels of a call, 7 MB
FIRST_SEGMENTS = 256


def load_applied(loaded: Model) -> Applied:
    """Load the network, heads or estimator of a model."""
    return loaded.head_model() if loaded.is_head_model else loaded.predictor()


class Scorer(abc.ABC, Generic[Features]):
    """A model, applied to one recording; with online CMVN it keeps statistics of the channels."""

    def __init__(self, log_prior: Floats, *, uses_cmvn: bool) -> None:
        self._log_prior = log_prior
        self._cmvn = OnlineCmvn() if uses_cmvn else None

    @property
    def first_batch(self) -> int:
        """Number of segments of the first batch."""
        return SEGMENTS_A_BATCH if self._cmvn is None else FIRST_SEGMENTS

    @abc.abstractmethod
    def ood_score(self, features: Sequence[Features]) -> Floats:
        """Return the distance of segments from the training data, shape (n,): more than 1 is out of domain."""

    @abc.abstractmethod
    def probabilities(self, channels: Sequence[int], features: Sequence[Features], ood_score: Floats) -> Floats:
        """Return probabilities after the prior, shape (n, labels)."""


def make_scorer(
    loaded: Model, applied: Applied, *, log_prior: Floats, archive: Array | None, is_call: bool, has_domain: bool
) -> "Scorer[Embedding] | Scorer[Array]":
    """Return a scorer for one recording; without `has_domain`, nothing is out of domain."""
    if loaded.takes_embeddings:
        domain = loaded.domain if has_domain else None
        return _EmbeddingScorer(applied, domain, log_prior, archive, is_call=is_call)
    assert not isinstance(applied, HeadModel)
    return _MfccScorer(loaded, applied, loaded.schema.mfcc_domain if has_domain else None, log_prior)


class _MfccScorer(Scorer[Array]):
    """Networks and estimators on MFCCs."""

    def __init__(self, loaded: Model, predict: Predictor, domain: DomainModel | None, log_prior: Floats) -> None:
        super().__init__(log_prior, uses_cmvn=loaded.schema.normalize != "none")
        self._spec, self._predict, self._domain = loaded.spec, predict, domain

    def ood_score(self, features: Sequence[Array]) -> Floats:
        if self._domain is None:
            return np.zeros(len(features))
        return np.asarray(self._domain.distance(*self._padded(features)) / self._domain.limit)

    def probabilities(self, channels: Sequence[int], features: Sequence[Array], ood_score: Floats) -> Floats:
        mfcc, n_frames = self._padded(features)
        stats = None
        if self._cmvn is not None:
            # music on hold is no part of the customer's statistics
            own = FrameStats.of(mfcc, np.where(ood_score > 1, 0, n_frames), self._spec.n_mels)
            stats = self._cmvn.update(channels, own)
        return with_prior(self._predict(mfcc, n_frames, stats), self._log_prior)

    def _padded(self, features: Sequence[Array]) -> tuple[Array, Numbers]:
        mfcc = np.zeros((len(features), self._spec.n_frames, self._spec.n_mfcc), dtype=np.float32)
        for i, frames in enumerate(features):
            mfcc[i, : len(frames)] = frames
        return mfcc, np.array([len(frames) for frames in features], dtype=np.int64)


class _EmbeddingScorer(Scorer["Embedding"]):
    """Heads, and estimators on embeddings."""

    def __init__(
        self, applied: Applied, domain: Domain | None, log_prior: Floats, archive: Array | None, *, is_call: bool
    ) -> None:
        super().__init__(log_prior, uses_cmvn=isinstance(applied, HeadModel))
        self._applied, self._domain, self._archive, self._is_call = applied, domain, archive, is_call

    def ood_score(self, features: "Sequence[Embedding]") -> Floats:
        return np.zeros(len(features)) if self._domain is None else self._domain.ood_score(_stacked(features))

    def probabilities(self, channels: Sequence[int], features: "Sequence[Embedding]", ood_score: Floats) -> Floats:
        embedding = _stacked(features)
        if not isinstance(self._applied, HeadModel):
            n_tokens = np.array([segment.n_tokens for segment in features], dtype=np.int64)
            return with_prior(self._applied(embedding, n_tokens), self._log_prior)
        return self._applied.probabilities(
            embedding,
            archive=self._archive,
            channel=self._channel_mean(channels, embedding, ood_score),
            log_prior=self._log_prior,
            is_call=self._is_call,
        )

    def _channel_mean(self, channels: Sequence[int], embedding: Array, ood_score: Floats) -> ChannelMean | None:
        """Return the mean of each segment's channel so far; a segment alone says nothing of its channel."""
        assert self._cmvn is not None
        in_domain = ood_score <= 1
        own = np.where(in_domain[:, None], embedding, 0).astype(np.float64)
        stats = self._cmvn.update(channels, FrameStats(in_domain.astype(np.float64), own, own * own))
        count = np.where(stats.n_frames > 1, stats.n_frames, 0).astype(np.int64)
        mean, _ = stats.moments()
        return ChannelMean(mean.astype(np.float32), count) if count.any() else None


def _stacked(features: "Sequence[Embedding]") -> Array:
    """Return embeddings as one array, shape (n, d)."""
    return np.stack([segment.values for segment in features])


def with_prior(probabilities: Floats, log_prior: Floats) -> Floats:
    """Return probabilities under another prior than the balanced one, shape (n, labels)."""
    if np.ptp(log_prior) == 0:
        return probabilities
    weighted = probabilities * np.exp(log_prior - log_prior.max())
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))
