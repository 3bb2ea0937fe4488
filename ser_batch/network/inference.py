"""A saved network applied with NumPy: Keras's own layers are the definition and the oracle of the tests.

Keras and JAX take seconds to load and to compile, and hundreds of megabytes, in every worker; these few layers run
as fast on one core, and reading them executes no code.
"""

import functools
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import BundleError
from ser_batch.network.convolution import convolution, product
from ser_batch.network.saved import read_saved

Array = npt.NDArray[np.float32]
Layer = Callable[..., Array]

# what the widest layer of a batch works on then stays in the processor's cache, and products are of enough rows
BATCH = 16
# what a layer of a model from elsewhere may work on, 256 MB; those of ours work on 5 MB
_MAX_VALUES = 1 << 26


class Network:
    """A trained network, read by `load`.

    Parameters
    ----------
    configuration
        Keras's configuration of the functional model.
    weights
        Those of each layer by its name, in Keras's order.

    Raises
    ------
    ValueError
        A layer, or a setting of one, that none of our recipes has.
    """

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
                _made(layer, folded[layer["name"]]),
                [source for source in dict.fromkeys(_sources(layer)) if last_use[source] == layer["name"]],
            )
            for layer in layers
        ]

    def predict(self, x: Array) -> npt.NDArray[np.float64]:
        """Return the probabilities of segments.

        Parameters
        ----------
        x
            Scaled MFCCs, shape (n, n_frames, n_mfcc).

        Returns
        -------
        array of float64, shape (n, n_labels)
            Rows sum to 1. The last bits of a row may differ with the rows it comes with.
        """
        batches = [self._apply(x[first : first + BATCH])[0] for first in range(0, max(1, len(x)), BATCH)]
        probabilities = np.concatenate(batches).astype(np.float64)
        return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))

    def embed(self, x: Array) -> Array:
        """Return what the last layers of the members take, side by side, shape (n, numbers).

        Parameters
        ----------
        x
            Scaled MFCCs, shape (n, n_frames, n_mfcc).
        """
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


def load(path: Path) -> Network:
    """Read a .keras file: a zip of the configuration as JSON and the weights as HDF5.

    Raises
    ------
    BundleError
        The file is not one, would fill the memory, or has layers that none of our recipes has.
    """
    try:
        return Network(*read_saved(path))
    except Exception as error:  # zipfile and h5py raise whatever their parts do on a broken file
        raise BundleError(f"{path}: cannot be read as a network of ser-batch ({error}); train again") from error


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


def _made(layer: Mapping[str, Any], weights: Sequence[Array]) -> Layer:
    return _LAYERS[layer["class_name"]][0](layer["config"], weights)


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
