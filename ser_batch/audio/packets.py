"""Formats whose sound is in frames or pages, which are counted here without being decoded: FLAC, Ogg, MP3, AAC, AMR."""

import functools
import itertools
import re
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from ser_batch.audio.layout import TAGS, Layout, Pieces, find_all, read_at

# --- FLAC -----------------------------------------------------------------------------------------------------------

_FLAC = b"fLaC"
_STREAMINFO = b"\x00\x00\x22"  # behind the kind of the first block: its length
_FLAC_BLOCKS = {1: 192, **{n: 144 << n for n in range(2, 6)}, **{n: 1 << n for n in range(8, 16)}}
_N_LOST = 64  # frames that may be unreadable in a row


def flac_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of one or several FLAC files; lengths in samples."""
    starts = [at for at in find_all(stream, _FLAC) if read_at(stream, at + 5, 3) == _STREAMINFO]
    if not starts or starts[0] != (behind_id3(stream) if read_at(stream, 0, 3) == b"ID3" else 0):
        return Layout(((range(size),),), is_cut=True, remark="has no header of FLAC that can be read")
    streams: list[Pieces] = []
    announced, held, rate, is_told = 0, 0, 0, True
    for start, end in itertools.pairwise([*starts, size]):
        info = read_at(stream, start + 8, 34).ljust(34, b"\0")
        bits = int.from_bytes(info[10:18], "big")
        rate, total = bits >> 44, bits & (1 << 36) - 1
        found = _flac_samples(stream, start, end, int.from_bytes(info[:2], "big"))
        if found is None:
            return Layout(((range(size),),), is_cut=True, remark="goes on with another recording that has no header")
        is_told &= total > 0
        announced, held = announced + total, held + found
        field, first = start + 21, bytes([info[13] & 0xF0 | found >> 32])
        own = (range(start, end),)
        counted = (
            range(start, field),
            first + struct.pack(">I", found & 0xFFFFFFFF),
            range(field + 5, end),
        )
        streams.append(own if found == total else counted)
    is_cut = is_told and held < announced
    return Layout(tuple(streams), announced if is_told else None, held, rate, is_cut=is_cut)


def _flac_samples(stream: BinaryIO, start: int, end: int, block_samples: int) -> int | None:
    """Return how many samples the frames of a stream hold, by the numbers in their headers; None if these restart."""
    place, is_last = start + 4, False
    while not is_last and place < end:
        head = read_at(stream, place, 4)
        is_last, place = bool(head[:1]) and head[0] >= 0x80, place + 4 + int.from_bytes(head[1:], "big")
    mark = read_at(stream, place, 2)
    if mark not in (b"\xff\xf8", b"\xff\xf9"):
        return 0
    by_samples = mark[1] & 1  # blocks of all lengths are numbered by their first samples
    kind, n_samples, expected = None, 0, 0
    n_lost = _N_LOST * (block_samples if by_samples else 1)
    for at in itertools.takewhile(lambda at: at < end, find_all(stream, mark, place)):
        header = _flac_header(read_at(stream, at, 16))
        if header is None or kind not in (None, header.kind):
            continue
        if header.number == 0 < expected:
            return None
        if not expected <= header.number <= expected + n_lost:
            continue
        kind = header.kind
        n_samples = header.number * (1 if by_samples else block_samples) + header.n_samples
        expected = n_samples if by_samples else header.number + 1
    return n_samples


class _FlacHeader(NamedTuple):
    kind: tuple[int, int]  # what all frames of a stream share
    number: int  # of the frame or, where their lengths vary, of its first sample
    n_samples: int


def _flac_header(head: bytes) -> _FlacHeader | None:
    """Return the header of a frame; None where its checksum is wrong."""
    head = head.ljust(16, b"\x00")
    block, rate = head[2] >> 4, head[2] & 15
    n_number = max(1, 8 - (head[4] ^ 0xFF).bit_length()) if head[4] != 0xFF else 8
    place = 4 + n_number
    n_block, n_rate = {6: 1, 7: 2}.get(block, 0), {12: 1, 13: 2, 14: 2}.get(rate, 0)
    end = place + n_block + n_rate
    if end > 15 or block == 0 or _crc8(head[:end]) != head[end]:
        return None
    number = head[4] & (0x7F >> n_number if n_number > 1 else 0x7F)
    for byte in head[5:place]:
        number = number << 6 | byte & 0x3F
    n_samples = int.from_bytes(head[place : place + n_block], "big") + 1 if n_block else _FLAC_BLOCKS.get(block, 0)
    return _FlacHeader((rate, head[3] & 0x0F), number, n_samples)


def _shifted(value: int) -> int:
    for _ in range(8):
        value = value << 1 ^ (0x107 if value & 0x80 else 0)
    return value


_CRC8 = tuple(map(_shifted, range(256)))


def _crc8(head: bytes) -> int:
    value = 0
    for byte in head:
        value = _CRC8[value ^ byte]
    return value


# --- Ogg ------------------------------------------------------------------------------------------------------------

_OGG = struct.Struct("<4sBBqIIIB")  # mark, version, flags, end in samples, stream, number, checksum, number of segments
_BEGINS, _ENDS = 2, 4
_AUDIO = (b"\x01vorbis", b"OpusHead", b"Speex   ", b"\x7fFLAC")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of an Ogg file: its chained streams, and whether all of their pages are there."""
    links: list[_OggLink] = []
    place, fault = 0, ""
    while place < size and not fault:
        page = _ogg_page(stream, place)
        if page is None:
            break
        if page.place + page.n_bytes > size:
            return Layout(_ranges(links, size), is_cut=True)
        if page.begins and (not links or not links[-1].is_beginning):
            links.append(_OggLink(place))
        fault = links[-1].add(page) if links else "does not begin with the page that begins"
        place += page.n_bytes
    if fault or not links:
        fault = fault or "has no page of Ogg that can be read"
        return Layout(((range(size),),), is_cut=True, remark=f"{fault} (at byte {page.place if page else place})")
    remark = ""
    if any(link.is_open for link in links):
        remark = "has no mark of its end, so that some of it may be missing; all that is there was read"
    elif place < size and not read_at(stream, place, 16).startswith(TAGS):
        remark = f"goes on with {size - place} bytes that are no Ogg, which were left out"
    return Layout(_ranges(links, place), remark=remark)


