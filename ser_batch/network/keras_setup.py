"""Import of Keras with the JAX backend."""

import os
import tempfile

from ser_batch.errors import UsageError
from ser_batch.network.keras_settings import cpu_of, own_variables

# All members of all folds are one and the same network to compile, ten seconds each time. What is compiled is kept as
# long as this process lives, or where JAX is told to; this has to stand before JAX is imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="ser-batch-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

with own_variables():
    import jax
    import keras
    from keras import layers, ops

    if keras.config.backend() == "jax":
        cpu_of(jax)  # devices are found, and flags of XLA read, here

if keras.config.backend() != "jax":
    raise UsageError(
        f"Keras was imported with the backend {keras.config.backend()}; train where KERAS_BACKEND=jax is set before "
        "Keras is imported, or in a process of its own: ser-batch train"
    )
if keras.config.is_nnx_enabled():
    raise UsageError(
        "Keras was imported with NNX; train where KERAS_NNX_ENABLED is not set, or in a process of its own: ser-batch "
        "train"
    )

__all__ = ["jax", "keras", "layers", "ops"]
