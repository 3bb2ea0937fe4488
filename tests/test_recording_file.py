"""A recording is opened once and its bytes are read once, whatever is made of it; what is held has a limit."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import reader_of

from ser_batch.audio.recording_file import RecordingFile
from ser_batch.audio.sound import Held, Samples
from ser_batch.errors import RecordingError

SUFFIXES = ("wav", "flac", "mp3", "m4a")


def made(file: Path, seconds: float, n_channels: int = 2, rate: int = 16_000) -> Path:
    """A recording in the format of its suffix: noise that swells three times a second."""
    swell = np.square(np.sin(np.arange(round(seconds * rate)) * (3 * np.pi / rate)))[:, None]
    noise = np.random.default_rng(0).normal(0, 0.1, (len(swell), n_channels))
    samples = np.clip(noise * swell, -1, 1).astype(np.float32)
    file.parent.mkdir(exist_ok=True)
    if file.suffix != ".m4a":
        soundfile.write(file, samples, rate)
        return file
    av = pytest.importorskip("av")
    with av.open(str(file), "w", format="ipod") as out:
        layout = {1: "mono", 2: "stereo"}[n_channels]
        track = out.add_stream("aac", rate=rate, layout=layout)
        values = (samples.reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(values, format="s16", layout=layout)
        frame.sample_rate = rate
        for part in (frame, None):
            out.mux(track.encode(part))
    return file


# ---- how often a run opens and reads a recording ----

# featurize and score as their workers do a shard, in a process of their own: no other part of the run opens files here
COUNTING = """
import json, os, pathlib, sys
from ser_batch.audio import recording_file
from ser_batch.config.features import PRESETS
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.walk import walk
from ser_batch.encoder.model import find_encoder, read_encoder_spec
from ser_batch.featurization import FeaturizeWork
from ser_batch.model.folder import find_model
from ser_batch.runs.ledger import Shard
from ser_batch.runs.worker import do_shard
from ser_batch.scoring.worker import ScoreWork

audio, out, recording_file.HELD_BYTES = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
(out / "_meta" / "ledger").mkdir(parents=True)
encoder = "whisper-tiny.en"
clip, windows = Segmentation(), Segmentation(mode="windows")

def featurize(spec, segmentation, **options):
    return FeaturizeWork(out, "d", spec, segmentation, **options)

model = find_model("open")
works = {
    "featurize clip": featurize(PRESETS["wideband"], clip),
    "featurize clip, encoder": featurize(read_encoder_spec(find_encoder(encoder)), clip, encoder=encoder),
    "featurize windows": featurize(PRESETS["telephone"], windows),
    "score windows": ScoreWork(out, model.folder, model.labels, model.model_id, windows),
}
opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)

def bytes_read():
    lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].removeprefix("rchar: "))

def do(work, file, name):
    (recording,) = walk(file).recordings
    opened.clear()
    before = bytes_read()
    summary = do_shard(work, Shard(name, (recording,)))
    n_bytes = bytes_read() - before
    assert summary.n_rows and not summary.n_rejects, summary
    return [opened.count(recording.file), n_bytes, recording.size]

for name, work in works.items():
    for suffix in ("wav", "m4a"):
        do(work, audio / f"short.{suffix}", "warm-up")  # loads what is loaded once
    counts = {file.name: do(work, file, "part") for file in audio.iterdir()}
    print(json.dumps([name, counts]))
