"""Where the sound of a file lies, and how its length compares with what the headers announce.

Decoders believe headers, which are often wrong: a recorder that is killed leaves a size of 0, sizes of 32 bits wrap
beyond 4 GiB, files are joined by ``cat`` and cut by transfers. What `chunks`, `packets` and `boxes` find out is read
whole or refused.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import BinaryIO

# what a decoder is shown, in order: ranges of the file, and bytes in place of its own
Pieces = tuple[range | bytes, ...]
# what players write behind the sound, or before it
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")

_WINDOW_BYTES = 1 << 17
_OVERLAP_BYTES = 16  # no mark is longer


@dataclasses.dataclass(frozen=True)
class Layout:
    """The streams of sound in a file, and how much sound that is."""

    streams: tuple[Pieces, ...]  # each a file of its own to a decoder
    announced: int | None = None  # length of the sound by its headers, in bytes or samples; None where they do not tell
    held: int = 0  # length of what is there, in the same unit
    sampling_rate: int | None = None  # of samples, in Hz; None where it is bytes
    is_cut: bool = False  # some sound that belongs to it is missing
    remark: str = ""  # what else is wrong with it, to be read after "it"

    @property
    def held_s(self) -> float | None:
        """Length of the sound that is there, where it was counted in samples."""
        return self.held / self.sampling_rate if self.sampling_rate else None


def read_at(stream: BinaryIO, place: int, n_bytes: int) -> bytes:
    """Return up to so many bytes of a file."""
    stream.seek(place)
    return stream.read(n_bytes)


def find_all(stream: BinaryIO, mark: bytes | re.Pattern[bytes], place: int = 0) -> Iterator[int]:
    """Yield where a mark of up to 16 bytes is in a file, from `place` on."""
    pattern = re.compile(re.escape(mark)) if isinstance(mark, bytes) else mark
    while window := read_at(stream, place, _WINDOW_BYTES + _OVERLAP_BYTES):
        for found in pattern.finditer(window):
            if found.start() < _WINDOW_BYTES:
                yield place + found.start()
        place += _WINDOW_BYTES
