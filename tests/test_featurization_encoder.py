"""Recordings to embeddings: the table of an encoder, any length of segment, and all that is as for MFCCs."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
from click.testing import CliRunner
from test_docs import documented
from test_featurization import files_of, noise, rejects_of, table, write, write_labels

from ser_batch import featurize as featurize_function
from ser_batch.cli.commands import cli
from ser_batch.config.features import PRESETS, EncoderSpec
from ser_batch.config.job import read_job
from ser_batch.config.options import FeaturizeOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.encoder.model import Encoder, load_encoder, read_encoder_spec
from ser_batch.errors import EncoderError, InputError, OutputError, UsageError
from ser_batch.featurization import FeaturizeSummary, FeaturizeWork, featurize
from ser_batch.inspection import inspect
from ser_batch.segments import segmenter
from ser_batch.segments.front_ends import front_end
from ser_batch.storage.installed import INSTALLED_ENCODERS
from ser_batch.tables.features import load_features
from ser_batch.tables.schemas import array_columns, features_schema, segment_columns

NAME = "whisper-tiny.en"
SIZE = 2304
FEARFUL = "Actor_05/03-01-06-02-01-02-05.wav"


def run(root: Path, out: Path, **options: Any) -> FeaturizeSummary:
    return featurize(root, FeaturizeOptions(out=out, **{"jobs": 1, "features": NAME, **options}))


def frame_of(out: Path) -> pl.DataFrame:
    return pl.DataFrame(table(out))


def embedding_of(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """What the encoder itself makes of a whole recording that was resampled in one go."""
    whole = samples if rate == 16_000 else soxr.resample(samples, rate, 16_000, quality="HQ")
    segment = loaded().segment()
    segment.feed(np.pad(whole, (0, 1))[: int(np.ceil(len(samples) * 16_000 / rate))].astype(np.float32))
    done = segment.finish()
    return done.values, done.n_tokens


def loaded() -> Encoder:
    return load_encoder(INSTALLED_ENCODERS[NAME])


def spec() -> EncoderSpec:
    return read_encoder_spec(INSTALLED_ENCODERS[NAME])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Short recordings of several rates and channels, one with a name that says something, one that is none."""
    root = tmp_path_factory.mktemp("corpus") / "voices"
    write(root / FEARFUL, noise(12_000), 16_000)
    write(root / "b/stereo.wav", noise(9_000, 2), 8000)
    write(root / "c.wav", noise(20_000, seed=2), 22_050, subtype="PCM_16")
    (root / "text.wav").write_text("no recording")
    return root


