"""Base of the readers: the properties that a header gives, and the errors of a refused recording."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ser_batch.errors import RecordingError, printable

REMEDY = "replace the file or remove it"
Samples = npt.NDArray[np.float32]
BLOCK_S = 30.0
# decoded samples up to here are held for another pass, of all channels together; those of a longer recording are
# decoded again
HELD_VALUES = (32 << 20) // 4

# of many channels or a high rate a block is shorter than that: 64 MB of floats at most, whatever a header says
_BLOCK_VALUES = 1 << 24

_FULL_SCALE = {"ULAW": 32124 / 32768, "ALAW": 32256 / 32768, "PCM_S8": 127 / 128, "PCM_U8": 127 / 128}
# full scale is 1.0, which mixes may exceed; integers that were written as floats reach thousands
_LOUDEST = np.float32(4)


@dataclasses.dataclass(frozen=True)
class Sound:
    """What the header of a recording says."""

    sampling_rate: int  # in Hz
    n_channels: int  # channels of the source
    n_samples: int  # samples a channel: announced by the header, or counted where none can be trusted to tell
    subtype: str  # libsndfile's name of the encoding, in capitals, or FFmpeg's, in small letters

    @property
    def full_scale(self) -> float:
        """The largest positive value the encoding can hold, where clipped sound stays."""
        return _FULL_SCALE.get(self.subtype, 32767 / 32768)

    @property
    def block_samples(self) -> int:
        """How many samples of each channel a block has."""
        return min(int(BLOCK_S * self.sampling_rate), _BLOCK_VALUES // self.n_channels)


class Source(Protocol):
    """A recording opened by one of the libraries that decode."""

    @property
    def sound(self) -> Sound:
        """What is known of it before it is read."""

    def blocks(self) -> Iterator[Samples]:
        """Yield it in blocks, float32, shape (samples, channels), from its beginning each time."""

    def close(self) -> None:
        """Let go of what the library holds; the file stays open."""


class Joined:
    """Recordings that follow one another in a file."""

    def __init__(self, sources: Sequence[Source], path: str) -> None:
        self._sources = sources
        sounds = [source.sound for source in sources]
        shapes = {(sound.sampling_rate, sound.n_channels) for sound in sounds}
        if len(shapes) > 1:
            raise refusal(path, "open", f"it holds {len(sources)} recordings whose rates or channels differ")
        self.sound = dataclasses.replace(sounds[0], n_samples=sum(sound.n_samples for sound in sounds))

    @classmethod
    def of(cls, sources: Sequence[Source], path: str) -> Source:
        """Return one source for all."""
        return sources[0] if len(sources) == 1 else cls(sources, path)

    def blocks(self) -> Iterator[Samples]:
        """Yield all recordings in blocks."""
        for source in self._sources:
            yield from source.blocks()

    def close(self) -> None:
        """Let go of all of them."""
        for source in self._sources:
            source.close()


class Held:
    """Decoded samples that another pass will want, as long as they are few enough."""

    def __init__(self) -> None:
        self.parts: list[Samples] | None = []  # in order; None once they were too many
        self._n_values = 0

    def add(self, samples: Samples) -> None:
        """Hold the next samples, shape (samples, channels)."""
        self._n_values += samples.size
        if self._n_values > HELD_VALUES:
            self.parts = None
        if self.parts is not None:
            samples.flags.writeable = False  # the next pass gets the very same ones
            self.parts.append(samples)


def refusal(path: str, stage: str, reason: str, remedy: str = REMEDY) -> RecordingError:
    """Return the error that turns a recording into a reject."""
    return RecordingError(stage, f"{printable(path)}: {reason}; {remedy}")


def too_long(path: str, stage: str, duration_s: float, max_duration_s: float) -> RecordingError:
    """Return the error of a recording that lasts longer than was asked for; seconds."""
    at_least = "at least " if stage == "decode" else ""
    return refusal(
        path,
        stage,
        f"it lasts {at_least}{duration_s:.0f} s; expected at most {max_duration_s:g} s",
        "cut it into parts, remove it, or give a longer --max-duration (seconds)",
    )


def broken(path: str, n_samples: int, sampling_rate: int, error: object) -> RecordingError:
    """Return the error of data that a decoder gives up on after `n_samples`."""
    return refusal(path, "decode", f"its data are broken after {n_samples / sampling_rate:.2f} s ({error})")


def check_values(block: Samples, path: str) -> None:
    """Refuse samples of which nothing can be computed."""
    if (np.abs(block) <= _LOUDEST).all():
        return
    if not np.isfinite(block).all():
        raise refusal(path, "decode", "it holds samples that are NaN or infinite; write it again as PCM")
    peak, scale = f"{np.abs(block).max():.6g}", "divide them by their full scale, such as 32768 for 16 bits"
    raise refusal(path, "decode", f"its samples reach {peak}, where full scale is 1.0; {scale}")
