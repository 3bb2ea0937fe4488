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
_MAX_TRAILING_BYTES = 4096
_ASF_HEADER = ASF + b"\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
_ASF_DATA, _ASF_DATA_BYTES = b"\x36\x26\xb2\x75", 50
# header, data and indices
_ASF_OBJECTS = (
    ASF,
    _ASF_DATA,
    b"\x90\x08\x00\x33",
    b"\xd3\x29\xe2\xd6",
    b"\xf8\x03\xb1\xfe",
    b"\xd0\x3f\xb7\x3c",
)


def mp4_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several MPEG-4 files: where each begins, and whether the last one is whole."""
    starts, place, is_cut, n_indices = [0], 0, False, 0
    while place + 8 <= size:
        head = read_at(stream, place, 16)
        n_bytes, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if n_bytes == 1:
            n_bytes = int.from_bytes(head[8:], "big")
        if n_bytes == 0 and kind == b"mdat":  # to the end of the file
            n_bytes = size - place
        if n_bytes < 8 or not (kind.isascii() and kind.decode("ascii").isprintable()):
            break
        if kind == b"ftyp" and place > 0:
            starts.append(place)
        n_indices += kind == b"moov"
        place += n_bytes
        is_cut |= place > size and kind in (b"moov", b"mdat", b"moof")
    if n_indices > len(starts):
        return Layout(((range(size),),), is_cut=True, remark="goes on with another recording that has no header")
    return _joined(starts, min(place, size), size, is_cut=is_cut)


def ebml_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several Matroska files."""
    starts = [at for at in find_all(stream, _EBML_FILE) if _DOC_TYPE.search(read_at(stream, at, 64))]
    if not starts or starts[0] > 0:
        return Layout(((range(size),),), is_cut=True, remark="has no header of Matroska that can be read")
    length = _segment_end(read_at(stream, starts[-1], _HEAD_BYTES))
    end = size if length is None else starts[-1] + length
    return _joined(starts, min(end, size), size, is_cut=end > size)


def asf_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several ASF files."""
    starts = list(find_all(stream, _ASF_HEADER))
    if not starts or starts[0] > 0:
        return Layout(((range(size),),), is_cut=True, remark="has no header of ASF that can be read")
    place, is_cut = starts[-1], False
    while len(head := read_at(stream, place, 24)) == 24:
        n_bytes = int.from_bytes(head[16:], "little")
        if head.startswith(_ASF_DATA) and n_bytes <= _ASF_DATA_BYTES:  # of a live stream, that does not know
            place = size
        if n_bytes < 24 or not any(head.startswith(kind) for kind in _ASF_OBJECTS):
            break
        place += n_bytes
        is_cut |= place > size
    return _joined(starts, min(place, size), size, is_cut=is_cut)


def _joined(starts: list[int], end: int, size: int, *, is_cut: bool) -> Layout:
    streams = tuple((range(start, stop),) for start, stop in itertools.pairwise([*starts, end]))
    if end == size or is_cut:
        return Layout(streams, is_cut=is_cut)
    # a few bytes are no sound; many may be a recording whose header is damaged
    remark = f"goes on with {size - end} bytes from which nothing can be read"
    return Layout(streams, is_cut=size - end > _MAX_TRAILING_BYTES, remark=remark)


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
