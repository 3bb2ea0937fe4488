"""Files whose headers are wrong, that were cut or joined: what docs/calls.md says of each container, made and read."""

import contextlib
import io
import os
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np
import pytest
import soundfile
from helpers import reader_of

from ser_batch.audio.headers import layout_of
from ser_batch.config.options import FeaturizeOptions
from ser_batch.errors import RecordingError
from ser_batch.featurization import featurize

RATE, SECONDS = 16000, 4.0
GENERATOR = np.random.default_rng(5)
SOUND = (0.1 * GENERATOR.standard_normal(round(RATE * SECONDS))).astype(np.float32)
DELAY_S = 0.15  # of codecs, at both ends of each file
TRAILING = bytes(GENERATOR.integers(0, 256, 1000, dtype=np.uint8))


Order = Literal["little", "big"]


class Field(NamedTuple):
    """The length that a header tells."""

    place: int
    n_bytes: int
    order: Order
    counted: int = 0  # that is no sound


class Container(NamedTuple):
    suffix: str
    make: Callable[[], bytes]
    field: Callable[[bytes], Field | None]


def by_soundfile(file_format: str, subtype: str) -> Callable[[], bytes]:
    def make() -> bytes:
        stream = io.BytesIO()
        soundfile.write(stream, SOUND, RATE, format=file_format, subtype=subtype)
        return stream.getvalue()

    return make


def by_ffmpeg(file_format: str, codec: str, rate: int = RATE) -> Callable[[], bytes]:
    def make() -> bytes:
        pytest.importorskip("av", reason='needs PyAV: pip install "ser-batch[av]"')
        from test_audio_av import encode, voice

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "made"
            return encode(file, file_format, codec, voice(rate, seconds=SECONDS), rate).read_bytes()

    return make


def at(mark: bytes, offset: int, n_bytes: int, order: Order, counted: int = 0) -> Callable[[bytes], Field]:
    return lambda file: Field(file.index(mark) + offset, n_bytes, order, counted)


def nowhere(_: bytes) -> None:
    return None


CONTAINERS = {
    "WAV": Container("wav", by_soundfile("WAV", "PCM_16"), at(b"data", 4, 4, "little")),
    "WAV, ADPCM": Container("wav", by_soundfile("WAV", "IMA_ADPCM"), at(b"data", 4, 4, "little")),
    "WAV, G.722": Container("wav", by_ffmpeg("wav", "g722"), at(b"data", 4, 4, "little")),
    "RF64": Container("wav", by_soundfile("RF64", "PCM_16"), at(b"ds64", 16, 8, "little")),
    "W64": Container("w64", by_soundfile("W64", "PCM_16"), at(b"data\xf3", 16, 8, "little", 24)),
    "AU": Container("au", by_soundfile("AU", "PCM_16"), at(b".snd", 8, 4, "big")),
    "AIFF": Container("aiff", by_soundfile("AIFF", "PCM_24"), at(b"SSND", 4, 4, "big", 8)),
    "CAF": Container("caf", by_soundfile("CAF", "PCM_16"), at(b"data", 4, 8, "big", 4)),
    "FLAC": Container("flac", by_soundfile("FLAC", "PCM_16"), at(b"fLaC", 22, 4, "big")),
    "Ogg Vorbis": Container("ogg", by_soundfile("OGG", "VORBIS"), nowhere),
    "Ogg Opus": Container("opus", by_soundfile("OGG", "OPUS"), nowhere),
    "Ogg FLAC": Container("oga", by_ffmpeg("ogg", "flac"), nowhere),
    "MP3": Container("mp3", by_soundfile("MP3", "MPEG_LAYER_III"), at(b"Xing", 8, 4, "big")),
    "m4a, mp4": Container("m4a", by_ffmpeg("ipod", "aac"), at(b"mdat", -4, 4, "big", 8)),
    "aac": Container("aac", by_ffmpeg("adts", "aac"), nowhere),
    "amr": Container("amr", by_ffmpeg("amr", "libopencore_amrnb", 8000), nowhere),
    "webm, mka": Container("webm", by_ffmpeg("webm", "libopus", 48000), nowhere),
    "wma": Container("wma", by_ffmpeg("asf", "wmav2", 22050), nowhere),
}


