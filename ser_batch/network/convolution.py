"""Convolutions over time in NumPy, with fewer multiplications than a product of each frame with each tap.

Minimal filtering (Winograd 1980, "Arithmetic Complexity of Computations"; for networks Lavin & Gray 2016,
https://arxiv.org/abs/1509.09308): a few neighbouring frames of the output are values of a product of polynomials, and
that is known by its values at as many points as it has coefficients. Four frames through five taps take 8 products of
matrices instead of 20; to the points and back costs sums of a few frames each.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

# small numbers, so that powers of them cost few digits: float32 keeps five
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
_MOST_FRAMES = 4


def convolution(kernel: Array, step: int) -> Callable[[Array], Array]:
    """Return a convolution over time, padded as TensorFlow's "same".

    Parameters
    ----------
    kernel
        Shape (taps, channels, filters).
    step
        Frames from one place of the kernel to the next, 1 or more.

    Returns
    -------
    callable
        Takes shape (n, frames, channels), returns (n, ceil(frames / step), filters).
    """
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


def _transforms(n_taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return matrices that take frames and taps to values at the points, and products of these to frames of output.

    Shapes (points, points), (points, n_taps) and (frames at once, points). A product of a polynomial of `n_taps`
    coefficients and one of as many as there are frames at once is evaluated at the points, the last of them infinity,
    and told by its values; a convolution is the transpose of that.
    """
    n_points = min(len(_POINTS) + 1, n_taps + _MOST_FRAMES - 1)
    n_frames = n_points - n_taps + 1
    if n_taps == 1 or n_frames <= 1:  # nothing to gain: each tap by itself
        return np.eye(n_taps), np.eye(n_taps), np.ones((1, n_taps))
    of_frames = np.linalg.inv(_powers(n_points, n_points)).T
    return of_frames.astype(np.float64), _powers(n_points, n_taps), _powers(n_points, n_frames).T


def _powers(n_points: int, n_coefficients: int) -> Matrix:
    """Return what takes coefficients to values at the points: at infinity that is the last coefficient."""
    powers: Matrix = np.vander([*_POINTS[: n_points - 1], 0.0], n_coefficients, increasing=True)
    powers[-1] = np.eye(n_coefficients)[-1]
    return powers
