"""Decoding through FFmpeg (PyAV): m4a, aac, amr, webm, wma, and the audio of mp4, mov, 3gp and mkv."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from ser_batch.audio.recording_file import RecordingFile, Rewound
from ser_batch.audio.sound import Held, Samples, Sound, broken, check_values, refusal, too_long

# a file decides neither what is guessed of it nor what else is opened: no playlists, no network, no other files
_OPTIONS = {"format_whitelist": "aac,amr,asf,caf,matroska,mov,ogg,w64,wav", "protocol_whitelist": "none"}
# those whose header tells when the sound ends, and is not guessed by the bit rate
_TELLING = frozenset({"asf", "mov", "matroska"})
# what an announced length may exceed the decoded one by: delays of encoders, rounding, the length of another stream
_TOLERANCE_S = 0.5
_ERRORS = (av.FFmpegError, OSError, ValueError, LookupError)  # the last for a packet of a stream that no header named


class AvSource:
    """A recording that FFmpeg reads: its first stream of sound.

    It is decoded to learn its length, which most of these formats do not tell, or not the decoded one; and again if it
    cannot be held.
    """

    def __init__(self, file: RecordingFile, reason: str | None = None, *, max_duration_s: float = math.inf) -> None:
        self._file, self._path, self._reason = file, file.path, reason
        self._max_duration_s = max_duration_s
        self._held = Held()
        self._container = self._open()
        try:
            self.sound = self._counted()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of what FFmpeg holds."""
        self._container.close()

    def blocks(self) -> Iterator[Samples]:
        """Yield the recording in blocks."""
        waiting: list[Samples] = []
        block_samples = self.sound.block_samples
        n_waiting, n_beyond_limit = 0, self.sound.n_samples
        for decoded in self._decoded():
            samples = decoded[:n_beyond_limit]
            n_beyond_limit -= len(samples)
            waiting.append(samples)
            n_waiting += len(samples)
            while n_waiting >= block_samples:
                block = np.concatenate(waiting)
                yield self._checked(block[:block_samples])
                waiting = [block[block_samples:]]
                n_waiting -= block_samples
        if n_waiting:
            yield self._checked(np.concatenate(waiting))

    def _decoded(self) -> Iterator[Samples]:
        """Yield the samples of each frame."""
        if self._held.parts is not None:
            yield from self._held.parts
            return
        self.close()
        self._container = self._open()
        yield from map(_samples, self._frames())

    def _checked(self, block: Samples) -> Samples:
        check_values(block, self._path)
        return block

    def _open(self) -> Any:
        try:
            # tags may be in any encoding, and are not wanted
            rewound = Rewound(self._file.stream)
            container = av.open(rewound, "r", container_options=_OPTIONS, metadata_errors="replace")
        except _ERRORS as error:
            reasons = "; ".join(reason for reason in (self._reason, _said(error)) if reason)
            raise refusal(self._path, "open", f"it cannot be read as audio ({reasons})") from error
        try:
            if not container.streams.audio:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                raise refusal(self._path, "open", f"it holds no sound (but {kinds})")
            if container.streams.audio[0].codec_context is None:
                raise refusal(self._path, "open", "its sound is in an encoding that FFmpeg does not decode")
        except BaseException:
            container.close()
            raise
        return container

    def _frames(self) -> Iterator[Any]:
        """Yield the decoded frames, all of one rate and number of channels."""
        stream = self._container.streams.audio[0]
        n_samples, rate, n_channels = 0, 0, 0
        try:
            for packet in self._container.demux(stream):
                # the last one of a WAV that was streamed is so too; others were measured before
                if packet.is_corrupt and self._container.format.name != "wav":
                    raise broken(self._path, n_samples, rate or 1, "it is cut off")
                for frame in packet.decode():
                    if n_samples and (rate, n_channels) != (frame.sample_rate, frame.layout.nb_channels):
                        raise broken(self._path, n_samples, rate, "its rate or channels change")
                    rate, n_channels = frame.sample_rate, frame.layout.nb_channels
                    n_samples += frame.samples
                    if frame.samples:
                        yield frame
        except _ERRORS as error:
            raise broken(self._path, n_samples, rate or 1, _said(error)) from error

    def _counted(self) -> Sound:
        """Decode all of it once, and compare its length with what its header announces."""
        stream = self._container.streams.audio[0]
        first, n_samples, n_last = None, 0, 0
        for frame in self._frames():
            first = first or _Layout(frame.sample_rate, frame.layout.nb_channels)
            n_samples += frame.samples
            n_last = frame.samples
            if self._held.parts is not None:
                self._held.add(_samples(frame))
            if n_samples > self._max_duration_s * first.sampling_rate:
                raise too_long(self._path, "decode", n_samples / first.sampling_rate, self._max_duration_s)
        if first is None:
            raise refusal(self._path, "decode", "it holds no samples")
        announced_s = self._announced_s()
        if announced_s is not None:
            announced = round(announced_s * first.sampling_rate)
            if n_samples < announced - _TOLERANCE_S * first.sampling_rate:
                raise refusal(
                    self._path,
                    "decode",
                    f"it ends after {n_samples / first.sampling_rate:.2f} s of the {announced_s:.2f} s that its header "
                    "announces",
                )
            if n_samples > announced + _TOLERANCE_S * first.sampling_rate:
                said, there = f"{announced_s:.2f} s", f"{n_samples / first.sampling_rate:.2f} s"
                self._file.warn(f"its header announces {said}; all {there} that it holds were read")
            if self._container.format.name.startswith("mov") and n_samples - n_last < announced < n_samples:
                n_samples = announced  # what the encoder filled its last frame with
        return Sound(first.sampling_rate, first.n_channels, n_samples, str(stream.codec_context.name))

    def _announced_s(self) -> float | None:
        """Return the length that the header tells of the sound, not that of a film it belongs to."""
        container, stream = self._container, self._container.streams.audio[0]
        if not _TELLING & set(container.format.name.split(",")):
            return None
        of_stream = None if stream.duration is None else float(stream.duration * stream.time_base)
        if container.duration is None or len(container.streams) > 1:
            return of_stream
        return max(of_stream or 0.0, float(container.duration / av.time_base))


@dataclasses.dataclass(frozen=True)
class _Layout:
    sampling_rate: int
    n_channels: int


def _samples(frame: Any) -> Samples:
    """Return a frame's samples as float32, shape (samples, channels), full scale 1.0."""
    values: npt.NDArray[Any] = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.kind == "u":  # 8 bits around 128
        return (values.astype(np.float32) - 128) / np.float32(128)
    return values.astype(np.float32) / np.float32(-float(np.iinfo(values.dtype).min))


def _said(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
