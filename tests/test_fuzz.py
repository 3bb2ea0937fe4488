"""Whatever comes from outside: a result, or an error of this project that names the file; nothing else.

The quick run tries some hundred inputs for each target, always the same ones. `SER_BATCH_FUZZ_MINUTES=10` tries others,
for so many minutes a target, and says how many. The input that is being tried lies in the test's temporary folder, so
that one that ends the process can be found; one that takes 30 s ends it, too.
"""

import faulthandler
import hashlib
import io
import json
import os
import resource
import secrets
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers import reader_of
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from model_json import MINIMAL, schema
from test_layout import CONTAINERS, DELAY_S, TRAILING

from ser_batch.cli.console import Output
from ser_batch.cli.summaries import print_model
from ser_batch.config.features import FeatureSpec
from ser_batch.config.job import read_job
from ser_batch.config.option_values import RawFormat, ReaderSettings
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.known_corpora import CORPORA, parse_name
from ser_batch.corpus.labels import OUR_LABELS, join_labels
from ser_batch.corpus.manifest import Metadata, Recording
from ser_batch.encoder.model import read_encoder_spec
from ser_batch.errors import EncoderError, InputError, ModelError, RecordingError, SerBatchError, UsageError
from ser_batch.model.folder import load_model, network_contents
from ser_batch.model.schema import model_id_of
from ser_batch.network.keras_file import read_saved
from ser_batch.report.pages import write_page
from ser_batch.scoring.summary import ModelSummary
from ser_batch.storage.installed import INSTALLED_ENCODERS

MINUTES = float(os.environ.get("SER_BATCH_FUZZ_MINUTES", "0"))
HANG_S = 30
MOST_GROWTH_KB = 1_000_000
LABELS = ("angry", "sad")
EMOTIONS = ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")
ROOT = Path(__file__).parent.parent


def fuzz(check: Callable[..., None], *drawn: st.SearchStrategy, examples: int) -> None:
    """Call `check` with what the strategies give, so often, or as long as the environment says."""
    n_tried = 0

    def tried(values):
        nonlocal n_tried
        n_tried += 1
        faulthandler.dump_traceback_later(HANG_S, exit=True, file=2)  # the process's own stderr
        try:
            check(*values)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def run(**how) -> None:
        @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **how)
        @seed(secrets.randbits(64) if MINUTES else 0)
        @given(st.tuples(*drawn))
        def once(values):
            tried(values)

        once()

    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not MINUTES:
        run(max_examples=examples, phases=[Phase.generate])
    end = time.monotonic() + 60 * MINUTES
    try:
        while time.monotonic() < end:
            run(max_examples=200, phases=[Phase.generate])
    finally:
        if MINUTES:
            print(f"\n{check.__name__}: {n_tried} inputs", file=sys.__stderr__, flush=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb < MOST_GROWTH_KB


def check_told(error: SerBatchError, *names: str) -> None:
    """A message that names what it is about, of a length to be read, and nothing that steers a terminal."""
    assert str(error).isprintable()
    assert any(name in str(error) for name in names), error
    assert len(str(error)) <= 2000
    assert getattr(error, "stage", "open") in ("open", "decode")


# ---- changed bytes ----

INTERESTING = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\1",
]
CHANGE = st.tuples(
    st.sampled_from(["put", "insert", "drop", "repeat", "flip", "cut"]),
    st.integers(0, 2**16),
    st.one_of(st.sampled_from(INTERESTING), st.binary(min_size=1, max_size=8)),
    st.integers(1, 300),
    st.booleans(),
)
CHANGES = st.lists(CHANGE, max_size=6)


def changed(content: bytes, changes: list[tuple[str, int, bytes, int, bool]]) -> bytes:
    """Change some places; half of them in the first 200 bytes, where headers are."""
    data = bytearray(content)
    for what, place, value, length, is_early in changes:
        at = place % max(1, min(len(data), 200) if is_early else len(data))
        if what == "put":
            data[at : at + len(value)] = value
        elif what == "insert":
            data[at:at] = value
        elif what == "drop":
            del data[at : at + length]
        elif what == "repeat":
            data[at:at] = data[at : at + length]
        elif what == "flip" and data:
            data[at] ^= 1 << place % 8
        elif what == "cut":
            del data[max(at, 12) :]
    return bytes(data)


