"""The spec that defines how recordings are cut into segments."""

import math
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from ser_batch.config.features import FeatureSpec
from ser_batch.config.structs import Spec
from ser_batch.errors import UsageError

SegmentMode = Literal["clip", "windows", "turns", "labels"]
# no sound is heard as speech in less, and its windows would be without number
MIN_LENGTH_S = 0.01
_Length = Annotated[float, msgspec.Meta(ge=MIN_LENGTH_S, le=1e300)]


class Segmentation(Spec, frozen=True, kw_only=True):
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

    what: ClassVar[str] = "segmentation"

    mode: SegmentMode = "clip"
    window_s: _Length = 4.04
    hop_s: _Length = 2.02
    channels: str | None = None

    def __post_init__(self) -> None:
        """Refuse lengths and channels that cannot be."""
        super().__post_init__()
        if self.channels is None:
            msgspec.structs.force_setattr(self, "channels", "mix" if self.mode == "clip" else "split")
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

    def identity(self) -> dict[str, Any]:
        """Return the fields that change a value: window and hop only where they are used."""
        fields = self.to_dict()
        unused = {"windows": (), "turns": ("hop_s",)}.get(self.mode, ("window_s", "hop_s"))
        return {name: value for name, value in fields.items() if name not in unused}


def _channel_numbers(text: str) -> tuple[int, ...]:
    """Parse ``0,1`` into channel numbers."""
    parts = [part.strip() for part in text.split(",")]
    are_numbers = all(part.isdecimal() and part.isascii() and len(part) < 10 for part in parts)
    numbers = tuple(int(part) for part in parts) if are_numbers else ()
    if not numbers or len(set(numbers)) != len(numbers):
        raise UsageError(f"channels {text!r}; expected mix, split, or numbers such as 0,1")
    return numbers
