"""Files without a header: read as they are said to be, and only where their content tells nothing."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import reader_of

from ser_batch.audio.sound import Sound
from ser_batch.config.option_values import RawFormat, ReaderSettings
from ser_batch.config.options import FeaturizeOptions, ScoreOptions
from ser_batch.corpus.walk import walk
from ser_batch.errors import OutputError, RecordingError, UsageError
from ser_batch.featurization import FeaturizeSummary, featurize
from ser_batch.scoring.run import score
from ser_batch.scoring.summary import ScoreSummary
from ser_batch.tables.parquet import read_parts

# what the user says, and what libsndfile calls it
ENCODINGS = [
    ("mulaw:8000:1", "ULAW", "FILE"),
    ("mulaw:8000:2", "ULAW", "FILE"),
    ("alaw:8000:1", "ALAW", "FILE"),
    ("gsm:8000:1", "GSM610", "FILE"),
    ("vox:6000:1", "VOX_ADPCM", "FILE"),
    ("s16le:16000:2", "PCM_16", "LITTLE"),
    ("s16be:44100:1", "PCM_16", "BIG"),
    ("u8:11025:3", "PCM_U8", "FILE"),
]
HEADERLESS = ["a.ulaw", "a.ul", "a.alaw", "a.al", "a.raw", "a.pcm", "a.vox", "A.RAW"]


def noise(n: int, n_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(n).normal(0, 0.2, (n, n_channels)).clip(-1, 1).astype(np.float32)


def read(file: Path, raw_format: str | None = None) -> tuple[Sound, np.ndarray]:
    said = RawFormat.parse(raw_format) if raw_format else None
    with reader_of(file, settings=ReaderSettings(said)) as reader:
        return reader.sound, np.concatenate(list(reader.blocks()))


def bare(file: Path, raw_format: str, subtype: str, endian: str = "FILE", n: int = 4800) -> Path:
    said = RawFormat.parse(raw_format)
    samples = noise(n, said.n_channels)
    with file.open("wb") as stream:
        soundfile.write(stream, samples, said.sampling_rate, format="RAW", subtype=subtype, endian=endian)
    return file


@pytest.mark.parametrize(("raw_format", "subtype", "endian"), ENCODINGS)
def test_a_file_without_a_header_is_read_as_it_is_said_to_be(raw_format, subtype, endian, tmp_path):
    file = bare(tmp_path / "a.raw", raw_format, subtype, endian)
    said = RawFormat.parse(raw_format)

    sound, samples = read(file, raw_format)

    assert sound == Sound(said.sampling_rate, said.n_channels, len(samples), subtype)
    loss = samples[:4800] - noise(4800, said.n_channels)
    assert len(samples) == 4800
    # of 8 bits and adaptive codecs more is lost; of noise GSM keeps the level only
    assert np.sqrt(np.mean(loss**2)) < {"PCM_16": 1e-4, "GSM610": 0.25, "VOX_ADPCM": 0.15}.get(subtype, 0.01)
    assert samples.std() == pytest.approx(0.2, rel=0.3)


def test_bytes_of_half_a_sample_at_the_end_are_left_out(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(7))

    assert read(tmp_path / "a.raw", "s16le:8000:2")[1].shape == (1, 2)


@pytest.mark.parametrize("name", [*HEADERLESS, "a.gsm", "a.wav"])
@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "PCM_16"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("MP3", "")]
)
def test_what_has_a_header_is_what_the_header_says(name, container, subtype, tmp_path):
    with (tmp_path / name).open("wb") as stream:
        soundfile.write(stream, noise(9600), 16000, format=container, subtype=subtype or None)

    sound, _ = read(tmp_path / name, "mulaw:8000:1")

    assert sound.sampling_rate == 16000
    assert sound.subtype == (subtype or "MPEG_LAYER_III")


def test_gsm_is_known_by_its_frames(tmp_path):
    file = bare(tmp_path / "a.gsm", "gsm:8000:1", "GSM610")

    assert read(file, "mulaw:8000:1")[0] == read(file)[0] == Sound(8000, 1, 4800, "GSM610")


def test_what_is_named_gsm_and_is_none_may_be_said_to_be_something_else(tmp_path):
    (tmp_path / "a.gsm").write_bytes(b"\x7f" * 800)

    assert read(tmp_path / "a.gsm", "mulaw:8000:1")[0] == Sound(8000, 1, 800, "ULAW")
    with pytest.raises(RecordingError, match=r"it is no GSM 6\.10, as --raw-format gsm:8000:1 says"):
        read(tmp_path / "a.gsm", "gsm:8000:1")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    # the quietest codes of G.711, and what MP3 and AAC begin with
    "beginning",
    [
        b"",
        b"\xff" * 64,
        b"\x7f" * 64,
        b"\xff\xfe\x7b",
        b"\xff\xfb\x90\x00",
        b"\xff\xf1\x50\x80",
        b"\xd5" * 64,
        b"\0" * 9,
    ],
)
def test_samples_are_not_taken_for_compressed_sound(beginning, seed, tmp_path):
    random = np.random.default_rng(seed)
    quiet = random.choice(np.array([0xFF, 0x7F, 0xFE, 0xFB, 0xF1, 0x7B], dtype=np.uint8), 6000)
    for rest in (random.bytes(6000), quiet.tobytes(), bytes(6000)):
        file = tmp_path / "a.ul"
        file.write_bytes(beginning + rest)

        assert read(file, "mulaw:8000:1")[0] == Sound(8000, 1, len(beginning + rest), "ULAW")


@pytest.mark.parametrize("name", HEADERLESS)
def test_a_file_without_a_header_is_rejected_with_the_option_that_reads_it(name, tmp_path):
    bare(tmp_path / name, "mulaw:8000:1", "ULAW")

    with pytest.raises(RecordingError, match="say what it holds with --raw-format, such as mulaw:8000:1") as caught:
        read(tmp_path / name)

    assert caught.value.stage == "open"


def test_other_files_are_not_read_as_samples(tmp_path):
    for name in ("a.wav", "a.mp3", "a.m4a"):
        bare(tmp_path / name, "mulaw:8000:1", "ULAW")
        with pytest.raises(RecordingError, match=r"cannot be read as audio.*replace the file or remove it"):
            read(tmp_path / name, "mulaw:8000:1")


# ---- the option ----


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((text, "expected ENCODING:RATE:CHANNELS, such as mulaw:8000:1") for text in ("", "mulaw", "mulaw:8000")),
        *((text, "expected ENCODING:RATE:CHANNELS") for text in ("mulaw:8000:1:1", "mulaw:8k:1", "mulaw:8000:-1")),
        ("mulaw:٨٠٠٠:1", "expected ENCODING:RATE:CHANNELS"),
        ("ulaw:8000:1", "encoding 'ulaw'; expected one of mulaw, alaw, gsm, vox, s16le, s16be, u8"),
        ("mulaw:999:1", "999 Hz; expected a rate from 1000 to 768000"),
        ("mulaw:8000:0", "0 channels of mulaw; expected 1 to 64"),
        ("mulaw:8000:65", "65 channels of mulaw; expected 1 to 64"),
        ("gsm:8000:2", "2 channels of gsm; expected 1$"),
        ("vox:8000:2", "2 channels of vox; expected 1$"),
    ],
)
@pytest.mark.parametrize("options", [FeaturizeOptions, ScoreOptions])
def test_a_malformed_option_is_refused_with_what_was_expected(text, said, options):
    with pytest.raises(UsageError, match=said):
        options(raw_format=text)


def test_the_walk_finds_what_call_archives_hold(tmp_path):
    names = {
        *("a.m4a", "a.m4b", "a.aac", "a.amr", "a.webm", "a.mp4", "a.mov", "a.3gp", "a.mkv", "a.mka", "a.wma"),
        *("a.caf", "a.w64", "a.oga", "a.ulaw", "a.ul", "a.alaw", "a.al", "a.raw", "a.pcm", "a.vox", "a.gsm"),
    }
    for name in names:
        (tmp_path / name).write_bytes(b"x")

    assert {recording.path for recording in walk(tmp_path).recordings} == names


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "audio"
    root.mkdir()
    for name in ("a.ul", "b.raw"):
        bare(root / name, "mulaw:8000:1", "ULAW", n=16000)
    soundfile.write(root / "c.wav", noise(16000), 8000, subtype="PCM_16")
    return root


@pytest.mark.parametrize("jobs", [1, 2])
def test_featurize_tells_its_workers(archive, tmp_path, jobs):
    options = FeaturizeOptions(out=tmp_path / "out", raw_format="mulaw:8000:1", jobs=jobs, verify=3)

    summary = featurize(archive, options)

    assert not summary.rejected
    assert summary.verified is not None
    assert summary.verified.n_recordings == 1  # librosa knows no more than the WAV
    rows = read_parts(options.out, ["path", "sampling_rate", "n_channels", "duration_s"]).to_pylist()
    assert {row.pop("path") for row in rows} == {"a.ul", "b.raw", "c.wav"}
    assert all(row == {"sampling_rate": 8000, "n_channels": 1, "duration_s": 2.0} for row in rows)


def test_score_tells_its_workers(archive, tmp_path):
    summary = score(archive, ScoreOptions(out=tmp_path / "p.parquet", raw_format="mulaw:8000:1", jobs=1))

    assert not summary.rejected
    assert summary.n_recordings == 3


@pytest.mark.parametrize("stage", ["featurize", "score"])
def test_an_output_belongs_to_the_format_only_where_one_was_given(stage, archive, tmp_path):
    def run(raw_format: str | None) -> FeaturizeSummary | ScoreSummary:
        if stage == "featurize":
            return featurize(archive, FeaturizeOptions(out=tmp_path / "out", raw_format=raw_format, jobs=1))
        return score(archive, ScoreOptions(out=tmp_path / "out", raw_format=raw_format, jobs=1))

    first = run(None)
    assert {reject.path for reject in first.rejected} == {"a.ul", "b.raw"}
    assert all("--raw-format" in reject.message for reject in first.rejected)
    assert run(None).n_done == 0

    with pytest.raises(OutputError, match="raw_format was None and is 'mulaw:8000:1'"):
        run("mulaw:8000:1")
