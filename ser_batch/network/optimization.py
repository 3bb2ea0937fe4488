"""Training of a network with Keras on JAX: batches, optimizer, loss, state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ser_batch.arrays import Array, Floats, Numbers
from ser_batch.network.keras_setup import keras, ops
from ser_batch.network.recipes import Recipe
from ser_batch.network.state import State


class ConvolutionMuon(keras.optimizers.Muon):  # type: ignore[misc]  # Keras ships no types
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) on dense and convolution kernels.

    A step along the nearest matrix with orthonormal rows to the momentum, of the length that Adam's would have (Liu et
    al. 2025, arXiv 2502.16982). Keras applies it to matrices only and leaves all else to AdamW; here a kernel of shape
    (width, channels, filters) is a matrix (width * channels, filters), and only vectors and the output layer are left.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) < 2 or variable.path.endswith("probabilities/kernel")

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        direction = ops.add(gradient, self.momentum * m)  # Nesterov
        matrix = ops.reshape(direction, (-1, variable.shape[-1]))
        step = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, ops.reshape(step, variable.shape))


# of probabilities, so that none is 0 before the logarithm; float32 goes down to 1e-38
SMALLEST = 1e-30


class MaskedCrossentropy(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """Categorical cross-entropy of the softmax over the labels that each segment allows.

    The probabilities of a softmax, divided by the sum of those allowed, are the softmax over the logits allowed: the
    others get no gradient at all.

    Targets have shape (n, n_mixed, n_labels): shares of each label, -1 where it is not allowed. The second axis has the
    segments that a mixed one is made of; each counts with its own labels and the share it has, which with equal labels
    is mixup's own loss (Zhang et al. 2018), as that is linear in the targets.
    """

    def __init__(self, label_smoothing: float) -> None:
        super().__init__(name="masked_crossentropy")
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each segment, shape (n,)."""
        allowed = ops.cast(y_true >= 0, y_pred.dtype)
        targets = ops.maximum(y_true, 0.0)
        weight = ops.sum(targets, axis=-1)  # (n, n_mixed), of each part
        evenly = allowed / ops.sum(allowed, axis=-1, keepdims=True)
        targets = (1 - self.label_smoothing) * targets + self.label_smoothing * weight[..., None] * evenly
        p = ops.maximum(y_pred, SMALLEST)[:, None, :]
        log_sum = ops.log(ops.sum(p * allowed, axis=-1))
        return ops.sum(weight * log_sum - ops.sum(targets * ops.log(p), axis=-1), axis=-1)


