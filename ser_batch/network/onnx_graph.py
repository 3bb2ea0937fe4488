"""A trained network and its scaler as one ONNX graph, made by jax2onnx of what JAX computes.

Keras has an exporter of its own, which on the JAX backend goes by way of TensorFlow.
"""

from pathlib import Path
from typing import Any

from ser_batch.network.architectures import rebuild
from ser_batch.network.cmvn import PRIOR_FRAMES, Scaler
from ser_batch.network.keras_file import read_saved

import jax.numpy as jnp  # isort: skip
from jax import ShapeDtypeStruct  # isort: skip
from jax2onnx import to_onnx  # isort: skip

# names of the graph's inputs, in their order; the last three only where a model is normalized by voice
MFCC, N_FRAMES, VOICE_MEAN, VOICE_SCALE, VOICE_FRAMES = "mfcc", "n_frames", "voice_mean", "voice_scale", "voice_frames"
PROBABILITIES = "probabilities"
# the newest is 23, which fewer programs read; graphs that jax2onnx 0.17 marks as 17 are not valid ones
OPSET = 21


def onnx_graph(path: Path, scaler: Scaler, *, temperature: float, by_voice: bool) -> Any:
    """Return a network as an ONNX model that takes MFCCs as they are and gives probabilities."""
    network = rebuild(*read_saved(path))
    _, frames, coefficients = network.input_shape
    trained = [variable.value for variable in network.trainable_variables]
    fixed = [variable.value for variable in network.non_trainable_variables]
    mean, scale = (jnp.asarray(values, dtype=jnp.float32) for values in (scaler.mean, scaler.scale))

    def probabilities(mfcc: Any, n_frames: Any, *voice: Any) -> Any:
        center, width = mean, scale
        if by_voice:
            voice_mean, voice_scale, voice_frames = voice
            share = (voice_frames / (voice_frames + PRIOR_FRAMES))[:, None]
            center = (share * voice_mean + (1 - share) * mean)[:, None]
            width = jnp.sqrt(share * voice_scale**2 + (1 - share) * scale**2)[:, None]
        is_real = (jnp.arange(frames)[None, :] < n_frames[:, None])[:, :, None]
        scaled = jnp.where(is_real, (mfcc - center) / width, 0.0)
        untempered, _ = network.stateless_call(trained, fixed, scaled, training=False)
        powers = jnp.maximum(untempered, 1e-12) ** (1 / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    inputs = {
        MFCC: ((frames, coefficients), jnp.float32),
        N_FRAMES: ((), jnp.int32),
        VOICE_MEAN: ((coefficients,), jnp.float32),
        VOICE_SCALE: ((coefficients,), jnp.float32),
        VOICE_FRAMES: ((), jnp.float32),
    }
    names = list(inputs) if by_voice else [MFCC, N_FRAMES]
    return to_onnx(
        probabilities,
        # JAX gives this class no types
        [ShapeDtypeStruct(("n", *inputs[name][0]), inputs[name][1]) for name in names],  # type: ignore[no-untyped-call]
        model_name="ser_batch",
        opset=OPSET,
        input_names=names,
        output_names=[PROBABILITIES],
    )
