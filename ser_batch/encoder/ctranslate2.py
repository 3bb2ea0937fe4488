"""The encoder in a ``model.bin`` of CTranslate2.

References
----------
.. [1] ``python/ctranslate2/specs/model_spec.py`` of CTranslate2 writes it: version, specification, revision, then name,
   shape, type and bytes of each array, then aliases.
"""

import math
import re
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ser_batch.errors import EncoderError

_VERSION = 6
_SPECIFICATION = "WhisperSpec"
_KINDS = tuple(np.dtype(kind) for kind in ("<f4", "<i1", "<i2", "<i4", "<f2", "<u2"))  # the last one is bfloat16
_FLOATS = ("float32", "float16")
_PREFIX = "encoder/"
_HEADS = "num_heads"
_NAMES = {
    "position_encodings/encodings": "embed_positions.weight",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "gamma": "weight",
    "beta": "bias",
}


def read_ctranslate2(path: Path) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """Return the weights of the encoder."""
    try:
        with path.open("rb") as stream:
            arrays = _read(path, _Reader(path, stream, path.stat().st_size))
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if _HEADS not in arrays:
        raise EncoderError(f"{path}: no {_PREFIX}{_HEADS}; expected a checkpoint of Whisper")
    n_heads = int(arrays.pop(_HEADS))
    named: dict[str, npt.NDArray[Any]] = {}
    for name, array in arrays.items():
        block = re.fullmatch(r"layer_(\d+)/self_attention/linear_0/(weight|bias)", name)
        if block and len(array) % 3 == 0:
            for part, values in zip("qkv", np.split(array, 3), strict=True):
                named[f"layers.{block[1]}.self_attn.{part}_proj.{block[2]}"] = values
        else:
            named[_renamed(name)] = array
    _drop_key_biases(path, named)
    return named, n_heads


class _Reader:
    """Reads a file whose every length is checked against its size."""

    def __init__(self, path: Path, stream: BinaryIO, n_bytes: int) -> None:
        self._path, self._stream, self._left = path, stream, n_bytes

    def bytes(self, n: int) -> bytes:
        """Return the next `n` bytes."""
        self._take(n)
        content = self._stream.read(n)
        if len(content) < n:
            raise self._cut_short()
        return content

    def skip(self, n: int) -> None:
        """Pass over `n` bytes."""
        self._take(n)
        self._stream.seek(n, 1)

    def number(self, code: str) -> int:
        """Return a number in the code of `struct`."""
        (value,) = struct.unpack(f"<{code}", self.bytes(struct.calcsize(code)))
        return int(value)

    def text(self) -> str:
        """Return a string that its length stands before, and a zero byte after."""
        content = self.bytes(self.number("H"))
        if not content.endswith(b"\0") or not content.isascii():
            raise EncoderError(
                f"{self._path}: no model.bin of CTranslate2 where a name should be; fetch the file again"
            )
        return content[:-1].decode("ascii")

    def _take(self, n: int) -> None:
        self._left -= n
        if self._left < 0:
            raise self._cut_short()

    def _cut_short(self) -> EncoderError:
        return EncoderError(f"{self._path}: cut short, or no model.bin of CTranslate2; fetch the file again")


def _read(path: Path, reader: _Reader) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the encoder, by CTranslate2's names without ``encoder/``."""
    version = reader.number("I")
    if version != _VERSION:
        raise EncoderError(
            f"{path}: no model.bin of CTranslate2 in version {_VERSION} (it begins with {version}); convert the "
            "original checkpoint instead, a folder with config.json and model.safetensors"
        )
    specification = reader.text()
    if specification != _SPECIFICATION:
        raise EncoderError(f"{path}: a model of {specification}; expected {_SPECIFICATION}, a checkpoint of Whisper")
    reader.number("I")  # its revision
    arrays: dict[str, npt.NDArray[Any]] = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = tuple(reader.number("I") for _ in range(reader.number("B")))
        kind = reader.number("B")
        n_bytes = reader.number("I")
        if kind >= len(_KINDS) or n_bytes != math.prod(shape) * _KINDS[kind].itemsize:
            raise EncoderError(
                f"{path}: {name}: {n_bytes} bytes of type {kind} for shape {shape}; fetch the file again"
            )
        # settings are arrays without dimensions
        if not name.startswith(_PREFIX) or not (shape or name == _PREFIX + _HEADS):
            reader.skip(n_bytes)
            continue
        if shape and _KINDS[kind].name not in _FLOATS:
            raise EncoderError(
                f"{path}: {name} is {_KINDS[kind].name}; expected {' or '.join(_FLOATS)}: take a model that was "
                "converted with --quantization float16, or the original checkpoint, a folder with "
                "config.json and model.safetensors"
            )
        arrays[name.removeprefix(_PREFIX)] = np.frombuffer(reader.bytes(n_bytes), _KINDS[kind]).reshape(shape)
    if not arrays:
        raise EncoderError(
            f"{path}: holds no encoder, perhaps only a decoder; expected names that begin with {_PREFIX}"
        )
    return arrays


def _renamed(name: str) -> str:
    """Return Hugging Face's name for one of CTranslate2's."""
    name = re.sub(r"^layer_(\d+)/", r"layers.\1.", name)
    for old, new in _NAMES.items():
        name = name.replace(old, new)
    return name.replace("/", ".")


def _drop_key_biases(path: Path, named: dict[str, npt.NDArray[Any]]) -> None:
    """Remove the biases of keys, which Whisper does not have and CTranslate2 writes as zeros."""
    for name in [name for name in named if name.endswith(".k_proj.bias")]:
        if named.pop(name).any():
            raise EncoderError(f"{path}: {name} is not zero; expected a checkpoint of Whisper, which has none")
