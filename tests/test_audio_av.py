"""What FFmpeg decodes, beside the samples it was encoded from; what is told where it is broken, or not installed."""

import itertools
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import open_files, reader_of

from ser_batch.audio.sound import Sound
from ser_batch.config.options import FeaturizeOptions
from ser_batch.errors import RecordingError
from ser_batch.featurization import featurize
from ser_batch.tables.parquet import read_parts

av = pytest.importorskip("av", reason='needs PyAV: pip install "ser-batch[av]"')

SECONDS = 2.4
# suffix, container, encoder, rate, channels, whether the container tells the codec's delay
FORMATS = [
    ("m4a", "ipod", "aac", 16000, 2, True),
    ("m4a", "ipod", "aac", 44100, 1, True),
    ("m4a", "ipod", "alac", 16000, 2, True),
    ("m4b", "ipod", "aac", 8000, 1, True),
    ("aac", "adts", "aac", 16000, 1, False),
    ("amr", "amr", "libopencore_amrnb", 8000, 1, False),
    ("3gp", "3gp", "libopencore_amrnb", 8000, 1, False),
    ("webm", "webm", "libopus", 48000, 2, True),
    ("mka", "matroska", "flac", 22050, 1, True),
    ("mkv", "matroska", "pcm_u8", 8000, 2, True),
    ("mp4", "mp4", "aac", 48000, 1, True),
    ("mov", "mov", "pcm_s24le", 11025, 2, True),
    ("wma", "asf", "wmav2", 22050, 2, False),
    ("wav", "wav", "g726", 8000, 1, True),  # libsndfile does not know it
    ("wav", "wav", "g722", 16000, 1, False),
]
IDS = ["-".join(map(str, row[:5])) for row in FORMATS]
LONGEST_DELAY_S = 0.07


def voice(rate: int, n_channels: int = 1, seconds: float = SECONDS) -> np.ndarray:
    """Something like speech: harmonics of a gliding pitch in syllables; shape (channels, samples)."""
    at_s = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 0.7 * at_s)) / rate
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.sin(2 * np.pi * 2.5 * at_s) ** 2
    return np.stack([0.2 * tone * syllables / (1 + channel) for channel in range(n_channels)]).astype(np.float32)


def encoder(name: str) -> str:
    """The encoder's name, if it is there."""
    try:
        av.Codec(name, "w")
    except ValueError:
        pytest.skip(f"this FFmpeg cannot encode {name}")
    return name


def encode(file: Path, container: str, codec: str, samples: np.ndarray, rate: int, **options: object) -> Path:
    """Write samples, and a film beside them if `film` is true; without sound if `samples` is empty.

    They are of `rate`, and are brought to `to_rate`, where it is given, for the codec.
    """
    film = options.pop("film", False)
    coded_rate = options.pop("to_rate", rate)
    layout = "mono" if len(samples) == 1 else "stereo"
    bit_rate = {"libopencore_amrnb": 12_200, "g726": 32_000}.get(codec, 64_000)
    with av.open(os.fspath(file), "w", format=container, **options) as output:
        picture = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p") if film else None
        if samples.size:
            stream = output.add_stream(encoder(codec), rate=coded_rate, layout=layout, bit_rate=bit_rate)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            resampler = av.AudioResampler(
                format=stream.codec_context.format.name,
                layout=layout,
                rate=coded_rate,
                frame_size=stream.codec_context.frame_size or 1024,
            )
            frames = [*resampler.resample(frame), *resampler.resample(None), None]
        if picture is not None:
            for i in range(20):
                black = av.VideoFrame(32, 32, "yuv420p")
                black.pts = i
                output.mux(picture.encode(black))
            output.mux(picture.encode(None))
        if samples.size:
            for one in frames:
                output.mux(stream.encode(one))
    return file


