"""Formats whose sound is a chunk among others, or follows one header: WAV, RF64, W64, AIFF, CAF, AU."""

import struct
from typing import BinaryIO, NamedTuple

from ser_batch.audio.layout import TAGS, Layout, Pieces, find_all, read_at
from ser_batch.audio.packets import aac_frame, begins_with_frames, mp3_frame

_LARGEST = 0xFFFFFFFF  # of 32 bits
# what recorders that cannot seek back write for a size: all that follows
_LONGEST = 1 << 62  # of 64 bits, that can be counted with
_TO_THE_END = (range(0x7FFF0000, 0x80001000), range(0xFFFF0000, 1 << 32), range(_LONGEST, _LONGEST + 1))
_PADDING_BYTES = 4096  # zeros behind the sound, up to the end of a block
_MIN_FILE_BYTES = 24  # of a header and sound
_MAX_OFFSET = 4096  # of the sound in an AU file

_GUID = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # how kinds of chunks end in W64
_RIFF_GUID = b"\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
# chunks behind the sound that may be cut; any others that are longer than the file are taken for sound
_METADATA = frozenset(
    kind.ljust(4).encode()
    for kind in ("LIST", "bext", "iXML", "id3", "ID3", "fact", "cue", "smpl", "JUNK", "PEAK", "ANNO")
)


class _Chunk(NamedTuple):
    kind: bytes
    place: int  # of its header
    start: int  # of what it holds
    size: int  # of that, as the header says


class _Sound(NamedTuple):
    """Sound in a chunk."""

    bytes: range  # that are there
    announced: int
    fault: str | None  # of the announced length: `open`, `header`, `cut`, `short`
    following: int  # where the next chunk begins


class _Format(NamedTuple):
    mark: bytes  # what its files begin with
    header: struct.Struct  # of a chunk: kind and size
    first: int  # where the first chunk is
    alignment: int  # of chunks, in bytes
    sound: bytes  # the kind of chunk that holds it
    inside: int = 0  # bytes of that chunk before the sound
    counted: int = 0  # bytes of a chunk's header that its size counts
    form: bytes = b""  # what stands behind the mark and the size of the file

    def begins(self, head: bytes) -> bool:
        """Whether a file of this format begins with these bytes."""
        return head[: len(self.mark)] == self.mark and head[8 : 8 + len(self.form)] == self.form


_RIFF = _Format(b"RIFF", struct.Struct("<4sI"), 12, 2, b"data", form=b"WAVE")
_FORMATS = (
    _RIFF,
    _RIFF._replace(mark=b"RF64"),
    _RIFF._replace(mark=b"BW64"),
    _RIFF._replace(mark=b"RIFX", header=struct.Struct(">4sI")),
    _Format(b"FORM", struct.Struct(">4sI"), 12, 2, b"SSND", inside=8, form=b"AIF"),
    _Format(b"caff", struct.Struct(">4sQ"), 8, 1, b"data", inside=4),
    _Format(b"riff", struct.Struct("<16sQ"), 40, 8, b"data" + _GUID, counted=24),
)


CHUNK_MARKS = tuple(form.mark for form in _FORMATS)
AU_MARKS = (b".snd", b"dns.")  # of big and little end first


