"""What a model says of the segments of one recording, which come a batch at a time."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ser_batch.model.folder import Model
from ser_batch.model.prediction import Predictor
from ser_batch.network.cmvn import FrameStats, OnlineCmvn
from ser_batch.network.heads import ChannelMean, HeadModel

if TYPE_CHECKING:
    from ser_batch.encoder.pooling import Embedding  # loads SciPy, and the process that starts a run needs none of it

Floats = npt.NDArray[np.float64]
Frames = npt.NDArray[np.float32]
Features = TypeVar("Features")
# what `load_applied` gives: heads, or what turns MFCCs or embeddings into probabilities
Applied = HeadModel | Predictor
SEGMENTS_A_BATCH = 64
# where a channel is compared with itself: 4 minutes of both channels of a call, 7 MB
FIRST_SEGMENTS = 256


def load_applied(loaded: Model) -> Applied:
    """Load the network, heads or estimator of a model."""
    return loaded.head_model() if loaded.is_head_model else loaded.predictor()


class Judge(abc.ABC, Generic[Features]):
    """Applies a model to one recording, and remembers what is heard of its channels."""

    @property
    @abc.abstractmethod
    def first_batch(self) -> int:
        """Segments that it wants to hear before it says anything."""

    @abc.abstractmethod
    def ood_score(self, features: Sequence[Features]) -> Floats:
        """Return how far segments are from what was trained on, shape (n,): more than 1 is out of domain."""

    @abc.abstractmethod
    def probabilities(self, channels: Sequence[int], features: Sequence[Features], ood_score: Floats) -> Floats:
        """Return probabilities after the prior, shape (n, labels)."""


def judge(
    loaded: Model, applied: Applied, *, log_prior: Floats, archive: Frames | None, is_call: bool, tells_domain: bool
) -> "Judge[Embedding] | Judge[Frames]":
    """Return what applies a model to one recording."""
    if loaded.takes_embeddings:
        return _OnEmbeddings(loaded, applied, log_prior, archive, is_call=is_call, tells_domain=tells_domain)
    assert not isinstance(applied, HeadModel)
    return _OnFrames(loaded, applied, log_prior, tells_domain=tells_domain)


class _OnFrames(Judge[Frames]):
    """Networks and estimators on MFCCs."""

    def __init__(self, loaded: Model, predict: Predictor, log_prior: Floats, *, tells_domain: bool) -> None:
        self._spec, self._predict, self._log_prior = loaded.spec, predict, log_prior
        self._mfcc_domain = loaded.schema.mfcc_domain if tells_domain else None
        self._voices = None if loaded.schema.normalize == "none" else OnlineCmvn()

    @property
    def first_batch(self) -> int:
        return SEGMENTS_A_BATCH if self._voices is None else FIRST_SEGMENTS

    def ood_score(self, features: Sequence[Frames]) -> Floats:
        if self._mfcc_domain is None:
            return np.zeros(len(features))
        return np.asarray(self._mfcc_domain.distance(*self._padded(features)) / self._mfcc_domain.limit)

    def probabilities(self, channels: Sequence[int], features: Sequence[Frames], ood_score: Floats) -> Floats:
        mfcc, n_frames = self._padded(features)
        of_voice = None
        if self._voices is not None:
            # music on hold is no part of the customer's voice
            stats = FrameStats.of(mfcc, np.where(ood_score > 1, 0, n_frames), self._spec.n_mels)
            of_voice = self._voices.hear(channels, stats)
        return with_prior(self._predict(mfcc, n_frames, of_voice), self._log_prior)

    def _padded(self, features: Sequence[Frames]) -> tuple[Frames, npt.NDArray[np.int64]]:
        mfcc = np.zeros((len(features), self._spec.n_frames, self._spec.n_mfcc), dtype=np.float32)
        for place, frames in enumerate(features):
            mfcc[place, : len(frames)] = frames
        return mfcc, np.array([len(frames) for frames in features], dtype=np.int64)


class _OnEmbeddings(Judge["Embedding"]):
    """Heads, and estimators on embeddings."""

    def __init__(
        self,
        loaded: Model,
        applied: Applied,
        log_prior: Floats,
        archive: Frames | None,
        *,
        is_call: bool,
        tells_domain: bool,
    ) -> None:
        self._applied, self._log_prior, self._archive, self._is_call = applied, log_prior, archive, is_call
        self._domain = loaded.domain if tells_domain else None
        self._voices = OnlineCmvn() if isinstance(applied, HeadModel) else None

    @property
    def first_batch(self) -> int:
        return SEGMENTS_A_BATCH if self._voices is None else FIRST_SEGMENTS

    def ood_score(self, features: "Sequence[Embedding]") -> Floats:
        return np.zeros(len(features)) if self._domain is None else self._domain.ood_score(stacked(features))

    def probabilities(self, channels: Sequence[int], features: "Sequence[Embedding]", ood_score: Floats) -> Floats:
        embedding = stacked(features)
        if not isinstance(self._applied, HeadModel):
            n_tokens = np.array([segment.n_tokens for segment in features], dtype=np.int64)
            return with_prior(self._applied(embedding, n_tokens), self._log_prior)
        return self._applied.probabilities(
            embedding,
            archive=self._archive,
            channel=self._channel(channels, embedding, ood_score),
            log_prior=self._log_prior,
            is_call=self._is_call,
        )

    def _channel(self, channels: Sequence[int], embedding: Frames, ood_score: Floats) -> ChannelMean | None:
        """Return what is known by now of the channel of each segment; a segment alone says nothing of its channel."""
        if self._voices is None:
            return None
        is_heard = ood_score <= 1
        own = np.where(is_heard[:, None], embedding, 0).astype(np.float64)
        stats = self._voices.hear(channels, FrameStats(is_heard.astype(np.float64), own, own * own))
        count = np.where(stats.n_frames > 1, stats.n_frames, 0).astype(np.int64)
        mean, _ = stats.moments()
        return ChannelMean(mean.astype(np.float32), count) if count.any() else None


def stacked(features: "Sequence[Embedding]") -> Frames:
    """Return embeddings as one array, shape (n, d)."""
    return np.stack([segment.values for segment in features])


def with_prior(probabilities: Floats, log_prior: Floats) -> Floats:
    """Return probabilities under another prior than the balanced one, shape (n, labels)."""
    if np.ptp(log_prior) == 0:
        return probabilities
    weighted = probabilities * np.exp(log_prior - log_prior.max())
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))
