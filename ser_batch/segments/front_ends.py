"""Front ends: what computes a segment's features from its samples, MFCCs or the embedding of an encoder."""

import functools
from pathlib import Path
from typing import Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ser_batch.audio.sound import Samples
from ser_batch.config.features import AnyFeatureSpec, EncoderSpec, FeatureSpec
from ser_batch.encoder.model import Encoder, find_encoder, load_encoder
from ser_batch.encoder.pooling import Embedding
from ser_batch.mfcc import kernel
from ser_batch.storage.installed import INSTALLED_ENCODERS

Features_co = TypeVar("Features_co", covariant=True)
Frames = npt.NDArray[np.float32]


class SegmentFeatures(Protocol[Features_co]):
    """The features of one segment whose samples come bit by bit; memory does not grow with its length."""

    def feed(self, samples: Samples, /) -> None:
        """Take the next samples, shape (n,), at the front end's sampling rate."""

    def finish(self) -> Features_co:
        """End the segment and return its features."""


class FrontEnd(Protocol[Features_co]):
    """Computes the features of segments."""

    @property
    def sampling_rate(self) -> int:
        """Rate that samples are resampled to, in Hz."""

    def segment(self, source_rate: int, /) -> SegmentFeatures[Features_co]:
        """Start a segment of a recording whose own rate is `source_rate`, in Hz."""


class MfccFrontEnd:
    """MFCCs: a segment's features are float32, shape (frames, n_mfcc), at most `n_frames` frames, not padded."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._spec = spec

    @property
    def sampling_rate(self) -> int:
        """Rate that samples are resampled to, in Hz."""
        return self._spec.sampling_rate

    def segment(self, source_rate: int, /) -> SegmentFeatures[Frames]:
        """Start a segment of a recording whose own rate is `source_rate`, in Hz."""
        return kernel(self._spec, source_rate).segment()


class EncoderFrontEnd:
    """An encoder: a segment's features are its `Embedding`."""

    def __init__(self, loaded: Encoder) -> None:
        self._encoder = loaded

    @property
    def sampling_rate(self) -> int:
        """Rate that samples are resampled to, in Hz."""
        return self._encoder.spec.sampling_rate

    def segment(self, _source_rate: int, /) -> SegmentFeatures[Embedding]:
        """Start a segment of a recording."""
        return self._encoder.segment()


@overload
def front_end(spec: FeatureSpec, encoder_place: None = None) -> MfccFrontEnd: ...


@overload
def front_end(spec: EncoderSpec, encoder_place: str | None) -> EncoderFrontEnd: ...


@overload
def front_end(spec: AnyFeatureSpec, encoder_place: str | None) -> FrontEnd[Frames | Embedding]: ...


def front_end(spec: AnyFeatureSpec, encoder_place: str | None = None) -> FrontEnd[Frames | Embedding]:
    """Return the front end of a spec; an encoder is loaded once per process."""
    if isinstance(spec, FeatureSpec):
        return MfccFrontEnd(spec)
    assert encoder_place is not None
    return EncoderFrontEnd(_encoder(encoder_place, spec))


@functools.lru_cache(maxsize=1)
def _encoder(place: str, spec: EncoderSpec) -> Encoder:
    # not `find` at once: a worker's working folder may hold a folder of that name
    folder = Path(place) if Path(place).is_absolute() else INSTALLED_ENCODERS.get(place) or find_encoder(place)
    return load_encoder(folder, expected=spec)