def _ranges(links: list["_OggLink"], end: int) -> tuple[Pieces, ...]:
    return tuple((range(start, stop),) for start, stop in itertools.pairwise([*(link.start for link in links), end]))


class _OggPage(NamedTuple):
    place: int
    n_bytes: int
    begins: bool
    ends: bool
    time: int  # of the end of the last packet that ends in it, in samples; -1 where none does
    serial: int
    number: int
    is_whole: bool  # its checksum is right
    has_end: bool  # a packet ends in it
    content: bytes


def _ogg_page(stream: BinaryIO, place: int) -> _OggPage | None:
    head = read_at(stream, place, _OGG.size + 255)
    if not head.startswith(b"OggS") or len(head) < _OGG.size:
        return None
    _, _, flags, time, serial, number, checksum, n_segments = _OGG.unpack(head[: _OGG.size])
    lengths = head[_OGG.size : _OGG.size + n_segments]
    n_header = _OGG.size + n_segments
    page = read_at(stream, place, n_header + sum(lengths))
    return _OggPage(
        place, n_header + sum(lengths), bool(flags & _BEGINS), bool(flags & _ENDS), time, serial, number,
        _ogg_checksum(page) == checksum, any(length < 255 for length in lengths), page[n_header : n_header + 8],
    )  # fmt: skip


class _OggLink:
    """Streams that begin together in an Ogg file, mostly one."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.is_beginning = True
        self._audio: int | None = None
        self._last: dict[int, _OggPage] = {}
        self._time = 0

    @property
    def is_open(self) -> bool:
        """Whether the page is missing that ends the sound."""
        return self._audio is not None and not self._last[self._audio].ends

    def add(self, page: _OggPage) -> str:
        """Take the next page; return what is wrong with it."""
        last = self._last.get(page.serial)
        self.is_beginning = page.begins
        self._last[page.serial] = page
        if not page.is_whole:
            return "is damaged: the checksum of a page is wrong"
        if page.begins != (last is None):
            return "holds a page of no stream that began"
        if last is not None and page.number != last.number + 1:
            return "lacks pages"
        if page.begins and self._audio is None and page.content.startswith(_AUDIO):
            self._audio = page.serial
        if page.serial == self._audio:
            if (page.time == -1) == page.has_end or (page.time != -1 and page.time < self._time):
                return "is damaged: the time of a page is wrong"
            self._time = max(self._time, page.time)
        return ""


def _ogg_checksum(page: bytes) -> int:
    # zlib's CRC has the same polynomial, but takes the bits of a byte the other way round
    blank = page[:22] + b"\x00\x00\x00\x00" + page[26:]
    value = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(_REVERSED), "big")


# --- MP3, AAC, AMR: frames with small headers -----------------------------------------------------------------------

# bit rates of MPEG audio by their number, from 1
_MP3_KBITS = {
    "1-II": (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "1-III": (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "2": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_N_IN_A_ROW = 3  # frames that follow one another: the mark of one would be found in noise
_TAG_BYTES = 128
_TELLERS = re.compile(b"Xing|Info|VBRI")
_TELLER_BYTES = 64  # of a frame, in which the number of those that follow stands
FRAME_MARK = re.compile(rb"\xff[\xe2-\xe5\xf0-\xf5\xf8-\xfd]")


class Frame(NamedTuple):
    """What the header of a frame says."""

    n_bytes: int
    n_samples: int
    sampling_rate: int
    n_channels: int


def mp3_frame(head: bytes) -> Frame | None:
    """Return a frame of MPEG audio, layer II or III; None for what is none."""
    return _mp3_frame(head[:4])


@functools.lru_cache(maxsize=256)  # an hour has 140,000 frames, and few kinds of them
def _mp3_frame(head: bytes) -> Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3  # 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5; 1 is layer III
    rate_index, kbit_index = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer not in (1, 2) or rate_index == 3 or kbit_index in (0, 15):
        return None
    row = "2" if version != 3 else "1-II" if layer == 2 else "1-III"
    rate = (44100, 48000, 32000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    n_samples = 576 if version != 3 and layer == 1 else 1152
    n_bytes = n_samples // 8 * _MP3_KBITS[row][kbit_index - 1] * 1000 // rate + (head[2] >> 1 & 1)
    return Frame(n_bytes, n_samples, rate, 1 if head[3] >> 6 == 3 else 2)


def aac_frame(head: bytes) -> Frame | None:
    """Return a frame of AAC in ADTS; None for what is none."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    n_bytes = (head[3] & 0x3) << 11 | head[4] << 3 | head[5] >> 5  # this header among them
    rates = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
    rate_index = head[2] >> 2 & 15
    if n_bytes < 7 or rate_index >= len(rates):
        return None
    n_channels = (head[2] & 1) << 2 | head[3] >> 6
    return Frame(n_bytes, 1024 * ((head[6] & 3) + 1), rates[rate_index], n_channels)


