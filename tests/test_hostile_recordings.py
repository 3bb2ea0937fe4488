"""Recordings made to do harm: headers that lie, and hours of silence in a few kilobytes."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner
from helpers import reader_of

from ser_batch.cli.commands import cli
from ser_batch.config.job import read_job
from ser_batch.config.option_values import ReaderSettings
from ser_batch.config.options import FeaturizeOptions, ScoreOptions
from ser_batch.errors import OutputError, RecordingError, UsageError
from ser_batch.featurization import featurize
from ser_batch.scoring.run import score

DAY_S = 86_400


def wav(
    *,
    n_channels: int = 1,
    rate: int = 8000,
    claimed: int | None = None,
    format_size: int = 16,
    before: bytes = b"",
    samples: bytes = b"\1\0" * 8000,
) -> bytes:
    """A WAV of 16-bit PCM as its arguments say it is."""
    block = 2 * n_channels
    header = struct.pack("<HHIIHH", 1, n_channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, 16)
    data = struct.pack("<4sI", b"data", len(samples) if claimed is None else claimed) + samples
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", format_size) + header + before + data
    return struct.pack("<4sI", b"RIFF", len(body) & 0xFFFFFFFF) + body


def read(content: bytes, file: Path) -> int:
    """The number of samples that can be read."""
    file.write_bytes(content)
    with reader_of(file) as reader:
        return sum(len(block) for block in reader.blocks())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (wav(claimed=0x7FFE0000), "cut off: its header announces 134209.54 s, it holds 1.00 s"),
        (wav(claimed=0x7FFE0000)[:50], "cut off"),
        (wav(n_channels=0), "cannot be read as audio|0 channels|data are broken"),
        (wav(n_channels=256), "256 channels; expected 1 to 64"),
        (wav(n_channels=65_535), "channels|cannot be read as audio|data are broken"),
        (wav(rate=0), "0 Hz|cannot be read as audio"),
        (wav(rate=1), "1 Hz; expected 1000 to 768000"),
        (wav(rate=0xFFFFFFFF), "Hz; expected 1000 to 768000|cannot be read as audio"),
        (wav(format_size=0), "cannot be read as audio"),
        (wav(format_size=0xFFFFFFFF), "cannot be read as audio"),
        (wav(before=struct.pack("<4sI", b"LIST", 0xFFFFFFF0)), "cannot be read as audio|no samples|cut off"),
        (wav(claimed=0, samples=b""), "no samples"),
        (wav(samples=b"\1"), "no samples|cut off"),
    ],
)
def test_a_header_that_lies_is_told_and_costs_nothing(content, said, tmp_path):
    with pytest.raises(RecordingError, match=said) as caught:
        read(content, tmp_path / "bad.wav")

    assert str(caught.value).startswith("bad.wav: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        wav(claimed=0xFFFFFFFF),  # what recorders write that stream
        wav(before=struct.pack("<4sI", b"LIST", 0)),
        wav(before=struct.pack("<4sI4s", b"LIST", 4, b"junk")),
    ],
)
def test_odd_headers_of_good_recordings_are_read(content, tmp_path):
    assert read(content, tmp_path / "odd.wav") == 8000


# ---- bombs ----


def silence(file: Path, duration_s: int, *, rate: int = 8000, n_channels: int = 1) -> Path:
    """Hours of silence; a FLAC of it has a few bytes a second."""
    with soundfile.SoundFile(file, "w", rate, n_channels, "PCM_16", format="FLAC", compression_level=1.0) as out:
        second = np.zeros((rate, n_channels), dtype=np.int16)
        for first in range(0, duration_s, 100):
            out.write(np.tile(second, (min(100, duration_s - first), 1)))
    return file


PEAK = """
import os, resource, sys
from ser_batch.audio.reader import AudioReader
from ser_batch.audio.recording_file import RecordingFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with RecordingFile(os.fsencode(sys.argv[1]), "a") as file, AudioReader(file) as reader:
    n = sum(len(block) for block in reader.blocks())
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("rate", "n_channels", "duration_s"), [(8000, 1, 5400), (192_000, 8, 30)])
def test_a_bomb_takes_no_more_memory_than_a_block(rate, n_channels, duration_s, tmp_path):
    file = silence(tmp_path / "bomb.flac", duration_s, rate=rate, n_channels=n_channels)
    n = duration_s * rate
    assert file.stat().st_size < n * n_channels * 2 / 500  # what comes out of it is so much more

    done = subprocess.run([sys.executable, "-c", PEAK, file], capture_output=True, text=True, check=True, timeout=120)

    n_read, peak_kb = map(int, done.stdout.split())
    assert n_read == n
    assert (
        peak_kb < 220_000
    )  # two blocks of 64 MB at most, and what goes with them; all of the second one would be 184 MB, twice


