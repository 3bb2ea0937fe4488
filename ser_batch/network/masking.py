"""Loss and accuracy where a segment says nothing about some labels: those that its corpus lacks."""

from typing import Any

import keras
from keras import ops

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
    """Return whether the most probable label that a segment allows is its own, shape (n,).

    Targets are those of `MaskedCrossentropy`; a mixed segment's own label is that of its first part.
    """
    own = y_true[:, 0]
    predicted = ops.argmax(ops.where(own >= 0, y_pred, -1.0), axis=-1)
    return ops.cast(predicted == ops.argmax(own, axis=-1), y_pred.dtype)