def read(file: Path, name: str = "a") -> tuple[Sound, np.ndarray]:
    with reader_of(file, name) as reader:
        blocks = list(reader.blocks())
        assert reader.n_samples == reader.sound.n_samples == sum(map(len, blocks))
        return reader.sound, np.concatenate(blocks)


def lag(decoded: np.ndarray, source: np.ndarray) -> int:
    """By how many samples `decoded` is late."""
    n = len(decoded) + len(source)
    match = np.fft.irfft(np.fft.rfft(decoded, n) * np.conj(np.fft.rfft(source, n)), n)
    best = int(match.argmax())
    return best if best < n / 2 else best - n


def level_db(samples: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64), axis=0))


@pytest.mark.parametrize(("suffix", "container", "codec", "rate", "n_channels", "is_delay_known"), FORMATS, ids=IDS)
def test_what_was_encoded_is_heard_again(suffix, container, codec, rate, n_channels, is_delay_known, tmp_path):
    source = voice(rate, n_channels)
    file = encode(tmp_path / f"a.{suffix}", container, codec, source, rate)

    sound, samples = read(file)

    assert (sound.sampling_rate, sound.n_channels) == (rate, n_channels)
    assert samples.dtype == np.float32
    assert samples.shape[1] == n_channels
    assert len(samples) / rate == pytest.approx(SECONDS, abs=0.1)
    if container in ("ipod", "mp4", "mov"):
        assert len(samples) == source.shape[1], "what fills the encoder's last frame is no part of the recording"
    late = lag(samples[:, 0], source[0])
    assert abs(late) <= (0.002 if is_delay_known else LONGEST_DELAY_S) * rate
    np.testing.assert_allclose(level_db(samples), level_db(source.T), atol=0.5)
    aligned = samples[max(0, late) :, 0]
    n = min(len(aligned), source.shape[1] + min(0, late))
    expected = source[0, max(0, -late) : max(0, -late) + n]
    if codec != "libopencore_amrnb":  # which keeps the sound, and not the wave
        assert np.corrcoef(aligned[:n], expected)[0, 1] > 0.9
    levels = [np.abs(own[: n - n % 160]).reshape(-1, 160).mean(axis=1) for own in (aligned, expected)]
    assert np.corrcoef(levels)[0, 1] > 0.95


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_samples_of_any_type_are_the_same_floats_that_libsndfile_reads(codec, tmp_path):
    encode(tmp_path / "a.mkv", "matroska", codec, voice(8000, 2), 8000)
    encode(tmp_path / "a.wav", "wav", codec, voice(8000, 2), 8000)

    by_av, by_soundfile = read(tmp_path / "a.mkv"), read(tmp_path / "a.wav")

    assert by_av[0].subtype == codec
    assert by_soundfile[0].subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
    np.testing.assert_array_equal(by_av[1], by_soundfile[1])


def test_blocks_are_as_long_as_those_of_libsndfile(tmp_path, monkeypatch):
    file = encode(tmp_path / "a.m4a", "ipod", "aac", voice(16000), 16000)
    whole = read(file)[1]
    monkeypatch.setattr("ser_batch.audio.sound.BLOCK_S", 777 / 16000)

    with reader_of(file) as reader:
        blocks = list(reader.blocks())

    assert {len(block) for block in blocks[:-1]} == {777}
    assert 0 < len(blocks[-1]) <= 777
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def amr_wb(n_frames: int) -> bytes:
    """Frames of 12.65 kbit/s with any bits: there is no encoder, but every bit means some sound."""
    bits = np.random.default_rng(0)
    return b"#!AMR-WB\n" + b"".join(b"\x14" + bits.bytes(32) for _ in range(n_frames))


def test_wideband_amr_is_read_at_16000_hz(tmp_path):
    (tmp_path / "a.amr").write_bytes(amr_wb(50))

    sound, samples = read(tmp_path / "a.amr")

    assert sound == Sound(16000, 1, 16000, "amrwb")
    assert samples.std() > 0.001


