"""What defines the embeddings of an encoder: the contents of its encoder.json."""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import msgspec

from ser_batch.config.spec import FeatureSpec, canonical_json
from ser_batch.errors import UsageError

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
# where an encoder came from says nothing about its numbers
_NOT_IN_DIGEST = ("encoder", "source", "revision", "license")


class EncoderSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that defines an encoder and the embeddings made with it.

    Parameters
    ----------
    encoder
        Name, such as ``whisper-tiny.en``.
    source, revision, license
        Where the weights come from, which revision of them, and their license.
    sha256
        SHA-256 of encoder.onnx, 64 hex digits.
    sampling_rate
        Rate that recordings are resampled to (soxr HQ), in Hz.
    n_fft, hop_length, n_mels
        Window and step of the log-mel spectrogram in samples, and its Slaney mel bands.
    outputs
        Outputs of the encoder that are read: 0 is what the convolutions give, i what block i gives.
    width
        Numbers per token and output.
    pooling
        ``mean_std``: mean and standard deviation over the tokens of speech of a segment.
    speech_range_db
        A token counts as speech if its energy is at most so many dB below that of the loudest one.
    level_dbfs
        Level that the speech of each segment is brought to, in dB below full scale.
    seconds_per_token
        Hop of the tokens.
    max_tokens
        Tokens that are encoded at once; longer segments are encoded in blocks of this many.
    padding
        ``none``: inputs are not padded to 30 s; the position embeddings are cut to the length of the input.
    """

    encoder: Annotated[str, msgspec.Meta(pattern=r"^[\w.\-]{1,100}$")]
    source: str
    revision: str
    license: str
    sha256: Sha256
    sampling_rate: Annotated[int, msgspec.Meta(ge=1000, le=192_000)] = 16_000
    n_fft: Count = 400
    hop_length: Count = 160
    n_mels: Count = 80
    outputs: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=1000)], ...], msgspec.Meta(min_length=1)]
    width: Count
    pooling: Literal["mean_std"] = "mean_std"
    speech_range_db: Annotated[float, msgspec.Meta(gt=0, le=200)] = 30.0
    level_dbfs: Annotated[float, msgspec.Meta(ge=-100, le=0)] = -23.0
    seconds_per_token: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.02
    max_tokens: Count = 1500
    padding: Literal["none"] = "none"
    schema_version: Literal[1] = 1

    @property
    def embedding_size(self) -> int:
        """Numbers of an embedding: mean, then standard deviation, of each output."""
        return 2 * len(self.outputs) * self.width

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as they are written to encoder.json, spec.json and the model folder."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values | {"outputs": list(self.outputs)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        UsageError
            A field is missing, unknown, of another type or out of its range.
        """
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise UsageError(f"encoder: {_named(str(error))}; written by a newer version of ser-batch?") from error

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all fields that decide numbers."""
        kept = {name: value for name, value in self.to_dict().items() if name not in _NOT_IN_DIGEST}
        return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


AnyFeatureSpec = FeatureSpec | EncoderSpec


def feature_spec_of(values: Mapping[str, Any]) -> AnyFeatureSpec:
    """Read the spec of either front end, as spec.json and the model folder hold it.

    Raises
    ------
    UsageError
        A field is unknown or has an impossible value.
    """
    return EncoderSpec.from_dict(values) if "encoder" in values else FeatureSpec.from_dict(values)


def _named(message: str) -> str:
    """Return msgspec's message with the path of the field in our notation."""
    return re.sub(r" - at `\$\.?([^`]*)`$", r" (field \1)", message)
