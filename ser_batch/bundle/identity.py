"""What makes a model that very one: its network or estimator, and what bundle.json says of how to use it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ser_batch.config import canonical_json

# what may differ between two saves of one and the same model
_NOT_IN_ID = ("model_id", "created", "versions", "files", "seconds", "init_name")


def network_contents(configuration: Mapping[str, Any], weights: Any) -> bytes:
    """Return what identifies a network: a .keras file's own bytes differ from save to save."""
    digest = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode())
    for weight in weights:
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.digest()


def model_id_of(contents: bytes, values: Mapping[str, Any]) -> str:
    """Return 16 hex digits of what identifies a network or estimator, and of a bundle.json with or without them."""
    kept = {name: value for name, value in values.items() if name not in _NOT_IN_ID}
    return hashlib.sha256(contents + canonical_json(kept).encode()).hexdigest()[:16]
