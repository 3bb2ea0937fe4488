"""The products of matrices that an encoder cannot do without, in float32 with NumPy, and nothing else of it."""

from collections.abc import Callable

import numpy as np

from ser_batch.config.features import EncoderSpec

HEAD_WIDTH = 64  # of every Whisper


def products(spec: EncoderSpec, n_tokens: int) -> Callable[[], None]:
    """Return what computes all products of one segment.

    Parameters
    ----------
    spec
        Of the encoder.
    n_tokens
        Length of the segment.

    Returns
    -------
    callable
        Both convolutions as products, and of each block that is read the projections, the attention and the MLP.
    """
    random = np.random.default_rng(0)
    width, n_heads = spec.width, spec.width // HEAD_WIDTH
    block = [
        *[((n_tokens, width), (width, width))] * 4,
        ((n_heads, n_tokens, HEAD_WIDTH), (n_heads, HEAD_WIDTH, n_tokens)),
        ((n_heads, n_tokens, n_tokens), (n_heads, n_tokens, HEAD_WIDTH)),
        ((n_tokens, width), (width, 4 * width)),
        ((n_tokens, 4 * width), (4 * width, width)),
    ]
    shapes = [
        ((2 * n_tokens, 3 * spec.n_mels), (3 * spec.n_mels, width)),
        ((n_tokens, 3 * width), (3 * width, width)),
        *block * max(spec.outputs),
    ]
    pairs = [tuple(random.standard_normal(shape, dtype=np.float32) for shape in pair) for pair in shapes]
    results = [a @ b for a, b in pairs]

    def multiply() -> None:
        for (a, b), result in zip(pairs, results, strict=True):
            np.matmul(a, b, out=result)

    return multiply
