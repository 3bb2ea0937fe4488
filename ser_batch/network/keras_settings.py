"""Settings of Keras and JAX: the same for every model, whatever files, environment variables and other code say."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from ser_batch.errors import UsageError

# JAX's own defaults of what decides numbers
JAX_SETTINGS: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_custom_prng": False,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_softmax_custom_jvp": False,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_enable_checks": False,
}
# whose variables are hidden from Keras and JAX, and which of them decide no numbers
_LIBRARIES = ("KERAS_", "JAX_", "XLA_")
KEPT_VARIABLES: tuple[str, ...] = ("JAX_COMPILATION_CACHE_", "JAX_PERSISTENT_CACHE_", "JAX_LOG", "JAX_EXPLAIN_")
# the folder of Keras is nowhere, so that there is no keras.json; and numbers are those of a CPU
_OWN_VARIABLES = {"KERAS_BACKEND": "jax", "KERAS_HOME": os.devnull, "JAX_PLATFORMS": "cpu"}


@contextlib.contextmanager
def own_variables() -> Iterator[None]:
    """Hide environment variables and keras.json from Keras and JAX, which read them as they are imported."""
    hidden = _hidden_variables()
    if "jax" in sys.modules and "XLA_FLAGS" in hidden:
        raise UsageError(
            f"XLA_FLAGS={hidden['XLA_FLAGS']} was set when JAX was imported; train where it is not set, or in a "
            "process of its own: ser-batch train"
        )
    for name in hidden:
        del os.environ[name]
    os.environ.update(_OWN_VARIABLES)
    try:
        yield
    finally:
        for name in _OWN_VARIABLES:
            del os.environ[name]
        os.environ.update(hidden)


def _hidden_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_LIBRARIES) and not name.startswith(KEPT_VARIABLES)
    }


_lock = threading.Lock()
_n_training = 0
_restore: Callable[[], None] | None = None  # sets what was set before


@contextlib.contextmanager
def fixed_settings() -> Iterator[None]:
    """Train, or compute otherwise with Keras, by these settings; those of the user are set again after it."""
    global _n_training, _restore  # noqa: PLW0603 - so are the settings
    from ser_batch.network.keras_setup import jax

    with _lock:
        if not _n_training:
            _restore = _fix()
        _n_training += 1
    try:
        with jax.default_device(cpu_of(jax)):
            yield
    finally:
        with _lock:
            _n_training -= 1
            if not _n_training and _restore is not None:
                _restore()


def cpu_of(jax: Any) -> Any:
    """Return the device that all is computed on."""
    try:
        return jax.devices("cpu")[0]
    except (AssertionError, RuntimeError) as error:  # JAX has both
        platforms, reason = jax.config.jax_platforms, str(error) or type(error).__name__
        raise UsageError(
            f"JAX has been imported without a CPU (JAX_PLATFORMS={platforms}: {reason}); train where cpu is one of "
            "JAX_PLATFORMS, or in a process of its own: ser-batch train"
        ) from error


def _fix() -> Callable[[], None]:
    """Set all settings; return what sets those of before."""
    from ser_batch.network.keras_setup import jax, keras

    config, update = keras.config, cast("Callable[[str, Any], None]", jax.config.update)
    keras_settings: list[tuple[Callable[[Any], None], Any, Any]] = [
        (config.set_floatx, config.floatx(), "float32"),
        (config.set_dtype_policy, config.dtype_policy(), "float32"),
        (config.set_epsilon, config.epsilon(), 1e-7),
        (config.set_image_data_format, config.image_data_format(), "channels_last"),
        (config.set_max_epochs, config.max_epochs(), None),
        (config.set_max_steps_per_epoch, config.max_steps_per_epoch(), None),
        (keras.distribution.set_distribution, keras.distribution.distribution(), None),
    ]
    before = {name: jax.config.values[name] for name in JAX_SETTINGS if name in jax.config.values}

    def restore() -> None:
        for name, value in before.items():
            update(name, value)
        for set_it, value, _ in keras_settings:
            set_it(value)

    for set_it, _, value in keras_settings:
        set_it(value)
    for name in before:
        update(name, JAX_SETTINGS[name])
        found = getattr(jax.config, name, JAX_SETTINGS[name])  # which a context of JAX decides
        if getattr(found, "value", found) != JAX_SETTINGS[name]:
            restore()
            raise UsageError(f"{name} of JAX is {found} here, by a context; expected {JAX_SETTINGS[name]}, leave it")
    return restore
