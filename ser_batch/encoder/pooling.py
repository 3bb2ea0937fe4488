"""Pooling of a segment into one embedding: mean and standard deviation over its tokens of speech."""

import dataclasses
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ser_batch.config.features import EncoderSpec

Array = npt.NDArray[np.float32]
# with fewer tokens of speech, all tokens are taken
MIN_TOKENS = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """The embedding of a segment."""

    # float32, shape (spec.embedding_size,): of each output in their order, the mean, then the standard deviation
    values: Array
    # tokens of speech in the segment. With fewer than three, `values` are of all tokens, speech or not; 0 means digital
    # silence
    n_tokens: int


class TokenSource(Protocol):
    """An encoder of blocks of samples into tokens."""

    spec: EncoderSpec

    def tokens(self, samples: Array, kept: npt.NDArray[np.bool_] | None = None) -> Array:
        """Return tokens, shape (n_tokens, n_outputs, width)."""


class SegmentEncoder:
    """The embedding of one segment whose samples come bit by bit; memory does not grow with its length.

    The samples are encoded in blocks of `max_tokens` tokens from the segment's first sample on, so it makes no
    difference how they are fed. The speech of each block is brought to one level first.
    """

    def __init__(self, encoder: TokenSource) -> None:
        self._encoder = encoder
        spec = encoder.spec
        self._block_samples = spec.max_tokens * token_samples(spec)
        self._pending: list[Array] = []
        self._n_pending = self._n_blocks = 0
        self._speech = _Moments(spec)
        self._all = _Moments(spec)

    def feed(self, samples: Array) -> None:
        """Take the next samples, shape (n,), at the spec's sampling rate."""
        first = 0
        while first < len(samples):
            taken = samples[first : first + self._block_samples - self._n_pending]
            self._pending.append(np.array(taken, dtype=np.float32))
            self._n_pending += len(taken)
            first += len(taken)
            if self._n_pending == self._block_samples:
                self._encode()

    def finish(self) -> Embedding:
        """End the segment and return its embedding; without any sample, that of one silent token."""
        if self._n_pending or not self._n_blocks:
            self._encode()
        moments = self._speech if self._speech.n_tokens >= MIN_TOKENS else self._all
        return Embedding(moments.values(), self._speech.n_tokens)

    def _encode(self) -> None:
        """Encode the pending samples and add up their tokens."""
        samples = padded(np.concatenate(self._pending or [np.zeros(0, dtype=np.float32)]), self._encoder.spec)
        self._pending, self._n_pending = [], 0
        self._n_blocks += 1
        leveled, is_speech = level_speech(samples, self._encoder.spec)
        if not is_speech.any() and self._speech.n_tokens >= MIN_TOKENS:
            return  # digital silence that nothing will be taken of
        if self._speech.n_tokens + is_speech.sum() < MIN_TOKENS:
            # all tokens may be needed
            tokens = self._encoder.tokens(leveled)
            self._all.add(tokens)
            self._speech.add(tokens[is_speech])
        else:
            self._speech.add(self._encoder.tokens(leveled, is_speech))


class _Moments:
    """Sums over tokens, in float64."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.n_tokens = 0
        self._sums, self._squares = np.zeros((2, len(spec.outputs), spec.width))

    def add(self, tokens: Array) -> None:
        """Add tokens, shape (n, n_outputs, width)."""
        exact = tokens.astype(np.float64)
        self.n_tokens += len(exact)
        self._sums += exact.sum(axis=0)
        self._squares += np.square(exact, out=exact).sum(axis=0)

    def values(self) -> Array:
        """Return mean and standard deviation of each output, end to end."""
        mean = self._sums / self.n_tokens
        deviation = np.sqrt(np.maximum(self._squares / self.n_tokens - np.square(mean), 0.0))
        return np.concatenate((mean, deviation), axis=1).reshape(-1).astype(np.float32)


def token_samples(spec: EncoderSpec) -> int:
    """Return the hop of the tokens, in samples."""
    return round(spec.seconds_per_token * spec.sampling_rate)


def padded(samples: Array, spec: EncoderSpec) -> Array:
    """Return samples with zeros after them, up to a whole number of tokens, at least one."""
    size = token_samples(spec)
    missing = -len(samples) % size or (0 if len(samples) else size)
    return np.pad(samples, (0, missing)) if missing else samples


def level_speech(samples: Array, spec: EncoderSpec) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Bring the speech of a block to the spec's level."""
    energy = np.square(samples.reshape(-1, token_samples(spec)), dtype=np.float64).mean(axis=1)
    loudest = energy.max()
    is_speech = (energy >= loudest * 10 ** (-spec.speech_range_db / 10)) & (loudest > 0)
    if not is_speech.any():
        return samples, is_speech
    gain = 10 ** (spec.level_dbfs / 20) / np.sqrt(energy[is_speech].mean())
    return (samples * gain).astype(np.float32), is_speech
