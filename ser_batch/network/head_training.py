"""Building and training of heads with Keras: all of a model in one network, so that they compile once.

They share batches, and nothing else: each has a loss of its own, and no weight of one has a gradient from another.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ser_batch.arrays import Array
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import Heads, Layers, layer_names, share_input
from ser_batch.network.keras_setup import keras, layers
from ser_batch.network.optimization import Batches, CosineDecay, MaskedCrossentropy, Segments, Watch
from ser_batch.network.recipes import HeadRecipe


def build(size: int, n_labels: int, references: Sequence[str], recipe: HeadRecipe) -> Any:
    """Make untrained heads."""
    inputs, outputs = [], []
    for reference in references:
        x, neutral = keras.Input((size,), name=reference), keras.Input((1,), name=f"{reference}_share_input")
        inputs += [x, neutral]
        x = layers.Dropout(recipe.input_dropout, name=f"{reference}_dropout")(x)
        for member in range(1, recipe.members + 1):
            hidden, share, probabilities = layer_names(reference, member)
            of_share = layers.Dense(recipe.hidden, use_bias=False, kernel_initializer="zeros", name=share)(neutral)
            y = layers.Add(name=f"{hidden}_sum")([layers.Dense(recipe.hidden, name=hidden)(x), of_share])
            y = layers.Activation("silu", name=f"{hidden}_silu")(y)
            y = layers.Dropout(recipe.hidden_dropout, name=f"{hidden}_dropout")(y)
            outputs.append(layers.Dense(n_labels, activation="softmax", name=probabilities)(y))
    return keras.Model(inputs, outputs, name="head")


def fit(
    network: Any,
    segments: Segments,
    recipe: HeadRecipe,
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, float], None],
    on_compiled: Callable[[int], None] = lambda _n_steps: None,
    near: float = 0.0,
) -> None:
    """Train heads."""
    batches = _HeadBatches(segments, recipe.batch, seed, len(network.outputs))
    schedule = CosineDecay(recipe.learning_rate, epochs * len(batches))
    optimizer = schedule.made_variable(
        keras.optimizers.AdamW(schedule, weight_decay=0.0 if near else recipe.weight_decay, beta_2=0.99, epsilon=1e-8)
    )
    if near:
        for layer in network.layers:
            if isinstance(layer, layers.Dense):
                # the layer's own attribute is looked at when it is built, and would go into its configuration
                layer.kernel.regularizer = Nearness(near, layer.get_weights()[0])
    network.compile(optimizer=optimizer, loss=[MaskedCrossentropy(recipe.label_smoothing) for _ in network.outputs])

    def after_epoch(epoch: int, logs: dict[str, Any]) -> None:
        on_epoch(epoch, float(logs["loss"]) / len(network.outputs))

    callback = Watch(lambda: on_compiled(len(batches)), after_epoch)
    network.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback])
    # to 11 bits: no decision depends on more, and packages, which are compressed, take half
    network.set_weights([array.astype(np.float16).astype(np.float32) for array in network.get_weights()])


class Nearness(keras.regularizers.Regularizer):  # type: ignore[misc]  # Keras ships no types
    """A penalty on the squared distance of weights from where they began (L2-SP, Li et al. 2018)."""

    def __init__(self, strength: float, begin: Array) -> None:
        self.strength, self.begin = strength, begin

    def __call__(self, x: Any) -> Any:
        """Return the penalty of a layer's weights."""
        return self.strength * keras.ops.sum(keras.ops.square(x - self.begin))


class _HeadBatches(Batches):
    """Batches with the inputs and targets of all heads."""

    def __init__(self, segments: Segments, batch: int, seed: int, n_outputs: int) -> None:
        super().__init__(segments, batch, seed)
        self._n_outputs = n_outputs

    def __getitem__(self, index: int) -> tuple[dict[str, Array], list[Array]]:
        batch, targets = super().__getitem__(index)
        inputs: dict[str, Array] = {}
        for reference, (x, neutral_share) in batch.items():
            inputs |= {reference: x, f"{reference}_share_input": share_input(neutral_share)[:, None]}
        return inputs, [targets] * self._n_outputs


def heads_of(network: Any, scaler: Scaler) -> Heads:
    """Return trained heads as score applies them."""
    members: dict[str, list[Layers]] = {}
    for reference, names in _heads(network):
        arrays = [array for name in names for array in network.get_layer(name).get_weights()]
        members.setdefault(reference, []).append(Layers(*arrays))
    return Heads(scaler, members)


def start_from(network: Any, heads: Heads, *, labels: Sequence[str], known: Sequence[str]) -> None:
    """Give new heads the weights of trained ones; the column of a label that these do not have begins at 0."""
    numbers: dict[str, int] = {}
    for reference, names in _heads(network):
        number = numbers[reference] = numbers.get(reference, -1) + 1
        if reference not in heads.members:
            raise ValueError(f"it has no heads with the reference {reference}")
        trained = heads.members[reference][number % len(heads.members[reference])]
        hidden, share, probabilities = (network.get_layer(name) for name in names)
        if hidden.get_weights()[0].shape != trained.hidden.shape:
            raise ValueError(f"its heads have shape {trained.hidden.shape}")
        hidden.set_weights([trained.hidden, trained.hidden_bias])
        share.set_weights([trained.share])
        kernel, bias = (np.zeros_like(array) for array in probabilities.get_weights())
        for column, label in enumerate(labels):
            if label in known:
                kernel[:, column] = trained.output[:, known.index(label)]
                bias[column] = trained.output_bias[known.index(label)]
        probabilities.set_weights([kernel, bias])


def _heads(network: Any) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield reference and layer names of each head."""
    for output in network.output_names:
        reference, member, _ = output.split("_")
        yield reference, layer_names(reference, int(member))
