"""Specs that define the features: the MFCCs of a preset, the embeddings of an encoder."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec

from ser_batch.config.option_values import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from ser_batch.config.structs import Sha256, Spec, convert
from ser_batch.errors import UsageError

Level = Literal["absolute", "peak"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
# no spec of ours comes near these; beyond them, a single segment of a hostile model would fill the memory
_Samples = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
_Bands = Annotated[int, msgspec.Meta(ge=1, le=1024)]


class FeatureSpec(Spec, frozen=True, kw_only=True):
    """All numbers that define the MFCCs; the defaults are the preset ``wideband``.

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

    what: ClassVar[str] = "feature spec"

    sampling_rate: Annotated[int, msgspec.Meta(ge=MIN_SAMPLING_RATE, le=MAX_SAMPLING_RATE)] = 22050
    n_mfcc: _Bands = 40
    n_fft: Annotated[int, msgspec.Meta(ge=2, le=65_536)] = 2048
    win_length: _Samples = 2048
    hop_length: _Samples = 512
    n_mels: _Bands = 128
    top_db: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 80.0
    n_frames: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 174
    level: Level = "absolute"

    def __post_init__(self) -> None:
        """Refuse numbers that no MFCC can be computed with."""
        super().__post_init__()
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

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the fields that differ from their default.

        Fields at their default are left out, so that a field added later leaves old hashes as they were.
        """
        defaults = FeatureSpec().to_dict()
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


# where an encoder came from says nothing about its numbers
_NOT_IN_DIGEST = ("encoder", "source", "revision", "license")


class EncoderSpec(Spec, frozen=True, kw_only=True):
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

    what: ClassVar[str] = "encoder"

    encoder: Annotated[str, msgspec.Meta(pattern=r"^[\w.\-]{1,100}\Z")]
    source: str
    revision: str
    license: str
    sha256: Sha256
    sampling_rate: Annotated[int, msgspec.Meta(ge=1000, le=192_000)] = 16_000
    n_fft: _Samples = 400
    hop_length: _Samples = 160
    n_mels: _Bands = 80
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

    def digest(self) -> str:
        """Return the SHA-256 (hex) of all fields that decide numbers."""
        kept = {name: value for name, value in self.to_dict().items() if name not in _NOT_IN_DIGEST}
        return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


AnyFeatureSpec = FeatureSpec | EncoderSpec
# of structs that are generic in their `feature_spec`
Spec_co = TypeVar("Spec_co", bound=Spec, covariant=True)


def convert_with_spec(values: Mapping[str, Any], kind: Any) -> Any:
    """Return a JSON object as a struct whose `feature_spec` is that of either front end; see `convert`."""
    spec = values.get("feature_spec")
    return convert(values, kind[EncoderSpec if isinstance(spec, dict) and "encoder" in spec else FeatureSpec])
