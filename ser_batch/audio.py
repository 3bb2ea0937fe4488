"""Decode, mix or split channels, resample; in blocks, so that hours of sound need no more memory than minutes."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ser_batch.errors import RecordingError, printable

Samples = npt.NDArray[np.float32]

BLOCK_S = 30.0
# a stream of soxr is fed this many samples at a time: what it works on then stays in the processor's cache
_SAMPLES_A_FEED = 16_384
# outside of these no speech is to be found, and a resampler would be asked for absurd ratios
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1000, 768_000
MAX_CHANNELS = 64
# decoded to 16-bit integers inside libsndfile: reading them as such and scaling here is three times as fast
# as asking for floats, and the same numbers
_INT16_SUBTYPES = frozenset(
    {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "GSM610", "G721_32", "IMA_ADPCM", "MS_ADPCM"}
)
_FULL_SCALE = {"ULAW": 32124 / 32768, "ALAW": 32256 / 32768, "PCM_S8": 127 / 128, "PCM_U8": 127 / 128}
_INT16_SCALE = np.float32(1 / 32768)
# float files whose samples were never scaled to 1.0 stay below; beyond, the power of a frame leaves float32
_LOUDEST = np.float32(2.0**32)
# each frame of headerless GSM begins with this half byte; libsndfile does not look at it
_GSM_MAGIC = 0xD
# libsndfile notes in its log what a header announced and what the file holds
_SHORTENED = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# a recorder that streams writes such sizes because it cannot know the end; it is no sign of a cut file
_UNKNOWN_SIZE = 0x7FFF0000


@dataclasses.dataclass(frozen=True)
class Sound:
    """What the header of a recording says.

    Parameters
    ----------
    sampling_rate
        In Hz.
    n_channels
        Channels of the source.
    n_samples
        Samples a channel that the header announces.
    subtype
        libsndfile's name of the encoding.
    """

    sampling_rate: int
    n_channels: int
    n_samples: int
    subtype: str

    @property
    def full_scale(self) -> float:
        """The largest positive value the encoding can hold, where clipped sound stays."""
        return _FULL_SCALE.get(self.subtype, 32767 / 32768)


class AudioReader:
    """A recording opened for reading in blocks; a context manager.

    Parameters
    ----------
    file
        The bytes to open the file by. What it is is read from its content, not its name.
    path
        Name for messages.

    Raises
    ------
    RecordingError
        Stage ``open``: it is not there, not audio, empty, cut off, or of an impossible rate.
    """

    def __init__(self, file: bytes, path: str) -> None:
        self._path = printable(path)
        self._file = self._open(file)
        try:
            self.sound = self._check()
        except RecordingError:
            self._file.close()
            raise
        self.n_samples = 0

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def blocks(self) -> Iterator[Samples]:
        """Yield the recording in blocks of at most 30 s.

        Yields
        ------
        array of float32, shape (samples, channels)
            Full scale is 1.0. `n_samples` counts what has come so far.

        Raises
        ------
        RecordingError
            Stage ``decode``: broken data, no samples, NaN or infinite samples, or fewer than announced.
        """
        as_int16 = self.sound.subtype in _INT16_SUBTYPES
        block_samples = int(BLOCK_S * self.sound.sampling_rate)
        while True:
            try:
                raw = self._file.read(block_samples, dtype="int16" if as_int16 else "float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise self._error("decode", f"its data are broken after {self._read_s():.2f} s ({error})") from error
            if not len(raw):
                break
            block: Samples = raw * _INT16_SCALE if as_int16 else raw
            if not as_int16 and not (np.abs(block) <= _LOUDEST).all():
                raise self._error("decode", "it holds samples that are NaN, infinite or absurd; write it again as PCM")
            self.n_samples += len(block)
            yield block
        if not self.n_samples:
            raise self._error("decode", "it holds no samples")
        if self._file.format == "FLAC" and self.n_samples < self._file.frames:
            raise self._error("decode", f"it ends after {self._read_s():.2f} s of those its header announces")

    def _open(self, file: bytes) -> Any:
        try:
            if not os.stat(file).st_size:  # noqa: PTH116 - pathlib knows no bytes
                raise self._error("open", "it is empty (0 bytes)")
            try:
                return soundfile.SoundFile(file)
            except soundfile.LibsndfileError:
                if not file.lower().endswith(b".gsm"):
                    raise
                # GSM 6.10 as telephone systems write it has no header; its rate is always 8000 Hz
                return soundfile.SoundFile(file, samplerate=8000, channels=1, format="RAW", subtype="GSM610")
        except OSError as error:
            raise self._error("open", f"it cannot be opened ({error.strerror})") from error
        except soundfile.SoundFileError as error:
            reason = str(getattr(error, "error_string", error)).rstrip(".") or "unknown format"
            raise self._error("open", f"it cannot be read as audio ({reason})") from error

    def _check(self) -> Sound:
        file = self._file
        if file.format == "RAW" and not self._is_gsm():
            raise self._error("open", "it cannot be read as audio (it has no header)")
        sound = Sound(int(file.samplerate), int(file.channels), self._n_samples(), str(file.subtype))
        if not MIN_SAMPLING_RATE <= sound.sampling_rate <= MAX_SAMPLING_RATE:
            raise self._error(
                "open",
                f"its header says {sound.sampling_rate} Hz; expected {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE}",
            )
        if sound.n_channels > MAX_CHANNELS:
            raise self._error("open", f"it has {sound.n_channels} channels; expected at most {MAX_CHANNELS}")
        shortened = _SHORTENED.search(file.extra_info)
        if shortened and int(shortened[2]) < int(shortened[1]) < _UNKNOWN_SIZE:
            raise self._error(
                "open",
                f"it is cut off: {shortened[2]} bytes of sound, where its header announces {shortened[1]}",
            )
        return sound

    def _n_samples(self) -> int:
        """Return the length; an MP3 need not tell it, and libsndfile's guess may be double, so it is counted."""
        if self._file.format != "MP3":
            return int(self._file.frames)
        n = 0
        with self._open(self._file.name) as file, contextlib.suppress(soundfile.SoundFileError):
            while count := len(file.read(int(BLOCK_S * file.samplerate), dtype="float32")):
                n += count
        return n

    def _is_gsm(self) -> bool:
        """Whether a file without a header is GSM 6.10; libsndfile goes by the name alone there."""
        with open(self._file.name, "rb") as stream:  # noqa: PTH123 - pathlib knows no bytes
            first = stream.read(1)
        return self._file.subtype == "GSM610" and first[0] >> 4 == _GSM_MAGIC

    def _read_s(self) -> float:
        return self.n_samples / self.sound.sampling_rate

    def _error(self, stage: str, reason: str) -> RecordingError:
        return RecordingError(stage, f"{self._path}: {reason}; replace the file or remove it")


