"""Import of Keras with the JAX backend."""

import os
import tempfile

# what is set here has to stand before Keras and JAX are imported
os.environ.setdefault("KERAS_BACKEND", "jax")
# All members of all folds are one and the same network to compile, ten seconds each time. What is compiled is kept as
# long as this process lives, or where JAX is told to.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="ser-batch-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import keras
from keras import layers, ops

__all__ = ["keras", "layers", "ops"]
