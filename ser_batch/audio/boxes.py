"""Formats that FFmpeg reads, of which it takes the first file alone: MPEG-4, Matroska and WebM, ASF (wma)."""

import itertools
import re
from typing import BinaryIO

from ser_batch.audio.layout import Layout, find_all, read_at

EBML, ASF = b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")

_SEGMENT = b"\x18\x53\x80\x67"
_EBML_FILE = re.compile(rb"\x1a\x45\xdf\xa3.[\x42\xec\xbf]", re.DOTALL)  # the header's length and first element
_DOC_TYPE = re.compile(b"webm|matroska")
_HEAD_BYTES = 16_384


def mp4_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several MPEG-4 files: where each begins, and whether the last one is whole."""
    starts, place, end = [0], 0, 0
    while place + 8 <= size:
        head = read_at(stream, place, 16)
        n_bytes, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if n_bytes == 1:
            n_bytes = int.from_bytes(head[8:], "big")
        if kind == b"ftyp" and place > 0:
            starts.append(place)
        if n_bytes < 8:  # 0: to the end of the file; others are none
            break
        place += n_bytes
        if kind in (b"moov", b"mdat", b"moof"):
            end = place
    return _joined(starts, size, is_cut=end > size)


def ebml_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several Matroska files."""
    starts = [
        at for at in find_all(stream, _EBML_FILE) if b"webm" in (head := read_at(stream, at, 64)) or b"matroska" in head
    ]
    end = _segment_end(read_at(stream, starts[-1], _HEAD_BYTES)) if starts else None
    return _joined(starts or [0], size, is_cut=end is not None and starts[-1] + end > size)


def asf_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several ASF files."""
    starts = list(find_all(stream, ASF + b"\xa6\xd9\x00\xaa\x00\x62\xce\x6c"))
    header_bytes = int.from_bytes(read_at(stream, starts[-1] + 16, 8), "little") if starts else 0
    data = starts[-1] + header_bytes if starts else 0
    n_bytes = int.from_bytes(read_at(stream, data + 16, 8), "little")
    is_told = read_at(stream, data, 4) == b"\x36\x26\xb2\x75" and n_bytes > 50  # a live stream does not know
    return _joined(starts or [0], size, is_cut=is_told and data + n_bytes > size)


def _joined(starts: list[int], size: int, *, is_cut: bool) -> Layout:
    return Layout(tuple((range(start, end),) for start, end in itertools.pairwise([*starts, size])), is_cut=is_cut)


def _segment_end(head: bytes) -> int | None:
    """Return where the one large element of a Matroska file ends; recorders that stream do not know."""
    size, place = _ebml_size(head, len(EBML))
    place += size or 0
    if not head[place:].startswith(_SEGMENT):
        return None
    size, place = _ebml_size(head, place + len(_SEGMENT))
    return None if size is None else place + size


def _ebml_size(head: bytes, place: int) -> tuple[int | None, int]:
    """Return a size, as many bytes as its first one has leading zeros and one, and where it ends."""
    n_bytes = 9 - head[place : place + 1].ljust(1, b"\xff")[0].bit_length()
    bits = 7 * n_bytes
    size = int.from_bytes(head[place : place + n_bytes], "big") & (1 << bits) - 1
    return None if size == (1 << bits) - 1 else size, place + n_bytes
