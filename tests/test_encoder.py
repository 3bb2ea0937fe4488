"""From samples to embeddings: beside Hugging Face's values, however samples come, at any length; broken folders."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import encoder_oracle as oracle
import msgspec
import numpy as np
import psutil
import pytest

from ser_batch.encoder import pooling
from ser_batch.encoder.model import (
    GRAPH_FILE,
    SPEC_FILE,
    find_encoder,
    load_encoder,
    read_encoder_spec,
)
from ser_batch.encoder.pooling import MIN_TOKENS, SegmentEncoder, level_speech
from ser_batch.errors import EncoderError, UsageError
from ser_batch.storage.installed import INSTALLED_ENCODERS

NAME = "whisper-tiny.en"
RATE, TOKEN = oracle.RATE, oracle.TOKEN


@pytest.fixture(scope="module")
def encoder():
    """The encoder that ships."""
    return load_encoder(find_encoder(NAME))


@pytest.fixture
def folder(tmp_path):
    """A copy of its folder, to be broken."""
    return Path(shutil.copytree(find_encoder(NAME), tmp_path / NAME))


class Counting:
    """A source of tokens that are easily known: the loudness of each, and how many came before in the block."""

    def __init__(self, spec):
        self.spec = msgspec.structs.replace(spec, outputs=(1,), width=2)
        self.n_blocks = 0

    def tokens(self, samples, kept=None):
        self.n_blocks += 1
        loudness = np.abs(samples).reshape(-1, TOKEN).max(axis=1)
        tokens = np.stack((loudness, np.arange(len(loudness))), axis=1)[:, None].astype(np.float32)
        return tokens if kept is None else tokens[kept]


def embed(encoder, samples, *ends):
    """The embedding of samples fed in pieces."""
    segment = encoder.segment() if hasattr(encoder, "segment") else SegmentEncoder(encoder)
    for piece in np.split(samples, ends):
        segment.feed(piece)
    return segment.finish()


def tone(seconds, amplitude=0.1):
    return (amplitude * np.sin(np.arange(round(seconds * RATE)) * 0.3)).astype(np.float32)


@pytest.mark.parametrize("name", oracle.LENGTHS)
def test_tokens_are_those_of_hugging_face(encoder, name):
    wanted = np.load(oracle.VALUES)[f"tiny_{name}"]
    found = encoder.tokens(oracle.recording(name))
    assert found.shape == (-(-oracle.LENGTHS[name] // TOKEN), 3, 384)
    assert found.dtype == np.float32
    assert np.abs(found[oracle.places(len(found))] - wanted).max() < 2e-3
    assert np.abs(wanted).max() > 3  # it is no test of zeros


def test_tokens_that_are_not_kept_change_nothing(encoder):
    samples = oracle.recording("window")
    kept = np.arange(202) % 3 == 0
    np.testing.assert_allclose(encoder.tokens(samples, kept), encoder.tokens(samples)[kept], atol=1e-4)


@pytest.mark.parametrize("ends", [(1,), (320, 640), (11_000, 11_001, 40_000), tuple(range(777, 64_640, 777))])
def test_a_segment_is_the_same_bit_for_bit_however_it_is_fed(encoder, ends):
    samples = oracle.recording("window")
    whole, pieces = embed(encoder, samples), embed(encoder, samples, *ends)
    assert np.array_equal(whole.values, pieces.values)
    assert whole.n_tokens == pieces.n_tokens > 50
    assert whole.values.shape == (encoder.spec.embedding_size,) == (2304,)


def test_a_segment_is_the_same_in_another_process_after_others(encoder):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import encoder_oracle as oracle
from ser_batch.encoder.model import find_encoder, load_encoder
encoder = load_encoder(find_encoder({NAME!r}))
for name in ("longer", "short", "window"):
    segment = encoder.segment()
    segment.feed(oracle.recording(name))
    values = segment.finish().values
print(values.tobytes().hex())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr == ""  # nothing is said while it loads
    assert done.stdout.strip() == embed(encoder, oracle.recording("window")).values.tobytes().hex()


def test_values_are_mean_and_deviation_over_the_tokens_of_speech(encoder):
    leveled, is_speech = level_speech(pooling.padded(oracle.recording("longer"), encoder.spec), encoder.spec)
    tokens = encoder.tokens(leveled)[is_speech].astype(np.float64)
    wanted = np.concatenate([np.concatenate((tokens[:, i].mean(axis=0), tokens[:, i].std(axis=0))) for i in range(3)])
    found = embed(encoder, oracle.recording("longer"))
    assert found.n_tokens == is_speech.sum() < len(is_speech)
    np.testing.assert_allclose(found.values, wanted, atol=1e-4)


def test_a_quieter_recording_has_the_same_embedding(encoder):
    samples = oracle.recording("window")
    loud, quiet = embed(encoder, samples), embed(encoder, samples * np.float32(0.125))
    np.testing.assert_allclose(quiet.values, loud.values, atol=1e-4)


def test_digital_silence_is_that_of_all_its_tokens(encoder):
    found = embed(encoder, np.zeros(RATE, dtype=np.float32))
    assert found.n_tokens == 0
    mean = encoder.tokens(np.zeros(RATE, dtype=np.float32))[:, 0].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(found.values[:384], mean, atol=1e-5)
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize("n", [0, 1, 319, 320, 800])
def test_a_segment_may_be_as_short_as_it_likes(encoder, n):
    found = embed(encoder, tone(1)[1 : n + 1])
    assert found.n_tokens == -(-n // TOKEN)
    assert np.isfinite(found.values).all()
    assert np.array_equal(found.values[384:768], np.zeros(384)) == (n <= TOKEN)  # one token has no deviation


def test_exactly_thirty_seconds_are_one_block_and_more_are_two(encoder):
    counting = Counting(encoder.spec)
    for n, blocks in ((480_000, 1), (480_001, 2), (960_000, 2), (960_001, 3)):
        counting.n_blocks = 0
        assert embed(counting, tone(n / RATE), 100_000).n_tokens == -(-n // TOKEN)
        assert counting.n_blocks == blocks


def test_more_than_a_block_at_once_is_refused(encoder):
    with pytest.raises(ValueError, match=r"1501 tokens at once; expected at most 1500: use segment\(\)"):
        encoder.tokens(np.zeros(480_001, dtype=np.float32))


def test_a_block_of_thirty_seconds_is_encoded(encoder):
    found = embed(encoder, np.resize(oracle.recording("longer"), 480_000))
    assert found.n_tokens > 700
    assert np.isfinite(found.values).all()


def test_speech_is_what_is_at_most_so_much_quieter_than_the_loudest_token(encoder):
    spec = encoder.spec
    parts = [tone(0.2, amplitude) for amplitude in (0.2, 0.2 * 10 ** (-29 / 20), 0.2 * 10 ** (-31 / 20))]
    leveled, is_speech = level_speech(np.concatenate(parts), spec)
    assert is_speech.tolist() == [True] * 20 + [False] * 10
    rms_dbfs = 10 * np.log10(np.square(leveled[: 20 * TOKEN], dtype=np.float64).mean())
    assert rms_dbfs == pytest.approx(spec.level_dbfs, abs=1e-4)
    assert leveled.dtype == np.float32


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_no_level_is_too_low_or_high(encoder, scale):
    leveled, is_speech = level_speech(tone(0.2, scale), encoder.spec)
    assert is_speech.all()
    assert 10 * np.log10(np.square(leveled, dtype=np.float64).mean()) == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("n_speech", [MIN_TOKENS - 1, MIN_TOKENS])
def test_fewer_than_three_tokens_of_speech_are_taken_with_all_others(encoder, n_speech):
    samples = np.concatenate((tone(n_speech * 0.02), np.zeros(20 * TOKEN, dtype=np.float32)))
    found = embed(Counting(encoder.spec), samples)
    n = n_speech if n_speech >= MIN_TOKENS else n_speech + 20
    assert found.n_tokens == n_speech
    assert found.values[1] == np.float32((n - 1) / 2)  # the mean of the tokens' numbers


def test_speech_may_begin_after_a_block_of_silence_and_end_before_one(encoder):
    silence = np.zeros(480_000, dtype=np.float32)
    counting = Counting(encoder.spec)
    found = embed(counting, np.concatenate((silence, tone(0.2), silence[: -len(tone(0.2))], silence)))
    assert found.n_tokens == 10
    assert found.values[1] == np.float32(4.5)
    assert counting.n_blocks == 2  # nothing is taken of the last one


def test_an_hour_in_one_segment_takes_no_more_memory_than_a_minute(encoder):
    counting = Counting(encoder.spec)
    segment = SegmentEncoder(counting)
    second = tone(1)
    process = psutil.Process()
    for _ in range(60):
        segment.feed(second)
    before = process.memory_info().rss
    for _ in range(59 * 60):
        segment.feed(second)
    assert process.memory_info().rss - before < 20e6  # the samples are 230 MB
    assert counting.n_blocks == 120
    assert segment.finish().n_tokens == 180_000


def test_memory_does_not_grow_with_segments_of_many_lengths(encoder):
    lengths = np.random.default_rng(0).integers(100, 60_000, 60)
    samples = oracle.recording("window")
    for n in (64_000, *lengths[:20]):
        embed(encoder, samples[:n])
    process = psutil.Process()
    before = process.memory_info().rss
    for n in lengths[20:]:
        embed(encoder, samples[:n])
    assert process.memory_info().rss - before < 20e6


def test_importing_the_module_does_not_load_the_runtime():
    code = "import ser_batch.encoder, sys; print('onnxruntime' in sys.modules, 'onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False"]


def test_the_runtime_collects_nothing_to_send(folder, tmp_path):
    code = f"from pathlib import Path; from ser_batch.encoder import model; model.load_encoder(Path({str(folder)!r}))"
    own = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    surroundings = {name: value for name, value in os.environ.items() if name not in own}
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=surroundings | {"HOME": str(home)})
    assert not list(home.rglob("*"))  # with telemetry, an identifier of the machine and a database of events


# ------------------------------------------------------------------------------------------------ names and folders


def test_an_encoder_is_found_by_name_or_folder(folder, monkeypatch):
    assert INSTALLED_ENCODERS[NAME] == find_encoder(NAME)
    assert find_encoder(folder) == folder
    monkeypatch.chdir(folder.parent)
    assert find_encoder(NAME) == Path(NAME)  # a folder of that name comes first


def test_another_name_gets_a_hint():
    with pytest.raises(UsageError, match=r"encoder whisper-tiny: no such folder .*; did you mean whisper-tiny\.en\?"):
        find_encoder("whisper-tiny")


def change(folder, **fields):
    """Write encoder.json with other fields; None removes one."""
    path = folder / SPEC_FILE
    values = {**json.loads(path.read_text(encoding="utf-8")), **fields}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": None}, "no width; it is not complete"),
        ({"width": "384"}, 'width is "384"; expected a whole number, got text'),
        ({"n_mels": 0}, "n_mels"),
        ({"speech_range_db": -1}, "speech_range_db"),
        ({"outputs": []}, "outputs"),
        ({"sha256": "abc"}, "sha256"),
        ({"padding": "30 s"}, "padding"),
        ({"schema_version": 2}, "schema_version"),
        ({"color": "blue"}, "color"),
        ({"width": 512}, r"\('tokens', \[3, 384\]\).* expected .*\('tokens', \[3, 512\]\)"),
        ({"outputs": [1, 2]}, r"\[3, 384\].* expected .*\[2, 384\]"),
        ({"n_mels": 128}, r"\('mel', \[80\]\).* expected .*\('mel', \[128\]\)"),
        ({"max_tokens": 3000}, r"'1500'.* expected .*'3000'"),
        ({"seconds_per_token": 0.04}, "tokens of 640 samples with hop_length 160 .*; expected two hops per token"),
        ({"sampling_rate": 8000}, "tokens of 160 samples"),
        ({"n_fft": 2048}, "n_fft 2048"),
        ({"sha256": "0" * 64}, "SHA-256 [0-9a-f]{64}, expected 0{64}"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(EncoderError, match=message) as caught:
        load_encoder(folder)
    assert SPEC_FILE in str(caught.value)
    assert "convert again" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"encoder": "\x00'])
def test_metadata_that_is_no_object_is_refused(folder, text):
    (folder / SPEC_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(EncoderError, match=re.escape(SPEC_FILE)):
        read_encoder_spec(folder)


def test_a_folder_without_its_files_is_refused(folder):
    (folder / GRAPH_FILE).unlink()
    with pytest.raises(EncoderError, match=r"encoder\.onnx: missing; copy"):
        load_encoder(folder)
    (folder / SPEC_FILE).unlink()
    with pytest.raises(EncoderError, match=r"no encoder\.json; expected a folder made by `ser-batch encoder convert`"):
        load_encoder(folder)


def test_an_altered_graph_is_refused(folder):
    path = folder / GRAPH_FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"encoder\.onnx: SHA-256 .* expected .* copy the whole folder again"):
        load_encoder(folder)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a" * 50])
def test_what_is_no_graph_is_refused(folder, content):
    (folder / GRAPH_FILE).write_bytes(content)
    change(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(EncoderError, match=r"encoder\.onnx: "):
        load_encoder(folder)


def test_another_encoder_than_a_model_was_made_with_is_refused(folder):
    own = read_encoder_spec(folder)
    moved = msgspec.structs.replace(own, source="elsewhere", license="MIT-0", encoder="renamed")
    load_encoder(folder, expected=moved)  # what says nothing about the numbers may differ
    with pytest.raises(EncoderError, match=r"another encoder than expected: level_dbfs -23.0, expected -20.0; name"):
        load_encoder(folder, expected=msgspec.structs.replace(own, level_dbfs=-20.0))


def test_an_embedding_cannot_be_changed(encoder):
    with pytest.raises(dataclasses.FrozenInstanceError):
        embed(encoder, tone(0.1)).n_tokens = 3


def test_the_license_of_what_ships_is_told(root, encoder):
    notice = (root / "NOTICE").read_text(encoding="utf-8")
    assert encoder.spec.license == "MIT"
    assert "Copyright (c) 2022 OpenAI" in notice
    assert "Permission is hereby granted, free of charge" in notice