@pytest.fixture
def long_one(tmp_path):
    """A folder with a good recording and one that lasts too long for a limit of 100 s."""
    folder = tmp_path / "audio"
    folder.mkdir()
    silence(folder / "long.flac", 101)
    tone = 0.3 * np.sin(np.arange(16_000) * 0.2)
    soundfile.write(folder / "good.wav", tone, 8000)
    return folder


@pytest.mark.parametrize("command", ["featurize", "score"])
def test_what_lasts_too_long_is_a_reject_and_its_neighbours_are_done(command, long_one, tmp_path):
    out = tmp_path / "out"
    if command == "featurize":
        options = ["--out", str(out), "--jobs", "1", "--preset", "telephone", "--max-duration", "100"]
        result = CliRunner().invoke(cli, ["featurize", str(long_one), *options])
        assert result.exit_code == 0, result.output
        assert "rejected (open): long.flac: it lasts 101 s; expected at most 100 s; " in result.stderr
    else:
        score(long_one, ScoreOptions(out=out, jobs=1, model="fast", max_duration=100))
    side = out / "_tables" if command == "score" else out / "_meta"

    (reject,) = pq.read_table(next(side.glob("*rejects.parquet"))).to_pylist()
    assert (reject["path"], reject["stage"], reject["error"]) == ("long.flac", "open", "RecordingError")
    assert reject["message"].startswith("long.flac: it lasts 101 s; expected at most 100 s; ")
    assert "--max-duration" in reject["message"]
    rows = [row for part in out.glob("part-*.parquet") for row in pq.read_table(part)["path"].to_pylist()]
    assert set(rows) == {"good.wav"}


def test_what_has_to_be_decoded_to_know_its_length_is_decoded_no_further_than_the_limit(tmp_path):
    file, limit = tmp_path / "a.mp3", ReaderSettings(max_duration_s=10)
    soundfile.write(file, np.zeros(8000 * 300), 8000)  # decoded by blocks of 30 s
    said = "it lasts at least 30 s; expected at most 10 s"
    with (
        pytest.raises(RecordingError, match=said) as caught,
        reader_of(file, settings=limit),
    ):
        pass
    assert caught.value.stage == "decode"

    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.aac"), "w", format="adts") as out:
        track = out.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 60), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(packet for part in (frame, None) for packet in track.encode(part))
    said = "it lasts at least 10 s; expected at most 10 s"
    with (
        pytest.raises(RecordingError, match=said),
        reader_of(tmp_path / "a.aac", settings=limit),
    ):
        pass


def test_a_day_is_the_longest_unless_said_otherwise():
    assert FeaturizeOptions().max_duration == ScoreOptions().max_duration == DAY_S
    help_text = CliRunner().invoke(cli, ["score", "--help"]).output
    assert "--max-duration SECONDS" in help_text
    assert "86400" in help_text


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_longest_duration_that_is_none_is_wrong_usage(value):
    with pytest.raises(UsageError, match=r"--max-duration .*; expected a number above 0"):
        ScoreOptions(max_duration=value)


def test_a_job_says_it_too(tmp_path):
    (tmp_path / "job.toml").write_text('[featurize]\naudio = "a"\nmax_duration = 60\n')
    ((_, options),) = read_job(tmp_path / "job.toml").steps
    assert options == FeaturizeOptions(max_duration=60.0)
    ((_, options),) = read_job(tmp_path / "job.toml", ("featurize.max_duration=inf",)).steps
    assert options.stored()["max_duration"] == "inf"


def test_an_output_belongs_to_the_limit(long_one, tmp_path):
    out = tmp_path / "out"
    featurize(long_one, FeaturizeOptions(out=out, jobs=1, preset="telephone"))
    settings = json.loads((out / "_meta" / "run.json").read_text(encoding="utf-8"))
    assert settings["max_duration"] == 86400
    with pytest.raises(OutputError, match=r"max_duration was 86400\.0 and is 100\.0"):
        featurize(long_one, FeaturizeOptions(out=out, jobs=1, preset="telephone", max_duration=100))
