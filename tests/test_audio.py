"""Decoding, mixing and resampling against soundfile, soxr and librosa; and what the reader refuses."""

import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import soxr
from helpers import open_files, reader_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.audio.recording_file import RecordingFile
from ser_batch.audio.resampling import Resampler, channel_samples
from ser_batch.audio.sound import Sound
from ser_batch.errors import RecordingError

INTEGER = ["PCM_U8", "PCM_16", "ULAW", "ALAW", "GSM610", "G721_32", "IMA_ADPCM", "MS_ADPCM"]
FORMATS = [
    *(("WAV", subtype) for subtype in [*INTEGER, "PCM_24", "PCM_32", "FLOAT", "DOUBLE"]),
    *(("AIFF", subtype) for subtype in ("PCM_S8", "PCM_16")),
    *((container, subtype) for container in ("AU", "CAF", "W64") for subtype in ("PCM_16", "ULAW", "ALAW")),
    *(("FLAC", subtype) for subtype in ("PCM_16", "PCM_24")),
    ("MP3", "MPEG_LAYER_III"),
    *(("OGG", subtype) for subtype in ("VORBIS", "OPUS")),
]
ONE_CHANNEL_ONLY = {"GSM610", "G721_32"}


def rough(n: int, n_channels: int = 1) -> np.ndarray:
    """Noise that reaches both ends of the scale, so that every code of an encoding occurs."""
    return np.random.default_rng(n).uniform(-1, 1, (n, n_channels)).astype(np.float32)


def read(file: Path) -> tuple[Sound, np.ndarray]:
    with reader_of(file) as reader:
        return reader.sound, np.concatenate(list(reader.blocks()))


def oracle(file: Path) -> np.ndarray:
    """All samples as floats by soundfile itself, in one go; GSM and G.721 cannot seek and want a number."""
    with soundfile.SoundFile(file) as stream:
        return stream.read(stream.frames, dtype="float32", always_2d=True)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_blocks_hold_the_very_samples_that_soundfile_reads_as_floats(container, subtype, tmp_path, monkeypatch):
    file = tmp_path / "a.bin"  # the content decides, not the name
    rate, n_channels = (8000, 1) if subtype in ONE_CHANNEL_ONLY else (48000, 2)
    soundfile.write(file, rough(10_000, n_channels), rate, format=container, subtype=subtype)
    monkeypatch.setattr("ser_batch.audio.sound.BLOCK_S", 1777 / rate)

    with reader_of(file) as reader:
        blocks = list(reader.blocks())

    assert max(len(block) for block in blocks) == 1777
    assert all(block.dtype == np.float32 for block in blocks)
    samples, expected = np.concatenate(blocks), oracle(file)
    np.testing.assert_array_equal(samples, expected)
    assert reader.sound == Sound(rate, n_channels, len(expected), subtype)
    assert reader.n_samples == len(expected) >= 10_000


def test_a_headerless_gsm_file_is_read_at_8000_hz(tmp_path):
    wav, bare = tmp_path / "a.raw", tmp_path / "A.GSM"
    soundfile.write(wav, rough(1600), 8000, format="RAW", subtype="GSM610")
    bare.write_bytes(wav.read_bytes())

    sound, samples = read(bare)

    with soundfile.SoundFile(wav, samplerate=8000, channels=1, format="RAW", subtype="GSM610") as stream:
        np.testing.assert_array_equal(samples, stream.read(stream.frames, dtype="float32", always_2d=True))
    assert sound == Sound(8000, 1, 1600, "GSM610")


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW"])
def test_full_scale_is_where_an_encoding_clips(subtype, tmp_path):
    file = tmp_path / "a"
    soundfile.write(file, np.clip(3 * rough(4000), -1, 1), 8000, format="AIFF", subtype=subtype)

    sound, samples = read(file)

    assert samples.max() == np.float32(sound.full_scale)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT"])