# ---- names ----


@st.composite
def names(draw):
    """What a corpus's pattern matches, changed at one place or not, or anything."""
    corpus = draw(st.sampled_from(list(CORPORA.values())))
    name = draw(st.one_of(st.from_regex(corpus.pattern, fullmatch=True), st.text(max_size=40)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(name)))
        name = name[:at] + draw(st.text(max_size=3)) + name[at + draw(st.integers(0, 2)) :]
    return name


def test_parse_name():
    def check_name(name: str, folder: str, corpus: str) -> None:
        said = parse_name(name, folder=folder, corpus=corpus)
        if said is not None:
            assert said.corpus in CORPORA
            assert said.emotion is None or said.emotion in OUR_LABELS
            assert said.speaker is not None
            assert said.speaker.isprintable()
            assert str(said.statement).isprintable()

    fuzz(check_name, names(), st.text(max_size=5), st.sampled_from(["auto", "none", *CORPORA]), examples=60)


# ---- labels ----

LABELS_CSV = (
    b"path,emotion,speaker,sex,intensity,statement,corpus,channel,start_s,end_s,p_angry,p_sad\n"
    b"a.wav,sad,anna,female,strong,Dogs,calls,0,0.5,1.5,3,1\n"
    b'"b, c.wav",angry,"ber""t",male,,,,-1,,,,2\nd.wav,,,,,,,,,,0,7\n'
)
CELL = st.one_of(
    *(
        st.sampled_from(
            ["", "nan", "inf", "-1", "1e308", "1e-320", "9" * 400, "0x1", "sad", "\x1b[31m", "\ud7ff", "٣"]
        ),
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.floats().map(str),
)


def join(file: Path, timed: bool) -> None:
    recordings = [
        Recording(path=path, file=path.encode(), size=1, mtime_ns=1, metadata=Metadata())
        for path in ("a.wav", "b, c.wav", "d.wav")
    ]
    try:
        joined = join_labels(recordings, file, timed=timed)
    except InputError as error:
        check_told(error, file.name)
        return
    for recording in joined.recordings:
        for row in recording.labels:
            assert row.start_s is None or (row.end_s is not None and 0 <= row.start_s < row.end_s < 1e10)
            assert row.channel is None or -1 <= row.channel < 2**15
            assert not row.votes or sum(share for _, share in row.votes) == pytest.approx(1)


def test_labels_csv(tmp_path):
    file = tmp_path / "labels.csv"

    def check_csv(changes, cells, timed: bool) -> None:
        content = changed(LABELS_CSV, changes)
        if cells:
            content += ("a.wav," + ",".join(cells) + "\n").encode()
        file.write_bytes(content)
        join(file, timed)

    fuzz(check_csv, CHANGES, st.lists(CELL, max_size=12), st.booleans(), examples=100)


def test_labels_parquet(tmp_path):
    file = tmp_path / "labels.parquet"
    stream = io.BytesIO()
    table = {"path": ["a.wav", "d.wav"], "emotion": ["sad", None], "start_s": [0.5, 1.0], "end_s": [1.0, 2.0]}
    pq.write_table(pa.table(table), stream)

    def check_parquet(changes, at_end: bool) -> None:
        whole = stream.getvalue()
        # the footer, at the end, is what is looked at first
        file.write_bytes(changed(whole[::-1], changes)[::-1] if at_end else changed(whole, changes))
        join(file, timed=True)

    fuzz(check_parquet, CHANGES, st.booleans(), examples=50)


# ---- jobs ----

JOBS = [file.read_bytes() for file in sorted((ROOT / "jobs").glob("*.toml"))]
KEYS = ["epochs", "jobs", "window", "hop", "limit", "seed", "seeds", "since", "raw_format", "channels", "split", "out"]
KEYS += [
    "max_duration",
    "channel_roles",
    "only",
    "variants",
    "labels",
    "model",
    "min_speech",
    "segments",
    "conditions",
]
VALUES = st.one_of(
    st.sampled_from(["-1", "1e400", "nan", "inf", "9" * 500, "1" * 5000, "0x" + "f" * 5000, "[" * 3000, "{}", "[[1]]"]),
    st.sampled_from(['"mulaw:' + "1" * 5000 + ':1"', '"' + "1" * 5000 + '"', '"' + "1" * 5000 + '=a"', '"9999999w"']),
    st.sampled_from(['"speaker:' + "1" * 5000 + '"', '"noise' + "9" * 400 + '"', '"\\u0000"', "1979-05-27", "true"]),
    st.text(max_size=10),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
)
OVERRIDES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["synth", "featurize", "train", "score", "x"]), st.sampled_from(KEYS), VALUES).map(
            lambda parts: f"{parts[0]}.{parts[1]}={parts[2]}"
        ),
        st.text(max_size=20),
    ),
    max_size=3,
)


