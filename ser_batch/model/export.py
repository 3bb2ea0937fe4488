"""A model as one file for programs in other languages: an ONNX graph with the scaler in it, tried before it is kept."""

import dataclasses
import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ser_batch.errors import ModelError, SerBatchError, UsageError
from ser_batch.mfcc import kernel
from ser_batch.model.folder import Model
from ser_batch.model.saving import versions
from ser_batch.network.cmvn import FrameStats
from ser_batch.storage.atomic import atomic_path, make_folder
from ser_batch.summary import Summary

# what probabilities of the graph may differ from those of score by
LARGEST_DIFFERENCE = 1e-4
_CHECKED_SEGMENTS = 48
_PACKAGES = ("jax2onnx", "onnx", "onnxruntime")
Inputs = dict[str, npt.NDArray[Any]]


class ExportSummary(Summary, frozen=True, kw_only=True):
    """What `export` wrote."""

    out: Annotated[Path, Meta(description="the file")]
    model: Annotated[Path, Meta(description="model folder")]
    model_id: Annotated[str, Meta(description="id of the model")]
    inputs: Annotated[
        Mapping[str, tuple[str | int, ...]], Meta(description="shapes by name, `n` for any number of segments")
    ]
    labels: Annotated[tuple[str, ...], Meta(description="list of the labels, in the order of the probabilities")]
    n_checked: Annotated[int, Meta(description="segments whose probabilities were compared with those of score")]
    largest_difference: Annotated[float, Meta(description="largest absolute difference of a probability")]
    license: Annotated[str, Meta(description="license of the model")]


def export(model: Model, out: Path) -> ExportSummary:
    """Write a network as an ONNX file: MFCCs and numbers of real frames in, probabilities out.

    The scaler, the mean over the ensemble and the temperature are in the graph. Its metadata hold the labels in the
    order of the probabilities, the feature spec, the model's id and license.

    Parameters
    ----------
    model
        A network, not a classical model.
    out
        The file; it is written once the graph gives the probabilities of score, to 1e-4.

    Raises
    ------
    UsageError
        The model is no network, or the packages of the extra ``onnx`` are missing.
    SerBatchError
        The graph gives other probabilities.
    ModelError
        The model folder is altered.
    OutputError
        `out` cannot be written.
    """
    if model.estimator != "network":
        raise UsageError(
            f"{model.folder}: a model of {model.estimator}; expected a network: only those are exported as ONNX. Train "
            "one with --estimator network"
        )
    if model.is_head_model:
        raise UsageError(
            f"{model.folder}: heads on embeddings; expected a network on MFCCs, such as --model fast: only those are "
            "exported as ONNX. The encoder of embeddings is an ONNX file already (docs/encoders.md)"
        )
    predictor = model.predictor()  # also checks that network and model.json belong together
    import ser_batch.network.keras_setup  # noqa: F401 - before others import JAX
    from ser_batch.network.keras_settings import fixed_settings

    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f'--format onnx needs {", ".join(_PACKAGES)} ({error}); pip install "ser-batch[onnx]"'
            ) from error
    from ser_batch.network.onnx_graph import onnx_graph

    by_voice = model.schema.normalize != "none"
    try:
        with fixed_settings():
            graph = onnx_graph(
                model.folder / "network.keras",
                model.scaler,
                temperature=model.schema.temperature,
                by_voice=by_voice,
            )
    except ValueError as error:
        raise ModelError(f"{model.folder}: its network cannot be built anew: {error}; train it again") from error
    graph.producer_name = "ser-batch"
    graph.producer_version = versions()["ser-batch"]
    graph.doc_string = model.schema.description
    for name, value in metadata(model).items():
        graph.metadata_props.add(key=name, value=value)
    contents = graph.SerializeToString()
    largest, n_checked = 0.0, 0
    for inputs, stats in _cases(model):
        own = predictor(inputs["mfcc"], inputs["n_frames"].astype(np.int64), stats)
        largest = max(largest, _difference(contents, inputs, own))
        n_checked += len(own)
    if not largest <= LARGEST_DIFFERENCE:
        raise SerBatchError(
            f"{out}: not written: the probabilities of the graph differ from those of score by {largest:.2g}, where "
            f"{LARGEST_DIFFERENCE} is allowed; please report this with the output of `pip freeze`"
        )
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        temporary.write_bytes(contents)
    shapes = {
        tensor.name: tuple(size.dim_param or size.dim_value for size in tensor.type.tensor_type.shape.dim)
        for tensor in graph.graph.input
    }
    return ExportSummary(
        out=out,
        model=model.folder,
        model_id=model.model_id,
        inputs=shapes,
        labels=model.labels,
        n_checked=n_checked,
        largest_difference=largest,
        license=model.schema.license,
    )


