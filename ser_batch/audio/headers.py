"""The format of a file, recognized from its first bytes and not from its name."""

import os
from typing import BinaryIO

# a recorder that streams writes such sizes because it cannot know the end; it is no sign of a cut file
UNKNOWN_SIZE = 0x7FFF0000
HEAD_BYTES = 16_384
# the names of files that may have no header, so that nothing in them tells what they hold
HEADERLESS_SUFFIXES = (b".ulaw", b".ul", b".alaw", b".al", b".raw", b".pcm", b".vox", b".gsm")
_EBML, _EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ATOMS = tuple((4, atom) for atom in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
_WAVE = b"WAVE"
# by what they begin with, and where: files that FFmpeg reads and libsndfile need not
_CONTAINERS = (
    *_ATOMS,  # m4a, mp4, mov, 3gp
    (0, _EBML),  # webm, mkv
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # wma
    (0, b"#!AMR"),
)
# those of which libsndfile reads most and FFmpeg some more: G.722, G.726 and G.729 in WAV, Speex in Ogg, AAC in CAF
_COMMON_CONTAINERS = ((8, _WAVE), (0, b"OggS"), (0, b"caff"), (0, b"riff\x2e\x91"))
# a stream of AAC has no header at its beginning, but a small one before each frame
_FRAMES = 3
# bit rates of MPEG audio by their number, from 1
_MP3_KBITS = {
    "1-II": (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "1-III": (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "2": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# each frame of headerless GSM begins with this half byte
_GSM_MAGIC = 0xD


def is_container(stream: BinaryIO) -> bool:
    """Whether FFmpeg alone reads this: MPEG-4, Matroska, ASF, AMR, or a stream of AAC."""
    head = _head(stream)
    return _begins(head, _CONTAINERS) or _is_aac(head) or (head.startswith(b"ID3") and _is_aac(_behind_id3(stream)))


def is_common_container(stream: BinaryIO) -> bool:
    """Whether this is of a kind that libsndfile reads, in which FFmpeg knows more encodings."""
    return _begins(_head(stream), _COMMON_CONTAINERS)


def is_only_like_mp3(stream: BinaryIO) -> bool:
    """Whether this begins with the mark of an MP3 and no further frames follow; quiet G.711 does so by chance."""
    head = _head(stream)
    if head[:1] != b"\xff" or head[1:2] < b"\xe0":
        return False
    start = 0
    for _ in range(_FRAMES):
        length = _mp3_frame_bytes(head[start : start + 4])
        if not length:
            return True
        start += length
    return False


def is_cut(stream: BinaryIO) -> bool:
    """Whether a file of MPEG-4, Matroska or WAV ends before its sound does: its parts tell their lengths."""
    size = stream.seek(0, os.SEEK_END)
    head = _head(stream)
    end = None
    if _begins(head, _ATOMS):
        end = _atoms_end(stream, size)
    elif head.startswith(_EBML):
        end = _segment_end(head)
    elif head[8:].startswith(_WAVE):
        end = _data_end(stream, size)
    return end is not None and end > size


def may_be_headerless(file: bytes) -> bool:
    """Whether a file's name says that it may hold nothing but samples."""
    return file.lower().endswith(HEADERLESS_SUFFIXES)


def is_gsm(stream: BinaryIO, file: bytes) -> bool:
    """Whether this is GSM 6.10 as telephone systems write it: no header, and named so."""
    return file.lower().endswith(b".gsm") and begins_as_gsm(stream)


def begins_as_gsm(stream: BinaryIO) -> bool:
    """Whether the first frame has the mark of GSM 6.10; libsndfile does not look at it."""
    head = _head(stream)
    return bool(head) and head[0] >> 4 == _GSM_MAGIC


def _head(stream: BinaryIO, start: int = 0) -> bytes:
    stream.seek(start)
    return stream.read(HEAD_BYTES)


def _segment_end(head: bytes) -> int | None:
    """Return where the one large element of a Matroska file ends; recorders that stream do not know."""
    size, place = _ebml_size(head, len(_EBML))
    place += size or 0
    if not head[place:].startswith(_EBML_SEGMENT):
        return None
    size, place = _ebml_size(head, place + len(_EBML_SEGMENT))
    return None if size is None else place + size


def _ebml_size(head: bytes, place: int) -> tuple[int | None, int]:
    """Return a size, as many bytes as its first one has leading zeros and one, and where it ends."""
    n_bytes = 9 - head[place : place + 1].ljust(1, b"\xff")[0].bit_length()
    bits = 7 * n_bytes
    size = int.from_bytes(head[place : place + n_bytes], "big") & (1 << bits) - 1
    return None if size == (1 << bits) - 1 else size, place + n_bytes


def _atoms_end(stream: BinaryIO, file_size: int) -> int | None:
    """Return where the last atom of an MPEG-4 file that holds sound, or is about it, says that it ends."""
    place, end = 0, None
    while place + 8 <= file_size:
        stream.seek(place)
        head = stream.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0: to the end of the file; others are none
            break
        place += size
        if kind in (b"moov", b"mdat", b"moof"):
            end = place
    return end


def _data_end(stream: BinaryIO, file_size: int) -> int | None:
    """Return where the samples of a WAV end; recorders that stream do not know."""
    place = 12
    while place + 8 <= file_size:
        stream.seek(place)
        head = stream.read(8)
        size = int.from_bytes(head[4:], "little")
        if head.startswith(b"data"):
            return place + 8 + size if size < UNKNOWN_SIZE else None
        place += 8 + size + size % 2
    return None


def _begins(head: bytes, marks: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head[place:].startswith(mark) for place, mark in marks)


def _is_aac(head: bytes) -> bool:
    """Whether some frames of AAC (ADTS) follow one another; one mark of 12 bits would be found in noise."""
    start = 0
    for _ in range(_FRAMES):
        frame = head[start : start + 7]
        if len(frame) < 7 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0:
            return False
        length = (frame[3] & 0x3) << 11 | frame[4] << 3 | frame[5] >> 5  # in bytes, this header among them
        if length < 7:
            return False
        start += length
    return True


def _mp3_frame_bytes(header: bytes) -> int:
    """Return the length of a frame of MPEG audio, layer II or III; 0 for what is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3  # 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5; 1 is layer III
    rate_index, kbit_index = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer not in (1, 2) or rate_index == 3 or kbit_index in (0, 15):
        return 0
    row = "2" if version != 3 else "1-II" if layer == 2 else "1-III"
    rate = (44100, 48000, 32000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    n_samples = 576 if version != 3 and layer == 1 else 1152
    return n_samples // 8 * _MP3_KBITS[row][kbit_index - 1] * 1000 // rate + (header[2] >> 1 & 1)


def _behind_id3(stream: BinaryIO) -> bytes:
    """Return what follows a tag that players write before the sound; seven bits of each byte are its length."""
    tag = _head(stream)[:10]
    length = 0
    for byte in tag[6:]:
        length = length << 7 | byte & 0x7F
    return _head(stream, len(tag) + length)
