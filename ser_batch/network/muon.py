"""The optimizer Muon for networks of convolutions."""

from typing import Any

import keras
from keras import ops


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