def announced(factor: float, wrapped: int = 0) -> Callable[[Container, bytes], bytes | None]:
    """Change the length in the header."""

    def make(container: Container, file: bytes) -> bytes | None:
        field = container.field(file)
        if field is None or (wrapped and field.n_bytes > 4):
            return None
        place, n_bytes, order, counted = field
        told = int.from_bytes(file[place : place + n_bytes], order)
        told = wrapped or (counted + int(factor * (told - counted)) // 12 * 12 if factor else 0)
        return file[:place] + told.to_bytes(n_bytes, order) + file[place + n_bytes :]

    return make


def other_inside(container: Container, _: bytes) -> bytes:
    return CONTAINERS["WAV" if container.suffix == "flac" else "FLAC"].make()


FAULTS: dict[str, Callable[[Container, bytes], bytes | None]] = {
    "none": lambda _, file: file,
    "header too long": announced(2.0),
    "header too short": announced(0.5),
    "zero": announced(0),
    "wrapped": announced(1, wrapped=44),
    "joined": lambda _, file: file + file,
    "cut": lambda _, file: file[: len(file) // 2],
    "bytes behind": lambda _, file: file + TRAILING,
    "other inside": other_inside,
    "no audio": lambda *_: b"Dear colleagues, this is no recording.\n" * 40,
}


def documented() -> list[tuple[str, str, str]]:
    """Container, fault and what happens, from the table of the docs."""
    text = (Path(__file__).parent.parent / "docs" / "calls.md").read_text(encoding="utf-8")
    table = re.search(r"^\| container \|.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table[0].split("\n") if line)
    assert header[1:] == list(FAULTS)[1:]
    assert [row[0] for row in rows] == list(CONTAINERS)
    cells = [(row[0], fault, cell) for row in rows for fault, cell in zip(header[1:], row[1:], strict=True)]
    return [(name, "none", "whole") for name in CONTAINERS] + cells


@pytest.fixture(scope="module")
def files():
    made: dict[str, bytes] = {}

    def file_of(name: str) -> bytes:
        if name not in made:
            made[name] = CONTAINERS[name].make()
        return made[name]

    return file_of


@pytest.mark.parametrize(("name", "fault", "outcome"), documented(), ids=lambda value: value.replace(" ", "-"))
def test_each_container_with_each_fault_is_read_whole_or_rejected_as_the_docs_say(
    name, fault, outcome, files, tmp_path
):
    container = CONTAINERS[name]
    content = FAULTS[fault](container, files(name))
    assert (content is None) == (outcome == "")
    if content is None:
        return
    file = tmp_path / f"a.{container.suffix}"
    file.write_bytes(content)

    if outcome == "rejected":
        with pytest.raises(RecordingError) as caught, reader_of(file, "a") as reader:
            list(reader.blocks())
        if fault in ("header too long", "cut") and container.field(files(name)) and name != "m4a, mp4":
            assert re.search(r"header announces \d+\.\d+ s, it holds \d+\.\d+ s", str(caught.value))
        return
    n_files = 2 if fault == "joined" else 1
    with reader_of(file, "a") as reader:
        read_s = sum(map(len, reader.blocks())) / reader.sound.sampling_rate
        warnings = reader.warnings
    assert read_s == pytest.approx(n_files * SECONDS, abs=n_files * DELAY_S)
    assert bool(warnings) == (outcome == "warned"), warnings
    assert all(warning.startswith("a: it") for warning in warnings)


# --- sizes of 32 bits beyond 4 GiB ----------------------------------------------------------------------------------


class Sparse(io.RawIOBase):
    """A header, and as many zeros behind it as are wanted, with one mark of sound in them."""

    def __init__(self, header: bytes, size: int) -> None:
        self.header, self.size, self.place = header, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = offset if whence == os.SEEK_SET else self.size + offset
        return self.place

    def read(self, n_bytes: int = -1) -> bytes:
        n_bytes = max(0, min(n_bytes, self.size - self.place))
        found = self.header[self.place : self.place + n_bytes].ljust(n_bytes, b"\xaa")
        self.place += n_bytes
        return found


@pytest.mark.parametrize("beyond", [0, 16_000, 1 << 20])
def test_all_of_a_wav_beyond_4_gib_is_found(beyond):
    header = bytearray(by_soundfile("WAV", "PCM_16")()[:44])
    header[40:44] = struct.pack("<I", beyond)
    stream = Sparse(bytes(header), 44 + (1 << 32) + beyond)

    layout = layout_of(cast("BinaryIO", stream), stream.size)

    assert layout is not None
    (pieces,) = layout.streams
    assert (layout.held, layout.announced, layout.is_cut) == ((1 << 32) + beyond, beyond, False)
    assert pieces[-1] == range(44, stream.size)
    start = b"".join(
        bytes(piece) if isinstance(piece, bytes) else header[piece.start : piece.stop] for piece in pieces[:-1]
    )
    assert (start[:4], start[-8:]) == (b"RF64", b"data\xff\xff\xff\xff")
    assert struct.unpack("<Q", start[28:36]) == (layout.held,)


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_what_recorders_write_that_do_not_know_the_size_means_all_that_follows(size, tmp_path):
    content = bytearray(by_soundfile("WAV", "PCM_16")())
    content[40:44] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(content)

    with reader_of(tmp_path / "a.wav") as reader:
        assert reader.sound.n_samples == len(SOUND)
        assert reader.warnings == ()


# --- joined files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CONTAINERS))
def test_joined_files_give_the_samples_of_each(name, files, tmp_path):
    suffix, content = CONTAINERS[name].suffix, files(name)
    blocks = []
    for n_files in (1, 3):
        file = tmp_path / f"{n_files}.{suffix}"
        file.write_bytes(n_files * content)
        with reader_of(file) as reader:
            blocks.append(np.concatenate(list(reader.blocks())))
            assert reader.sound.n_samples == len(blocks[-1])
    if name == "aac":  # without a container, frames are all there is: those of the next file follow as if of the same
        assert len(blocks[1]) == 3 * len(blocks[0])
    else:
        np.testing.assert_array_equal(blocks[1], np.concatenate([blocks[0]] * 3))


def test_joined_files_of_other_rates_are_refused(tmp_path):
    other = io.BytesIO()
    soundfile.write(other, SOUND, 8000, format="WAV", subtype="PCM_16")
    (tmp_path / "a.wav").write_bytes(by_soundfile("WAV", "PCM_16")() + other.getvalue())
    with pytest.raises(RecordingError, match="holds 2 recordings whose rates or channels differ"):  # noqa: SIM117
        with reader_of(tmp_path / "a.wav"):
            pass


def test_sound_in_two_chunks_of_one_wav_is_read(tmp_path):
    content = by_soundfile("WAV", "PCM_16")()
    (tmp_path / "a.wav").write_bytes(content + content[36:])
    with reader_of(tmp_path / "a.wav") as reader:
        assert sum(map(len, reader.blocks())) == 2 * len(SOUND)


# --- what follows the sound, and what is in its place ---------------------------------------------------------------


@pytest.mark.parametrize(
    "addition",
    [b"LIST\4\0\0\0abcd", b"id3 \2\0\0\0ab", b"LIST\xff\0\0\0abcd", b"TAG" + bytes(125), bytes(777), b"\0\0\0"],
    ids=["chunk", "tag in a chunk", "chunk that was cut", "tag", "padding", "three bytes"],
)
def test_what_may_follow_the_sound_is_no_fault(addition, tmp_path):
    (tmp_path / "a.wav").write_bytes(by_soundfile("WAV", "PCM_16")() + addition)
    with reader_of(tmp_path / "a.wav") as reader:
        assert reader.sound.n_samples == len(SOUND)
        assert reader.warnings == ()


@pytest.mark.parametrize("excess", [44, 36])
def test_a_size_that_counts_the_header_means_nothing_is_missing(excess, tmp_path):
    content = bytearray(by_soundfile("WAV", "PCM_16")())
    content[40:44] = struct.pack("<I", 2 * len(SOUND) + excess)
    (tmp_path / "a.wav").write_bytes(content)
    with reader_of(tmp_path / "a.wav") as reader:
        assert sum(map(len, reader.blocks())) == len(SOUND)
        assert len(reader.warnings) == 1


@pytest.mark.parametrize("inner", ["FLAC", "Ogg Opus", "MP3"])
def test_a_compressed_file_in_place_of_samples_is_refused(inner, files, tmp_path):
    header, content = by_soundfile("WAV", "PCM_16")()[:40], files(inner)
    (tmp_path / "a.wav").write_bytes(header + struct.pack("<I", len(content)) + content)
    with pytest.raises(RecordingError, match="compressed file in place of samples"):  # noqa: SIM117
        with reader_of(tmp_path / "a.wav"):
            pass


@pytest.mark.parametrize("name", ["Ogg Vorbis", "Ogg Opus", "Ogg FLAC"])
def test_a_damaged_page_of_ogg_is_told(name, files, tmp_path):
    content = bytearray(files(name))
    content[len(content) // 2] ^= 0x55
    (tmp_path / "a.ogg").write_bytes(content)
    with pytest.raises(RecordingError, match="is damaged: the checksum of a page is wrong"):  # noqa: SIM117
        with reader_of(tmp_path / "a.ogg"):
            pass


def test_an_mp3_of_varying_rate_without_a_count_of_frames_is_read_whole(files, tmp_path):
    whole = files("MP3")
    (tmp_path / "whole.mp3").write_bytes(whole)
    first = layout_of(io.BytesIO(whole), len(whole))
    assert first is not None
    n_bytes = struct.unpack(">I", whole[whole.index(b"Xing") + 12 :][:4])[0]
    assert n_bytes <= len(whole)
    start = whole.index(whole[:2], 4)
    (tmp_path / "bare.mp3").write_bytes(whole[start:])
    with reader_of(tmp_path / "bare.mp3") as reader:
        assert sum(map(len, reader.blocks())) / RATE == pytest.approx(SECONDS, abs=DELAY_S)
        assert reader.warnings == ()


# --- the tables -----------------------------------------------------------------------------------------------------


def test_a_warning_stands_among_the_rejects_and_is_counted(files, tmp_path):
    (tmp_path / "audio").mkdir()
    good = files("WAV")
    (tmp_path / "audio" / "good.wav").write_bytes(good)
    (tmp_path / "audio" / "joined.wav").write_bytes(good + good)
    (tmp_path / "audio" / "short.wav").write_bytes(good[:40] + struct.pack("<I", 8000) + good[44:])

    summary = featurize(tmp_path / "audio", FeaturizeOptions(out=tmp_path / "features", jobs=1))

    assert (summary.n_recordings, summary.n_segments, summary.n_rejected, summary.n_warned) == (3, 3, 0, 2)
    assert summary.audio_s == pytest.approx(4 * SECONDS)
    assert [(row.path, row.stage, row.error) for row in summary.warned] == [
        ("joined.wav", "warning", "Warning"),
        ("short.wav", "warning", "Warning"),
    ]
    assert summary.warned[1].message == "short.wav: its header announces 0.25 s; all 4.00 s that it holds were read"
    again = featurize(tmp_path / "audio", FeaturizeOptions(out=tmp_path / "features", jobs=1))
    assert (again.n_done, again.warned) == (0, summary.warned)


def test_faults_that_the_decoder_of_mp3_prints_are_told_with_the_name(files, tmp_path, capfd):
    told: list[str] = []
    for seed in range(20):
        content = bytearray(files("MP3"))
        for place in np.random.default_rng(seed).integers(3000, len(content), 8):
            content[place] ^= 0xFF
        (tmp_path / "a.mp3").write_bytes(content)
        with contextlib.suppress(RecordingError), reader_of(tmp_path / "a.mp3", "a.mp3") as reader:
            list(reader.blocks())
            told += reader.warnings
    assert any(re.match(r"a\.mp3: its decoder found faults \(.*\)", warning) for warning in told), told
    assert capfd.readouterr().err == ""


def test_a_cut_wav_is_known_behind_a_chunk_of_odd_length():
    notes, sound = b"LIST" + struct.pack("<I", 3) + b"abc", b"data" + struct.pack("<I", 4) + b"1234"
    whole = b"RIFF\0\0\0\0WAVE" + notes + b"\0" + sound
    layouts = [layout_of(io.BytesIO(content), len(content)) for content in (whole, whole[:-1])]
    assert [layout and layout.is_cut for layout in layouts] == [False, True]
