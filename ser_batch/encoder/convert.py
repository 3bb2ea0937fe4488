"""Conversion of a Whisper checkpoint into an encoder folder."""

import hashlib
import importlib
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from ser_batch.config.features import EncoderSpec
from ser_batch.encoder.ctranslate2 import read_ctranslate2
from ser_batch.encoder.model import GRAPH_FILE, SPEC_FILE, load_encoder
from ser_batch.encoder.weights import EncoderWeights, check_weights
from ser_batch.errors import EncoderError, OutputError, UsageError
from ser_batch.storage.atomic import TEMPORARY_MARK, make_folder, write_json
from ser_batch.summary import Summary

CONFIG_FILE = "config.json"
SAFETENSORS_FILE = "model.safetensors"
CTRANSLATE2_FILE = "model.bin"
_PICKLED = ("pytorch_model.bin", "*.pt", "*.pth")
_MAX_OUTPUTS = 4
_EXPECTED = (
    f"a folder with {CONFIG_FILE} and {SAFETENSORS_FILE} (Hugging Face) or {CTRANSLATE2_FILE} (CTranslate2), or such a "
    f"{CTRANSLATE2_FILE} itself"
)


class ConvertSummary(Summary, frozen=True, kw_only=True):
    """The result of a conversion."""

    out: Annotated[Path, Meta(description="encoder folder")]
    encoder: Annotated[EncoderSpec, Meta(description="its encoder.json")]
    n_blocks: Annotated[int, Meta(description="blocks of the checkpoint's encoder")]
    n_bytes: Annotated[int, Meta(description="size of encoder.onnx, bytes")]


def default_outputs(n_blocks: int) -> tuple[int, ...]:
    """Return the outputs that are read if none are named: at most four, from a third to five sixths of the blocks."""
    # 4 blocks: 1, 2, 3; 12 blocks: 4, 6, 8, 10
    first, last = max(1, round(n_blocks / 3)), max(1, n_blocks - max(1, round(n_blocks / 6)))
    n = min(_MAX_OUTPUTS, last - first + 1)
    return tuple(round(output) for output in np.linspace(first, last, max(n, 1)))