"""


def counts_of(audio: Path, out: Path, held_bytes: int) -> dict[str, dict[str, list[int]]]:
    """How often each kind of work opens each file, the bytes that its process reads meanwhile, the file's size."""
    command = [sys.executable, "-c", COUNTING, str(audio), str(out), str(held_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder with a short and a longer recording of each format."""
    folder = tmp_path_factory.mktemp("opens")
    for suffix in SUFFIXES:
        if suffix == "m4a":
            pytest.importorskip("av")
        made(folder / f"short.{suffix}", 1.0)
        made(folder / f"long.{suffix}", 8.0)
    return folder


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts the bytes that a process reads")
def test_a_recording_is_opened_once_and_read_once(recordings, tmp_path):
    counts = counts_of(recordings, tmp_path / "out", 2 << 20)

    assert len(counts) == 4
    for work, by_file in counts.items():
        assert {name: n_opens for name, (n_opens, _, _) in by_file.items()} == dict.fromkeys(by_file, 1), work
        for suffix in SUFFIXES:
            (_, n_short, short_size), (_, n_long, long_size) = by_file[f"short.{suffix}"], by_file[f"long.{suffix}"]
            # what else a process reads is the same for both, but for a line more or less about its own memory
            assert n_long - n_short == pytest.approx(long_size - short_size, abs=8000), (work, suffix)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts the bytes that a process reads")
def test_one_that_is_too_large_to_be_held_is_opened_once_too(recordings, tmp_path):
    for work, by_file in counts_of(recordings, tmp_path / "out", 0).items():
        for name, (n_opens, n_bytes, size) in by_file.items():
            assert n_opens == 1, (work, name)
            assert n_bytes > 2 * size, (work, name)  # to be hashed, and to be decoded


# ---- the same whether held or not ----


@pytest.mark.parametrize("suffix", [*SUFFIXES, "au", "ogg"])
@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
@pytest.mark.parametrize("held_values", [0, 1 << 20])
def test_each_pass_gives_the_same_blocks(suffix, held_bytes, held_values, tmp_path, monkeypatch):
    file = made(tmp_path / f"a.{suffix}", 3.0)
    monkeypatch.setattr("ser_batch.audio.sound.BLOCK_S", 0.7)
    with reader_of(file) as reader:
        expected = list(reader.blocks())
    monkeypatch.setattr("ser_batch.audio.recording_file.HELD_BYTES", held_bytes)
    monkeypatch.setattr("ser_batch.audio.sound.HELD_VALUES", held_values)

    with reader_of(file) as reader:
        next(reader.blocks())  # given up
        for _ in range(3):
            blocks = list(reader.blocks())
            assert len(blocks) == len(expected)
            for block, own in zip(blocks, expected, strict=True):
                np.testing.assert_array_equal(block, own)
            assert reader.n_samples == reader.sound.n_samples
        assert reader.content_hash == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("held_bytes", [0, 1 << 20])
def test_what_breaks_off_does_so_in_each_pass(held_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.audio.recording_file.HELD_BYTES", held_bytes)
    monkeypatch.setattr("ser_batch.audio.sound.BLOCK_S", 0.5)
    file = made(tmp_path / "a.flac", 3.0)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    file.write_bytes(content)

    with reader_of(file) as reader:
        for _ in range(2):
            with pytest.raises(RecordingError, match="broken after") as caught:
                list(reader.blocks())
            assert caught.value.stage == "decode"


# ---- what is held ----


def test_samples_are_held_up_to_a_limit_and_then_none_of_them(monkeypatch):
    monkeypatch.setattr("ser_batch.audio.sound.HELD_VALUES", 100)
    held, samples = Held(), np.zeros((25, 2), np.float32)
    for _ in range(2):
        held.add(samples)
    assert sum(part.size for part in held.parts or ()) == 100

    held.add(samples[:1])
    assert held.parts is None
    held.add(samples[:1])
    assert held.parts is None


def test_nobody_can_change_the_samples_of_the_next_pass(tmp_path):
    with reader_of(made(tmp_path / "a.wav", 0.1)) as reader:
        block: Samples = next(reader.blocks())
        with pytest.raises(ValueError, match="read-only"):
            block *= 2


PEAK = """
import os, resource, sys
from ser_batch.audio.reader import AudioReader
from ser_batch.audio.recording_file import RecordingFile

def peak(name):
    with RecordingFile(os.fsencode(name), name) as file, AudioReader(file) as reader:
        for _ in range(2):
            n = sum(len(block) for block in reader.blocks())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(peak(sys.argv[1]), peak(sys.argv[2]))
"""


def test_a_worker_holds_no_more_than_the_limits_of_a_file_and_its_samples(tmp_path):
    small, large = tmp_path / "small.wav", tmp_path / "large.wav"
    soundfile.write(small, np.zeros((80_000, 2), np.int16), 8000)
    soundfile.write(large, np.zeros((24_000_000, 2), np.int16), 8000)  # 96 MB, and 192 MB as floats

    done = subprocess.run([sys.executable, "-c", PEAK, small, large], capture_output=True, text=True, check=True)

    before_kb, peak_kb = map(int, done.stdout.split())
    assert peak_kb - before_kb < 64 << 10


def test_up_to_the_limit_no_file_stays_open_and_above_it_one(tmp_path, monkeypatch):
    file = made(tmp_path / "a.wav", 0.1)
    size = file.stat().st_size
    monkeypatch.setattr("ser_batch.audio.recording_file.HELD_BYTES", size)
    with RecordingFile(os.fsencode(file), "a") as opened:
        assert (opened.size, opened.descriptor) == (size, None)
    monkeypatch.setattr("ser_batch.audio.recording_file.HELD_BYTES", size - 1)
    with RecordingFile(os.fsencode(file), "a") as opened:
        descriptor = opened.descriptor
        assert descriptor is not None
        assert os.fstat(descriptor).st_size == size
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda file: None, "ChangedError", "is no longer there.*; run the same command again"),
        (Path.mkdir, "RecordingError", r"cannot be read \(Is a directory\); change its permissions or remove it"),
    ],
)
def test_what_cannot_be_opened_is_told_with_a_remedy(make, error, said, tmp_path):
    make(tmp_path / "a.wav")
    with pytest.raises(RecordingError, match=rf"^a\.wav: {said}$") as caught:
        RecordingFile(os.fsencode(tmp_path / "a.wav"), "a.wav")
    assert (caught.value.stage, type(caught.value).__name__) == ("open", error)
