"""A Whisper encoder as an ONNX graph: only the blocks that are read, for inputs of any length.

The graph takes the log-mel spectrogram as ``mel``, shape (frames, n_mels), an even number of frames, and the numbers of
the tokens that are wanted as ``kept``, shape (n,). It gives ``tokens``, shape (n, n_outputs, width). The position
embeddings are cut to the length of the input. Weights are stored as float16 and cast to float32
when the graph is loaded.

Almost all of the time goes into products of matrices. So the convolutions are products too, attention is one operator
of ONNX Runtime's own, and the last block computes only the tokens that are kept: they attend to all tokens, as ever.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ser_batch.encoder.weights import EncoderWeights

# what ONNX Runtime 1.22 reads
_OPSET, _IR_VERSION = 20, 10
_OWN = "com.microsoft"
_EPSILON = 1e-5
_TO_THE_END = np.iinfo(np.int64).max


def build_graph(weights: EncoderWeights, outputs: Sequence[int]) -> bytes:
    """Return the ONNX file of an encoder."""
    graph = _Graph(weights)
    found = [graph.positions(graph.convolutions("mel"))]
    n_blocks = min(max(outputs), weights.n_blocks)
    for i in range(n_blocks - 1):
        found.append(graph.block(found[i], i))
    kept = [graph.kept(x) for x in found]
    if n_blocks:
        kept.append(graph.block(found[-1], n_blocks - 1, residual=kept[-1]))
    if max(outputs) > weights.n_blocks:
        kept.append(graph.norm(kept[-1], "layer_norm"))
    graph.stack([kept[output] for output in outputs])
    return graph.serialized(len(outputs))


class _Graph:
    """Nodes and constants as they come; each method adds some and returns the name of its result."""

    def __init__(self, weights: EncoderWeights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._n_names = 0

    def convolutions(self, mel: str) -> str:
        """Add both convolutions, over 3 frames each, the second at every other frame, and their GELUs."""
        before, after = (self._shifted(mel, first, last) for first, last in ((0, -2), (2, _TO_THE_END)))
        x = self._gelu(self._convolution(self._add("Concat", before, mel, after, axis=1), "conv1"))
        # token t is of frames 2t - 1, 2t, 2t + 1: the latter two lie side by side already
        pairs = self._add("Reshape", x, self._integers(-1, 2 * self._weights.width))
        before = self._shifted(x, 0, -2, step=2)
        return self._gelu(self._convolution(self._add("Concat", before, pairs, axis=1), "conv2"))

    def positions(self, x: str) -> str:
        """Add the position embeddings, cut to the length of `x`."""
        n_tokens = self._add("Shape", x, start=0, end=1)
        embeddings = self._float("embed_positions.weight")
        cut = self._add("Slice", embeddings, self._integers(0), n_tokens, self._integers(0))
        return self._add("Add", x, cut)

    def kept(self, x: str) -> str:
        """Add a choice of the tokens that are wanted."""
        return self._add("Gather", x, "kept", axis=0)

    def block(self, x: str, i: int, *, residual: str | None = None) -> str:
        """Add block `i`: attention and MLP, each after a norm and added to what came."""
        # With `residual`, the kept tokens of `x`, the block gives these alone.
        name = f"layers.{i}"
        attention = f"{name}.self_attn"
        heads = self._weights.n_heads
        normed = self.norm(x, f"{name}.self_attn_layer_norm")
        asking = self.kept(normed) if residual else normed
        parts = ((asking, "q"), (normed, "k"), (normed, "v"))
        # the operator wants a batch
        q, k, v = (
            self._add("Unsqueeze", self._linear(h, f"{attention}.{part}_proj"), self._integers(0)) for h, part in parts
        )
        scale = (self._weights.width / heads) ** -0.5
        h = self._add("MultiHeadAttention", q, k, v, domain=_OWN, num_heads=heads, scale=scale)
        h = self._linear(self._add("Squeeze", h, self._integers(0)), f"{attention}.out_proj")
        x = self._add("Add", residual or x, h)
        h = self._gelu(self._linear(self.norm(x, f"{name}.final_layer_norm"), f"{name}.fc1"))
        return self._add("Add", x, self._linear(h, f"{name}.fc2"))

    def norm(self, x: str, name: str) -> str:
        """Add a layer norm."""
        scale, shift = self._float(f"{name}.weight"), self._float(f"{name}.bias")
        return self._add("LayerNormalization", x, scale, shift, axis=-1, epsilon=_EPSILON)

    def stack(self, outputs: Sequence[str]) -> None:
        """Make the outputs, each (tokens, width), the graph's one result."""
        together = self._add("Concat", *outputs, axis=1)
        shape = self._integers(-1, len(outputs), self._weights.width)
        self._nodes.append(helper.make_node("Reshape", [together, shape], ["tokens"]))

    def serialized(self, n_outputs: int) -> bytes:
        """Return the file."""
        weights, kind = self._weights, onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [
                helper.make_tensor_value_info("mel", kind, ["frames", weights.n_mels]),
                helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, ["n"]),
            ],
            [helper.make_tensor_value_info("tokens", kind, ["n", n_outputs, weights.width])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_OWN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="ser-batch")
        helper.set_model_props(model, {"max_tokens": str(weights.max_tokens)})
        return bytes(model.SerializeToString())

    def _add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        self._n_names += 1
        name = f"{operator}_{self._n_names}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], domain=domain, **attributes))
        return name

    def _linear(self, x: str, name: str) -> str:
        """Add a product with weights of shape (out, in), and the bias where there is one."""
        return self._product(x, name, self._weights.arrays[f"{name}.weight"].T)

    def _convolution(self, x: str, name: str) -> str:
        """Add a product with weights of shape (out, in, 3); `x` holds three frames side by side."""
        kernel = self._weights.arrays[f"{name}.weight"].transpose(2, 1, 0)
        return self._product(x, name, kernel.reshape(-1, kernel.shape[-1]))

    def _product(self, x: str, name: str, matrix: npt.NDArray[np.generic]) -> str:
        bias = [self._float(f"{name}.bias")] if f"{name}.bias" in self._weights.arrays else []
        return self._add("Gemm", x, self._half(f"{name}.matrix", matrix), *bias)

    def _gelu(self, x: str) -> str:
        return self._add("Gelu", x, approximate="none")

    def _shifted(self, x: str, first: int, last: int, step: int = 1) -> str:
        """Add frames `first` to `last` of `x` with a frame of zeros at both ends."""
        around = self._add("Pad", x, self._integers(1, 0, 1, 0))
        bounds = (self._integers(first), self._integers(last), self._integers(0), self._integers(step))
        return self._add("Slice", around, *bounds)

    def _float(self, name: str) -> str:
        return self._half(name, self._weights.arrays[name])

    def _half(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """Add a constant as float16 and return its float32."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float16), name)
        return self._add("Cast", name, to=onnx.TensorProto.FLOAT)

    def _integers(self, *values: int) -> str:
        name = f"integers_{'_'.join(map(str, values))}"
        self._constants[name] = numpy_helper.from_array(np.array(values, dtype=np.int64), name)
        return name