def test_clipped_sound_of_finer_encodings_counts_as_full_scale(subtype, tmp_path):
    file = tmp_path / "a"
    soundfile.write(file, np.clip(3 * rough(4000), -1, 1), 8000, format="WAV", subtype=subtype)

    sound, samples = read(file)

    assert 0.3 < np.mean(samples >= sound.full_scale) < 0.4  # a third of the noise lay beyond


def test_an_mp3_that_does_not_tell_its_length_is_counted(tmp_path):
    file = tmp_path / "a.mp3"
    quiet_then_loud = np.concatenate([np.zeros(44100), 0.3 * rough(44100)[:, 0]])
    with soundfile.SoundFile(file, "w", 44100, 1, format="MP3", bitrate_mode="VARIABLE") as stream:
        stream.write(quiet_then_loud)
    content = file.read_bytes()
    second_frame = content.index(content[:2], 4)
    assert b"Xing" in content[:second_frame]
    file.write_bytes(content[second_frame:])
    with soundfile.SoundFile(file) as stream:
        assert stream.frames > 100_000  # the guess from the first frame

    sound, samples = read(file)

    assert sound.n_samples == len(samples)
    assert sound.n_samples == pytest.approx(len(quiet_then_loud), abs=3000)


# ---- channels and rates ----


@pytest.mark.parametrize("n_channels", [1, 2, 3, 7])
def test_the_mean_of_all_channels_is_librosas_mono(n_channels):
    block = rough(5000, n_channels)

    np.testing.assert_array_equal(channel_samples(block, -1), librosa.to_mono(block.T))
    for channel in range(n_channels):
        np.testing.assert_array_equal(channel_samples(block, channel), block[:, channel])


RATES = [(8000, 22050), (11025, 22050), (44100, 22050), (48000, 22050), (96000, 8000), (22050, 8000)]


@functools.cache
def resampled(from_rate: int, to_rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    samples = 0.3 * rough(20_011)[:, 0]
    by_librosa = librosa.resample(samples, orig_sr=from_rate, target_sr=to_rate, res_type="soxr_hq")
    return samples, by_librosa, soxr.resample(samples, from_rate, to_rate, quality="HQ")


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_stream_in_any_chunks_is_resampled_as_librosa_does_in_one_go(from_rate, to_rate, data):
    samples, by_librosa, by_soxr = resampled(from_rate, to_rate)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=8)))
    resampler = Resampler(from_rate, to_rate)

    chunks = np.split(samples, cuts)
    out = np.concatenate([resampler.feed(chunk, last=i == len(chunks) - 1) for i, chunk in enumerate(chunks)])

    assert out.dtype == np.float32
    assert len(out) == len(by_librosa) == int(np.ceil(len(samples) * to_rate / from_rate))
    np.testing.assert_array_equal(out[: len(by_soxr)], by_soxr[: len(out)])
    np.testing.assert_allclose(out, by_librosa, atol=1e-6)


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 5000))
def test_the_resampled_length_is_rounded_up_as_librosas(from_rate, to_rate, n):
    out = Resampler(from_rate, to_rate).feed(rough(n)[:, 0], last=True)

    assert len(out) == int(np.ceil(n * to_rate / from_rate))
    assert np.isfinite(out).all()


def test_equal_rates_pass_through():
    samples, resampler = rough(999)[:, 0], Resampler(16000, 16000)

    out = [resampler.feed(samples[:400]), resampler.feed(samples[400:], last=True)]

    np.testing.assert_array_equal(np.concatenate(out), samples)


# ---- what cannot be used ----


def written(n_channels: int = 1, n: int = 24_000, rate: int = 8000, **options: str) -> Callable[[Path], object]:
    return lambda file: soundfile.write(file, 0.5 * rough(n, n_channels), rate, **options)


def cut(container: str, kept: float) -> Callable[[Path], object]:
    """Write a file and keep the first part of its bytes."""

    def make(file: Path) -> None:
        written(format=container)(file)
        os.truncate(file, int(kept * file.stat().st_size))

    return make


