"""How features are computed, and how recordings are cut into segments."""

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from ser_batch.errors import UsageError, did_you_mean

SegmentMode = Literal["clip", "windows", "turns", "labels"]
Level = Literal["absolute", "peak"]

_Spec = TypeVar("_Spec")
# no sound is heard as speech in less, and its windows would be without number
MIN_LENGTH_S = 0.01


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
        FFT size, periodic Hann window and step, in samples; frames are centred, zeros pad both ends.
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
        """Return all fields, as they are written to spec.json and bundle.json."""
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
    "ravdess": FeatureSpec(),
    "telephone": FeatureSpec(
        sampling_rate=8000, n_fft=1024, win_length=743, hop_length=186, n_mels=64, top_db=60.0, level="peak"
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """How a recording becomes segments.

    Parameters
    ----------
    mode
        ``clip``: one segment, the recording's beginning. ``windows``: overlapping windows over all of it.
        ``turns``: the stretches of speech between pauses. ``labels``: the rows of the labels file.
    window_s, hop_s
        Length and step of the windows in seconds; only used by ``windows``, and the length as the most that one of
        ``turns`` may last.
    channels
        ``mix`` (the mean of all), ``split`` (each by itself) or the source's channel numbers, such as ``0,1``.
        None stands for the mode's default: mix for clip, split otherwise.
    """

    mode: SegmentMode = "clip"
    window_s: float = 4.04
    hop_s: float = 2.02
    channels: str | None = None

    def __post_init__(self) -> None:
        """Refuse lengths and channels that cannot be."""
        if self.mode not in typing.get_args(SegmentMode):
            modes = typing.get_args(SegmentMode)
            raise UsageError(
                f"segments {self.mode!r}; expected one of {', '.join(modes)}{did_you_mean(self.mode, modes)}"
            )
        for name, value in (("window", self.window_s), ("hop", self.hop_s)):
            if not (_is_number(value) and value >= MIN_LENGTH_S):
                raise UsageError(f"{name} {value!r}; expected a number of seconds, {MIN_LENGTH_S} or more")
        if self.channels is None:
            object.__setattr__(self, "channels", "mix" if self.mode == "clip" else "split")
        elif self.channels not in ("mix", "split"):
            _channel_numbers(self.channels)

    @property
    def follows_labels(self) -> bool:
        """Whether segments begin and end where the labels file says."""
        return self.mode == "labels"

    def channel_numbers(self, n_channels: int) -> tuple[int, ...]:
        """Return the table's channel numbers for a recording: -1 is the mean, 0 the only one of mono.

        Parameters
        ----------
        n_channels
            Channels of the recording. Numbers asked for that it does not have are left out.
        """
        if n_channels == 1:
            return (0,) if self.channels in ("mix", "split") or 0 in _channel_numbers(str(self.channels)) else ()
        if self.channels == "mix":
            return (-1,)
        if self.channels == "split":
            return tuple(range(n_channels))
        return tuple(number for number in _channel_numbers(str(self.channels)) if number < n_channels)

    def check_window(self, spec: FeatureSpec) -> None:
        """Refuse windows that a segment's frames cannot hold.

        Raises
        ------
        UsageError
            The window is longer than the `n_frames` frames of `spec`.
        """
        if self.mode in ("windows", "turns") and round(self.window_s * spec.sampling_rate) > spec.max_samples:
            raise UsageError(
                f"a window of {self.window_s:g} s does not fit the {spec.n_frames} frames of a segment; "
                f"choose --window {math.floor(spec.max_window_s * 100) / 100:g} or less"
            )

    def decisive(self) -> dict[str, Any]:
        """Return the fields that change a value: window and hop only where they are used."""
        fields = self.to_dict()
        unused = {"windows": (), "turns": ("hop_s",)}.get(self.mode, ("window_s", "hop_s"))
        return {name: value for name, value in fields.items() if name not in unused}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they are written to spec.json and bundle.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; unknown fields are refused by name."""
        return _from_dict(cls, values, "segmentation")


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


def _channel_numbers(text: str) -> tuple[int, ...]:
    """Parse ``0,1`` into channel numbers."""
    parts = [part.strip() for part in text.split(",")] if isinstance(text, str) else [""]
    are_numbers = all(part.isdecimal() and part.isascii() and len(part) < 10 for part in parts)
    numbers = tuple(int(part) for part in parts) if are_numbers else ()
    if not numbers or len(set(numbers)) != len(numbers):
        raise UsageError(f"channels {text!r}; expected mix, split, or numbers such as 0,1")
    return numbers