def begins_with_frames(stream: BinaryIO, place: int, frame: Callable[[bytes], Frame | None]) -> bool:
    """Whether some frames follow one another from here."""
    for _ in range(_N_IN_A_ROW):
        found = frame(read_at(stream, place, 7))
        if found is None:
            return False
        place += found.n_bytes
    return True


def behind_id3(stream: BinaryIO, place: int = 0) -> int:
    """Return what follows a tag that players write before the sound; seven bits of each byte are its length."""
    tag = read_at(stream, place, 10)
    length = 0
    for byte in tag[6:]:
        length = length << 7 | byte & 0x7F
    return place + len(tag) + length


class _Frames:
    """Frames that follow one another, perhaps with something between them."""

    def __init__(self, first: Frame, head: bytes, n_announced: int | None) -> None:
        self.kind = (first.sampling_rate, first.n_channels)
        self.ranges: list[range] = []
        self.n_frames = 0
        self.n_announced = n_announced
        self._first, self._head = first, head[:4]
        self._is_varying = False

    @property
    def held(self) -> int:
        """Samples of all frames."""
        return self.n_frames * self._first.n_samples

    @property
    def announced(self) -> int | None:
        """Samples that the first frame tells of."""
        return None if self.n_announced is None else self.n_announced * self._first.n_samples

    def add(self, frame: Frame) -> None:
        """Count a frame."""
        self.n_frames += 1
        self._is_varying |= abs(frame.n_bytes - self._first.n_bytes) > 1

    def is_right(self) -> bool:
        """Whether the announced number of frames is there; encoders count the first one or not, and one of delay."""
        return self.n_announced is not None and abs(self.n_announced - self.n_frames) <= 2

    def pieces(self) -> Pieces:
        """Return the frames, and before those of an MP3 one that tells their number where a decoder would guess it."""
        if self.is_right() or self._head[1] & 6 == 0 or not (self._is_varying or self.n_announced is not None):
            return tuple(self.ranges)
        first = self.ranges[0]
        n_teller = 0 if self.n_announced is None else self._first.n_bytes
        return _teller(self._head, self.n_frames), range(first.start + n_teller, first.stop), *self.ranges[1:]


def _teller(head: bytes, n_frames: int) -> bytes:
    """Return a frame without sound that tells how many follow; of 64 or 112 kbit/s, so that it has the room."""
    header = bytes([head[0], head[1] | 1, 0x80 | head[2] & 0x0C, head[3]])
    frame = mp3_frame(header)
    if frame is None:
        raise ValueError(f"no MP3: {head!r}")
    told = header + bytes(_side_bytes(header)) + struct.pack(">4sII", b"Xing", 1, n_frames)
    return told.ljust(frame.n_bytes, b"\x00")


def _side_bytes(head: bytes) -> int:
    """Return how many bytes of a frame follow its header before its sound."""
    is_mpeg1, is_mono = head[1] >> 3 & 3 == 3, head[3] >> 6 == 3
    return (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)