@pytest.fixture(scope="module")
def features(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "features"
    run(corpus, out)
    return out


@pytest.fixture
def copy(tmp_path):
    """The encoder in a folder of its own."""
    return Path(shutil.copytree(INSTALLED_ENCODERS[NAME], tmp_path / "mine"))


# ---- the table ----


def test_the_table_has_the_columns_of_its_front_end_only_and_opens_as_an_array(features):
    of_mfcc = features_schema(PRESETS["wideband"]).names

    frame = pl.scan_parquet(features / "*.parquet").collect()

    expected = ["n_tokens" if name == "n_frames" else name for name in of_mfcc if not name.startswith("mfcc")]
    assert frame.columns == [*expected, "embedding"]
    assert frame.schema["n_tokens"] == pl.Int32
    assert frame.schema["embedding"] == pl.Array(pl.Float32, SIZE)
    assert frame["embedding"].to_numpy().shape == (3, SIZE)


def test_the_leaf_of_the_embedding_is_split_into_bytes_and_compressed(features):
    for part in features.glob("*.parquet"):
        group = pq.ParquetFile(part).metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        leaf = columns["embedding.list.element"]
        assert "BYTE_STREAM_SPLIT" in leaf.encodings
        assert not leaf.has_dictionary_page
        assert leaf.compression == "ZSTD"


def test_the_documented_columns_are_those_of_the_schema():
    found = [segment for segment in segment_columns(spec()) if segment[0] == "n_tokens"] + array_columns(spec())
    kinds = [(name, str(kind).replace("element: ", "").replace("item: ", "").replace(" ", "")) for name, kind in found]
    assert documented("Features of an encoder") == kinds


def test_an_embedding_is_what_the_encoder_makes_of_the_recording(corpus, features):
    frame = frame_of(features)
    assert frame["path"].to_list() == [FEARFUL, "b/stereo.wav", "c.wav"]
    for path, channel, values, n_tokens in frame.select("path", "channel", "embedding", "n_tokens").iter_rows():
        samples, rate = soundfile.read(corpus / path, dtype="float32", always_2d=True)
        assert channel == (-1 if samples.shape[1] == 2 else 0)
        expected, expected_tokens = embedding_of(samples.mean(axis=1), rate)
        assert n_tokens == expected_tokens
        np.testing.assert_allclose(values, expected, atol=2e-3)
    (fearful,) = frame.filter(path=FEARFUL).select("emotion", "speaker", "corpus").rows()
    assert fearful == ("fearful", "ravdess-05", "ravdess")
    assert [reject["path"] for reject in rejects_of(features)] == ["text.wav"]


def test_spec_json_holds_encoder_json_and_where_the_encoder_is(corpus, features, copy, tmp_path):
    run(corpus, tmp_path / "own", features=os.path.relpath(copy))

    shipped, own = (json.loads((out / "spec.json").read_text()) for out in (features, tmp_path / "own"))

    assert shipped["feature_spec"] == spec().to_dict() == json.loads((copy / "encoder.json").read_text())
    assert shipped["feature_spec_hash"] == spec().digest()
    assert shipped["encoder_folder"] is None
    assert own["encoder_folder"] == str(copy)
    assert table(tmp_path / "own").equals(table(features))


def test_of_mfccs_spec_json_and_run_json_know_no_encoder(corpus, tmp_path):
    run(corpus, tmp_path / "out", features="mfcc")
    assert "encoder" not in (tmp_path / "out/spec.json").read_text() + (tmp_path / "out/_meta/run.json").read_text()


# ---- any length ----


def made(tmp_path: Path, samples: np.ndarray, rate: int = 8000, **options: object) -> pl.DataFrame:
    write(tmp_path / "audio/a.wav", samples, rate, subtype="PCM_16")
    summary = run(tmp_path / "audio", tmp_path / "out", **options)
    assert not summary.rejected
    frame = frame_of(tmp_path / "out")
    assert np.isfinite(frame["embedding"].to_numpy()).all()
    return frame


def test_digital_silence_has_an_embedding_and_no_tokens(tmp_path):
    frame = made(tmp_path, np.zeros(16_000))
    assert frame["n_tokens"].to_list() == [0]
    assert frame["embedding"].to_numpy().any()
    found = inspect(tmp_path / "out")
    assert found.figures["n_rows_silent"] == 1
    assert "1 rows are digital silence and are not trained on" in found.notes


@pytest.mark.parametrize(
    ("n_samples", "n_tokens"), [(1, 1), (400, 3), (8000 * 30, 1500), (8000 * 30 + 1, 1500)]
)  # one sample, 50 ms, 30 s, and the sample that opens a second block
def test_one_sample_50_ms_and_30_s_have_an_embedding(n_samples, n_tokens, tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(n_samples)
    frame = made(tmp_path, samples)
    assert n_tokens <= frame["n_tokens"][0] <= n_tokens + 1
    assert frame["end_s"].to_list() == [n_samples / 8000]


def test_windows_of_any_length_are_cut(tmp_path):
    samples = noise(8000 * 13)[:, 0]
    frame = made(tmp_path, samples, segments="windows", window=10.0, hop=5.0)
    assert frame["start_s"].to_list() == [0.0, 5.0]
    first, n_tokens = embedding_of(samples[: 8000 * 10], 8000)
    assert frame["n_tokens"][0] == n_tokens
    np.testing.assert_allclose(
        frame["embedding"][0], first, atol=5e-3
    )  # the end of the cut is resampled with what follows
    with pytest.raises(UsageError, match=r"10 s does not fit the 174 frames"):
        FeaturizeOptions(segments="windows", window=10.0)


HOUR = """
import resource, sys
from pathlib import Path
import numpy as np
from ser_batch.config.options import FeaturizeOptions
from ser_batch.encoder.model import Encoder
from ser_batch.featurization import featurize

most = 0

def tokens(self, samples, kept=None):  # as many as the real ones, without minutes of encoding
    global most
    most = max(most, len(samples))
    n = -(-len(samples) // 320)
    loud = np.abs(samples[: n * 320].reshape(n, -1)).mean(axis=1)
    every = np.broadcast_to(loud[:, None, None], (n, 3, 384)).astype(np.float32)
    return every if kept is None else every[kept]

Encoder.tokens = tokens
audio, out = map(Path, sys.argv[1:])
featurize(audio, FeaturizeOptions(out=out, jobs=1, features="whisper-tiny.en", variants="clean,g711"))
print(most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_an_hour_in_one_segment_takes_no_more_memory_than_a_minute(tmp_path):
    peaks = {}
    for name, seconds in (("minute", 60), ("hour", 3600)):
        (tmp_path / name).mkdir()
        block = (0.1 * np.random.default_rng(0).standard_normal(8000 * 60)).astype(np.float32)
        with soundfile.SoundFile(tmp_path / name / "a.wav", "w", 8000, 1, subtype="ULAW") as file:
            for _ in range(seconds // 60):
                file.write(block)
        command = [sys.executable, "-c", HOUR, str(tmp_path / name), str(tmp_path / f"out {name}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        most, peaks[name] = map(int, done.stdout.split()[-2:])
        assert most == 1500 * 320
        clean, g711 = frame_of(tmp_path / f"out {name}").sort("variant")["n_tokens"]
        assert clean == seconds * 50
        assert g711 == segmenter.LONGEST_VARIANT_S * 50
    assert peaks["hour"] < peaks["minute"] + 30_000  # kB


# ---- variants, labels, again ----


def test_the_same_bits_whatever_the_jobs_and_shards(corpus, tmp_path):
    options = {"segments": "windows", "window": 1.0, "hop": 0.5, "variants": "clean,noise10,g711", "seed": 3}
    run(corpus, tmp_path / "one", **options)
    run(corpus, tmp_path / "many", jobs=2, shard_size=1, **options)

    one, many = table(tmp_path / "one"), table(tmp_path / "many")

    assert len(list((tmp_path / "many").glob("part-*.parquet"))) == 3
    assert set(one["variant"].to_pylist()) == {"clean", "noise10", "g711"}
    assert one.num_rows > 12
    assert one.equals(many)  # floats compared as they are
    embeddings = frame_of(tmp_path / "one").filter(path="c.wav", segment=0)["embedding"].to_numpy()
    assert len(np.unique(embeddings, axis=0)) == 3


def test_again_does_nothing_and_new_labels_decode_nothing(corpus, features, tmp_path, monkeypatch):
    out = tmp_path / "features"
    shutil.copytree(features, out)
    before = files_of(out)
    summary = run(corpus, out)
    assert (summary.n_done, summary.n_up_to_date) == (0, 4)
    after = files_of(out)
    parts = [name for name in before if name.startswith("part-") or "ledger" in name]
    assert len(parts) > 1
    assert {name: after[name] for name in parts} == {name: before[name] for name in parts}
    assert json.loads(after["_meta/run.json"][0])["feature_spec"] == spec().to_dict()

    monkeypatch.setattr(segmenter, "segments", lambda *_, **__: pytest.fail("decoded"))
    labels = write_labels(tmp_path / "l.csv", ("c.wav", "sad", "anna"), columns="path,emotion,speaker")
    assert run(corpus, out, labels=labels).n_done == 0
    frame, old = frame_of(out), frame_of(features)
    assert frame.filter(path="c.wav").select("emotion", "speaker").row(0) == ("sad", "anna")
    np.testing.assert_array_equal(frame["embedding"].to_numpy(), old["embedding"].to_numpy())


def test_limit_since_and_prune(tmp_path):
    root, out = tmp_path / "audio", tmp_path / "out"
    for i in range(3):
        write(root / f"{i}.wav", noise(4000, seed=i))
    os.utime(root / "2.wav", (0, 0))
    assert (run(root, out, since="2020-01-01", limit=1).n_done, run(root, out, since="2020-01-01").n_done) == (1, 1)
    (root / "0.wav").unlink()
    assert run(root, out, since="2020-01-01", prune=True).n_missing == 1
    assert frame_of(out)["path"].to_list() == ["1.wav"]
    assert run(root, out).n_done == 1
    assert frame_of(out)["path"].to_list() == ["1.wav", "2.wav"]


def test_labels_cut_segments(tmp_path):
    write(tmp_path / "audio/a.wav", noise(24_000, 2))
    labels = write_labels(
        tmp_path / "labels.csv", ("a.wav", "sad", "anna", 0, 0.5, 1.5), ("a.wav", "angry", "ben", 1, 1.0, 99)
    )
    run(tmp_path / "audio", tmp_path / "out", segments="labels", labels=labels)
    frame = frame_of(tmp_path / "out").select("channel", "start_s", "end_s", "emotion", "speaker")
    assert frame.rows() == [(0, 0.5, 1.5, "sad", "anna"), (1, 1.0, 3.0, "angry", "ben")]


def test_a_label_shorter_than_a_sample_of_the_encoder_is_rejected(tmp_path):
    write(tmp_path / "audio/a.wav", noise(48_000), 48_000)
    labels = write_labels(tmp_path / "labels.csv", ("a.wav", "sad", "anna", 0, 0.50001, 0.50003))
    with pytest.raises(InputError, match=r"covers none of its samples"):
        run(tmp_path / "audio", tmp_path / "out", segments="labels", labels=labels)


def test_another_front_end_or_encoder_in_the_same_output_is_refused_unless_overwritten(
    corpus, features, copy, tmp_path
):
    out = tmp_path / "features"
    shutil.copytree(features, out)
    before = files_of(out)
    other = altered(copy, level_dbfs=-20.0)
    for options, difference in (
        ({"features": "mfcc"}, r"feature_spec\.encoder was 'whisper-tiny\.en' and is None"),
        ({"features": str(other)}, r"feature_spec\.level_dbfs was -23\.0 and is -20\.0.*--overwrite"),
    ):
        with pytest.raises(OutputError, match=difference):
            run(corpus, out, **options)
    assert files_of(out) == before
    run(corpus, out, features="mfcc", overwrite=True)
    assert "mfcc" in pq.read_schema(min(out.glob("*.parquet"))).names


def altered(folder: Path, **changes: object) -> Path:
    """The encoder folder, with other fields in its encoder.json."""
    path = folder / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


# ---- who computes it ----


def test_the_work_that_is_sent_names_a_shipped_encoder_and_finds_it_there(tmp_path, monkeypatch):
    (tmp_path / NAME).mkdir()  # in a worker's working folder; it is not asked for
    monkeypatch.chdir(tmp_path)
    work = FeaturizeWork(tmp_path / "out", "d", spec(), Segmentation(), encoder=NAME)
    sent = pickle.dumps(work)
    assert str(INSTALLED_ENCODERS[NAME]).encode() not in sent
    received = pickle.loads(sent)
    assert received == work
    received.prepare()
    assert front_end(received.spec, received.encoder).sampling_rate == 16_000


def test_a_worker_whose_encoder_is_another_one_says_so():
    other = EncoderSpec.from_dict(spec().to_dict() | {"sha256": "0" * 64})
    with pytest.raises(EncoderError, match=r"another encoder than expected: sha256"):
        front_end(other, NAME)


@pytest.mark.parametrize(("made_of", "has_onnxruntime"), [(NAME, True), ("mfcc", False)])
def test_a_worker_stays_light_and_loads_onnx_runtime_for_an_encoder_only(made_of, has_onnxruntime, tmp_path):
    write(tmp_path / "audio/a.wav", noise(4000))
    code = f"""
from pathlib import Path
from ser_batch.encoder.model import find_encoder, read_encoder_spec
from ser_batch.config.features import PRESETS
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.walk import walk
from ser_batch.featurization import FeaturizeWork
from ser_batch.runs.ledger import Shard
from ser_batch.runs.worker import do_shard
folder = Path({str(tmp_path)!r})
(folder / "out" / "_meta" / "ledger").mkdir(parents=True)
if {made_of!r} == "mfcc":
    work = FeaturizeWork(folder / "out", "d", PRESETS["wideband"], Segmentation())
else:
    spec = read_encoder_spec(find_encoder({made_of!r}))
    work = FeaturizeWork(folder / "out", "d", spec, Segmentation(), encoder={made_of!r})
summary = do_shard(work, Shard("part-000001", walk(folder / "audio").recordings))
assert summary.n_rows == 1 and summary.n_rejects == 0, summary
import sys
print("\\n".join(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    names = {name.split(".")[0] for name in done.stdout.split("\n")}
    assert not names & {"keras", "jax", "sklearn", "librosa", "numba", "polars", "joblib", "rich"}
    assert ("onnxruntime" in names) == has_onnxruntime


# ---- options ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "telephone"}, r"--preset telephone with --features whisper-tiny\.en: .*sampling rate of its own"),
        ({"verify": 3}, r"--verify 3 with --features whisper-tiny\.en: it compares MFCCs with those of librosa"),
        ({"features": ""}, r"--features ''; expected mfcc, the name of an encoder"),
        ({"features": "s3://bucket/encoder"}, r"--features 's3://bucket/encoder'; expected .* on this machine"),
    ],
)
def test_options_that_only_mfccs_have_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        FeaturizeOptions(**{"features": NAME, **options})


def test_an_encoder_that_is_not_there_or_altered_is_refused_before_anything_is_written(corpus, copy, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"wisper-tiny\.en: no such folder.*whisper-tiny\.en"):
        run(corpus, out, features="wisper-tiny.en")
    graph = copy / "encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(EncoderError, match=r"encoder\.onnx: SHA-256 .*expected"):
        run(corpus, out, features=str(copy))
    graph.unlink()
    with pytest.raises(EncoderError, match=r"encoder\.onnx: missing"):
        run(corpus, out, features=str(copy))
    with pytest.raises(EncoderError, match=r"no encoder\.json"):
        run(corpus, out, features=str(corpus))
    assert not out.exists()


def test_the_command_a_job_and_the_function_take_an_encoder(corpus, features, tmp_path):
    arguments = ["featurize", str(corpus), "--features", NAME, "--out", str(tmp_path / "command"), "--jobs", "1"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    refused = CliRunner().invoke(cli, [*arguments, "--preset", "telephone"])
    assert refused.exit_code == 2
    assert "sampling rate of its own" in refused.output
    job = tmp_path / "job.toml"
    job.write_text(f'[featurize]\naudio = "{corpus}"\nfeatures = "{NAME}"\n')
    ((_, options),) = read_job(job).steps
    assert options == FeaturizeOptions(features=NAME)
    called = featurize_function(corpus, out=tmp_path / "function", features=NAME, jobs=1, progress=False)
    assert called.features.select("embedding").collect()["embedding"].to_numpy().shape == (3, SIZE)
    assert table(tmp_path / "command").equals(table(features))
    assert table(tmp_path / "function").equals(table(features))


# ---- read back ----


@pytest.fixture(scope="module")
def labelled(corpus, tmp_path_factory):
    """Features in two variants with labels, of which one recording has none."""
    folder = tmp_path_factory.mktemp("labelled")
    labels = write_labels(folder / "l.csv", ("c.wav", "sad", "anna"), columns="path,emotion,speaker")
    run(corpus, folder / "features", labels=labels, variants="clean,g711", jobs=2, shard_size=1)
    return folder / "features"


def test_embeddings_are_read_back_in_the_order_of_the_key(labelled):
    data = load_features([labelled])
    frame = frame_of(labelled).filter(pl.col("emotion").is_not_null())
    assert data.rows["path"].to_list() == frame["path"].to_list() == [FEARFUL] * 2 + ["c.wav"] * 2
    assert data.n_unlabelled == 2
    assert isinstance(data.embedding, np.ndarray)
    assert data.embedding.dtype == np.float32
    np.testing.assert_array_equal(data.embedding, frame["embedding"].to_numpy())
    np.testing.assert_array_equal(data.n_tokens, frame["n_tokens"].to_numpy())
    assert data.spec == data.encoder_spec == spec()
    np.testing.assert_array_equal(np.concatenate(list(data.chunks_of_values())), data.embedding)
    assert load_features([labelled], wanted={"variant": {"clean"}}).embedding.shape == (2, SIZE)
    assert load_features([labelled], in_memory_bytes=0).embedding.shape == (4, SIZE)


def test_a_front_end_has_nothing_of_the_other(labelled, small_features):
    embeddings, mfccs = load_features([labelled]), load_features([small_features])
    for name in ("mfcc", "n_frames", "mfcc_spec"):
        with pytest.raises(InputError, match=r"embeddings of the encoder whisper-tiny\.en; expected MFCCs.*mfcc"):
            getattr(embeddings, name)
    for name in ("embedding", "n_tokens", "encoder_spec"):
        with pytest.raises(InputError, match=r"MFCCs of the preset wideband; expected embeddings.*--features"):
            getattr(mfccs, name)
    assert not any(name.startswith(("n_tokens", "embedding")) for name in mfccs.rows.columns)


def test_features_of_two_front_ends_or_encoders_are_refused_with_what_both_were_made_with(
    labelled, small_features, corpus, copy, tmp_path
):
    with pytest.raises(InputError) as caught:
        load_features([small_features, labelled])
    assert str(caught.value) == (
        f"{labelled}: features of another front end than {small_features}: {labelled} has embeddings of the encoder "
        f"whisper-tiny.en, {small_features} MFCCs of the preset wideband. Featurize both with the same --features"
    )
    run(corpus, tmp_path / "other", features=str(altered(copy, encoder="mine", level_dbfs=-20.0)))
    with pytest.raises(InputError, match=r"level_dbfs is -23\.0 there and -20\.0 here.* encoder mine, .* --features$"):
        load_features([labelled, tmp_path / "other"])


def test_the_same_encoder_under_another_name_is_the_same(labelled, corpus, copy, tmp_path):
    run(corpus, tmp_path / "same", name="again", features=str(altered(copy, encoder="mine", source="a disk")))
    data = load_features([labelled, tmp_path / "same"])
    assert sorted(set(data.rows["dataset"])) == ["again", "voices"]


# ---- inspect ----


def test_inspect_shows_an_encoders_features_and_their_health(features, labelled):
    found = inspect(features)
    assert (found.kind, found.n_rows) == ("features", 3)
    assert found.spec["feature_spec"]["encoder"] == NAME
    assert dict(found.columns.rows())["embedding"] == f"fixed_size_list<float>[{SIZE}]"
    names = ("embedding_size", "n_constant_dimensions", "n_rows_not_finite", "n_rows_silent", "n_rejected")
    assert [found.figures[name] for name in names] == [SIZE, 0, 0, 0, 1]
    assert "embedding" not in found.first.columns
    assert inspect(min(labelled.glob("*.parquet"))).kind == "features"


def test_inspect_tells_of_embeddings_that_are_all_the_same_or_no_numbers(features, tmp_path):
    shutil.copytree(features, tmp_path / "same")
    for part in (tmp_path / "same").glob("*.parquet"):
        rows = pq.read_table(part)
        values = np.ones((rows.num_rows, SIZE), dtype=np.float32)
        values[:, 0] = np.nan
        place = rows.schema.get_field_index("embedding")
        column = pa.FixedSizeListArray.from_arrays(values.reshape(-1), type=rows.schema.field(place).type)
        pq.write_table(rows.set_column(place, rows.schema.field(place), column), part)
    found = inspect(tmp_path / "same")
    assert found.figures["n_constant_dimensions"] == SIZE - 1
    assert found.figures["n_rows_not_finite"] == 3
    assert any("2303 of 2304 numbers of the embedding are the same" in note for note in found.notes)
    assert any("3 rows have an embedding with NaN" in note for note in found.notes)


# ---- real recordings ----


def test_real_recordings_have_embeddings_that_differ_by_what_is_said(shared, tmp_path):
    for name in ("03a01Fa.opus", "03a01Nc.opus", "03a01Wa.opus"):
        (tmp_path / "audio").mkdir(exist_ok=True)
        shutil.copy(shared / "emodb" / name, tmp_path / "audio" / name)
    run(tmp_path / "audio", tmp_path / "out", variants="clean,g711")
    frame = frame_of(tmp_path / "out")
    assert frame["emotion"].to_list() == ["happy"] * 2 + ["neutral"] * 2 + ["angry"] * 2
    assert (frame["n_tokens"] > 20).all()
    assert (frame["n_tokens"] <= (frame["duration_s"] / 0.02).ceil()).all()
    values = frame["embedding"].to_numpy().astype(np.float64)
    distance = np.linalg.norm(values[:, None] - values, axis=2)
    # a telephone changes a recording less than another recording is away
    assert distance[0, 1] < distance[0, 2]