def masked_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Return whether the most probable label that a segment allows is its own, shape (n,)."""
    # Targets are those of `MaskedCrossentropy`; a mixed segment's own label is that of its first part.
    own = y_true[:, 0]
    predicted = ops.argmax(ops.where(own >= 0, y_pred, -1.0), axis=-1)
    return ops.cast(predicted == ops.argmax(own, axis=-1), y_pred.dtype)


# JAX compiles once for each shape, so batches have one size and the last one is filled up
PREDICT_BATCH = 64
# of Muon's orthogonalization; the usual 5 make each step of training longer, and were not compared at equal rates
NEWTON_SCHULZ_STEPS = 3


def set_seed(seed: int) -> None:
    """Make initial weights, dropout and shuffling follow from `seed`."""
    keras.utils.set_random_seed(seed)


class Segments(Protocol):
    """Training segments; a batch has each in one of its variants."""

    def __len__(self) -> int: ...

    def order(self, generator: np.random.Generator) -> Numbers:
        """Begin an epoch; return the numbers of its segments, as many as there are."""
        ...

    def batch(self, numbers: Numbers, generator: np.random.Generator) -> tuple[Any, Array]:
        """Return inputs and targets of segments."""
        # Of a network: scaled MFCCs, shape (n, n_frames, n_mfcc), and targets of shape (n, n_labels), or
        # (n, n_mixed, n_labels) where they are masked. Of heads, by reference: scaled embeddings minus the reference,
        # shape (n, d), with the share of neutral speech in it, shape (n,); targets have shape (n, 1, n_labels).
        ...


class MfccSegments(Segments, Protocol):
    """Training segments of a network."""

    is_masked: bool


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras ships no types
    """Shuffled batches of one size; the few segments left over in an epoch are other ones in the next."""

    def __init__(self, segments: Segments, batch: int, seed: int, *, first_epoch: int = 0) -> None:
        super().__init__()
        self._segments, self._batch, self._seed = segments, min(batch, len(segments)), seed
        self._epoch = first_epoch - 1
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._segments) // self._batch

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        numbers = self._order[index * self._batch : (index + 1) * self._batch]
        # of its own, so that nothing hangs on the order in which batches are asked for
        return self._segments.batch(numbers, np.random.default_rng((self._seed, self._epoch, index)))

    def on_epoch_end(self) -> None:
        """Begin the next epoch."""
        self._epoch += 1
        self._order = self._segments.order(np.random.default_rng((self._seed, self._epoch)))


class Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Calls a function after the first step, before which JAX compiles, and another one after each epoch."""

    async_safe = True  # no step waits for what is called after the one before it

    def __init__(self, on_compiled: Callable[[], None], on_epoch: Callable[[int, dict[str, Any]], None]) -> None:
        super().__init__()
        self._on_compiled: Callable[[], None] | None = on_compiled
        self._on_epoch = on_epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - Keras's
        """Note that a step is done."""
        if self._on_compiled is not None:
            self._on_compiled()
            self._on_compiled = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note that an epoch is done."""
        self._on_epoch(epoch + 1, dict(logs or {}))


def fit(
    network: Any,
    segments: MfccSegments,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int, dict[str, float]], None],
    on_compiled: Callable[[int], None] = lambda _n_steps: None,
    resume_from: State | None = None,
    keep: Callable[[int, Callable[[], State]], None] | None = None,
) -> None:
    """Train a network."""
    n_done = resume_from.epoch if resume_from else 0
    batches = Batches(segments, recipe.batch, seed, first_epoch=n_done)
    optimizer = _optimizer(recipe, epochs * len(batches))
    if segments.is_masked:
        accuracy = keras.metrics.MeanMetricWrapper(masked_accuracy, name="accuracy")
        network.compile(optimizer=optimizer, loss=MaskedCrossentropy(recipe.label_smoothing), metrics=[accuracy])
    else:
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        network.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    if resume_from is not None:
        _restore(network, optimizer, resume_from)

    def after_epoch(epoch: int, logs: dict[str, Any]) -> None:
        on_epoch(epoch, logs)
        if keep is not None:
            keep(epoch, lambda: _state(network, None if epoch == epochs else optimizer, epoch))

    callback = Watch(lambda: on_compiled(len(batches)), after_epoch)
    # shuffled already; Keras would shuffle the batches once more, by a generator that all of the process shares
    network.fit(batches, initial_epoch=n_done, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback])


def _state(network: Any, optimizer: Any, epoch: int) -> State:
    variables = [*network.variables, *(optimizer.variables if optimizer is not None else ())]
    return State(epoch, [np.asarray(variable.value) for variable in variables])


def _restore(network: Any, optimizer: Any, state: State) -> None:
    """Give a compiled network and its optimizer the values of a state."""
    optimizer.build(network.trainable_variables)
    variables = list(network.variables)
    if len(state.arrays) > len(variables):  # not finished
        variables += optimizer.variables
    for variable, array in zip(variables, state.arrays, strict=True):
        variable.assign(array)


class CosineDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras ships no types
    """A learning rate that falls to 0 along a cosine, after a linear rise from `first` where that is given.

    Its numbers are those of Keras's schedule of this name, whose lengths are constants of what JAX compiles. Here they
    are variables of the optimizer, so that trainings of any length share one program.
    """

    def __init__(self, rate: float, steps: int, *, first: float | None = None) -> None:
        self._rate, self._first = rate, first
        # XLA multiplies by the reciprocal of a constant, and constants with each other
        one = np.float32(1)
        self._rise, self._slope = 0, np.float32(0)
        if first is not None:
            self._rise = max(1, steps // 20)
            self._slope = (np.float32(rate) - np.float32(first)) * (one / np.float32(self._rise))
        self._phase = np.float32(np.pi) * (one / np.float32(max(1, steps - self._rise)))

    def made_variable(self, optimizer: Any) -> Any:
        """Return the optimizer that has this schedule, with its lengths among its variables."""
        for name in ("_rise", "_slope", "_phase"):
            value = keras.initializers.Constant(getattr(self, name))
            setattr(self, name, optimizer.add_variable((), value, name=f"schedule{name}"))
        return optimizer

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step."""
        step, first = ops.cast(step, "float32"), self._first
        if first is None:
            return self._decayed(step)
        return ops.cond(step < self._rise, lambda: step * self._slope + first, lambda: self._decayed(step - self._rise))

    def _decayed(self, step: Any) -> Any:
        return (ops.cos(step * self._phase) + 1.0) * (self._rate / 2)


def _optimizer(recipe: Recipe, steps: int) -> Any:
    if not recipe.weight_decay:
        schedule = CosineDecay(recipe.learning_rate, steps)
        return schedule.made_variable(keras.optimizers.Adam(schedule))
    schedule = CosineDecay(recipe.learning_rate, steps, first=recipe.learning_rate / 20)
    optimizer = ConvolutionMuon(
        schedule, weight_decay=recipe.weight_decay, adam_weight_decay=recipe.weight_decay, ns_steps=NEWTON_SCHULZ_STEPS
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return schedule.made_variable(optimizer)


class Rows(Protocol):
    """Scaled MFCCs by slice, shape (n, n_frames, n_mfcc): an array, or what makes one when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Any, /) -> Array: ...


def predict(network: Any, x: Rows) -> Floats:
    """Return the probabilities of segments."""
    out = [np.empty((0, network.output_shape[-1]))]
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
