"""The format of a file, recognized from its first bytes and not from its name."""

import io
from collections.abc import Callable
from typing import BinaryIO

from ser_batch.audio.boxes import ASF, ATOMS, EBML, asf_layout, ebml_layout, mp4_layout
from ser_batch.audio.chunks import AU_MARKS, CHUNK_MARKS, au_layout, chunk_layout
from ser_batch.audio.layout import Layout, find_all, read_at
from ser_batch.audio.packets import (
    FRAME_MARK,
    aac_frame,
    amr_layout,
    begins_with_frames,
    behind_id3,
    flac_layout,
    frames_layout,
    mp3_frame,
    ogg_layout,
)

HEAD_BYTES = 8192
# the names of files that may have no header, so that nothing in them tells what they hold
HEADERLESS_SUFFIXES = (b".ulaw", b".ul", b".alaw", b".al", b".raw", b".pcm", b".vox", b".gsm")
_ATOMS = tuple((4, atom) for atom in ATOMS)
_WAVE = b"WAVE"
# by what they begin with, and where: files that FFmpeg reads and libsndfile need not
_CONTAINERS = (
    *_ATOMS,  # m4a, mp4, mov, 3gp
    (0, EBML),  # webm, mkv
    (0, ASF),  # wma
    (0, b"#!AMR"),
)
# those of which libsndfile reads most and FFmpeg some more: G.722, G.726 and G.729 in WAV, Speex in Ogg, AAC in CAF
_COMMON_CONTAINERS = ((8, _WAVE), (0, b"OggS"), (0, b"caff"), (0, b"riff\x2e\x91"))
# what looks into which files, by what they begin with, and where
_LAYOUTS: tuple[tuple[int, bytes, Callable[[BinaryIO, int], Layout | None]], ...] = (
    *((place, mark, mp4_layout) for place, mark in _ATOMS),
    (0, EBML, ebml_layout),
    (0, ASF, asf_layout),
    (0, b"#!AMR", amr_layout),
    (0, b"OggS", ogg_layout),
    *((0, mark, au_layout) for mark in AU_MARKS),
    *((0, mark, chunk_layout) for mark in CHUNK_MARKS),
)
_BLANKS = b"\xef\xbb\xbf \t\r\n"
_WEB_PAGE = ("a web page, as a download saves it that failed or wants a login", "download it again")
_ARCHIVE = ("an archive", "unpack it")
# what is found in place of audio: how it begins, what it is, what to do
_NO_AUDIO = (
    (b"version https://git-lfs", "a Git LFS pointer, not the recording", "fetch the recordings with `git lfs pull`"),
    (b"../.git/annex", "a pointer of git-annex, not the recording", "fetch the recordings with `git annex get`"),
    (b"/annex/objects", "a pointer of git-annex, not the recording", "fetch the recordings with `git annex get`"),
    *((mark, *_WEB_PAGE) for mark in (b"<!doctype html", b"<html")),
    *((mark, *_ARCHIVE) for mark in (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")),
    (b"<?xml", "XML", "replace the file or remove it"),
    (b"{", "JSON or other text", "replace the file or remove it"),
    (b"%PDF", "a PDF document", "remove it"),
    (b"\x89PNG", "a picture", "remove it"),
    (b"\xff\xd8\xff", "a picture", "remove it"),
)
# each frame of headerless GSM begins with this half byte
_GSM_MAGIC = 0xD


def is_container(stream: BinaryIO) -> bool:
    """Whether FFmpeg alone reads this: MPEG-4, Matroska, ASF, AMR, or a stream of AAC."""
    head = _head(stream)
    sound = behind_id3(stream) if head.startswith(b"ID3") else 0
    return _begins(head, _CONTAINERS) or begins_with_frames(stream, sound, aac_frame)


def is_common_container(stream: BinaryIO) -> bool:
    """Whether this is of a kind that libsndfile reads, in which FFmpeg knows more encodings."""
    return _begins(_head(stream), _COMMON_CONTAINERS)


def is_only_like_mp3(stream: BinaryIO) -> bool:
    """Whether this begins with the mark of an MP3 and no further frames follow; quiet G.711 does so by chance."""
    head = _head(stream)
    return head[:1] == b"\xff" and head[1:2] >= b"\xe0" and not begins_with_frames(stream, 0, mp3_frame)


def layout_of(stream: BinaryIO, size: int) -> Layout | None:
    """Return where the sound of a file lies and how much it is; None for formats that are not looked into.

    Parameters
    ----------
    stream
        The file, of which only headers are read where its format allows.
    size
        Its length in bytes.
    """
    head = _head(stream)
    for place, mark, layout in _LAYOUTS:
        if head[place:].startswith(mark):
            return layout(stream, size)
    sound = behind_id3(stream) if head.startswith(b"ID3") else 0
    if read_at(stream, sound, 4) == b"fLaC":
        return flac_layout(stream, size)
    for frame in (aac_frame, mp3_frame):
        if begins_with_frames(stream, sound, frame):
            return frames_layout(stream, size, frame)
    # decoders of MP3 find the first frame behind something else
    marks = find_all(io.BytesIO(head), FRAME_MARK)
    is_mp3 = any(begins_with_frames(stream, at, mp3_frame) for at in marks)
    return frames_layout(stream, size, mp3_frame) if is_mp3 else None


def no_audio(stream: BinaryIO) -> tuple[str, str] | None:
    """Return what a file is that is clearly no audio, and what to do; None where that is not clear."""
    head = _head(stream).lstrip(_BLANKS)
    for mark, kind, remedy in _NO_AUDIO:
        if head[: len(mark)].lower() == mark.lower():
            return kind, remedy
    return None


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


def _head(stream: BinaryIO) -> bytes:
    return read_at(stream, 0, HEAD_BYTES)


def _begins(head: bytes, marks: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head[place:].startswith(mark) for place, mark in marks)
