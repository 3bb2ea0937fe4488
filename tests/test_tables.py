"""Files that are whole or not there, columns as the contract lists them, features read back as arrays."""

import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ser_batch.config.features import FeatureSpec
from ser_batch.config.segmentation import Segmentation
from ser_batch.errors import InputError, OutputError
from ser_batch.storage.atomic import (
    TEMPORARY_MARK,
    atomic_path,
    make_folder,
    remove_temporaries,
    remove_temporaries_of,
    write_json,
    write_text,
)
from ser_batch.tables.features import load_features
from ser_batch.tables.mfcc_array import MfccFile
from ser_batch.tables.parquet import part_writer, read_parts, rows_table, write_frame, write_table
from ser_batch.tables.schemas import (
    REJECTS,
    calls_schema,
    features_schema,
    model_predictions_schema,
    predictions_schema,
    quarters_schema,
)

LABELS = ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")
SMALL = FeatureSpec(n_frames=3, n_mfcc=2)


# --- written whole or not at all ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def write_half():
        with atomic_path(file) as temporary:
            temporary.write_text("half of the n")
            assert file.read_text() == "old"
            raise error

    with pytest.raises(error):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "old"


def test_a_write_that_ends_well_takes_the_place_of_the_old_file(tmp_path):
    file = tmp_path / "a.json"
    write_text(file, "old")
    write_json(file, {"name": "é", "values": [1, 2.5, None]})
    assert json.loads(file.read_bytes()) == {"name": "é", "values": [1, 2.5, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_write_to_a_link_changes_what_it_leads_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(Path("disk", "real.txt"))

    write_text(link, "new")

    assert link.is_symlink()
    assert (tmp_path / "disk" / "real.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real.txt"]


def test_a_table_of_the_wrong_shape_leaves_nothing_behind(tmp_path):
    def write():
        with atomic_path(tmp_path / "a.parquet") as temporary, part_writer(temporary, REJECTS) as writer:
            writer.write_table(pa.table({"other": [1]}))

    with pytest.raises(ValueError, match="schema"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_json_does_not_know_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "write", [lambda path: write_text(path, "a"), lambda path: write_table(path, rows_table([], REJECTS)), make_folder]
)
@pytest.mark.parametrize("name", ["a.parquet", "deeper/a.parquet"])
def test_where_a_file_stands_in_place_of_the_folder_the_way_out_is_told(tmp_path, write, name):
    (tmp_path / "out").write_text("here first")
    with pytest.raises(OutputError, match=r"out/.*--out") as caught:
        write(tmp_path / "out" / name)
    assert caught.value.exit_code == 1
    assert (tmp_path / "out").read_text() == "here first"


def test_a_folder_in_place_of_the_file_is_an_output_error(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written"):
        write_text(tmp_path / "a.txt", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    write_text(tmp_path / "deep" / "a.txt", "a")
    (tmp_path / ".hidden").write_text("mine")
    context = atomic_path(tmp_path / "deep" / "b.txt")
    context.__enter__().write_text("half")  # and is killed
    assert len(list((tmp_path / "deep").iterdir())) == 2
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".hidden", "a.txt", "deep"]


def test_what_a_killed_writer_left_of_one_file_is_removed_whatever_its_name(tmp_path):
    contexts = [atomic_path(tmp_path / name) for name in ("a[1].txt", "a1.txt")]
    for context in contexts:
        context.__enter__().write_text("half")  # and is killed
    remove_temporaries_of(tmp_path / "a[1].txt")
    assert [path.name.partition(TEMPORARY_MARK)[0] for path in tmp_path.iterdir()] == [".a1.txt"]


# --- columns ------------------------------------------------------------------------------------------------------


def names(text: str) -> list[str]:
    return text.split()


METADATA = names("corpus modality vocal_channel emotion intensity statement repetition actor sex speaker")
SEGMENT = names(
    "dataset path content_hash channel segment variant start_s end_s duration_s sampling_rate n_channels n_frames"
)


def probabilities(pattern: str = "p_{}") -> list[str]:
    return [pattern.format(label) for label in LABELS]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            features_schema(FeatureSpec()),
            [*SEGMENT, *METADATA, "speech_ratio", "rms_dbfs", "mfcc", "mfcc_mean", "mfcc_std"],
        ),
        (
            predictions_schema(LABELS),
            [
                *names("path content_hash channel role segment start_s end_s speech_ratio rms_dbfs clipped_ratio"),
                *names("predicted abstained confidence entropy margin"),
                *probabilities(),
                *["model_id", "emotion"],
            ],
        ),
        (
            model_predictions_schema(LABELS, FeatureSpec()),
            [*SEGMENT, *METADATA, "speech_ratio", "rms_dbfs", "fold", "seed", "predicted", *probabilities()],
        ),
        (REJECTS, ["path", "stage", "error", "message"]),
    ],
)
def test_tables_have_the_columns_of_the_contract(schema, expected):
    assert schema.names == expected