class _ChunkedFile:
    """One file of chunks, which begins at `origin` of what may be several that were joined."""

    def __init__(self, stream: BinaryIO, size: int, origin: int, form: _Format) -> None:
        self._stream, self._size, self._origin, self._form = stream, size, origin, form
        self._format_chunk = range(0)
        self._size_64: int | None = None  # of the sound, where RF64 tells it
        self._first: _Chunk | None = None  # with sound
        self.sounds: list[_Sound] = []
        self.end = self._read(origin + form.first)
        if not self.sounds:  # a header before the sound tells a wrong length
            marks = find_all(stream, form.sound, origin + form.first)
            self.end = self._read(next((place for place in marks if self._chunk(place) is not None), size))

    def _read(self, place: int) -> int:
        """Read the headers of all chunks from `place` on; return where they end."""
        while (chunk := self._chunk(place)) is not None and not self._begins_file(place):
            place = self._behind(chunk)
            if chunk.kind == b"fmt ":
                self._format_chunk = range(chunk.place, place)
            elif chunk.kind == b"ds64":
                self._size_64 = int.from_bytes(read_at(self._stream, chunk.start + 8, 8), "little")
            elif chunk.kind == self._form.sound:
                self._first = self._first or chunk
                self.sounds.append(self._sound(chunk))
                place = self.sounds[-1].following
        return min(place, self._size)

    @property
    def held(self) -> int:
        """Bytes of sound that are there."""
        return sum(len(sound.bytes) for sound in self.sounds)

    @property
    def is_cut(self) -> bool:
        """Whether sound is missing."""
        return any(sound.fault == "cut" for sound in self.sounds)

    def pieces(self) -> Pieces:
        """Return the file itself or, where a decoder would read a part of it, a header that is right and the sound."""
        is_right = len(self.sounds) == 1 and self.sounds[0].fault is None and self._form.mark != b"BW64"
        if self._first is None or is_right:
            return (range(self._origin, self.end),)
        return *self._header(self._first), *(sound.bytes for sound in self.sounds)

    def holds_a_file(self) -> bool:
        """Whether what is said to be samples of PCM is a file of another format."""
        is_pcm = read_at(self._stream, self._format_chunk.start + 8, 2) == b"\x01\x00" if self._format_chunk else False
        place = self.sounds[0].bytes.start if self.sounds else self._size
        if not is_pcm or not self._size - place:
            return False
        is_file = read_at(self._stream, place, 4) in (b"fLaC", b"OggS") or read_at(self._stream, place, 3) == b"ID3"
        return is_file or any(begins_with_frames(self._stream, place, frame) for frame in (mp3_frame, aac_frame))

    def _chunk(self, place: int) -> _Chunk | None:
        header = self._form.header
        head = read_at(self._stream, place, header.size)
        if len(head) < header.size:
            return None
        kind, size = header.unpack(head)
        return _Chunk(kind, place, place + header.size, min(max(0, size - self._form.counted), _LONGEST))

    def _behind(self, chunk: _Chunk) -> int:
        end = chunk.start + chunk.size
        return end + (self._origin - end) % self._form.alignment

    def _begins_file(self, place: int) -> bool:
        return self._form.begins(read_at(self._stream, place, 16))

    def _sound(self, chunk: _Chunk) -> _Sound:
        if chunk.size == _LARGEST and self._size_64 is not None:
            chunk = chunk._replace(size=min(self._size_64, _LONGEST))
        start = chunk.start + self._form.inside
        room, announced = max(0, self._size - start), max(0, chunk.size - self._form.inside)
        if any(chunk.size in sizes for sizes in _TO_THE_END):
            # decoders take such a size of a longer file for what it says, and know none of 64 bits
            is_clear = room <= chunk.size <= _LARGEST and self._form.mark in (b"RIFF", b"RIFX")
            return _Sound(range(start, self._size), room, None if is_clear else "open", self._size)
        if announced > room:
            # some writers count what stands before the sound, with or without the size of the file
            before = start - self._origin
            fault = "header" if room and announced - room in (before, before - 8) else "cut"
            return _Sound(range(start, start + room), announced, fault, self._size)
        end, following = start + announced, self._behind(chunk)
        if self._is_orderly(following):
            return _Sound(range(start, end), announced, None, following)
        if self._is_orderly(end):  # nothing fills an odd number of bytes up
            return _Sound(range(start, end), announced, None, end)
        later = filter(self._begins_file, find_all(self._stream, self._form.mark, end))
        end = next(later, self._size)
        return _Sound(range(start, end), announced, "short", end)

    def _is_orderly(self, place: int) -> bool:
        """Whether nothing but chunks, tags and further files follows."""
        while (chunk := self._chunk(place)) is not None:
            if self._begins_file(place) or read_at(self._stream, place, 16).startswith(TAGS):
                return True
            if self._size - place <= _PADDING_BYTES and not any(read_at(self._stream, place, _PADDING_BYTES)):
                return True
            name, rest = chunk.kind[:4], chunk.kind[4:]
            if (
                name in CHUNK_MARKS
                or not (name.isascii() and name.decode("ascii").isprintable())
                or rest not in (b"", _GUID, _RIFF_GUID)
            ):
                return False
            if self._form.form and read_at(self._stream, chunk.start, 4).startswith(self._form.form):
                return False  # a file whose first bytes are damaged
            place = self._behind(chunk)
            if place > self._size + self._form.alignment and name not in _METADATA | {self._form.sound[:4]}:
                return False
        return True

    def _header(self, sound: _Chunk) -> Pieces:
        """Return a header for all of the sound that is there."""
        n_bytes, field = self.held, sound.place + len(self._form.sound)
        if self._form.form == b"WAVE":
            return self._wave_header(n_bytes)
        size = min(n_bytes + self._form.inside, _LARGEST if self._form.form else 1 << 62) + self._form.counted
        sizes = self._form.header.pack(self._form.sound, size)[len(self._form.sound) :]
        return range(self._origin, field), sizes, range(sound.start, sound.start + self._form.inside)

    def _wave_header(self, n_bytes: int) -> Pieces:
        order = ">" if self._form.mark == b"RIFX" else "<"
        if n_bytes < _TO_THE_END[0].start:
            size = struct.pack(f"{order}I", n_bytes)
            mark = b"RIFX" if order == ">" else b"RIFF"
            return mark + size + b"WAVE", self._format_chunk, b"data" + size
        ds64 = struct.pack("<4sIQQQI", b"ds64", 28, n_bytes, n_bytes, 0, 0)
        return b"RF64\xff\xff\xff\xffWAVE" + ds64, self._format_chunk, b"data\xff\xff\xff\xff"