def metadata(model: Model) -> dict[str, str]:
    """Return what stands in an exported file beside the graph; lists and tables are JSON."""
    return {
        "labels": json.dumps(model.labels),
        "model_id": model.model_id,
        "license": model.schema.license,
        "feature_spec": json.dumps(model.spec.to_dict()),
        "feature_spec_hash": model.schema.feature_spec_hash,
        "normalize": model.schema.normalize,
        "versions": json.dumps(versions() | {name: _version(name) for name in _PACKAGES}),
        "trained_with": json.dumps(model.schema.versions),
    }


def _version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def _difference(contents: bytes, inputs: Inputs, expected: npt.NDArray[np.float64]) -> float:
    """Return the largest absolute difference of a graph's probabilities from those expected."""
    from ser_batch.encoder.model import load_runtime

    session = load_runtime().InferenceSession(contents, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {tensor.name: inputs[tensor.name] for tensor in session.get_inputs()})
    return float(np.abs(found - expected).max())


def _cases(model: Model) -> Iterator[tuple[Inputs, FrameStats | None]]:
    """Yield what a graph is tried on, and what is heard of their voices: numbers drawn, made-up sounds, one segment."""
    spec = model.spec
    generator = np.random.default_rng(0)
    shape = (_CHECKED_SEGMENTS, spec.n_frames, spec.n_mfcc)
    drawn = generator.normal(model.scaler.mean, np.multiply(2.0, model.scaler.scale), shape).astype(np.float32)
    n_drawn = generator.integers(1, spec.n_frames + 1, _CHECKED_SEGMENTS)
    n_drawn[0] = spec.n_frames
    made = np.zeros(shape, dtype=np.float32)
    n_made = np.zeros(_CHECKED_SEGMENTS, dtype=np.int64)
    compute = kernel(spec, spec.sampling_rate)
    for place in range(_CHECKED_SEGMENTS):
        own = compute.mfcc(_sound(generator, spec.sampling_rate))[: spec.n_frames]
        n_made[place] = len(own)
        made[place, : len(own)] = own
    for mfcc, n_frames in ((drawn, n_drawn), (made, n_made), (made[:1], n_made[:1])):
        mfcc[np.arange(spec.n_frames) >= n_frames[:, None]] = 0
        inputs: Inputs = {"mfcc": mfcc, "n_frames": n_frames.astype(np.int32)}
        stats = None
        if model.schema.normalize != "none":
            stats = FrameStats.of(mfcc, n_frames, spec.n_mels)
            is_strange = np.arange(len(mfcc)) % 4 == 1  # nothing was heard of these
            stats = stats.replaced(
                is_strange, FrameStats(*(np.zeros_like(part) for part in dataclasses.astuple(stats)))
            )
            mean, variance = stats.moments()
            inputs |= {
                "voice_mean": mean.astype(np.float32),
                "voice_scale": np.sqrt(variance).astype(np.float32),
                "voice_frames": stats.n_frames.astype(np.float32),
            }
        yield inputs, stats


def _sound(generator: np.random.Generator, rate: int) -> npt.NDArray[np.float32]:
    """Return 0.2 to 6 s of a buzz whose pitch and level move, in noise, at a sampling rate in Hz."""
    n = int(generator.uniform(0.2, 6.0) * rate)
    seconds = np.arange(n) / rate
    pitch_hz = generator.uniform(80, 300) * (1 + 0.2 * np.sin(seconds * generator.uniform(1, 8)))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate
    buzz = sum(np.sin(number * phase) / number for number in range(1, 12))
    level = generator.uniform(0.01, 0.3) * (1 + np.sin(seconds * generator.uniform(2, 20)))
    return np.asarray(buzz * level + generator.normal(0, generator.uniform(1e-4, 0.02), n), dtype=np.float32)
