"""What libsndfile reads: WAV, FLAC, MP3, Ogg, AU, AIFF and more; files without a header where it is told what."""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile

from ser_batch.audio.headers import UNKNOWN_SIZE
from ser_batch.audio.sound import Samples, Sound, broken, check_values, refusal, too_long
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
# libsndfile notes in its log what a header announced and what the file holds
_SHORTENED = re.compile(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
_COUNTED_SAMPLES = 1 << 20


class SoundfileSource:
    """A recording that libsndfile reads."""

    def __init__(
        self,
        stream: BinaryIO,
        path: str,
        raw_format: RawFormat | None = None,
        *,
        max_duration_s: float = math.inf,
    ) -> None:
        self._stream, self._path, self._raw_format = stream, path, raw_format
        self._max_duration_s = max_duration_s
        file = self._file = self._open()
        n_samples = int(file.frames)
        if file.subtype.startswith("MPEG"):  # in WAV too
            n_samples = self._counted()
            file = self._file = self._open()
        self.sound = Sound(int(file.samplerate), int(file.channels), n_samples, str(file.subtype))
        shortened = _SHORTENED.search(file.extra_info)
        if shortened and int(shortened[2]) < int(shortened[1]) < UNKNOWN_SIZE:
            self.close()
            raise refusal(
                path,
                "open",
                f"it is cut off: {shortened[2]} bytes of sound, where its header announces {shortened[1]}",
            )

    def close(self) -> None:
        """Let go of what libsndfile holds."""
        self._file.close()

    def blocks(self, block_samples: int) -> Iterator[Samples]:
        """Yield the recording in blocks."""
        as_int16 = self.sound.subtype in _INT16_SUBTYPES
        n_samples = 0
        while True:
            try:
                raw = self._file.read(block_samples, dtype="int16" if as_int16 else "float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise broken(self._path, n_samples, self.sound.sampling_rate, error) from error
            if not len(raw):
                break
            block: Samples = raw * _INT16_SCALE if as_int16 else raw
            if not as_int16:
                check_values(block, self._path)
            n_samples += len(block)
            yield block
        if self._file.format == "FLAC" and n_samples < self._file.frames:
            ended_s = n_samples / self.sound.sampling_rate
            raise refusal(self._path, "decode", f"it ends after {ended_s:.2f} s of those its header announces")

    def _open(self) -> Any:
        # by its number: given a name, libsndfile and soundfile would guess by the suffix too
        self._stream.seek(0)
        number = self._stream.fileno()
        if self._raw_format is None:
            return soundfile.SoundFile(number, closefd=False)
        subtype, endian = _RAW_SUBTYPES[self._raw_format.encoding]
        return soundfile.SoundFile(
            number,
            samplerate=self._raw_format.sampling_rate,
            channels=self._raw_format.n_channels,
            format="RAW",
            subtype=subtype,
            endian=endian,
            closefd=False,
        )

    def _counted(self) -> int:
        """Return the length of an MP3, which need not tell it, and libsndfile's guess may be double."""
        n = 0
        with self._file as file, contextlib.suppress(soundfile.SoundFileError):  # `blocks` meets the error again
            while count := len(file.read(_COUNTED_SAMPLES, dtype="float32")):
                n += count
                if n > self._max_duration_s * file.samplerate:
                    raise too_long(self._path, "decode", n / file.samplerate, self._max_duration_s)
        return n
