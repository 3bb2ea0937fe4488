"""Checked weights of a Whisper encoder, by the names of Hugging Face."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_batch.errors import EncoderError

Arrays = Mapping[str, npt.NDArray[Any]]

# a Whisper has at most 32 blocks of width 1280
_MAX_BLOCKS = 100
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
    """The checked weights of an encoder."""

    arrays: Arrays  # by name, such as ``layers.0.self_attn.q_proj.weight``, shape (out, in)
    # read from the shapes
    n_mels: int
    width: int
    n_heads: int
    n_blocks: int
    max_tokens: int


def check_weights(arrays: Arrays, source: Path, *, n_heads: int) -> EncoderWeights:
    """Return the weights of an encoder, after a look at all of their shapes and values."""
    kernel = arrays.get("conv1.weight")
    positions = arrays.get("embed_positions.weight")
    if kernel is None or positions is None or kernel.ndim != 3 or positions.ndim != 2:
        raise EncoderError(
            f"{source}: no encoder of Whisper: expected conv1.weight with three dimensions and embed_positions.weight "
            "with two; name a checkpoint of openai/whisper-*"
        )
    width, n_mels, _ = kernel.shape
    blocks = {int(found[1]) for name in arrays if (found := re.match(r"layers\.(\d+)\.", name))}
    n_blocks = max(blocks, default=-1) + 1
    if not 1 <= n_blocks <= _MAX_BLOCKS or len(blocks) != n_blocks:
        raise EncoderError(f"{source}: blocks {sorted(blocks)[:9]}; expected all from 0 on; fetch the file again")
    if n_heads < 1 or width % n_heads:
        raise EncoderError(
            f"{source}: {n_heads} heads in a width of {width}; expected a divisor of it; fetch the file again"
        )
    wanted = _shapes(n_mels, width, n_blocks, len(positions))
    for name, shape in wanted.items():
        found_shape = arrays[name].shape if name in arrays else None
        if found_shape != shape:
            came = "missing" if found_shape is None else f"of shape {found_shape}"
            raise EncoderError(
                f"{source}: {name} is {came}; expected shape {shape}; name a checkpoint of openai/whisper-*"
            )
        largest = np.abs(arrays[name].astype(np.float32)).max()
        if not largest <= _LARGEST_HALF:
            raise EncoderError(
                f"{source}: {name} holds {largest}; expected finite numbers up to {_LARGEST_HALF:g}; fetch the "
                "file again"
            )
    return EncoderWeights({name: arrays[name] for name in wanted}, n_mels, width, n_heads, n_blocks, len(positions))


def _shapes(n_mels: int, width: int, n_blocks: int, max_tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of an encoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, n_mels, 3),
        "conv1.bias": (width,),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width,),
        "embed_positions.weight": (max_tokens, width),
    }
    vectors = ["layer_norm.weight", "layer_norm.bias"]
    for i in range(n_blocks):
        name = f"layers.{i}"
        for part in "qkv":
            shapes[f"{name}.self_attn.{part}_proj.weight"] = (width, width)
        shapes[f"{name}.self_attn.out_proj.weight"] = (width, width)
        shapes |= {f"{name}.fc1.weight": (4 * width, width), f"{name}.fc1.bias": (4 * width,)}
        shapes[f"{name}.fc2.weight"] = (width, 4 * width)
        vectors += [f"{name}.self_attn.{part}_proj.bias" for part in ("q", "v", "out")]
        vectors += [
            f"{name}.{norm}.{part}"
            for norm in ("self_attn_layer_norm", "final_layer_norm")
            for part in ("weight", "bias")
        ]
        vectors.append(f"{name}.fc2.bias")
    return shapes | dict.fromkeys(vectors, (width,))
