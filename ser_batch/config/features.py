"""What defines the features: the MFCCs of a preset, the embeddings of an encoder."""

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec

from ser_batch.errors import UsageError

Level = Literal["absolute", "peak"]
_Spec = TypeVar("_Spec")


def _is_number(value: object) -> bool:
    """Whether a value, which may come from a JSON file, is a finite number."""
    # comparing takes integers of any size, converting to a float does not
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 <= value <= 1e300


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """All numbers that define the MFCCs; the defaults are the preset ``ravdess``.

    ``librosa.feature.mfcc`` with the same parameters on ``librosa.load``'s samples is the definition.

    Parameters
    ----------
    sampling_rate
        Rate the recording is resampled to (soxr HQ), in Hz. Mel bands reach up to half of it.
    n_mfcc
        Coefficients kept of the orthonormal DCT-II.
    n_fft, win_length, hop_length
        FFT size, periodic Hann window and step, in samples; frames are centered, zeros pad both ends.
    n_mels
        Slaney mel bands, area-normalised.
    top_db
        How far below the loudest point of the segment the dB values are cut off.
    n_frames
        Frames a segment has; longer ones are cut, shorter ones padded with 0.0.
    level
        What dB are relative to. ``absolute``: full scale, so that a louder recording has other MFCCs. ``peak``: the
        loudest mel power of the segment, as ``librosa.power_to_db(..., ref=np.max, amin=1e-20)``, so that gain does
        not count.
    """

    sampling_rate: int = 22050
    n_mfcc: int = 40
    n_fft: int = 2048
    win_length: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    top_db: float = 80.0
    n_frames: int = 174
    level: Level = "absolute"

    def __post_init__(self) -> None:
        """Refuse numbers that no MFCC can be computed with."""
        if _is_number(self.top_db):
            object.__setattr__(self, "top_db", float(self.top_db))  # 60 and 60.0 are one spec, with one hash
        if self.level not in typing.get_args(Level):
            raise UsageError(
                f"feature spec: level is {self.level!r}; expected one of {', '.join(typing.get_args(Level))}"
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "level":
                continue
            if not (_is_number(value) and value > 0) or (field.name != "top_db" and not isinstance(value, int)):
                kind = "number" if field.name == "top_db" else "whole number"
                raise UsageError(f"feature spec: {field.name} is {value!r}; expected a positive {kind}")
        if self.win_length > self.n_fft:
            raise UsageError(
                f"feature spec: win_length {self.win_length} is larger than n_fft {self.n_fft}; "
                "choose n_fft at least as large"
            )
        if self.n_mfcc > self.n_mels:
            raise UsageError(
                f"feature spec: n_mfcc {self.n_mfcc} is larger than n_mels {self.n_mels}; "
                "there are no more coefficients than mel bands"
            )

    @property
    def amin(self) -> float:
        """The least mel power that is told apart: librosa's own, or one that no gain brings speech down to."""
        return 1e-10 if self.level == "absolute" else 1e-20

    @property
    def max_samples(self) -> int:
        """Most samples a segment can have without being cut to `n_frames` frames."""
        return self.n_frames * self.hop_length - 1

    @property
    def max_window_s(self) -> float:
        """Longest window that fits `n_frames` frames, in seconds."""
        return self.max_samples / self.sampling_rate

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as they are written to spec.json and model.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; unknown fields are refused by name.

        Raises
        ------
        UsageError
            A field is unknown or has an impossible value.
        """
        return _from_dict(cls, values, "feature spec")

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the fields that differ from their default.

        Fields at their default are left out, so that a field added later leaves old hashes as they were.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        changed = {name: value for name, value in self.to_dict().items() if value != defaults[name]}
        return hashlib.sha256(canonical_json(changed).encode()).hexdigest()


PRESETS: dict[str, FeatureSpec] = {
    "wideband": FeatureSpec(),
    "telephone": FeatureSpec(
        sampling_rate=8000, n_fft=1024, win_length=743, hop_length=186, n_mels=64, top_db=60.0, level="peak"
    ),
}


def canonical_json(value: Any) -> str:
    """Return `value` as JSON that is the same for equal values: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _from_dict(cls: type[_Spec], values: Mapping[str, Any], what: str) -> _Spec:
    """Make a frozen spec of a JSON object, refusing unknown fields by name."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # all callers are dataclasses
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"{what}: unknown field {unknown[0]!r}; written by a newer version of ser-batch?")
    return cls(**values)


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
    """Read the spec of either front end, as spec.json and the model folder hold it."""
    return EncoderSpec.from_dict(values) if "encoder" in values else FeatureSpec.from_dict(values)


def _named(message: str) -> str:
    """Return msgspec's message with the path of the field in our notation."""
    return re.sub(r" - at `\$\.?([^`]*)`$", r" (field \1)", message)
