"""Networks compile without optimizations, three times as fast; `make test-all` has tests with them too."""

import os

from ser_batch.network import keras_settings

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
keras_settings.KEPT_VARIABLES += ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
del keras_settings.JAX_SETTINGS["jax_disable_most_optimizations"]