def frames_layout(stream: BinaryIO, size: int, frame: Callable[[bytes], Frame | None]) -> Layout:
    """Return the layout of an MP3 or of AAC without a container: where frames are, and how many samples they have.

    What stands between them, tags of joined files mostly, is left out.
    """
    files: list[_Frames] = []
    n_foreign = start = place = 0  # `start` of the frames at hand, `place` of the next one
    is_cut = False

    def end_run() -> None:
        if files and place > start:
            files[-1].ranges.append(range(start, place))

    while place < size:
        head = read_at(stream, place, _TELLER_BYTES)
        found = frame(head)
        if found is None:
            end_run()
            start = _behind_tag(stream, size, place, head) or _next_frame(stream, size, place, frame)
            n_foreign += 0 if head.startswith(TAGS) else start - place
            place = start
            continue
        if place + found.n_bytes > size:
            is_cut = True
            break
        n_announced = _announced_frames(head) if frame is mp3_frame and _TELLERS.search(head) else None
        if n_announced is not None or not files or files[-1].kind != (found.sampling_rate, found.n_channels):
            end_run()
            start = place
            files.append(_Frames(found, head, n_announced))
        if n_announced is None:  # the one that tells has no sound
            files[-1].add(found)
        place += found.n_bytes
    end_run()
    held, is_right = sum(file.held for file in files), all(file.is_right() for file in files)
    announced = [file.announced for file in files if file.announced is not None]
    is_told = len(announced) == len(files)
    return Layout(
        tuple(file.pieces() for file in files),
        None if not is_told else held if is_right else sum(announced),
        held,
        files[-1].kind[0],
        is_cut=not is_right and (is_cut or (is_told and sum(announced) > held)),
        remark=f"holds {n_foreign} bytes between frames that are no sound, which were left out" if n_foreign else "",
    )


def _behind_tag(stream: BinaryIO, size: int, place: int, head: bytes) -> int | None:
    """Return where a tag ends; None where there is none."""
    if head.startswith(b"ID3"):
        return min(size, behind_id3(stream, place))
    if head.startswith(b"TAG"):
        return min(size, place + _TAG_BYTES)
    return size if head.startswith(TAGS) else None


def _next_frame(stream: BinaryIO, size: int, place: int, frame: Callable[[bytes], Frame | None]) -> int:
    """Return where frames go on behind something else."""
    marks = find_all(stream, FRAME_MARK, place + 1)
    return next((at for at in marks if begins_with_frames(stream, at, frame)), size)


def _announced_frames(head: bytes) -> int | None:
    """Return how many frames follow, as the first one of an MP3 tells (Xing, Info, VBRI); None if it does not."""
    tag = 4 + _side_bytes(head)
    if head[tag : tag + 4] in (b"Xing", b"Info"):
        flags, n_frames = struct.unpack(">II", head[tag + 4 : tag + 12])
        return n_frames if flags & 1 else None
    return int.from_bytes(head[50:54], "big") if head[36:40] == b"VBRI" else None


_AMR = (b"#!AMR\n", b"#!AMR-WB\n")
_AMR_BYTES = (
    (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1),
    (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
)


def amr_layout(stream: BinaryIO, size: int) -> Layout | None:
    """Return the layout of one or several AMR files; lengths in samples."""
    starts, place, n_frames, is_wide, is_cut = [], 0, 0, 0, False
    while place < size:
        head = read_at(stream, place, 9)
        mark = next((mark for mark in _AMR if head.startswith(mark)), None)
        if mark is not None:
            starts.append(place)
            place, is_wide = place + len(mark), _AMR.index(mark)
            continue
        n_bytes = _AMR_BYTES[is_wide][head[0] >> 3 & 15]
        is_cut = bool(n_bytes and place + n_bytes > size)
        if not n_bytes or not starts or head[0] & 0x83 or is_cut:
            break
        place, n_frames = place + n_bytes, n_frames + 1
    if not starts:
        return None
    rate = (8000, 16000)[is_wide]
    if not is_cut and any(_are_amr(stream, at, _AMR_BYTES[is_wide]) for at in range(place + 1, min(place + 64, size))):
        return Layout(((range(size),),), is_cut=True, remark=f"is damaged after {n_frames / 50:.2f} s")
    remark = f"goes on with {size - place} bytes that are no AMR, which were left out" if place < size else ""
    streams = tuple((range(start, end),) for start, end in itertools.pairwise([*starts, place]))
    return Layout(streams, None, n_frames * rate // 50, rate, is_cut=is_cut, remark="" if is_cut else remark)


def _are_amr(stream: BinaryIO, place: int, sizes: tuple[int, ...]) -> bool:
    """Whether some frames of AMR with speech follow one another from here."""
    for _ in range(8):
        head = read_at(stream, place, 1)
        if not head or head[0] & 0x83 or head[0] >> 3 & 15 > 8:
            return False
        place += sizes[head[0] >> 3 & 15]
    return True