def test_features_are_nested_fixed_size_lists():
    schema = features_schema(FeatureSpec())
    row = pa.list_(pa.float32(), 40)
    assert schema.field("mfcc").type == pa.list_(row, 174)
    assert schema.field("mfcc_mean").type == schema.field("mfcc_std").type == row


def test_calls_have_the_columns_of_the_contract_and_first_those_that_one_looks_at():
    schema = calls_schema(LABELS)
    assert schema.names == [
        *names("path channel role status priority listen_at_s listen_why predicted"),
        *probabilities("share_{}"),
        *names("speech_s overlap_s duration_s n_segments"),
        *probabilities(),
        *(name for what in names("peak_s peak_p longest_start_s longest_s") for name in probabilities(f"{what}_{{}}")),
        *probabilities("change_{}"),
        *names("content_hash model_id emotion"),
    ]
    assert quarters_schema(LABELS).names == [
        *names("path channel role quarter start_s end_s speech_s"), *probabilities()
    ]  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        features_schema(FeatureSpec()),
        predictions_schema(LABELS),
        calls_schema(LABELS),
        model_predictions_schema(LABELS, FeatureSpec()),
    ],
)
def test_every_table_says_its_version_and_has_the_dtypes_of_the_contract(tmp_path, schema):
    write_table(tmp_path / "a.parquet", rows_table([], schema))
    written = pq.read_schema(tmp_path / "a.parquet")
    assert written.metadata[b"schema_version"] == b"1"
    assert written.equals(schema)
    for field in schema:
        assert not pa.types.is_dictionary(field.type)
        if field.name.endswith("_s") or field.name.startswith(("p_", "share_")):
            assert field.type == pa.float64(), field.name
    assert schema.field("channel").type == pa.int16()


def test_rows_with_missing_columns_are_null_there():
    table = rows_table([{"path": "a.wav", "channel": 0}], predictions_schema(LABELS))
    assert table.schema == predictions_schema(LABELS)
    assert table["p_sad"].to_pylist() == table["predicted"].to_pylist() == [None]


# --- how they stand in the file -----------------------------------------------------------------------------------


def test_features_are_byte_streams_that_polars_reads_as_an_array(tmp_path):
    spec = FeatureSpec()
    mfcc = np.random.default_rng(0).normal(size=(3, 174, 40)).astype(np.float32)
    rows = [
        {"path": f"{i}.wav", "start_s": 0.5, "mfcc": mfcc[i].tolist(), "mfcc_mean": mfcc[i].mean(axis=0).tolist()}
        for i in range(3)
    ]
    file = tmp_path / "part-0.parquet"
    write_table(file, rows_table(rows, features_schema(spec)))

    chunks = pq.ParquetFile(file).metadata.row_group(0)
    columns = {chunks.column(i).path_in_schema: chunks.column(i) for i in range(chunks.num_columns)}
    floats = {"start_s", "speech_ratio", "mfcc.list.element.list.element", "mfcc_mean.list.element"}
    assert floats < set(columns)
    for name in floats:
        assert "BYTE_STREAM_SPLIT" in columns[name].encodings, name
        assert not columns[name].has_dictionary_page, name
    assert columns["path"].has_dictionary_page
    assert {column.compression for column in columns.values()} == {"ZSTD"}

    frame = pl.read_parquet(file)
    assert frame.schema["mfcc"] == pl.Array(pl.Float32, (174, 40))
    read = frame["mfcc"].to_numpy()
    assert read.shape == (3, 174, 40)
    np.testing.assert_array_equal(read, mfcc)
    np.testing.assert_array_equal(pl.scan_parquet(tmp_path / "*.parquet").collect()["mfcc"].to_numpy(), mfcc)


def test_a_polars_frame_is_written_by_the_schema_with_plain_strings(tmp_path):
    frame = pl.DataFrame({"message": ["d"], "error": ["c"], "stage": ["b"], "path": ["a"]})
    write_frame(frame, tmp_path / "a.parquet", REJECTS)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [
        {"path": "a", "stage": "b", "error": "c", "message": "d"}
    ]
    write_frame(frame.with_columns(n=pl.lit(1, pl.Int64)), tmp_path / "b.parquet")
    schema = pq.read_schema(tmp_path / "b.parquet")
    assert schema.names == ["message", "error", "stage", "path", "n"]
    assert schema.types == [pa.string()] * 4 + [pa.int64()]
    assert schema.metadata[b"schema_version"] == b"1"