def test_jobs(tmp_path):
    file = tmp_path / "job.toml"

    def check_job(content: bytes, changes, more: str, overrides: list[str]) -> None:
        text = changed(content, changes) + b"\n" + more.encode(errors="surrogatepass")
        file.write_bytes(text)
        try:
            job = read_job(file, tuple(overrides))
        except UsageError as error:
            check_told(error, "job.toml", "--set")
            return
        assert job.steps

    line = st.tuples(st.sampled_from(KEYS), VALUES).map(lambda parts: f"{parts[0]} = {parts[1]}\n")
    more = st.lists(line, max_size=2).map("".join)
    rarely: st.SearchStrategy[list] = st.one_of(st.just([]), st.just([]), CHANGES)
    fuzz(check_job, st.sampled_from(JOBS), rarely, more, OVERRIDES, examples=100)


# ---- recordings ----


def _sounds() -> dict[str, bytes]:
    """Small recordings of every kind, by suffix."""
    tone = (0.3 * np.sin(np.arange(2400) * 0.2)).astype(np.float32)
    stereo = np.stack((tone, tone[::-1]), axis=1)
    kinds = [
        *(
            ("wav", "WAV", subtype)
            for subtype in ("PCM_16", "PCM_U8", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM", "GSM610")
        ),
        *(("wav", "WAVEX", "PCM_16"), ("w64", "W64", "PCM_16"), ("wav", "RF64", "PCM_16"), ("wav", "WAV", "G721_32")),
        *(
            ("flac", "FLAC", "PCM_16"),
            ("ogg", "OGG", "VORBIS"),
            ("opus", "OGG", "OPUS"),
            ("mp3", "MP3", "MPEG_LAYER_III"),
        ),
        *(("aiff", "AIFF", "PCM_16"), ("au", "AU", "ULAW"), ("au", "AU", "G721_32"), ("caf", "CAF", "PCM_16")),
        *(("caf", "CAF", "ALAC_16"), ("wav", "WAV", "MPEG_LAYER_III"), ("ul", "RAW", "ULAW"), ("gsm", "RAW", "GSM610")),
    ]
    sounds = {}
    for suffix, container, subtype in kinds:
        for samples in (tone, stereo):
            stream = io.BytesIO()
            try:
                soundfile.write(stream, samples, 8000, format=container, subtype=subtype)
            except soundfile.SoundFileError:
                continue  # of one channel only
            sounds[f"{container}-{subtype}-{samples.ndim}.{suffix}"] = stream.getvalue()
    try:
        import av
    except ImportError:
        return sounds
    for suffix, container, codec in (
        *(("m4a", "ipod", "aac"), ("aac", "adts", "aac"), ("webm", "webm", "libopus"), ("wma", "asf", "wmav2")),
        *(("mp4", "mp4", "aac"), ("mkv", "matroska", "pcm_s16le"), ("wav", "wav", "g726"), ("mov", "mov", "pcm_s16be")),
    ):
        stream = io.BytesIO()
        with av.open(stream, "w", format=container) as out:
            track = out.add_stream(codec, rate={"libopus": 48000, "wmav2": 16000}.get(codec, 8000), layout="mono")
            assert isinstance(track, av.AudioStream)
            if codec == "wmav2":
                track.bit_rate = 32_000
            if codec == "g726":
                track.bit_rate = 32_000
            frame = av.AudioFrame.from_ndarray((tone[None] * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate = track.rate
            for packets in (track.encode(frame), track.encode(None)):
                for packet in packets:
                    out.mux(packet)
        sounds[f"{container}-{codec}.{suffix}"] = stream.getvalue()
    return sounds


RAW = st.sampled_from([None, "mulaw:8000:1", "vox:8000:1", "gsm:8000:1", "s16le:768000:64", "u8:1000:3"])


@pytest.fixture(scope="module")
def sounds():
    return _sounds()


def read_recording(file: Path, raw_format: str | None) -> None:
    said = RawFormat.parse(raw_format) if raw_format else None
    try:
        with reader_of(file, settings=ReaderSettings(said, 60)) as reader:
            assert 1 <= reader.sound.n_channels <= 64
            assert 1000 <= reader.sound.sampling_rate <= 768_000
            for block in reader.blocks():
                assert block.dtype == np.float32
                assert block.shape[1] == reader.sound.n_channels
                assert np.isfinite(block).all()
    except RecordingError as error:
        check_told(error, f"{file.name}: ")


def test_recordings(tmp_path, sounds):
    def check_recording(name: str, suffix: str | None, changes, raw_format: str | None) -> None:
        file = tmp_path / f"input.{suffix or name.rpartition('.')[2]}"
        file.write_bytes(changed(sounds[name], changes))
        read_recording(file, raw_format)
        file.unlink()

    suffix = st.sampled_from([None, None, None, "wav", "mp3", "raw", "vox", "gsm"])
    fuzz(check_recording, st.sampled_from(sorted(sounds)), suffix, CHANGES, RAW, examples=150)


MAGIC = [b"RIFF\xff\xff\xff\xffWAVE", b"fLaC", b"OggS\0\2", b"ID3\4\0\0", b"\xff\xfb\x90", b"FORM\0\0\0\0AIFF", b".snd"]
MAGIC += [b"\0\0\0\x18ftypM4A ", b"\x1a\x45\xdf\xa3", b"#!AMR\n", b"\xff\xf1\x50\x80", b"caff\0\1\0\0", b"", b"riff"]


def test_recordings_of_random_bytes(tmp_path):
    def check_random(magic: bytes, content: bytes, suffix: str, raw_format: str | None) -> None:
        file = tmp_path / f"input.{suffix}"
        file.write_bytes(magic + content)
        read_recording(file, raw_format)
        file.unlink()

    suffix = st.sampled_from(["wav", "mp3", "raw", "vox", "gsm", "ul"])
    fuzz(check_random, st.sampled_from(MAGIC), st.binary(max_size=3000), suffix, RAW, examples=100)


# ---- wrong lengths ----

LENGTHS = st.one_of(
    st.sampled_from([0.0, 0.1, 0.5, 0.999, 1.0, 1.001, 2.0, 10.0]),  # of the right one
    st.sampled_from([1, 8, 44, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]),
    st.integers(0, 2**64 - 1),
)


def test_containers_with_wrong_lengths(tmp_path):
    made: dict[str, tuple[bytes, float]] = {}  # file and seconds

    def file_of(name: str) -> tuple[bytes, float]:
        if name not in made:
            content = CONTAINERS[name].make()
            made[name] = content, read_s(content, name)[0]
        return made[name]

    def read_s(content: bytes, name: str) -> tuple[float, tuple[str, ...]]:
        file = tmp_path / f"input.{CONTAINERS[name].suffix}"
        file.write_bytes(content)
        with reader_of(file, file.name) as reader:
            return sum(map(len, reader.blocks())) / reader.sound.sampling_rate, reader.warnings

    def check_lengths(name: str, length: float, where: int, kept: float, n_behind: int) -> None:
        good, seconds = file_of(name)
        one, field, n_files = good, CONTAINERS[name].field(good), 1
        if field is not None and not kept:
            place, n_bytes, order, counted = field
            told = int.from_bytes(good[place : place + n_bytes], order)
            told = round(counted + length * (told - counted)) if isinstance(length, float) else length
            one = good[:place] + (told % (1 << 8 * n_bytes)).to_bytes(n_bytes, order) + good[place + n_bytes :]
        if where:
            one, n_files = one + good if where == 1 else good + one, 2
        content = one[: len(one) - round(kept * len(good))] + TRAILING[:n_behind]
        try:
            found_s, warnings = read_s(content, name)
        except RecordingError as error:
            check_told(error, f"input.{CONTAINERS[name].suffix}: ")
            return
        # what was cut off at the end of a page or frame, where nothing tells the length, is told
        lost_s = n_files * seconds - found_s
        assert lost_s <= n_files * DELAY_S or (kept > 0 and warnings), (found_s, warnings)

    kept, behind = st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.05, 0.3, 0.6]), st.sampled_from([0, 0, 0, 1, 7, 100, 1000])
    fuzz(check_lengths, st.sampled_from(list(CONTAINERS)), LENGTHS, st.integers(0, 2), kept, behind, examples=150)


# ---- models ----

SPEC = FeatureSpec(n_mfcc=4, n_mels=8, n_frames=10)
FIGURES = {"uar": 0.5, "accuracy": 0.5, "macro_f1": 0.5, "weighted_f1": 0.5, "ece": 0.1, "n": 9}
TOLD = MINIMAL | {
    "segmentation": [Segmentation().to_dict()],
    "labels": list(LABELS),
    "feature_spec": SPEC.to_dict(),
    "feature_spec_hash": SPEC.digest(),
    "scaler": {"mean": [0.0] * 4, "scale": [1.0] * 4},
    "temperature": 1.5,
    "mfcc_domain": {"mean": [0.0] * 8, "scale": [1.0] * 8, "limit": 3.0},
    "training": {
        "n_rows": 9,
        "n_recordings": 9,
        "n_speakers": 2,
        "datasets": ["d"],
        "lowest_sampling_rate": 8000,
        "corpora": {"d": {"n_rows": 9, "labels": list(LABELS)}},
    },
    "metrics": {
        **FIGURES,
        "description": "Measured.",
        "seeds": [0, 1],
        "intervals": {"uar": [0.4, 0.6]},
        "conditions": {"clean": {"accuracy": 0.5, "uar": 0.5}},
        "held_out_corpora": {
            "d": {"accuracy": 0.5, "uar": 0.5, "n": 9, "labels": list(LABELS), "conditions": {"clean": 0.5}}
        },
    },
    "license": "",
    "init": {"model_id": "0", "labels": ["sad"], "license": "", "training": MINIMAL["training"], "recipe": "published"},
    "init_name": "other",
    "versions": {"numpy": "2"},
    "created": "today",
}  # fmt: skip


def _layer(kind: str, name: str, source: str | None, **config) -> dict:
    history = [{"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}}]
    nodes = [{"args": history, "kwargs": {}}] if source else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def network_file(configuration: object, weights: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("config.json", json.dumps({"config": configuration}))
        archive.writestr("model.weights.h5", weights)
    return stream.getvalue()


CONFIGURATION = {
    "layers": [
        _layer("InputLayer", "mfcc", None),
        _layer("Conv1D", "c", "mfcc", strides=[2], padding="same", use_bias=False, activation="linear"),
        _layer("BatchNormalization", "n", "c", axis=-1, epsilon=0.001),
        _layer("ReLU", "r", "n"),
        _layer("MaxPooling1D", "m", "r", pool_size=[2], strides=[2], padding="valid"),
        _layer("GlobalAveragePooling1D", "g", "m", keepdims=False),
        _layer("Dense", "probabilities", "g", activation="softmax"),
    ],
    "input_layers": ["mfcc", 0, 0],
    "output_layers": ["probabilities", 0, 0],
}


def weights_file() -> bytes:
    draw = np.random.default_rng(0)
    stream = io.BytesIO()
    of_layers: dict[str, list[tuple[int, ...]]] = {"c": [(3, 4, 5)], "n": [(5,)] * 4, "probabilities": [(5, 2), (2,)]}
    with h5py.File(stream, "w") as file:
        for layer in ("mfcc", "c", "n", "r", "m", "g", "probabilities"):
            group = file.create_group(f"layers/{layer}/vars")
            group.attrs["name"] = layer
            for number, shape in enumerate(of_layers.get(layer, [])):
                group[str(number)] = np.abs(draw.normal(size=shape)).astype(np.float32)
    return stream.getvalue()


def write_model(folder: Path, values: dict, content: bytes, name: str, *, contents: bytes | None = None) -> None:
    """Write a model folder as if all of it had been saved together, which whoever means harm can do too."""
    (folder / name).write_bytes(content)
    complete = dict(values)
    if isinstance(complete.get("files"), dict):
        complete["files"] = complete["files"] | {name: hashlib.sha256(content).hexdigest()}
    if contents is not None and complete.get("model_id") == "":
        try:
            complete["model_id"] = model_id_of(contents, schema(complete | {"model_id": "0" * 16}))
        except (ValueError, UsageError):
            complete["model_id"] = "0" * 16
    (folder / "model.json").write_text(json.dumps(complete), encoding="utf-8")


def use(folder: Path, capsys) -> bool:
    """Load a model and do with it what the commands do; return whether that was possible."""
    try:
        model = load_model(folder)
        predict = model.predictor()
    except ModelError as error:
        check_told(error, folder.name)
        return False
    _ = model.spec, model.lowest_rate, model.cross_corpus, model.regimes
    mfcc = np.zeros((2, model.spec.n_frames, model.spec.n_mfcc), dtype=np.float32)
    probabilities = predict(mfcc, np.array([model.spec.n_frames, 1]))
    assert probabilities.shape == (2, len(model.labels))
    if model.schema.mfcc_domain is not None:
        model.schema.mfcc_domain.distance(mfcc, np.array([model.spec.n_frames, 1]))
    print_model(ModelSummary.of(model), Output())
    assert capsys.readouterr().out.replace("\n", "").isprintable()
    write_page(folder, folder / "page.html")
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2  # its data and its own, whatever the model holds
    return True


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
        st.sampled_from([10**400, -1, 1e300, "\x1b[31m", "<script>alert(1)</script>", "../../x", "\ud800", ""]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


def replaced(values: object, path: list[int], new: object, *, drop: bool) -> object:
    """Return JSON with one node, found by numbers, replaced or dropped."""
    if not path or not isinstance(values, (dict, list)) or not values:
        return new
    if isinstance(values, list):
        at = path[0] % len(values)
        inner = [] if drop and len(path) == 1 else [replaced(values[at], path[1:], new, drop=drop)]
        return [*values[:at], *inner, *values[at + 1 :]]
    name = list(values)[path[0] % len(values)]
    if drop and len(path) == 1:
        return {key: value for key, value in values.items() if key != name}
    return {**values, name: replaced(values[name], path[1:], new, drop=drop)}


EDIT = st.tuples(st.lists(st.integers(0, 200), min_size=1, max_size=4), JSON, st.booleans())
NETWORK = {**TOLD, "estimator": "network", "model_id": "", "files": {}}


def test_model_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ser_batch.model.folder.DEFAULT_MODEL", "research")
    content = network_file(CONFIGURATION, weights_file())
    (tmp_path / "network.keras").write_bytes(content)
    contents = network_contents(*_identity(tmp_path / "network.keras"))
    write_model(tmp_path, NETWORK, content, "network.keras", contents=contents)
    assert use(tmp_path, capsys)

    def check_model_json(edits, changes) -> None:
        values: object = NETWORK
        for path, new, drop in edits:
            values = replaced(values, path, new, drop=drop)
        try:
            write_model(
                tmp_path, values if isinstance(values, dict) else {}, content, "network.keras", contents=contents
            )
        except (TypeError, ValueError):
            return  # what JSON does not write
        if changes:
            file = tmp_path / "model.json"
            file.write_bytes(changed(file.read_bytes(), changes))
        use(tmp_path, capsys)

    fuzz(check_model_json, st.lists(EDIT, max_size=3), st.one_of(st.just([]), st.just([]), CHANGES), examples=60)


def test_encoder_json(tmp_path):
    shipped = json.loads((INSTALLED_ENCODERS["whisper-tiny.en"] / "encoder.json").read_text(encoding="utf-8"))
    file = tmp_path / "encoder.json"

    def check_encoder_json(edits, changes) -> None:
        values: object = shipped
        for path, new, drop in edits:
            values = replaced(values, path, new, drop=drop)
        try:
            file.write_bytes(changed(json.dumps(values).encode(), changes))
        except (TypeError, ValueError):
            return  # what JSON does not write
        try:
            spec = read_encoder_spec(tmp_path)
        except EncoderError as error:
            check_told(error, tmp_path.name)
            return
        assert spec.embedding_size > 0
        assert spec.to_dict() == type(spec).from_dict(spec.to_dict()).to_dict()

    fuzz(check_encoder_json, st.lists(EDIT, max_size=3), st.one_of(st.just([]), st.just([]), CHANGES), examples=60)


def _identity(file: Path) -> tuple[dict, list]:
    configuration, weights = read_saved(file)
    return configuration, [array for layer in configuration["layers"] for array in weights.get(layer["name"], ())]


def test_networks(tmp_path, capsys):
    weights = weights_file()

    def check_network(edits, changes, of_archive) -> None:
        configuration: object = CONFIGURATION
        for path, new, drop in edits:
            configuration = replaced(configuration, path, new, drop=drop)
        content = changed(network_file(configuration, changed(weights, changes)), of_archive)
        (tmp_path / "network.keras").write_bytes(content)
        try:
            contents = network_contents(*_identity(tmp_path / "network.keras"))
        except Exception:
            contents = b""
        write_model(tmp_path, NETWORK, content, "network.keras", contents=contents)
        use(tmp_path, capsys)

    rarely: st.SearchStrategy[list] = st.one_of(st.just([]), st.just([]), st.just([]), CHANGES)
    path = st.lists(st.integers(0, 30), min_size=2, max_size=6)
    edits = st.lists(st.tuples(path, JSON, st.booleans()), max_size=2)
    fuzz(check_network, edits, st.one_of(st.just([]), CHANGES), rarely, examples=50)


def _estimators() -> dict[str, bytes]:
    import skops.io
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    y = np.array(LABELS)[np.arange(24) % 2]
    models = {
        "svm": CalibratedClassifierCV(SVC(C=10.0), ensemble=False, cv=3),
        "forest": RandomForestClassifier(2, random_state=0, max_depth=3),
        "logistic": LogisticRegression(),
    }
    return {name: skops.io.dumps(make_pipeline(StandardScaler(), model).fit(x, y)) for name, model in models.items()}


@pytest.fixture(scope="module")
def estimators():
    return _estimators()


@pytest.mark.parametrize("kind", ["svm", "forest", "logistic"])
@pytest.mark.filterwarnings("ignore")  # NumPy's and scikit-learn's on strange numbers
def test_estimators(kind, tmp_path, capsys, estimators, monkeypatch):
    monkeypatch.setattr("ser_batch.model.folder.DEFAULT_MODEL", "research")
    with zipfile.ZipFile(io.BytesIO(estimators[kind])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    skops_schema = json.loads(members["schema.json"])
    arrays = sorted(name for name in members if name.endswith(".npy"))
    values = {**TOLD, "estimator": kind, "scaler": None, "model_id": "", "files": {}}
    write_model(tmp_path, values, estimators[kind], "estimator.skops", contents=estimators[kind])
    assert use(tmp_path, capsys)

    def check_estimator(edits, which: int, changes, of_schema) -> None:
        edited = skops_schema
        for path, new, drop in edits:
            edited = replaced(edited, path, new, drop=drop)
        name = arrays[which % len(arrays)]
        new_members = members | {
            "schema.json": changed(json.dumps(edited).encode(), of_schema),
            name: changed(members[name], changes),
        }
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for member, content in new_members.items():
                archive.writestr(member, content)
        write_model(tmp_path, values, stream.getvalue(), "estimator.skops", contents=stream.getvalue())
        use(tmp_path, capsys)

    path = st.lists(st.integers(0, 12), min_size=2, max_size=14)
    edits = st.one_of(st.just([]), st.lists(st.tuples(path, JSON, st.booleans()), max_size=1))
    rarely: st.SearchStrategy[list] = st.one_of(st.just([]), st.just([]), st.just([]), CHANGES)
    fuzz(check_estimator, edits, st.integers(0, 99), CHANGES, rarely, examples=10)
