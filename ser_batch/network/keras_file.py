"""Reading .keras files without Keras: a zip of the configuration as JSON and the weights as HDF5, of bounded size."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ser_batch.arrays import Array

# models come from elsewhere, too; ours have 4 MB
MAX_FILE_BYTES = 200_000_000
_MAX_CONFIGURATION_BYTES = 16_000_000
_MAX_LAYERS = 10_000
# in one piece, in the file itself; the others are chunked and virtual
_PLAIN_LAYOUTS = (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)


def read_saved(path: Path) -> tuple[dict[str, Any], dict[str, list[Array]]]:
    """Return the configuration of a .keras file, and the weights of each layer by its name."""
    # Whatever zipfile, json and h5py raise on a broken file is left to the caller.
    with zipfile.ZipFile(path) as archive:
        configuration = json.loads(_member(archive, "config.json", _MAX_CONFIGURATION_BYTES))["config"]
        content = _member(archive, "model.weights.h5", MAX_FILE_BYTES)
    with h5py.File(io.BytesIO(content)) as file:
        return configuration, _read_weights(file)


def _member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return a part of the archive; what is read is never more than its directory says."""
    size = archive.getinfo(name).file_size
    if size > max_bytes:
        raise ValueError(f"{name} has {size} bytes, expected at most {max_bytes}")
    return archive.read(name)


def _read_weights(file: h5py.File) -> dict[str, list[Array]]:
    """Return the weights of each layer by its name; only what lies in the file itself, as it is."""
    weights: dict[str, list[Array]] = {}
    n_bytes = 0
    layers = _held(file, "layers", h5py.Group)
    if len(layers) > _MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers, expected at most {_MAX_LAYERS}")
    for layer in layers:
        group = _held(_held(layers, layer, h5py.Group), "vars", h5py.Group)
        arrays = []
        for number in range(len(group)):
            held = _held(group, str(number), h5py.Dataset)
            # neither in another file nor packed, so that a short file cannot stand for a large array
            kept = held.id.get_create_plist()
            is_plain = kept.get_layout() in _PLAIN_LAYOUTS and kept.get_external_count() == 0
            if not is_plain or held.dtype != np.float32 or held.shape is None:
                raise ValueError(f"the weights of {layer} are kept in a way that Keras does not")
            n_bytes += held.nbytes
            if n_bytes > MAX_FILE_BYTES:
                raise ValueError(f"its weights have {n_bytes} bytes or more, expected at most {MAX_FILE_BYTES}")
            arrays.append(held[()])
        weights[str(group.attrs["name"])] = arrays
    return weights


def _held(group: h5py.Group, name: str, kind: type[Any]) -> Any:
    """Return what a group itself holds under a name, and not what it refers to elsewhere."""
    # of the link itself first: opening it might open another file
    is_own = group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
    held = group[name] if is_own else None
    if not isinstance(held, kind):
        raise ValueError(f"{name} is not what it is in a file of Keras")
    return held
