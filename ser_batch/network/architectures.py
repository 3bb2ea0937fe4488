"""Architectures of the recipes: building, joining members, rebuilding saved networks, starting from trained weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ser_batch.arrays import Array
from ser_batch.network.keras_setup import keras, layers


def build(name: str, n_frames: int, n_mfcc: int, n_labels: int, *, members: int = 1) -> Any:
    """Make an untrained network."""
    inputs = keras.Input((n_frames, n_mfcc), name="mfcc")
    # every layer has a name of its own: Keras would number them by what else this process has built, and the
    # model's id hangs on its configuration
    outputs = [_BUILDERS[name](inputs, n_labels, f"{member}_") for member in range(1, members + 1)]
    averaged = layers.Average(name="probabilities")(outputs) if members > 1 else outputs[0]
    return keras.Model(inputs, averaged, name=name)


def join(name: str, networks: Sequence[Any]) -> Any:
    """Return one network that averages the probabilities of `networks`, each built with one member."""
    if len(networks) == 1:
        return networks[0]
    _, n_frames, n_mfcc = networks[0].input_shape
    joined = build(name, n_frames, n_mfcc, networks[0].output_shape[1], members=len(networks))
    for member, network in enumerate(networks, start=1):
        for layer in network.layers[1:]:
            joined.get_layer(f"{member}_{layer.name.removeprefix('1_')}").set_weights(layer.get_weights())
    return joined


def rebuild(configuration: Mapping[str, Any], weights: Mapping[str, Sequence[Array]]) -> Any:
    """Return a saved network, built by the recipe that it names; nothing that its file describes is made by Keras."""
    name = configuration["name"]
    if name not in _BUILDERS:
        raise ValueError(f"it is of recipe {name!r}; expected one of {', '.join(_BUILDERS)}")
    _, n_frames, n_mfcc = configuration["layers"][0]["config"]["batch_shape"]
    members = sum(layer.endswith("_probabilities") for layer in weights)
    n_labels = next(len(arrays[-1]) for layer, arrays in weights.items() if layer.endswith("probabilities") and arrays)
    network = build(name, n_frames, n_mfcc, n_labels, members=max(1, members))
    for layer in network.layers:
        if [array.shape for array in layer.get_weights()] != [array.shape for array in weights.get(layer.name, ())]:
            raise ValueError(f"its layer {layer.name} is missing or of another shape")
        layer.set_weights(weights.get(layer.name, ()))
    return network


def start_from(
    network: Any,
    weights: Mapping[str, Sequence[Array]],
    *,
    member: int,
    labels: Sequence[str],
    known: Sequence[str],
) -> None:
    """Give a network the weights of a trained one of the same recipe."""
    # All layers but the last are taken as they are, statistics of batch normalisation among them. The last one has a
    # column a label: labels that both have take theirs along; the column of a new label is 0, so that it starts as
    # likely as an average one. A random column would be as loud as the trained ones, and know nothing.
    members = max(1, sum(name.endswith("_probabilities") for name in weights))
    for layer in network.layers:
        name = f"{(member - 1) % members + 1}_{layer.name.removeprefix('1_')}"
        own, trained = layer.get_weights(), list(weights.get(name, ()))
        if layer.name == "1_probabilities":
            trained = [_of_labels(array, labels, known) for array in trained]
        if [array.shape for array in trained] != [array.shape for array in own]:
            raise ValueError(f"its layer {name} is missing or of another shape")
        layer.set_weights(trained)


def _of_labels(array: Array, labels: Sequence[str], known: Sequence[str]) -> Array:
    """Return weights or biases of an output layer, their last axis moved from the labels `known` to `labels`."""
    if not array.ndim or array.shape[-1] != len(known):
        raise ValueError(f"its output layer is not of {len(known)} labels")
    out = np.zeros((*array.shape[:-1], len(labels)), dtype=array.dtype)
    for number, label in enumerate(labels):
        if label in known:
            out[..., number] = array[..., known.index(label)]
    return out


def _published(x: Any, n_labels: int, prefix: str) -> Any:
    for block, (filters, width, pool) in enumerate(((128, 7, 2), (128, 5, 2), (192, 5, 2), (256, 3, 1)), start=1):
        x = _convolved(x, filters, width, f"{prefix}{block}_")
        x = layers.ReLU(name=f"{prefix}{block}_relu")(x)
        if pool > 1:
            x = layers.MaxPooling1D(pool, name=f"{prefix}{block}_pooling")(x)
        x = layers.Dropout(0.2, name=f"{prefix}{block}_dropout")(x)
    mean = layers.GlobalAveragePooling1D(name=f"{prefix}mean")(x)
    maximum = layers.GlobalMaxPooling1D(name=f"{prefix}maximum")(x)
    x = layers.Concatenate(name=f"{prefix}statistics")([mean, maximum])
    x = layers.Dropout(0.4, name=f"{prefix}dropout")(x)
    return layers.Dense(n_labels, activation="softmax", name=f"{prefix}probabilities")(x)


def _robust(x: Any, n_labels: int, prefix: str) -> Any:
    x = layers.ReLU(name=f"{prefix}0_relu")(_convolved(x, 80, 7, f"{prefix}0_", strides=2))
    for block, filters in enumerate((80, 112, 160), start=1):
        if block > 1:
            x = layers.MaxPooling1D(2, name=f"{prefix}{block}_pooling")(x)
        x = _residual(x, filters, f"{prefix}{block}_")
    x = _attentive_moments(x, prefix)
    x = layers.Dropout(0.2, name=f"{prefix}dropout")(x)
    return layers.Dense(n_labels, activation="softmax", name=f"{prefix}probabilities")(x)


def _attentive_moments(x: Any, prefix: str) -> Any:
    """First and second moment of each channel over time, each frame weighted by how much it tells."""
    weight = layers.Dense(64, activation="tanh", name=f"{prefix}hidden")(x)
    weight = layers.Dense(x.shape[-1], name=f"{prefix}score")(weight)
    weight = layers.Softmax(axis=1, name=f"{prefix}attention")(weight)
    moments = []
    for order in (1, 2):
        weighted = layers.Multiply(name=f"{prefix}weighted_{order}")([weight, *[x] * order])
        mean = layers.GlobalAveragePooling1D(name=f"{prefix}mean_{order}")(weighted)
        moments.append(layers.Rescaling(float(x.shape[1]), name=f"{prefix}moment_{order}")(mean))  # weights sum to 1
    x = layers.Concatenate(name=f"{prefix}moments")(moments)
    return layers.BatchNormalization(name=f"{prefix}moments_normalization")(x)


def _residual(x: Any, filters: int, prefix: str) -> Any:
    """Two convolutions, each channel weighted by what the segment holds of all, added to what came in."""
    y = layers.ReLU(name=f"{prefix}first_relu")(_convolved(x, filters, 5, f"{prefix}first_"))
    y = _convolved(y, filters, 3, f"{prefix}second_")
    weight = layers.GlobalAveragePooling1D(keepdims=True, name=f"{prefix}squeeze")(y)
    weight = layers.Dense(filters // 8, activation="relu", name=f"{prefix}reduction")(weight)
    weight = layers.Dense(filters, activation="sigmoid", name=f"{prefix}excitation")(weight)
    y = layers.Multiply(name=f"{prefix}weighted")([y, weight])
    if x.shape[-1] != filters:
        x = _convolved(x, filters, 1, f"{prefix}shortcut_")
    return layers.ReLU(name=f"{prefix}relu")(layers.Add(name=f"{prefix}sum")([x, y]))


def _convolved(x: Any, filters: int, width: int, prefix: str, strides: int = 1) -> Any:
    x = layers.Conv1D(filters, width, strides=strides, padding="same", use_bias=False, name=f"{prefix}convolution")(x)
    return layers.BatchNormalization(name=f"{prefix}normalization")(x)


_BUILDERS: dict[str, Callable[[Any, int, str], Any]] = {"robust": _robust, "published": _published}