def read_outputs(text: str) -> tuple[int, ...]:
    """Return the numbers of ``1,2,3``."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,3}", part) for part in parts):
        raise UsageError(f"--outputs {text}: expected numbers of outputs, such as 1,2,3")
    return tuple(map(int, parts))


def convert(
    source: Path,
    out: Path,
    *,
    outputs: Sequence[int] | None = None,
    name: str | None = None,
    origin: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> ConvertSummary:
    """Make an encoder folder, whole or not at all.

    Parameters
    ----------
    source
        A folder with config.json and model.safetensors, as Hugging Face has them, or with model.bin of CTranslate2, or
        one of these files.
    out
        The folder to make.
    outputs
        Outputs of the encoder to read: 0 is what the convolutions give, i what block i gives, one more than there are
        blocks the final norm. None: `default_outputs`.
    name
        Of the encoder; None takes that of `out`.
    origin, license
        Where the weights come from and their license, for encoder.json; None takes what config.json says.
    overwrite
        Whether to replace another encoder in `out`.

    Raises
    ------
    UsageError
        There is no such source, an output is not of this encoder, or the extra `encoders` is not installed.
    EncoderError
        The weights are not those of a Whisper encoder, or cannot be read.
    OutputError
        `out` holds something else, or cannot be written.
    """
    _require_libraries()
    from ser_batch.encoder.graph import build_graph

    named = name if name is not None else out.resolve().name
    if not re.fullmatch(r"[\w.\-]{1,100}", named):
        raise UsageError(
            f"name {named!r}: expected letters, digits, '.', '-' and '_', at most 100; give one with --name"
        )
    _check_out(out, overwrite=overwrite)
    path = _weights_file(source)
    config: Mapping[str, Any] = {}  # CTranslate2's says nothing of the encoder
    if path.suffix == ".safetensors":
        config = _read_config(path.with_name(CONFIG_FILE))
        weights = check_weights(_read_safetensors(path), path, n_heads=config["encoder_attention_heads"])
    else:
        arrays, n_heads = read_ctranslate2(path)
        weights = check_weights(arrays, path, n_heads=n_heads)
    chosen = _check_outputs(outputs or default_outputs(weights.n_blocks), weights, path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    content = build_graph(weights, chosen)
    model = str(config.get("_name_or_path", ""))
    is_named = re.fullmatch(r"[\w.\-]+/[\w.\-]+", model)
    spec = EncoderSpec.from_dict(
        {
            "encoder": named,
            "source": origin or (f"https://huggingface.co/{model}" if is_named else path.name),
            "revision": f"{path.name} with SHA-256 {digest}",
            "license": license or ("MIT" if model.startswith("openai/whisper-") else "see source"),
            "sha256": hashlib.sha256(content).hexdigest(),
            "n_mels": weights.n_mels,
            "outputs": chosen,
            "width": weights.width,
            "max_tokens": weights.max_tokens,
        }
    )
    _write(out, spec, content)
    return ConvertSummary(out=out, encoder=spec, n_blocks=weights.n_blocks, n_bytes=len(content))


def _require_libraries() -> None:
    """Refuse to begin where an extra is not installed."""
    for package in ("onnx", "safetensors"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(f'encoder convert needs {package} ({error}); pip install "ser-batch[encoders]"') from error


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a path that holds something."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: a file; name a folder that is not there yet")
    held = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if held - {SPEC_FILE, GRAPH_FILE}:
        raise OutputError(f"{out}: holds something else ({min(held - {SPEC_FILE, GRAPH_FILE})}); name another folder")
    if held and not overwrite:
        raise OutputError(f"{out}: holds an encoder already; name another folder, or add --overwrite to replace it")


def _weights_file(source: Path) -> Path:
    """Return the file that holds the weights."""
    if source.is_dir():
        for name in (SAFETENSORS_FILE, CTRANSLATE2_FILE):
            if (source / name).is_file():
                return source / name
        if (source / f"{SAFETENSORS_FILE}.index.json").is_file():
            raise EncoderError(
                f"{source}: {SAFETENSORS_FILE} is in several parts; expected one file: take a checkpoint that has it"
            )
        for pattern in _PICKLED:
            for path in source.glob(pattern):
                raise _refused(path)
        raise EncoderError(f"{source}: no {SAFETENSORS_FILE} and no {CTRANSLATE2_FILE}; expected {_EXPECTED}")
    if not source.is_file():
        raise UsageError(f"{source}: no such file or folder; expected {_EXPECTED}")
    if any(source.match(pattern) for pattern in _PICKLED):
        raise _refused(source)
    if source.suffix not in {".safetensors", ".bin"}:
        raise EncoderError(f"{source}: not a kind of file that is read; expected {_EXPECTED}")
    return source


def _refused(path: Path) -> EncoderError:
    return EncoderError(
        f"{path}: a pickle, which can run any program when it is read, so it is not; use {SAFETENSORS_FILE} of the "
        "same checkpoint instead"
    )


def _read_config(path: Path) -> Mapping[str, Any]:
    """Return what Hugging Face's config.json says, checked as far as it is used."""
    try:
        config = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise EncoderError(f"{path}: missing; expected {_EXPECTED}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise EncoderError(f"{path}: cannot be read ({error}); fetch the file again") from error
    if not isinstance(config, dict) or config.get("model_type") != "whisper":
        kind = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise EncoderError(f"{path}: model_type {kind!r}; expected 'whisper', a checkpoint of openai/whisper-*")
    heads = config.get("encoder_attention_heads")
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise EncoderError(f"{path}: encoder_attention_heads {heads!r}; expected a number; fetch the file again")
    activation = config.get("activation_function", "gelu")
    if activation != "gelu" or config.get("scale_embedding", False):
        raise EncoderError(
            f"{path}: activation_function {activation!r}, scale_embedding {config.get('scale_embedding')!r}; "
            "expected 'gelu' and false, as every openai/whisper-* has"
        )
    return config


def _read_safetensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the encoder by their names, without what stands before them."""
    import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16
    import safetensors

    arrays = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dictionary
                found = re.fullmatch(r"(?:model\.)?encoder\.(.+)", name)
                if found:
                    arrays[found[1]] = file.get_tensor(name)
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise EncoderError(f"{path}: cannot be read as safetensors ({error}); fetch the file again") from error
    kinds = {array.dtype.name for array in arrays.values()}
    if not kinds <= {"float16", "float32", "bfloat16"}:
        raise EncoderError(f"{path}: weights of type {', '.join(sorted(kinds))}; expected float16, bfloat16 or float32")
    return arrays


def _check_outputs(outputs: Sequence[int], weights: EncoderWeights, path: Path) -> tuple[int, ...]:
    last = weights.n_blocks + 1
    wrong = [output for output in outputs if not 0 <= output <= last]
    if wrong or len(set(outputs)) != len(outputs):
        raise UsageError(
            f"--outputs {','.join(map(str, outputs))}: expected different numbers from 0 to {last}: {path} has "
            f"{weights.n_blocks} blocks"
        )
    return tuple(outputs)


def _write(out: Path, spec: EncoderSpec, content: bytes) -> None:
    """Put a tried encoder in place, whole or not at all."""
    make_folder(out.parent)
    mark = f"{TEMPORARY_MARK}{secrets.token_hex(4)}"
    made, old = out.with_name(f".{out.name}{mark}"), out.with_name(f".{out.name}{mark}-old")
    try:
        made.mkdir()
        (made / GRAPH_FILE).write_bytes(content)
        write_json(made / SPEC_FILE, spec.to_dict())
        tried = load_encoder(made).tokens(
            np.random.default_rng(0).normal(0, 0.1, spec.sampling_rate).astype(np.float32)
        )
        if not np.isfinite(tried).all():
            raise EncoderError(f"{out}: the encoder gives numbers that are not finite; fetch the checkpoint again")
        if out.exists():
            out.rename(old)
        try:
            made.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); free space or choose another OUT") from error
    finally:
        for folder in (made, old):
            shutil.rmtree(folder, ignore_errors=True)
