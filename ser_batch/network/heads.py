"""Small heads on embeddings, applied with NumPy: one hidden layer each, on the embedding minus a reference.

A reference is the mean embedding of other speech: of the whole archive, of the channel or speaker, or nothing. What a
microphone, a line, a language or the build of a speaker adds to all embeddings is taken away with it (cepstral mean
normalization, one level up). How much of the reference is neutral speech moves it, so heads are told what share to
expect. Each reference has heads of its own; the log-probabilities of heads are averaged.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.errors import ModelError
from ser_batch.network.cmvn import Scaler
from ser_batch.network.keras_file import read_saved

# the reference of heads that take the embedding as it is
NONE = "none"
ARCHIVE = "archive"
CHANNEL = "channel"
REFERENCES = (ARCHIVE, CHANNEL, NONE)
# labels that count as neutral speech
NEUTRAL = ("neutral", "calm")
# the share of neutral speech that is expected of calls
MOSTLY_NEUTRAL_SHARE = 0.8
# the share of neutral that decisions on calls count with: chosen on development recordings, see docs/results.md
NEUTRAL_PRIOR = 0.35
# the heads of the channel count in full from so many of its segments on
CHANNEL_SEGMENTS = 12
# the most that they count beside those of the archive where speech is mostly neutral; else 1
MAX_OF_CHANNEL = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """One head: the hidden layer, what the share of neutral speech adds to it, and the last layer."""

    hidden: Array
    hidden_bias: Array
    share: Array
    output: Array
    output_bias: Array

    def log_probabilities(self, x: Array, neutral_share: float) -> Floats:
        """Return log-probabilities, shape (n, labels), of scaled embeddings minus their reference, shape (n, d)."""
        hidden = silu(x @ self.hidden + self.hidden_bias + share_input(neutral_share) * self.share[0])
        logits = (hidden @ self.output + self.output_bias).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """All heads of a model."""

    scaler: Scaler  # mean and deviation of the embeddings that were trained on; `d` numbers each
    members: Mapping[str, Sequence[Layers]]  # by reference, heads that differ in their seed

    def scaled(self, embedding: Array) -> Array:
        """Return embeddings, shape (n, d), in units of the training data."""
        mean, scale = (np.asarray(values, dtype=np.float32) for values in (self.scaler.mean, self.scaler.scale))
        return np.asarray((embedding - mean) / scale, dtype=np.float32)

    def log_probabilities(
        self, reference: str, embedding: Array, center: Array | None = None, *, neutral_share: float = 0.5
    ) -> Floats:
        """Return the mean log-probabilities of the heads of one reference, shape (n, labels)."""
        x = self.scaled(embedding)
        if center is not None:
            x = x - self.scaled(np.atleast_2d(center))
        of_members = [member.log_probabilities(x, neutral_share) for member in self.members[reference]]
        return np.asarray(np.mean(of_members, axis=0))


def silu(x: Array) -> Array:
    """Return x times its logistic sigmoid (Elfwing et al. 2018)."""
    # the sigmoid as a tanh: no exponential that overflows
    return np.asarray(x * (np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x)), dtype=np.float32)


def share_input(neutral_share: float | Array) -> Array:
    """Return shares of neutral speech as heads take them, from -2 to 2."""
    return np.asarray(4 * (np.asarray(neutral_share) - 0.5), dtype=np.float32)


def prior_of(labels: Sequence[str]) -> dict[str, float]:
    """Return the share of neutral speech that a model with these labels expects of calls; none if that is not more."""
    return {NEUTRAL[0]: NEUTRAL_PRIOR} if NEUTRAL[0] in labels and len(labels) * NEUTRAL_PRIOR > 1 else {}


def log_prior_of(labels: Sequence[str], prior: Mapping[str, float] | None) -> Floats:
    """Return the logarithm of each label's share, shape (labels,)."""
    shares = dict(prior or {})
    left = (1 - sum(shares.values())) / max(1, len(labels) - len(shares))
    return np.log([shares.get(label, left) for label in labels])


def probabilities_of(log_probabilities: Floats, *, temperature: float | Floats, log_prior: Floats) -> Floats:
    """Return probabilities under another prior, shape (n, labels)."""
    logits = log_probabilities / temperature + log_prior
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def load_heads(path: Path, scaler: Scaler, n_labels: int) -> tuple[Heads, Mapping[str, Any], list[Array]]:
    """Read the heads of a .keras file."""
    try:
        configuration, weights = read_saved(path)
        heads = Heads(scaler, _members(weights, len(scaler.mean), n_labels))
        in_order = [array for layer in configuration["layers"] for array in weights.get(layer["name"], ())]
        return heads, configuration, in_order
    except Exception as error:  # zipfile and h5py raise whatever their parts do on a broken file
        raise ModelError(f"{path}: cannot be read as heads of ser-batch ({error}); train again") from error


def layer_names(reference: str, member: int) -> tuple[str, str, str]:
    """Return the names of a head's layers with weights; members are numbered from 1."""
    return f"{reference}_{member}_hidden", f"{reference}_{member}_share", f"{reference}_{member}_probabilities"