def floats(value: float, subtype: str = "FLOAT") -> Callable[[Path], object]:
    def make(file: Path) -> None:
        samples = 0.5 * rough(24_000).astype(np.float64)
        samples[20_000] = value
        soundfile.write(file, samples, 8000, format="WAV", subtype=subtype)

    return make


def flac_without_its_last_frames(file: Path) -> None:
    written(format="FLAC")(file)
    content = file.read_bytes()
    file.write_bytes(content[: content.rindex(b"\xff\xf8")])  # each frame begins so


def broken_flac(file: Path) -> None:
    written(format="FLAC")(file)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    file.write_bytes(content)


def text(file: Path) -> object:
    return file.write_text("Dear colleagues, this is no recording.\n" * 50)


@pytest.mark.parametrize(
    ("name", "make", "stage", "said"),
    [
        ("empty.wav", lambda file: file.touch(), "open", "0 bytes"),
        ("text.wav", text, "open", "cannot be read as audio"),
        ("text.gsm", text, "open", "cannot be read as audio"),
        ("text.au", text, "open", "cannot be read as audio"),
        ("header.wav", cut("WAV", 0.0006), "open", "cannot be read as audio"),
        ("cut.wav", cut("WAV", 0.5), "open", "is cut off"),
        ("byte.wav", cut("WAV", 0.9999), "open", "is cut off"),
        ("cut.aiff", cut("AIFF", 0.5), "open", "is cut off"),
        ("cut.au", cut("AU", 0.5), "open", "is cut off"),
        ("cut.flac", cut("FLAC", 0.5), "open", "announces 3.00 s, it holds 1.54 s"),
        ("broken.flac", broken_flac, "decode", "broken"),
        ("short.flac", flac_without_its_last_frames, "open", "announces 3.00 s, it holds 2.56 s"),
        ("slow.wav", written(rate=999, n=99), "open", "999 Hz"),
        ("fast.wav", written(rate=800_000, n=99), "open", "800000 Hz"),
        ("wide.wav", written(n_channels=65, n=99), "open", "65 channels"),
        ("none.wav", written(n=0), "decode", "no samples"),
        ("nan.wav", floats(np.nan), "decode", "NaN"),
        ("infinite.wav", floats(-np.inf), "decode", "infinite"),
        ("absurd.wav", floats(1e18), "decode", r"reach 1e\+18, where full scale is 1"),
        ("integers.wav", floats(20_000), "decode", "reach 20000, where full scale is 1.0; divide them"),
        ("double.wav", floats(1e300, "DOUBLE"), "decode", "infinite"),
    ],
)
def test_what_cannot_be_used_is_refused_with_stage_name_reason_and_remedy(name, make, stage, said, tmp_path):
    file = tmp_path / name
    make(file)
    open_before = open_files()

    with pytest.raises(RecordingError, match=said) as caught:
        read(file)

    assert caught.value.stage == stage
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).endswith("replace the file or remove it")
    assert open_files() == open_before


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36])
def test_a_streamed_wav_that_could_not_know_its_length_is_read_to_its_end(size, tmp_path):
    file = tmp_path / "a.wav"
    written(format="WAV", subtype="PCM_16")(file)
    content = bytearray(file.read_bytes())
    assert content[36:40] == b"data"
    content[40:44] = struct.pack("<I", size)
    file.write_bytes(content)

    sound, samples = read(file)

    assert sound.n_samples == len(samples) == 24_000


@pytest.mark.parametrize("addition", [b"LIST\4\0\0\0abcd", b"\0" * 777])
def test_bytes_behind_the_sound_do_no_harm(addition, tmp_path):
    file = tmp_path / "a.wav"
    written(format="WAV")(file)
    file.write_bytes(file.read_bytes() + addition)

    assert read(file)[0].n_samples == 24_000


def test_names_in_messages_cannot_reach_a_terminal_raw(tmp_path):
    with pytest.raises(RecordingError) as caught:
        RecordingFile(os.fsencode(tmp_path / "gone"), "a\x1b[31m\nb\udcff.wav")

    assert str(caught.value).startswith(r"a\x1b[31m\nb\udcff.wav: ")
