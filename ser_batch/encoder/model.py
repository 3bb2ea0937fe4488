"""Encoder folders: installed ones by name, their encoder.json, the encoder itself."""

import hashlib
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ser_batch.config.features import EncoderSpec
from ser_batch.config.structs import read_object
from ser_batch.encoder.pooling import Array, SegmentEncoder, padded, token_samples
from ser_batch.errors import EncoderError, UsageError, did_you_mean
from ser_batch.storage.installed import INSTALLED_ENCODERS

if TYPE_CHECKING:
    import onnxruntime

SPEC_FILE = INSTALLED_ENCODERS.file
GRAPH_FILE = "encoder.onnx"
_COPY_AGAIN = "copy the whole folder again, or convert again"


def find_encoder(encoder: str | Path) -> Path:
    """Return the folder of an encoder.

    Parameters
    ----------
    encoder
        A folder, or the name of an installed encoder. A folder of that name comes first.

    Raises
    ------
    UsageError
        There is neither.
    """
    folder = Path(encoder)
    if folder.is_dir():
        return folder
    if str(encoder) in INSTALLED_ENCODERS:
        return INSTALLED_ENCODERS[str(encoder)]
    raise UsageError(
        f"encoder {encoder}: no such folder or installed encoder; expected a folder made by `ser-batch encoder "
        f"convert`, or {', '.join(INSTALLED_ENCODERS)}{did_you_mean(str(encoder), INSTALLED_ENCODERS)}"
    )


def read_encoder_spec(folder: Path) -> EncoderSpec:
    """Read the encoder.json of a folder."""
    path = folder / SPEC_FILE
    try:
        return EncoderSpec.from_dict(read_object(path))
    except FileNotFoundError:
        raise EncoderError(f"{folder}: no {SPEC_FILE}; expected a folder made by `ser-batch encoder convert`") from None
    except (OSError, ValueError, UsageError) as error:
        raise EncoderError(f"{path}: cannot be used ({error}); {_COPY_AGAIN}") from error


class Encoder:
    """An encoder that is ready; make it with `load`.

    Parameters
    ----------
    spec
        What it computes.
    session
        Its graph.
    """

    def __init__(self, spec: EncoderSpec, session: "onnxruntime.InferenceSession") -> None:
        self.spec = spec
        self._session = session

    def tokens(self, samples: Array, kept: npt.NDArray[np.bool_] | None = None) -> Array:
        """Encode one block.

        Parameters
        ----------
        samples
            Shape (n,), at `spec.sampling_rate`, full scale 1.0, at most `spec.max_tokens` tokens of them. The level
            stays as it is; zeros are added up to a whole number of tokens.
        kept
            Shape (all tokens,): those that are wanted; None for all. Fewer take less time and are the same.

        Returns
        -------
        array of float32, shape (n_tokens, n_outputs, width)

        Raises
        ------
        ValueError
            More samples than that.
        """
        samples = padded(np.asarray(samples, dtype=np.float32), self.spec)
        n_tokens = len(samples) // token_samples(self.spec)
        if n_tokens > self.spec.max_tokens:
            raise ValueError(f"{n_tokens} tokens at once; expected at most {self.spec.max_tokens}: use segment()")
        numbers = np.arange(n_tokens) if kept is None else np.flatnonzero(kept)
        from ser_batch.encoder.log_mel import log_mel  # SciPy: loaded by what computes

        (tokens,) = self._session.run(None, {"mel": log_mel(samples, self.spec), "kept": numbers})
        return np.asarray(tokens)

    def segment(self) -> SegmentEncoder:
        """Start a segment, to be fed with samples."""
        return SegmentEncoder(self)


def load_encoder(folder: Path, *, expected: EncoderSpec | None = None) -> Encoder:
    """Load the encoder of a folder.

    Parameters
    ----------
    folder
        Holds encoder.json and encoder.onnx.
    expected
        What a model or features were made with; None takes what is there.

    Raises
    ------
    EncoderError
        A file is missing, altered, not of this program, or not what `expected` says.
    """
    spec = read_encoder_spec(folder)
    hop = token_samples(spec)
    if hop != 2 * spec.hop_length or hop <= spec.n_fft // 2:
        raise EncoderError(
            f"{folder / SPEC_FILE}: tokens of {hop} samples with hop_length {spec.hop_length} and n_fft {spec.n_fft}; "
            f"expected two hops per token, and a token longer than half of n_fft; {_COPY_AGAIN}"
        )
    if expected is not None and expected.digest() != spec.digest():
        raise EncoderError(
            f"{folder}: another encoder than expected: {_differences(spec, expected)}; name the folder of "
            f"{expected.encoder}, or featurize and train again with this one"
        )
    path = folder / GRAPH_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise EncoderError(f"{path}: missing; {_COPY_AGAIN}") from None
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    found = hashlib.sha256(content).hexdigest()
    if found != spec.sha256:
        raise EncoderError(f"{path}: SHA-256 {found}, expected {spec.sha256} as {SPEC_FILE} says; {_COPY_AGAIN}")
    session = _session(path, content)
    _check_shapes(path, session, spec)
    return Encoder(spec, session)


def load_runtime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off, which releases from 1.29 on otherwise send to Microsoft."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
    return importlib.import_module("onnxruntime")


def _session(path: Path, content: bytes) -> "onnxruntime.InferenceSession":
    """Return what runs a graph, on one thread and without memory that is kept from one run to the next."""
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what is wrong is raised
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes derive from Exception alone
        raise EncoderError(f"{path}: ONNX Runtime cannot load it ({error}); {_COPY_AGAIN}") from error


def _check_shapes(path: Path, session: "onnxruntime.InferenceSession", spec: EncoderSpec) -> None:
    """Refuse a graph whose inputs, outputs or length are not what encoder.json says."""
    found = [
        *((value.name, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())),
        ("max_tokens", session.get_modelmeta().custom_metadata_map.get("max_tokens")),
    ]
    wanted = [
        ("mel", [spec.n_mels]),
        ("kept", []),
        ("tokens", [len(spec.outputs), spec.width]),
        ("max_tokens", str(spec.max_tokens)),
    ]
    if found != wanted:
        raise EncoderError(f"{path}: {found}, expected {wanted} as {SPEC_FILE} says; {_COPY_AGAIN}")


def _differences(found: EncoderSpec, expected: EncoderSpec) -> str:
    """Say what differs between two specs, field by field."""
    pairs = ((field, getattr(found, field), getattr(expected, field)) for field in found.__struct_fields__)
    return ", ".join(f"{field} {came!r}, expected {wanted!r}" for field, came, wanted in pairs if came != wanted)