def test_aac_behind_a_players_tag_is_found(tmp_path):
    bare = encode(tmp_path / "a.aac", "adts", "aac", voice(16000), 16000)
    tagged = tmp_path / "b.aac"
    tagged.write_bytes(b"ID3\x04\0\0\0\0\x02\x00" + bytes(256) + bare.read_bytes())

    np.testing.assert_array_equal(read(tagged)[1], read(bare)[1])


def test_the_sound_of_a_film_is_its_first_stream_of_sound(tmp_path):
    source = voice(16000)
    for suffix, container in (("mp4", "mp4"), ("mkv", "matroska")):
        sound, samples = read(encode(tmp_path / f"a.{suffix}", container, "aac", source, 16000, film=True))

        assert sound.n_samples == pytest.approx(SECONDS * 16000, abs=1600)
        assert np.corrcoef(samples[: source.shape[1], 0], source[0, : len(samples)])[0, 1] > 0.9


def test_a_film_that_is_longer_than_its_sound_is_not_cut_off(tmp_path):
    file = encode(tmp_path / "a.mkv", "matroska", "aac", voice(16000, seconds=0.5), 16000, film=True)

    assert read(file)[0].n_samples == pytest.approx(8000, abs=1600)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.gsm", "a.raw", "a", "a.flac"])
def test_the_content_decides_whatever_the_name(name, tmp_path):
    file = encode(tmp_path / "right.m4a", "ipod", "aac", voice(16000), 16000)
    expected = read(file)
    shutil.copy(file, tmp_path / name)

    sound, samples = read(tmp_path / name)

    assert sound == expected[0]
    np.testing.assert_array_equal(samples, expected[1])


@pytest.mark.parametrize("suffix", ["m4a", "amr", "webm", "mp4", "wma", "aac"])
def test_what_libsndfile_reads_is_read_by_it_whatever_the_name(suffix, tmp_path):
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, voice(8000).T, 8000, format="WAV", subtype="ULAW")

    assert read(file)[0].subtype == "ULAW"


def test_av_is_loaded_only_where_it_is_needed(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(8000).T, 8000)
    encode(tmp_path / "a.m4a", "ipod", "aac", voice(8000), 8000)
    program = """
import os, sys
from ser_batch.audio.reader import AudioReader
from ser_batch.audio.recording_file import RecordingFile
for name in sys.argv[1:]:
    with RecordingFile(os.fsencode(name), name) as file, AudioReader(file) as reader:
        list(reader.blocks())
print("av" in sys.modules)
"""

    def is_loaded(name: str) -> str:
        command = [sys.executable, "-c", program, tmp_path / name]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()

    assert is_loaded("a.wav") == "False"
    assert is_loaded("a.m4a") == "True"


# ---- what cannot be used ----


def encoded(suffix: str, container: str, codec: str, **options: object) -> Callable[[Path], object]:
    return lambda file: encode(file, container, codec, voice(16000), 16000, **options)


