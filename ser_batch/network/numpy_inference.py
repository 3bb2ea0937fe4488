"""Inference of saved networks in NumPy, with convolutions that take fewer multiplications than one per tap.

Minimal filtering (Winograd 1980, "Arithmetic Complexity of Computations"; for networks Lavin & Gray 2016,
https://arxiv.org/abs/1509.09308): a few neighbouring frames of the output are values of a product of polynomials, and
that is known by its values at as many points as it has coefficients. Four frames through five taps take 8 products of
matrices instead of 20; to the points and back costs sums of a few frames each.
"""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_batch.arrays import Array, Floats
from ser_batch.errors import ModelError
from ser_batch.network.keras_file import read_saved

# small numbers, so that powers of them cost few digits: float32 keeps five
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
_MAX_FRAMES = 4


def convolution(kernel: Array, step: int) -> Callable[[Array], Array]:
    """Return a convolution over time, padded as TensorFlow's "same"."""
    n_taps, channels, filters = kernel.shape
    # with a step, stretches of that many frames are the frames, and their channels stand side by side
    n_stretches = -(-n_taps // step)
    taps = np.zeros((n_stretches * step, channels, filters))
    taps[:n_taps] = kernel
    of_frames, of_taps, to_frames = _transforms(n_stretches)
    factors = np.tensordot(of_taps, taps.reshape(n_stretches, step * channels, filters), axes=1).astype(np.float32)
    to_points, from_points = of_frames.astype(np.float32), to_frames.astype(np.float32)
    n_at_once, n_points = from_points.shape

    def apply(x: Array) -> Array:
        n, frames, _ = x.shape
        n_out = -(-frames // step)
        missing = max(0, (n_out - 1) * step + n_taps - frames)  # one more at the end if odd
        n_tiles = -(-n_out // n_at_once)
        length = n_tiles * n_at_once + n_stretches - 1
        padded = np.zeros((n, length, step * channels), dtype=np.float32)
        padded.reshape(n, length * step, channels)[:, missing // 2 : missing // 2 + frames] = x
        if n_points == 1:
            return product(padded, factors[0])
        per_row, per_stretch, per_number = padded.strides
        tiles = np.lib.stride_tricks.as_strided(
            padded,
            (n_points, n, n_tiles, step * channels),
            (per_stretch, per_row, n_at_once * per_stretch, per_number),
            writeable=False,
        )
        at_points = to_points @ tiles.reshape(n_points, n * n_tiles * step * channels)
        products = at_points.reshape(n_points, n * n_tiles, step * channels) @ factors
        found = from_points @ products.reshape(n_points, n * n_tiles * filters)
        found = found.reshape(n_at_once, n, n_tiles, filters)
        in_order = found.transpose(1, 2, 0, 3).reshape(n, n_tiles * n_at_once, filters)
        return np.asarray(in_order[:, :n_out])

    return apply


def product(x: Array, matrix: Array) -> Array:
    """Return `x @ matrix`: all rows of x at once, where NumPy would take each sequence by itself."""
    return np.asarray(x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def _transforms(n_taps: int) -> tuple[Floats, Floats, Floats]:
    """Return matrices that take frames and taps to values at the points, and products of these to frames of output."""
    # Shapes (points, points), (points, n_taps) and (frames at once, points). A product of a polynomial of `n_taps`
    # coefficients and one of as many as there are frames at once is evaluated at the points, the last of them infinity,
    # and told by its values; a convolution is the transpose of that.
    n_points = min(len(_POINTS) + 1, n_taps + _MAX_FRAMES - 1)
    n_frames = n_points - n_taps + 1
    if n_taps == 1 or n_frames <= 1:  # nothing to gain: each tap by itself
        return np.eye(n_taps), np.eye(n_taps), np.ones((1, n_taps))
    of_frames = np.linalg.inv(_powers(n_points, n_points)).T
    return of_frames.astype(np.float64), _powers(n_points, n_taps), _powers(n_points, n_frames).T


def _powers(n_points: int, n_coefficients: int) -> Floats:
    """Return what takes coefficients to values at the points: at infinity that is the last coefficient."""
    powers: Floats = np.vander([*_POINTS[: n_points - 1], 0.0], n_coefficients, increasing=True)
    powers[-1] = np.eye(n_coefficients)[-1]
    return powers


Layer = Callable[..., Array]
# what the widest layer of a batch works on then stays in the processor's cache, and products are of enough rows
BATCH = 16
# what a layer of a model from elsewhere may work on, 256 MB; those of ours work on 5 MB
_MAX_VALUES = 1 << 26


class Network:
    """A trained network, read by `load`."""

    def __init__(self, configuration: Mapping[str, Any], weights: Mapping[str, Sequence[Array]]) -> None:
        self.configuration = configuration
        order = [layer["name"] for layer in configuration["layers"]]
        if len(set(order)) < len(order):
            raise ValueError("two layers have one name")
        self.layer_weights = {name: weights[name] for name in order if len(weights.get(name, ()))}
        self.weights = [array for layer in configuration["layers"] for array in weights.get(layer["name"], ())]
        self._input, self._output = (configuration[ends][0] for ends in ("input_layers", "output_layers"))
        layers = [layer for layer in configuration["layers"] if layer["class_name"] != "InputLayer"]
        for layer in layers:
            _check(layer)
        folded = _fold(layers, weights)
        # what each member goes by when it chooses between labels
        self._embedding = [
            source
            for layer in layers
            if layer["class_name"] == "Dense" and layer["name"].endswith("probabilities")
            for source in _sources(layer)
        ]
        last_use = {source: layer["name"] for layer in layers for source in _sources(layer)}
        self._steps = [
            (
                layer["name"],
                _sources(layer),
                _LAYERS[layer["class_name"]][0](layer["config"], folded[layer["name"]]),
                [source for source in dict.fromkeys(_sources(layer)) if last_use[source] == layer["name"]],
            )
            for layer in layers
        ]

    def predict(self, x: Array) -> Floats:
        """Return the probabilities of segments."""
        batches = [self._apply(x[first : first + BATCH])[0] for first in range(0, max(1, len(x)), BATCH)]
        probabilities = np.concatenate(batches).astype(np.float64)
        return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))

    def embed(self, x: Array) -> Array:
        """Return what the last layers of the members take, side by side, shape (n, numbers)."""
        return np.concatenate([self._apply(x[first : first + BATCH])[1] for first in range(0, max(1, len(x)), BATCH)])

    def _apply(self, x: Array) -> tuple[Array, Array]:
        values = {self._input: x}
        embedding = []
        for name, sources, layer, used_up in self._steps:  # Keras lists layers after those they take from
            values[name] = layer(*(values[source] for source in sources))
            _check_size(values[name].size)
            if name in self._embedding:
                embedding.append(values[name])
            for source in used_up:  # what nothing asks for any more leaves its place in the cache
                del values[source]
        return values[self._output], np.concatenate(embedding, axis=1)


def load_network(path: Path) -> Network:
    """Read a .keras file: a zip of the configuration as JSON and the weights as HDF5.

    Raises
    ------
    ModelError
        The file is not one, would fill the memory, or has layers that none of our recipes has.
    """
    try:
        return Network(*read_saved(path))
    except Exception as error:  # zipfile and h5py raise whatever their parts do on a broken file
        raise ModelError(f"{path}: cannot be read as a network of ser-batch ({error}); train again") from error


def _sources(layer: Mapping[str, Any]) -> list[str]:
    """Return the names of the layers that a layer takes from."""
    (node,) = layer["inbound_nodes"]
    tensors = node["args"][0]
    return [tensor["config"]["keras_history"][0] for tensor in (tensors if isinstance(tensors, list) else [tensors])]


def _fold(layers: Sequence[Mapping[str, Any]], weights: Mapping[str, Sequence[Array]]) -> dict[str, Sequence[Array]]:
    """Return the weights with each normalisation's scale moved into the convolution that it alone takes from."""
    folded = {layer["name"]: weights.get(layer["name"], ()) for layer in layers}
    kinds = {layer["name"]: layer["class_name"] for layer in layers}
    uses = Counter(source for layer in layers for source in _sources(layer))
    for layer in layers:
        if layer["class_name"] == "BatchNormalization":
            gamma, beta, mean, variance = weights[layer["name"]]
            scale = gamma / np.sqrt(variance + np.float32(layer["config"]["epsilon"]))
            shift = beta - mean * scale
            (source,) = _sources(layer)
            if kinds.get(source) == "Conv1D" and uses[source] == 1:
                (kernel,) = folded[source]
                folded |= {source: [kernel * scale], layer["name"]: [shift]}
            else:
                folded[layer["name"]] = [scale, shift]
    return folded


def _check_size(n_values: int) -> None:
    if n_values > _MAX_VALUES:
        raise ValueError(f"a layer works on {n_values} numbers at a time, expected at most {_MAX_VALUES}")


def _check(layer: Mapping[str, Any]) -> None:
    kind = layer["class_name"]
    if kind not in _LAYERS:
        raise ValueError(f"a layer {kind!r} is unknown; upgrade ser-batch")
    for setting, value in _LAYERS[kind][1].items():
        if layer["config"].get(setting, value) != value:
            raise ValueError(f"{kind} with {setting} {layer['config'][setting]!r} is unknown; upgrade ser-batch")


def _convolution(config: Mapping[str, Any], weights: Sequence[Array]) -> Layer:
    (kernel,) = weights
    width, channels, filters = kernel.shape
    (step,) = config["strides"]
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"Conv1D with strides {step!r} is unknown; upgrade ser-batch")
    _check_size(max(width, step) * channels * filters)
    convolved = convolution(kernel, step)

    def apply(x: Array) -> Array:
        n, frames, _ = x.shape
        _check_size(n * (frames // step + 1) * max(width, step) * channels)
        return convolved(x)

    return apply


def _normalization(_config: Mapping[str, Any], weights: Sequence[Array]) -> Layer:
    *scale, shift = weights  # no scale where `_fold` moved it into the convolution before
    # what the convolution made is nobody else's
    return (lambda x: x * scale[0] + shift) if scale else (lambda x: np.add(x, shift, out=x))


def _pooling(config: Mapping[str, Any], _weights: Sequence[Array]) -> Layer:
    (size,) = config["pool_size"]
    if config["strides"] != [size] or not isinstance(size, int) or size < 1:
        raise ValueError(f"MaxPooling1D with strides {config['strides']!r} is unknown; upgrade ser-batch")

    def apply(x: Array) -> Array:
        end = x.shape[1] // size * size
        return functools.reduce(np.maximum, (x[:, first:end:size] for first in range(size)))

    return apply


def _mean(config: Mapping[str, Any], _weights: Sequence[Array]) -> Layer:
    keepdims = bool(config["keepdims"])
    return lambda x: np.asarray(x.mean(axis=1, keepdims=keepdims))


def _rescaling(config: Mapping[str, Any], _weights: Sequence[Array]) -> Layer:
    scale = np.float32(config["scale"])
    return lambda x: x * scale


def _dense(config: Mapping[str, Any], weights: Sequence[Array]) -> Layer:
    kernel, bias = weights
    if config["activation"] not in _ACTIVATIONS:
        raise ValueError(f"Dense with activation {config['activation']!r} is unknown; upgrade ser-batch")
    activation = _ACTIVATIONS[config["activation"]]
    return lambda x: activation(product(x, kernel) + bias)


def _relu(x: Array) -> Array:
    return np.maximum(x, np.float32(0))


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.tanh(x / 2) / 2 + np.float32(0.5))  # an exponential would overflow


def _softmax(x: Array, axis: int = -1) -> Array:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "tanh": np.tanh,
}
# what makes each layer, and the settings that it has to have
_LAYERS: dict[str, tuple[Callable[[Mapping[str, Any], Sequence[Array]], Layer], Mapping[str, Any]]] = {
    "Conv1D": (
        _convolution,
        {
            "padding": "same",
            "dilation_rate": [1],
            "groups": 1,
            "activation": "linear",
            "use_bias": False,
            "data_format": "channels_last",
        },
    ),
    "BatchNormalization": (_normalization, {"axis": -1, "center": True, "scale": True}),
    "ReLU": (
        lambda _config, _weights: _relu,
        {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
    ),
    "MaxPooling1D": (_pooling, {"padding": "valid", "data_format": "channels_last"}),
    "Dropout": (lambda _config, _weights: lambda x: x, {}),
    "GlobalAveragePooling1D": (
        _mean,
        {"data_format": "channels_last"},
    ),
    "GlobalMaxPooling1D": (
        lambda _config, _weights: lambda x: x.max(axis=1),
        {"keepdims": False, "data_format": "channels_last"},
    ),
    "Add": (lambda _config, _weights: operator.add, {}),
    "Multiply": (lambda _config, _weights: lambda *xs: functools.reduce(operator.mul, xs), {}),
    "Rescaling": (_rescaling, {"offset": 0.0}),
    "Softmax": (lambda _config, _weights: functools.partial(_softmax, axis=1), {"axis": 1}),
    "Average": (lambda _config, _weights: lambda *xs: sum(xs) / np.float32(len(xs)), {}),
    "Concatenate": (lambda _config, _weights: lambda *xs: np.concatenate(xs, axis=-1), {"axis": -1}),
    "Dense": (_dense, {"use_bias": True}),
}
