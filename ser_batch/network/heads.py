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
import numpy.typing as npt

from ser_batch.errors import BundleError
from ser_batch.network.saved import read_saved
from ser_batch.network.scaling import Scaler

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

# the reference of heads that take the embedding as it is
NONE = "none"
ARCHIVE = "archive"
CHANNEL = "channel"
REFERENCES = (ARCHIVE, CHANNEL, NONE)
# labels that count as neutral speech
NEUTRAL = ("neutral", "calm")
# the share of neutral speech that is expected of calls
MOSTLY_NEUTRAL_SHARE = 0.8
# the archive's reference counts as so many segments of each channel
CHANNEL_PRIOR_SEGMENTS = 8


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
    """All heads of a model.

    Parameters
    ----------
    scaler
        Mean and deviation of the embeddings that were trained on; `d` numbers each.
    members
        By reference, heads that differ in their seed.
    """

    scaler: Scaler
    members: Mapping[str, Sequence[Layers]]

    def scaled(self, embedding: Array) -> Array:
        """Return embeddings, shape (n, d), in units of the training data."""
        mean, scale = (np.asarray(values, dtype=np.float32) for values in (self.scaler.mean, self.scaler.scale))
        return np.asarray((embedding - mean) / scale, dtype=np.float32)

    def log_probabilities(
        self, reference: str, embedding: Array, center: Array | None = None, *, neutral_share: float = 0.5
    ) -> Floats:
        """Return the mean log-probabilities of the heads of one reference, shape (n, labels).

        Parameters
        ----------
        reference
            One of `REFERENCES`.
        embedding
            float32, shape (n, d).
        center
            The reference, shape (d,) or (n, d), as embeddings are; None for `NONE`.
        neutral_share
            Share of neutral speech that is expected in the reference, 0 to 1.
        """
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


def probabilities_of(log_probabilities: Floats, *, temperature: float, log_prior: Floats) -> Floats:
    """Return probabilities under another prior, shape (n, labels): log-probabilities over a temperature, plus a prior.

    Parameters
    ----------
    log_probabilities
        Of heads that were trained with each label as frequent as the others, shape (n, labels).
    temperature
        Above 0.
    log_prior
        Of each label, shape (labels,); any constant may be added to all.
    """
    logits = log_probabilities / temperature + log_prior
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def load(path: Path, scaler: Scaler, n_labels: int) -> tuple[Heads, Mapping[str, Any]]:
    """Read the heads of a .keras file; returns them and the configuration, for the model's id.

    Raises
    ------
    BundleError
        The file is not one, or has layers that our heads do not have.
    """
    try:
        configuration, weights = read_saved(path)
        return Heads(scaler, _members(weights, len(scaler.mean), n_labels)), configuration
    except Exception as error:  # zipfile and h5py raise whatever their parts do on a broken file
        raise BundleError(f"{path}: cannot be read as heads of ser-batch ({error}); train again") from error


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
    """What is known of the channel of each of some segments.

    Parameters
    ----------
    mean
        Mean embedding of its speech, float32, shape (n, d).
    count
        Segments that it is the mean of, shape (n,).
    """

    mean: Array
    count: npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Decision:
    """Which heads decide, and how sure they are.

    Parameters
    ----------
    references
        Those whose log-probabilities are averaged.
    temperature
        Their log-probabilities are divided by it.
    """

    references: tuple[str, ...]
    temperature: float


@dataclasses.dataclass(frozen=True, eq=False)
class HeadModel:
    """Heads, and which of them decide when.

    Parameters
    ----------
    heads
        The heads.
    labels
        In the order of the probabilities.
    known, unknown
        The decision where the archive's reference is known, and where it is not.
    """

    heads: Heads
    labels: tuple[str, ...]
    known: Decision
    unknown: Decision

    @property
    def uses_channel(self) -> bool:
        """Whether the channel's own speech has a part in the decision."""
        return CHANNEL in self.known.references

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
        if archive is None:
            return self._mean(self.unknown, embedding, {}, 0.5)
        neutral_share = self.balanced_share if is_balanced else MOSTLY_NEUTRAL_SHARE
        archive = np.broadcast_to(archive, embedding.shape)
        centers = {ARCHIVE: archive, CHANNEL: shrunk(channel, archive) if channel else archive}
        return self._mean(self.known, embedding, centers, neutral_share)

    def probabilities(
        self, embedding: Array, *, archive: Array | None, channel: ChannelMean | None, log_prior: Floats
    ) -> Floats:
        """Return probabilities after the prior, shape (n, labels).

        Parameters
        ----------
        embedding, archive, channel
            As `log_probabilities` takes them.
        log_prior
            Of each label, shape (labels,).
        """
        is_balanced = bool(np.ptp(log_prior) < 1e-9)
        decision = self.unknown if archive is None else self.known
        found = self.log_probabilities(embedding, archive=archive, channel=channel, is_balanced=is_balanced)
        return probabilities_of(found, temperature=decision.temperature, log_prior=log_prior)

    @property
    def balanced_share(self) -> float:
        """The share of neutral speech where all labels are as frequent."""
        return sum(label in NEUTRAL for label in self.labels) / len(self.labels)

    def _mean(
        self, decision: Decision, embedding: Array, centers: Mapping[str, Array], neutral_share: float
    ) -> Floats:
        found = [
            self.heads.log_probabilities(name, embedding, centers.get(name), neutral_share=neutral_share)
            for name in decision.references
        ]
        return np.asarray(np.mean(found, axis=0))


def shrunk(channel: ChannelMean, archive: Array) -> Array:
    """Return the reference of channels, shape (n, d): of little speech it is near the archive's."""
    share = (channel.count / (channel.count + CHANNEL_PRIOR_SEGMENTS)).astype(np.float32)[:, None]
    return np.asarray(share * channel.mean + (1 - share) * archive, dtype=np.float32)