def _members(weights: Mapping[str, Sequence[Array]], size: int, n_labels: int) -> dict[str, list[Layers]]:
    """Return the heads in the weights of a file, by reference; every array has its shape."""
    members: dict[str, list[Layers]] = {}
    left = {name for name, arrays in weights.items() if len(arrays)}
    for reference in REFERENCES:
        while names := [name for name in layer_names(reference, len(members.get(reference, ())) + 1) if name in left]:
            arrays = [array for name in names for array in weights[name]]
            width = len(arrays[0][0]) if arrays[0].ndim == 2 and len(arrays[0]) else 0
            expected = [(size, width), (width,), (1, width), (width, n_labels), (n_labels,)]
            if [array.shape for array in arrays] != expected:
                raise ValueError(f"its layer {names[0]} has shapes {[a.shape for a in arrays]}, expected {expected}")
            if not all(np.isfinite(array).all() for array in arrays):
                raise ValueError(f"its layer {names[0]} has weights that are no numbers")
            members.setdefault(reference, []).append(Layers(*arrays))
            left -= set(names)
    if not members or left:
        raise ValueError("its layers are not those of heads")
    return members


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelMean:
    """The mean of each segment's channel."""

    mean: Array  # mean embedding of its speech, float32, shape (n, d)
    count: Numbers  # segments that it is the mean of, shape (n,)


@dataclasses.dataclass(frozen=True, eq=False)
class HeadModel:
    """Heads, and how they are combined.

    The heads of the channel count the more, the more segments the channel has. Beside them decide those of the
    archive, or, where its reference is not known, those that need none.

    Parameters
    ----------
    heads
        The heads.
    labels
        In the order of the probabilities.
    temperature, temperature_without
        Log-probabilities are divided by it: where the archive's reference is known, and where it is not.
    temperature_of_calls
        Log-probabilities of calls are divided by it, after the prior. It changes no decision: the prior is chosen to
        find what is not neutral, and far more is neutral than it says, so that confidence would be too low.
    """

    heads: Heads
    labels: tuple[str, ...]
    temperature: float = 1.0
    temperature_without: float = 1.0
    temperature_of_calls: float = 1.0

    def log_probabilities(
        self, embedding: Array, *, archive: Array | None, channel: ChannelMean | None, is_balanced: bool
    ) -> Floats:
        """Return log-probabilities before temperature and prior, shape (n, labels).

        Parameters
        ----------
        embedding
            float32, shape (n, d).
        archive
            Mean embedding of the archive, shape (d,) or (n, d); None where it is not known, and no reference is used.
        channel
            Of the channel of each segment; None where nothing else of it is known.
        is_balanced
            Whether neutral speech is expected as often as any other label, or to be most of what is said.
        """
        neutral_share = self.balanced_share if is_balanced else MOSTLY_NEUTRAL_SHARE
        if archive is None:
            others = self.heads.log_probabilities(NONE, embedding)
        else:
            others = self.heads.log_probabilities(ARCHIVE, embedding, archive, neutral_share=neutral_share)
        if channel is None:
            return others
        of_channel = self.heads.log_probabilities(CHANNEL, embedding, channel.mean, neutral_share=neutral_share)
        weight = self._weight(channel, is_alone=archive is None or is_balanced)
        return np.asarray(weight * of_channel + (1 - weight) * others)

    def probabilities(
        self,
        embedding: Array,
        *,
        archive: Array | None,
        channel: ChannelMean | None,
        log_prior: Floats,
        is_call: bool = False,
    ) -> Floats:
        """Return probabilities after the prior, shape (n, labels).

        Parameters
        ----------
        embedding, archive, channel
            As `log_probabilities` takes them.
        log_prior
            Of each label, shape (labels,). If neutral speech is expected more often than evenly, it is expected to be
            most of the reference, as in calls.
        is_call
            Whether that is expected whatever the prior.
        """
        shares = np.exp(log_prior) / np.exp(log_prior).sum()
        neutral_prior = shares[np.isin(self.labels, NEUTRAL)].sum()
        is_balanced = not is_call and bool(neutral_prior <= self.balanced_share + 1e-9)
        found = self.log_probabilities(embedding, archive=archive, channel=channel, is_balanced=is_balanced)
        temperature: float | Floats = self.temperature
        if archive is None:
            weight = 0.0 if channel is None else self._weight(channel, is_alone=True)
            temperature = weight * self.temperature + (1 - weight) * self.temperature_without
        of_calls = 1.0 if is_balanced else self.temperature_of_calls
        return probabilities_of(found, temperature=temperature * of_calls, log_prior=log_prior / of_calls)

    def _weight(self, channel: ChannelMean, *, is_alone: bool) -> Floats:
        """Return how much the heads of the channel count, 0 to 1, shape (n, 1)."""
        # a segment alone is its own mean, and nothing would be left of it
        weight = np.clip((channel.count - 1) / (CHANNEL_SEGMENTS - 1), 0, 1)[:, None]
        return np.asarray(weight if is_alone else MAX_OF_CHANNEL * weight)

    @property
    def balanced_share(self) -> float:
        """The share of neutral speech where all labels are as frequent."""
        return sum(label in NEUTRAL for label in self.labels) / len(self.labels)
