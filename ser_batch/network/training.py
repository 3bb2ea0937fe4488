"""Networks built, trained and saved: the only place that imports Keras and JAX."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("KERAS_BACKEND", "jax")  # has to stand before Keras is imported

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from ser_batch.config import Recipe

Array = npt.NDArray[np.float32]

# JAX compiles once for each shape, so batches have one size and the last one is filled up
PREDICT_BATCH = 64
TRAIN_BATCH = 32
LEARNING_RATE = 1e-3


def build(recipe: Recipe, n_frames: int, n_mfcc: int, n_labels: int) -> Any:
    """Make an untrained network.

    Parameters
    ----------
    recipe
        ``seed``: four convolutions over time with batch normalisation and dropout, mean and maximum over what is
        left of the time axis, softmax.
    n_frames, n_mfcc
        Shape of the input.
    n_labels
        Classes.

    Returns
    -------
    keras.Model
        Compiled; (batch, n_frames, n_mfcc) to (batch, n_labels).
    """
    assert recipe == "seed"
    # every layer has a name of its own: Keras would number them by what else this process has built, and the
    # model's id hangs on its configuration
    x = inputs = keras.Input((n_frames, n_mfcc), name="mfcc")
    for block, (filters, width, pool) in enumerate(((128, 7, 2), (128, 5, 2), (192, 5, 2), (256, 3, 1)), start=1):
        x = layers.Conv1D(filters, width, padding="same", use_bias=False, name=f"convolution_{block}")(x)
        x = layers.BatchNormalization(name=f"normalization_{block}")(x)
        x = layers.ReLU(name=f"relu_{block}")(x)
        if pool > 1:
            x = layers.MaxPooling1D(pool, name=f"pooling_{block}")(x)
        x = layers.Dropout(0.2, name=f"dropout_{block}")(x)
    mean = layers.GlobalAveragePooling1D(name="mean")(x)
    maximum = layers.GlobalMaxPooling1D(name="maximum")(x)
    x = layers.Concatenate(name="statistics")([mean, maximum])
    x = layers.Dropout(0.4, name="dropout")(x)
    outputs = layers.Dense(n_labels, activation="softmax", name="probabilities")(x)
    return keras.Model(inputs, outputs, name="seed")


def set_seed(seed: int) -> None:
    """Make initial weights, dropout and shuffling follow from `seed`."""
    keras.utils.set_random_seed(seed)


class Rows(Protocol):
    """Scaled MFCCs by row number or slice, shape (n, n_frames, n_mfcc): an array, or what makes one when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Any, /) -> Array: ...


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Shuffled batches of one size; the few rows left over in an epoch are other ones in the next."""

    def __init__(self, x: Rows, y: Array, batch: int, seed: int) -> None:
        super().__init__()
        self._x, self._y, self._batch = x, y, batch
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._x) // self._batch

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        rows = self._order[index * self._batch : (index + 1) * self._batch]
        return self._x[rows], self._y[rows]

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(len(self._x))


def fit(
    network: Any,
    x: Rows,
    y: npt.NDArray[np.int64],
    *,
    n_labels: int,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> None:
    """Train with Adam on categorical cross-entropy, learning rate from 1e-3 down a cosine to 0.

    Parameters
    ----------
    network
        From `build`.
    x, y
        Scaled MFCCs, shape (n, n_frames, n_mfcc), and label numbers, shape (n,).
    n_labels, epochs, seed
        Classes, passes over the data, seed of the shuffling.
    on_epoch
        Called with the epoch's number from 1 and its loss and accuracy (fraction).
    """
    one_hot = np.eye(n_labels, dtype=np.float32)[y]
    batches = _Batches(x, one_hot, min(TRAIN_BATCH, len(x)), seed)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(batches))
    network.compile(optimizer=keras.optimizers.Adam(schedule), loss="categorical_crossentropy", metrics=["accuracy"])
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, dict(logs)))
    network.fit(batches, epochs=epochs, verbose=0, callbacks=[callback])


def predict(network: Any, x: Rows) -> npt.NDArray[np.float64]:
    """Return the probabilities of segments.

    Parameters
    ----------
    network
        Trained.
    x
        Scaled MFCCs, shape (n, n_frames, n_mfcc).

    Returns
    -------
    array of float64, shape (n, n_labels)
        Rows sum to 1.
    """
    out = []
    for first in range(0, len(x), PREDICT_BATCH):
        rows = x[first : first + PREDICT_BATCH]
        batch = np.zeros((PREDICT_BATCH, *rows.shape[1:]), dtype=np.float32)
        batch[: len(rows)] = rows
        out.append(np.asarray(network.predict_on_batch(batch), dtype=np.float64)[: len(rows)])
    probabilities = np.concatenate(out)
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def save(network: Any, path: Path) -> None:
    """Write a network as .keras, without the optimizer's state."""
    # from the configuration: a clone would take the optimizer along, three times the size
    bare = keras.Model.from_config(network.get_config())
    bare.set_weights(network.get_weights())
    bare.save(path)
