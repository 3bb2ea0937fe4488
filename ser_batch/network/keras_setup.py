"""Import of Keras with the JAX backend; what a user's settings say of either decides no model."""

import os
import tempfile

from ser_batch.errors import UsageError

# what is set here has to stand before Keras and JAX are imported
os.environ["KERAS_BACKEND"] = "jax"
# All members of all folds are one and the same network to compile, ten seconds each time. What is compiled is kept as
# long as this process lives, or where JAX is told to.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="ser-batch-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


import jax
import keras
from keras import layers, ops

__all__ = ["keras", "layers", "ops"]

# what environment variables set otherwise, and would make another model; JAX's own defaults
_JAX_SETTINGS = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
}


def _set_up() -> None:
    """Set all that decides the numbers, whatever keras.json and environment variables say."""
    if keras.backend.backend() != "jax":
        raise UsageError(
            f"Keras was imported with the backend {keras.backend.backend()} before; import ser_batch first, or set "
            "KERAS_BACKEND=jax"
        )
    for name, value in _JAX_SETTINGS.items():
        jax.config.update(name, value)  # type: ignore[no-untyped-call]
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    try:
        jax.devices()
    except Exception as error:  # an assertion of JAX among them
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"JAX_PLATFORMS={wanted}: JAX finds no such device ({reason}); unset it") from error


_set_up()
