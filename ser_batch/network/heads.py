"""Small heads on embeddings, applied with NumPy: one hidden layer each, on the embedding minus a reference.

A reference is the mean embedding of other speech: of the whole archive, of the channel or speaker, or nothing. What a
microphone, a line, a language or the build of a speaker adds to all embeddings is taken away with it (cepstral mean
normalization, one level up). Each reference has heads of its own; the log-probabilities of heads are averaged.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Layers:
    """The two layers of one head: kernel and bias of the hidden layer, then of the layer that gives probabilities."""

    hidden: Array
    hidden_bias: Array
    output: Array
    output_bias: Array

    def log_probabilities(self, x: Array) -> Floats:
        """Return log-probabilities, shape (n, labels), of scaled embeddings minus their reference, shape (n, d)."""
        logits = silu(x @ self.hidden + self.hidden_bias) @ self.output + self.output_bias
        logits = logits.astype(np.float64)
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

    @property
    def size(self) -> int:
        """Numbers of an embedding."""
        return len(self.scaler.mean)

    def scaled(self, embedding: Array) -> Array:
        """Return embeddings, shape (n, d), in units of the training data."""
        mean, scale = (np.asarray(values, dtype=np.float32) for values in (self.scaler.mean, self.scaler.scale))
        return np.asarray((embedding - mean) / scale, dtype=np.float32)

    def log_probabilities(self, reference: str, embedding: Array, center: Array | None = None) -> Floats:
        """Return the mean log-probabilities of the heads of one reference, shape (n, labels).

        Parameters
        ----------
        reference
            One of `REFERENCES`.
        embedding
            float32, shape (n, d).
        center
            The reference, shape (d,) or (n, d), as embeddings are; None for `NONE`.
        """
        x = self.scaled(embedding)
        if center is not None:
            x = x - self.scaled(np.atleast_2d(center))
        return np.asarray(np.mean([member.log_probabilities(x) for member in self.members[reference]], axis=0))


def silu(x: Array) -> Array:
    """Return x times its logistic sigmoid (Elfwing et al. 2018)."""
    # the sigmoid as a tanh: no exponential that overflows
    return np.asarray(x * (np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x)), dtype=np.float32)


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


def layer_names(reference: str, member: int) -> tuple[str, str]:
    """Return the names of the two layers of a head; members are numbered from 1."""
    return f"{reference}_{member}_hidden", f"{reference}_{member}_probabilities"


def contents(heads: Heads) -> list[Array]:
    """Return all weights in one order, for the model's id."""
    return [
        array
        for reference in sorted(heads.members)
        for member in heads.members[reference]
        for array in (member.hidden, member.hidden_bias, member.output, member.output_bias)
    ]


def _members(weights: Mapping[str, Sequence[Array]], size: int, n_labels: int) -> dict[str, list[Layers]]:
    """Return the heads in the weights of a file, by reference; every array has its shape."""
    members: dict[str, list[Layers]] = {}
    known = 0
    for reference in REFERENCES:
        names = layer_names(reference, 1)
        while all(name in weights for name in names):
            layers = Layers(*weights[names[0]], *weights[names[1]])
            width = len(layers.hidden_bias)
            shapes = [array.shape for array in (layers.hidden, layers.hidden_bias, layers.output, layers.output_bias)]
            expected = [(size, width), (width,), (width, n_labels), (n_labels,)]
            if shapes != expected:
                raise ValueError(f"its layer {names[0]} has shapes {shapes}, expected {expected}")
            if not all(np.isfinite(array).all() for array in weights[names[0]] + weights[names[1]]):
                raise ValueError(f"its layer {names[0]} has weights that are no numbers")
            members.setdefault(reference, []).append(layers)
            known += 2
            names = layer_names(reference, len(members[reference]) + 1)
    if not members or known != sum(bool(len(arrays)) for arrays in weights.values()):
        raise ValueError("its layers are not those of heads")
    return members
