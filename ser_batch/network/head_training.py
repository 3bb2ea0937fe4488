"""Heads on embeddings, built and trained with Keras: all of a model in one network, so that they compile once.

They share batches, and nothing else: each has a loss of its own, and no weight of one has a gradient from another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# first: it tells Keras which backend to use
from ser_batch.network import training  # isort: skip
import keras
from keras import layers

from ser_batch.network.heads import Heads, Layers, layer_names
from ser_batch.network.masking import MaskedCrossentropy
from ser_batch.network.recipes import HeadRecipe
from ser_batch.network.scaling import Scaler

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


class HeadSegments(Protocol):
    """What an epoch is made of: segments, each in one of its variants."""

    def __len__(self) -> int: ...

    def order(self, generator: np.random.Generator) -> Numbers:
        """Begin an epoch: draw its references, and return the numbers of its segments, as many as there are."""
        ...

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[dict[str, Array], Array]:
        """Return by reference the scaled embeddings minus it, shape (n, d) each, and targets.

        Targets have shape (n, 1, n_labels): shares of each label, -1 where it is not allowed.
        """
        ...


def build(size: int, n_labels: int, references: Sequence[str], recipe: HeadRecipe) -> Any:
    """Make untrained heads.

    Parameters
    ----------
    size
        Numbers of an embedding.
    n_labels
        Classes.
    references
        Each gets `recipe.members` heads.
    recipe
        Width and dropout.

    Returns
    -------
    keras.Model
        From one input per reference, (batch, size), to one output per head, (batch, n_labels).
    """
    inputs, outputs = [], []
    for reference in references:
        x = keras.Input((size,), name=reference)
        inputs.append(x)
        x = layers.Dropout(recipe.input_dropout, name=f"{reference}_dropout")(x)
        for member in range(1, recipe.members + 1):
            hidden, probabilities = layer_names(reference, member)
            y = layers.Dense(recipe.hidden, activation="silu", name=hidden)(x)
            y = layers.Dropout(recipe.hidden_dropout, name=f"{hidden}_dropout")(y)
            outputs.append(layers.Dense(n_labels, activation="softmax", name=probabilities)(y))
    return keras.Model(inputs, outputs, name="head")


def fit(
    network: Any,
    segments: HeadSegments,
    recipe: HeadRecipe,
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, float], None],
    near: float = 0.0,
) -> None:
    """Train heads.

    Parameters
    ----------
    network
        From `build`.
    segments
        The training part.
    recipe
        Optimizer and schedule.
    epochs, seed
        Passes over the segments; seed of shuffling and references.
    on_epoch
        Called with the epoch's number from 1 and the mean loss of the heads.
    near
        Penalty on the squared distance from the weights that the network has now.
    """
    batches = _Batches(segments, min(recipe.batch, len(segments)), seed, len(network.outputs))
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(recipe.learning_rate, epochs * len(batches)),
        weight_decay=0.0 if near else recipe.weight_decay,
        beta_2=0.99,
        epsilon=1e-8,
    )
    if near:
        for layer in network.layers:
            if isinstance(layer, layers.Dense):
                layer.kernel_regularizer = Nearness(near, layer.get_weights()[0])
    network.compile(optimizer=optimizer, loss=[MaskedCrossentropy(recipe.label_smoothing) for _ in network.outputs])

    def after_epoch(index: int, logs: dict[str, Any]) -> None:
        on_epoch(index + 1, float(logs["loss"]) / len(network.outputs))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    network.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback])


class Nearness(keras.regularizers.Regularizer):  # type: ignore[misc]  # Keras ships no types
    """A penalty on the squared distance of weights from where they began (L2-SP, Li et al. 2018)."""

    def __init__(self, strength: float, begin: Array) -> None:
        self.strength, self.begin = strength, begin

    def __call__(self, x: Any) -> Any:
        """Return the penalty of a layer's weights."""
        return self.strength * keras.ops.sum(keras.ops.square(x - self.begin))


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Shuffled batches of one size; the few segments left over in an epoch are other ones in the next."""

    def __init__(self, segments: HeadSegments, batch: int, seed: int, n_outputs: int) -> None:
        super().__init__()
        self._segments, self._batch, self._seed, self._n_outputs = segments, batch, seed, n_outputs
        self._epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._segments) // self._batch

    def __getitem__(self, index: int) -> tuple[dict[str, Array], list[Array]]:
        numbers = self._order[index * self._batch : (index + 1) * self._batch]
        x, targets = self._segments.batch(numbers, np.random.default_rng((self._seed, self._epoch, index)))
        return x, [targets] * self._n_outputs

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._order = self._segments.order(np.random.default_rng((self._seed, self._epoch)))


def heads_of(network: Any, scaler: Scaler) -> Heads:
    """Return trained heads as score applies them."""
    members: dict[str, list[Layers]] = {}
    for output in network.output_names:
        reference, member, _ = output.split("_")
        arrays = [
            array for name in layer_names(reference, int(member)) for array in network.get_layer(name).get_weights()
        ]
        members.setdefault(reference, []).append(Layers(*arrays))
    return Heads(scaler, members)


def start_from(network: Any, heads: Heads, *, labels: Sequence[str], known: Sequence[str]) -> None:
    """Give new heads the weights of trained ones; the column of a label that these do not have begins at 0.

    Raises
    ------
    ValueError
        The trained heads are built otherwise.
    """
    for output in network.output_names:
        reference, member, _ = output.split("_")
        if reference not in heads.members:
            raise ValueError(f"it has no heads with the reference {reference}")
        trained = heads.members[reference][(int(member) - 1) % len(heads.members[reference])]
        hidden, probabilities = (network.get_layer(name) for name in layer_names(reference, int(member)))
        if hidden.get_weights()[0].shape != trained.hidden.shape:
            raise ValueError(f"its heads have shape {trained.hidden.shape}")
        hidden.set_weights([trained.hidden, trained.hidden_bias])
        kernel, bias = (np.zeros_like(array) for array in probabilities.get_weights())
        for number, label in enumerate(labels):
            if label in known:
                kernel[:, number] = trained.output[:, known.index(label)]
                bias[number] = trained.output_bias[known.index(label)]
        probabilities.set_weights([kernel, bias])


def contents_of(network: Any) -> tuple[Mapping[str, Any], list[Array]]:
    """Return the configuration and weights of heads, for the model's id."""
    return network.get_config(), network.get_weights()


set_seed = training.set_seed