def channel_samples(block: Samples, channel: int) -> Samples:
    """Return one channel of a block, or the mean of all for -1.

    Parameters
    ----------
    block
        Shape (samples, channels).
    channel
        0..n-1, or -1.

    Returns
    -------
    array of float32, shape (samples,)
    """
    if channel >= 0:
        return block[:, channel]
    # as librosa.to_mono: the mean over the channel axis of channels-first data
    return np.asarray(np.mean(block.T, axis=0), dtype=np.float32)


class Resampler:
    """soxr HQ over a stream: the numbers of ``librosa.load`` whatever the blocks.

    Parameters
    ----------
    from_rate, to_rate
        In Hz. Equal rates pass through.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._from_rate, self._to_rate = from_rate, to_rate
        self._stream: soxr.ResampleStream | None = None
        self._given = self._returned = 0

    def feed(self, samples: Samples, *, last: bool = False) -> Samples:
        """Resample the next samples.

        Parameters
        ----------
        samples
            Shape (n,); may be empty with `last`.
        last
            Whether the stream ends with these; the result is then brought to ceil(n * ratio) in all, as
            librosa does.

        Returns
        -------
        array of float32, shape (m,)
        """
        if self._from_rate == self._to_rate:
            return samples
        out = self._resampled(np.ascontiguousarray(samples), last=last)
        self._given += len(samples)
        self._returned += len(out)
        if last:
            missing = int(np.ceil(self._given * (self._to_rate / self._from_rate))) - self._returned
            out = np.pad(out, (0, missing)) if missing > 0 else out[: len(out) + missing]
        return out

    def _resampled(self, samples: Samples, *, last: bool) -> Samples:
        if last and len(samples) and not self._given:
            # all there is: one call is a fifth quicker than a stream, and its numbers are the same
            return np.asarray(soxr.resample(samples, self._from_rate, self._to_rate, quality="HQ"))
        if self._stream is None:
            self._stream = soxr.ResampleStream(self._from_rate, self._to_rate, 1, dtype="float32", quality="HQ")
        feeds = range(0, max(1, len(samples)), _SAMPLES_A_FEED)
        return np.concatenate(
            [
                self._stream.resample_chunk(samples[first : first + _SAMPLES_A_FEED], last=last and first == feeds[-1])
                for first in feeds
            ]
        )