def chunk_layout(stream: BinaryIO, size: int) -> Layout | None:
    """Return the layout of a file of chunks, or of several that were joined; None if none has sound."""
    head = read_at(stream, 0, 16)
    form = next((form for form in _FORMATS if form.begins(head)), None)
    if form is None:
        return None
    files: list[_ChunkedFile] = []
    place = 0
    while form.begins(read_at(stream, place, 16)):
        files.append(_ChunkedFile(stream, size, place, form))
        if not files[-1].sounds:
            break
        place = files[-1].end
    sounds = [sound for file in files for sound in file.sounds]
    if not sounds:
        return None
    if size - place >= _MIN_FILE_BYTES and not read_at(stream, place, 16).startswith(TAGS):
        remark = f"goes on with {size - place} bytes from which nothing can be read"
        return Layout(((range(size),),), is_cut=True, remark=remark)
    if any(file.holds_a_file() for file in files):
        return Layout(
            ((range(size),),), is_cut=True, remark="holds a compressed file in place of samples; take that out"
        )
    return Layout(
        tuple(file.pieces() for file in files if file.sounds),
        announced=sum(sound.announced for sound in sounds),
        held=sum(len(sound.bytes) for sound in sounds),
        is_cut=any(file.is_cut for file in files),
    )


# --- AU: a header and sound ----------------------------------------------------------------------------------------


def au_layout(stream: BinaryIO, size: int) -> Layout:
    """Return the layout of an AU file, or of several that were joined."""
    mark = read_at(stream, 0, 4)
    header = struct.Struct(">4sII" if mark == AU_MARKS[0] else "<4sII")
    streams: list[Pieces] = []
    announced, held, is_cut, place = 0, 0, False, 0
    while (head := read_at(stream, place, 24)).startswith(mark) and len(head) == 24:
        _, offset, n_bytes = header.unpack(head[: header.size])
        start = place + offset
        room = max(0, size - start)
        is_told = n_bytes != _LARGEST
        # joined ones follow where one ends, or somewhere if it does not tell
        later = find_all(stream, mark, start + n_bytes if n_bytes <= room else start)
        end = next((at for at in later if _begins_au(stream, at, header)), size) if n_bytes != room else size
        found = max(0, end - start)
        is_cut |= is_told and n_bytes > found and n_bytes - found != offset
        announced, held = announced + (n_bytes if is_told else found), held + found
        is_right = n_bytes in (found, _LARGEST)
        header_of_all = (range(place, place + 8), b"\xff" * 4, range(place + 12, end))
        streams.append((range(place, end),) if is_right else header_of_all)
        place = end
    return Layout(tuple(streams), announced, held, is_cut=is_cut)


def _begins_au(stream: BinaryIO, place: int, header: struct.Struct) -> bool:
    """Whether this is the header of another file: sound may hold the four bytes of the mark."""
    head = read_at(stream, place, 24)
    _, offset, _ = header.unpack(head[: header.size].ljust(header.size))
    order = header.format[0]
    encoding, rate, n_channels = struct.unpack(f"{order}III", head[12:24].ljust(12))
    return bool(24 <= offset <= _MAX_OFFSET and encoding <= 30 and 1000 <= rate <= 400_000 and 1 <= n_channels <= 64)