def cut(kept: float, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def made(file: Path) -> None:
        make(file)
        os.truncate(file, int(kept * file.stat().st_size))

    return made


def damaged(make: Callable[[Path], object], old: bytes, new: bytes) -> Callable[[Path], object]:
    def made(file: Path) -> None:
        make(file)
        content = file.read_bytes()
        assert old in content
        file.write_bytes(content.replace(old, new))

    return made


def nonsense_in_the_middle(file: Path) -> None:
    encode(file, "ipod", "aac", voice(16000), 16000)
    content = bytearray(file.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 2000] = b"\xff" * 2000
    file.write_bytes(content)


def playlist(file: Path) -> None:
    """What FFmpeg takes for a list of other files to open."""
    file.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n")


M4A = encoded("m4a", "ipod", "aac")
FAST_M4A = encoded("m4a", "ipod", "aac", options={"movflags": "faststart"})
WEBM = encoded("webm", "matroska", "flac")
AAC = encoded("aac", "adts", "aac")
WMA = encoded("wma", "asf", "wmav2")


@pytest.mark.parametrize(
    ("name", "make", "stage", "said"),
    [
        *((f"{kept}.m4a", cut(kept, M4A), "open", "is cut off") for kept in (0.95, 0.5, 0.1)),
        *((f"{kept}.mp4", cut(kept, FAST_M4A), "open", "is cut off") for kept in (0.99, 0.5)),
        *((f"{kept}.webm", cut(kept, WEBM), "open", "is cut off") for kept in (0.99, 0.5)),
        *((f"{kept}.aac", cut(kept, AAC), "open", "is cut off after [12]") for kept in (0.9, 0.5)),
        ("cut.wma", cut(0.5, WMA), "open", "is cut off"),
        ("cut.amr", lambda file: file.write_bytes(amr_wb(50)[:-7]), "open", "is cut off after 0.98 s"),
        *((f"{kept}.wav", cut(kept, encoded("wav", "wav", "g722")), "open", "is cut off") for kept in (0.99, 0.5)),
        ("damaged.m4a", nonsense_in_the_middle, "decode", "broken after 0[.]"),
        ("head.webm", cut(0.02, AAC), "open", "cannot be read as audio"),
        ("ftyp.m4a", lambda file: file.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500)), "open", "cannot be read"),
        (
            "other.m4a",
            damaged(encoded("m4a", "ipod", "alac"), b"alac", b"zzzz"),
            "open",
            "encoding that FFmpeg does not decode",
        ),
        ("film.mp4", lambda file: encode(file, "mp4", "", voice(8000)[:, :0], 8000, film=True), "open", "no sound"),
        ("list.m4a", playlist, "open", "cannot be read as audio"),
        ("none.amr", lambda file: file.write_bytes(b"#!AMR\n"), "open|decode", "no samples|cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_with_stage_name_reason_and_remedy(name, make, stage, said, tmp_path):
    file = tmp_path / name
    make(file)
    open_before = open_files()

    with pytest.raises(RecordingError, match=said) as caught:
        read(file, name)

    assert caught.value.stage in stage.split("|")
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).endswith("replace the file or remove it")
    assert open_files() == open_before


def test_a_recording_that_was_streamed_does_not_know_its_length_and_is_read(tmp_path):
    file = encode(tmp_path / "a.webm", "webm", "libopus", voice(48000), 48000, options={"live": "1"})
    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    other = encode(tmp_path / "a.mp4", "mp4", "aac", voice(48000), 48000, options=fragmented)

    for one in (file, other):
        assert read(one)[0].n_samples == pytest.approx(SECONDS * 48000, abs=4800)


def test_tags_in_another_encoding_do_no_harm(tmp_path):
    file = tmp_path / "a.webm"
    with av.open(os.fspath(file), "w", format="webm") as output:
        output.metadata["title"] = "QQQQ"
        stream = output.add_stream(encoder("libopus"), rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice(48000), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        to_encoder = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=48000)
        for one in (*to_encoder.resample(frame), None):
            output.mux(stream.encode(one))
    file.write_bytes(file.read_bytes().replace(b"QQQQ", b"\xe9\xe8\xfc\xff"))

    assert read(file)[0].subtype in ("opus", "libopus")


@pytest.mark.parametrize("container", ["ipod", "adts"])
def test_no_file_stays_open_whatever_comes(container, tmp_path):
    good = encode(tmp_path / "good", container, "aac", voice(16000), 16000)
    bad = tmp_path / "bad"
    bad.write_bytes(good.read_bytes()[: good.stat().st_size * 3 // 4])
    read(good)  # libraries open what they need
    before = open_files()

    for _ in range(40):
        read(good)
        with pytest.raises(RecordingError):
            read(bad)
        with reader_of(good) as reader:
            next(reader.blocks())  # and no more
        with pytest.raises(ZeroDivisionError), reader_of(good):
            _ = 1 / 0

    assert open_files() == before


def test_of_a_recording_that_is_too_long_to_be_held_length_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.audio.sound.BLOCK_S", 5.0)
    monkeypatch.setattr("ser_batch.audio.sound.HELD_VALUES", 8000)
    monkeypatch.setattr("ser_batch.audio.recording_file.HELD_BYTES", 8000)

    def peak_bytes(seconds: float) -> int:
        file = encode(tmp_path / "a.mka", "matroska", "pcm_s16le", voice(8000, 2, seconds), 8000)
        tracemalloc.start()
        try:
            with reader_of(file) as reader:
                n = sum(map(len, reader.blocks()))
            assert n == seconds * 8000
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(10)  # what is loaded at first
    assert peak_bytes(200) < 1.2 * peak_bytes(20)


# ---- where PyAV is not installed ----


@pytest.fixture
def without_av(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "ser_batch.audio.ffmpeg", raising=False)


@pytest.mark.parametrize(("suffix", "container", "codec"), [("m4a", "ipod", "aac"), ("aac", "adts", "aac")])
def test_without_av_a_reject_says_what_to_install(suffix, container, codec, tmp_path, without_av):
    for name in (f"a.{suffix}", "named.wav"):
        file = encode(tmp_path / name, container, codec, voice(16000), 16000)
        with pytest.raises(RecordingError, match=r'; pip install "ser-batch\[av\]", or remove the file$') as caught:
            read(file)
        assert caught.value.stage == "open"


def test_without_av_an_encoding_that_libsndfile_does_not_know_may_be_one_of_ffmpegs(tmp_path, without_av):
    file = encode(tmp_path / "a.wav", "wav", "g726", voice(8000), 8000)

    with pytest.raises(RecordingError, match=r"Malformed 'fmt ' chunk.*pip install .* for more encodings"):
        read(file)


def test_without_av_other_files_are_read_as_ever(tmp_path, without_av):
    soundfile.write(tmp_path / "a.m4a", voice(8000).T, 8000, format="WAV")

    assert read(tmp_path / "a.m4a")[0].subtype == "PCM_16"


# ---- in the tables ----


def test_the_tables_hold_the_true_length(tmp_path):
    root = tmp_path / "audio"
    root.mkdir()
    for suffix, container, codec, rate in [
        ("webm", "webm", "libopus", 48000),
        ("aac", "adts", "aac", 16000),
        ("m4a", "ipod", "aac", 8000),
        ("mkv", "matroska", "flac", 16000),
    ]:
        encode(root / f"a.{suffix}", container, codec, voice(rate), rate)
    (root / "b.amr").write_bytes(amr_wb(120))
    shutil.copy(root / "a.m4a", root / "c.wav")

    summary = featurize(root, FeaturizeOptions(out=tmp_path / "out", segments="windows", window=1.0, hop=1.0, jobs=1))

    assert not summary.rejected
    rows = read_parts(tmp_path / "out", ["path", "duration_s", "end_s", "n_frames"]).to_pylist()
    by_path = {path: list(own) for path, own in itertools.groupby(rows, key=lambda row: row["path"])}
    assert set(by_path) == {"a.webm", "a.aac", "a.m4a", "a.mkv", "b.amr", "c.wav"}
    for own in by_path.values():
        assert [row["duration_s"] for row in own] == pytest.approx([SECONDS] * 3, abs=0.1)
        assert max(row["end_s"] for row in own) == own[0]["duration_s"]


def test_a_wav_that_could_not_know_its_length_is_no_cut_one(tmp_path):
    file = encode(tmp_path / "a.wav", "wav", "g722", voice(16000), 16000)
    content = bytearray(file.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    file.write_bytes(content)

    assert read(file)[0].n_samples == SECONDS * 16000