# --- reading back -------------------------------------------------------------------------------------------------


def row(path, emotion="sad", *, dataset="ravdess", channel=0, segment=0, variant="clean", value=0.0, n_frames=3):
    return {
        "dataset": dataset,
        "path": path,
        "content_hash": f"hash of {path}",
        "channel": channel,
        "segment": segment,
        "variant": variant,
        "n_frames": n_frames,
        "emotion": emotion,
        "rms_dbfs": -20.0,
        "mfcc": np.full((3, 2), value).tolist(),
        "mfcc_mean": [value, value],
        "mfcc_std": [0.0, 0.0],
    }


def features_folder(folder, parts, *, spec=SMALL, segmentation=None):
    """Write a features folder as featurize leaves it."""
    folder.mkdir()
    for i, rows in enumerate(parts):
        write_table(folder / f"part-{i}.parquet", rows_table(rows, features_schema(spec)))
    values = {"feature_spec": spec.to_dict(), "segmentation": (segmentation or Segmentation()).to_dict()}
    write_json(folder / "spec.json", values)
    return folder


def test_features_are_sorted_by_key_whatever_the_order_of_the_parts(tmp_path):
    ordered = [
        row("a.wav", dataset="a", value=0.0),
        row("B.wav", value=1.0),
        row("a.wav", channel=-1, value=2.0),
        row("a.wav", channel=0, segment=2, value=3.0),
        row("a.wav", channel=0, segment=10, value=4.0),
        row("a.wav", channel=0, segment=10, variant="noise10", value=5.0, n_frames=2),
        row("é.wav", value=6.0),
    ]
    shuffled = [ordered[i] for i in (5, 6, 0, 2, 4, 1, 3)]
    one = load_features([features_folder(tmp_path / "one", [ordered])])
    other = load_features([features_folder(tmp_path / "two", [shuffled[:3], [], shuffled[3:]])])
    assert isinstance(other.mfcc, np.ndarray)
    assert other.mfcc.shape == (7, 3, 2)
    assert other.mfcc.dtype == np.float32
    assert other.mfcc[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert other.n_frames.tolist() == [3, 3, 3, 3, 3, 2, 3]
    assert other.rows.equals(one.rows)
    np.testing.assert_array_equal(other.mfcc, one.mfcc)
    assert (other.spec, set(other.segmentations), other.n_unlabelled) == (SMALL, {Segmentation()}, 0)
    assert not {"mfcc", "mfcc_mean", "mfcc_std"} & set(other.rows.columns)
    assert {*SEGMENT, *METADATA} <= set(other.rows.columns)


@pytest.mark.parametrize("rows_a_part", [1, 3])
def test_a_table_too_large_for_memory_is_read_from_a_file_that_nobody_sees(rows_a_part, tmp_path):
    values = np.random.default_rng(0).permutation(7)
    rows = [row(f"{value}.wav", None if value == 3 else "sad", value=float(value)) for value in values]
    parts = [rows[first : first + rows_a_part] for first in range(0, 7, rows_a_part)]
    folder = features_folder(tmp_path / "f", parts)
    scratch = tmp_path / "not there" / "scratch"
    on_disk = load_features([folder], scratch=scratch, in_memory_bytes=6 * 24 - 1)
    in_memory = load_features([folder], in_memory_bytes=6 * 24)
    assert isinstance(in_memory.mfcc, np.ndarray)
    assert not isinstance(on_disk.mfcc, np.ndarray)
    assert on_disk.mfcc.shape == in_memory.mfcc.shape == (6, 3, 2)
    assert len(on_disk.mfcc) == 6
    for numbers in (np.arange(6), np.array([5, 0, 0, 2]), np.array([], dtype=np.int64)):
        np.testing.assert_array_equal(on_disk.mfcc[numbers], in_memory.mfcc[numbers])
    with pytest.raises(IndexError):
        on_disk.mfcc[np.array([6])]
    assert list(scratch.iterdir()) == []


def test_a_disk_without_room_for_a_large_table_is_an_output_error():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    mfcc = MfccFile(Path(tempfile.gettempdir()), (1, 3, 2))
    with full.open("r+b") as mfcc._file, pytest.raises(OutputError, match=r"copy of 0\.0 GB cannot be written.*--out"):
        mfcc[np.arange(1)] = np.zeros((1, 3, 2), dtype=np.float32)


def test_rows_without_an_emotion_are_left_out_and_counted(tmp_path):
    folder = features_folder(tmp_path / "f", [[row("a.wav", None), row("b.wav", value=7.0), row("c.wav", None)]])
    features = load_features([folder])
    assert features.rows["path"].to_list() == ["b.wav"]
    assert isinstance(features.mfcc, np.ndarray)
    assert features.mfcc.tolist() == [[[7.0, 7.0]] * 3]
    assert features.n_unlabelled == 2
    with pytest.raises(InputError, match=r"no row has an emotion.*--labels FILE"):
        load_features([features_folder(tmp_path / "none", [[row("a.wav", None)]])])


def test_silence_is_left_out_and_its_segments_are_counted_once(tmp_path):
    silent = [row("a.wav", variant=variant) | {"rms_dbfs": None} for variant in ("clean", "noise10")]
    folder = features_folder(tmp_path / "f", [[*silent, row("b.wav", value=7.0), row("c.wav", None)]])
    features = load_features([folder])
    assert features.rows["path"].to_list() == ["b.wav"]
    assert (features.n_silent, features.n_unlabelled) == (1, 1)
    assert features.values[np.arange(1)].tolist() == [[[7.0, 7.0]] * 3]
    with pytest.raises(InputError, match=r"all 1 segments with an emotion are digital silence"):
        load_features([features_folder(tmp_path / "silent", [silent])])


def test_features_without_a_column_are_refused_by_name(tmp_path):
    folder = features_folder(tmp_path / "f", [[row("a.wav")]])
    part = next(folder.glob("part-*.parquet"))
    pq.write_table(pq.read_table(part).drop_columns(["rms_dbfs"]), part)
    with pytest.raises(InputError, match=r"part-0\.parquet: has no column rms_dbfs; featurize again with --overwrite"):
        load_features([folder])


def test_several_folders_are_one_table(tmp_path):
    one = features_folder(tmp_path / "one", [[row("a.wav", value=1.0)]])
    two = features_folder(tmp_path / "two", [[row("a.wav", dataset="another", value=2.0)]])
    features = load_features([one, two])
    assert features.rows["dataset"].to_list() == ["another", "ravdess"]
    assert isinstance(features.mfcc, np.ndarray)
    assert features.mfcc[:, 0, 0].tolist() == [2.0, 1.0]


def test_a_key_that_stands_twice_is_refused_by_name(tmp_path):
    one = features_folder(tmp_path / "one", [[row("a.wav")]])
    two = features_folder(tmp_path / "two", [[row("b.wav"), row("a.wav", "happy")]])
    with pytest.raises(InputError, match=r"a\.wav: stands twice in the features \(dataset ravdess\).*--name"):
        load_features([one, two])


def test_features_of_another_spec_are_refused_by_the_fields_that_differ(tmp_path):
    one = features_folder(tmp_path / "one", [[row("a.wav")]])
    spec = FeatureSpec(n_frames=3, n_mfcc=2, sampling_rate=8000, n_mels=64)
    two = features_folder(tmp_path / "two", [[row("b.wav")]], spec=spec)
    with pytest.raises(InputError, match=r"two: features of another spec than .*one") as caught:
        load_features([one, two])
    assert "sampling_rate is 22050 there and 8000 here; n_mels is 128 there and 64 here" in str(caught.value)
    assert "hop_length" not in str(caught.value)


def test_a_folder_that_featurize_did_not_make_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no spec\.json.*ser-batch featurize"):
        load_features([tmp_path])
    folder = features_folder(tmp_path / "f", [])
    with pytest.raises(InputError, match=r"f: holds no part-\*\.parquet.*ser-batch featurize"):
        load_features([folder])
    (folder / "part-0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"part-0\.parquet: cannot be read"):
        load_features([folder])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"feature_spec": {}}',
        '{"feature_spec": null, "segmentation": {}}',
        '{"feature_spec": {"pitch": 1}, "segmentation": {}}',
        '{"feature_spec": {"n_fft": "x"}, "segmentation": {}}',
        '{"feature_spec": {}, "segmentation": {"mode": "clips"}}',
        '{"feature_spec": {}, "segmentation": {"channels": 3}}',
    ],
)
def test_a_damaged_spec_is_refused_by_name(tmp_path, text):
    folder = features_folder(tmp_path / "f", [[row("a.wav")]])
    (folder / "spec.json").write_text(text)
    with pytest.raises(InputError, match=r"spec\.json: cannot be read"):
        load_features([folder])


def test_parts_are_read_by_column_and_a_column_they_lack_is_refused(tmp_path):
    folder = features_folder(tmp_path / "f", [[row("b.wav")], [row("a.wav")]])
    table = read_parts(folder, ["path", "emotion"])
    assert table.to_pylist() == [{"path": "b.wav", "emotion": "sad"}, {"path": "a.wav", "emotion": "sad"}]
