"""Decoding through libsndfile: WAV, FLAC, MP3, Ogg, AU, AIFF and more; files without a header where it is told what."""

import contextlib
import dataclasses
import math
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from ser_batch.audio.layout import read_at
from ser_batch.audio.recording_file import RecordingFile, Rewound
from ser_batch.audio.sound import Held, Samples, Sound, broken, check_values, refusal, too_long
from ser_batch.config.option_values import RawFormat

# decoded to 16-bit integers inside libsndfile: reading them as such and scaling here is three times as fast
# as asking for floats, and the same numbers
_INT16_SUBTYPES = frozenset(
    {"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "GSM610", "G721_32", "IMA_ADPCM", "MS_ADPCM", "VOX_ADPCM"}
)
_INT16_SCALE = np.float32(1 / 32768)
# an encoding of `RawFormat` as libsndfile names it, and the order of its bytes
_RAW_SUBTYPES = {
    "mulaw": ("ULAW", "FILE"),
    "alaw": ("ALAW", "FILE"),
    "gsm": ("GSM610", "FILE"),
    "vox": ("VOX_ADPCM", "FILE"),
    "s16le": ("PCM_16", "LITTLE"),
    "s16be": ("PCM_16", "BIG"),
    "u8": ("PCM_U8", "FILE"),
}


# what libmpg123 prints by itself; libsndfile does not hand it on
_MPG123 = re.compile(rb"^\[src/libmpg123/.*?\] (?:error|warning): (.*)\n?$", re.IGNORECASE)
_MPG123_HARMLESS = b"Warning: Xing stream size"
_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _faults_of_mpg123(found: set[str]) -> Iterator[None]:
    """Add what libmpg123 prints to stderr meanwhile to `found`; anything else is printed as it would have been."""
    with _stderr_lock, tempfile.TemporaryFile() as printed:
        try:
            stderr = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            printed.seek(0)
            for line in printed:
                fault = _MPG123.match(line)
                if fault is not None:
                    found.add(fault[1].decode("ascii", "replace"))
                elif not line.startswith(_MPG123_HARMLESS):
                    os.write(stderr, line)
            os.close(stderr)


class _SoundFile(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A file that is read from its beginning to its end."""

    def seekable(self) -> bool:
        """Return False: soundfile would seek after each block, to where it is."""
        return False


class SoundfileSource:
    """A recording that libsndfile reads; decoded once if it can be held."""

    def __init__(
        self, file: RecordingFile, raw_format: RawFormat | None = None, *, max_duration_s: float = math.inf
    ) -> None:
        self._recording, self._path, self._raw_format = file, file.path, raw_format
        self._max_duration_s = max_duration_s
        self._held: list[Samples] | None = None
        self._file = self._open()
        self._is_begun = False
        self._faults: set[str] = set()  # of an MP3
        self.sound = Sound(
            int(self._file.samplerate), int(self._file.channels), int(self._file.frames), str(self._file.subtype)
        )
        if self.sound.subtype.startswith("MPEG"):  # in WAV too
            self.sound = dataclasses.replace(self.sound, n_samples=self._counted())

    def close(self) -> None:
        """Let go of what libsndfile holds."""
        self._file.close()

    def blocks(self) -> Iterator[Samples]:
        """Yield the recording in blocks."""
        if self._held is not None:
            yield from self._held
            return
        held = Held()
        for block in self._decoded():
            held.add(block)
            yield block
        self._held = held.parts

    def _decoded(self) -> Iterator[Samples]:
        if self._is_begun:
            self._file.close()
            self._file = self._open()
        self._is_begun = True
        as_int16 = self.sound.subtype in _INT16_SUBTYPES
        n_samples = 0
        while n_samples < self._file.frames:
            # no more than there is: a decoder would take what may stand behind it for sound
            wanted = min(self.sound.block_samples, self._file.frames - n_samples)
            try:
                dtype = "int16" if as_int16 else "float32"
                with self._watched():
                    raw = self._file.read(wanted, dtype=dtype, always_2d=True)
            except soundfile.SoundFileError as error:
                raise broken(self._path, n_samples, self.sound.sampling_rate, error) from error
            if not len(raw):
                break
            if self._faults:
                told = "; ".join(sorted(self._faults))
                self._recording.warn(f"its decoder found faults ({told}), and what it made of them was used")
            block: Samples = raw * _INT16_SCALE if as_int16 else raw
            if not as_int16:
                check_values(block, self._path)
            n_samples += len(block)
            yield block
        if n_samples < self._file.frames and not self.sound.subtype.startswith("MPEG"):
            ended_s, announced_s = n_samples / self.sound.sampling_rate, self._file.frames / self.sound.sampling_rate
            raise refusal(
                self._path,
                "decode",
                f"it ends after {ended_s:.2f} s of the {announced_s:.2f} s that its header announces",
            )

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        is_mpeg = str(self._file.subtype).startswith("MPEG")
        return _faults_of_mpg123(self._faults) if is_mpeg else contextlib.nullcontext()

    def _open(self) -> Any:
        # not by its name: libsndfile and soundfile would guess by the suffix too
        rewound = Rewound(self._recording.stream)
        file = rewound if self._recording.descriptor is None else self._recording.descriptor
        if self._raw_format is None:
            is_mp3 = read_at(self._recording.stream, 0, 3).startswith((b"ID3", b"\xff"))
            self._recording.stream.seek(0)
            with _faults_of_mpg123(set()) if is_mp3 else contextlib.nullcontext():
                return _SoundFile(file, closefd=False)
        subtype, endian = _RAW_SUBTYPES[self._raw_format.encoding]
        return _SoundFile(
            file,
            samplerate=self._raw_format.sampling_rate,
            channels=self._raw_format.n_channels,
            format="RAW",
            subtype=subtype,
            endian=endian,
            closefd=False,
        )

    def _counted(self) -> int:
        """Return the length of an MP3, which need not tell it, and libsndfile's guess may be double."""
        n, rate = 0, self.sound.sampling_rate
        for block in self.blocks():
            n += len(block)
            if n > self._max_duration_s * rate:
                break
        if n > self._max_duration_s * rate:
            raise too_long(self._path, "decode", n / rate, self._max_duration_s)
        return n
