"""The tables: column names and dtypes spelled once, written whole or not at all, read back.

Parquet goes through pyarrow here, because workers write it and pyarrow is what they load; Polars is what users
and the later stages read it with.
"""

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ser_batch.config import FeatureSpec, Segmentation
from ser_batch.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    import polars as pl  # loaded by the functions that return frames: workers need none of it

SCHEMA_VERSION = "1"
TEMPORARY_MARK = ".writing-"

# the negative emotions of the call table: those people listen for first
NEGATIVE = ("angry", "disgust", "fearful", "sad")
QUARTERS = (1, 2, 3, 4)

METADATA_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("corpus", pa.string()),
    ("modality", pa.string()),
    ("vocal_channel", pa.string()),
    ("emotion", pa.string()),
    ("intensity", pa.string()),
    ("statement", pa.string()),
    ("repetition", pa.int8()),
    ("actor", pa.int16()),
    ("sex", pa.string()),
    ("speaker", pa.string()),
]

SEGMENT_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("dataset", pa.string()),
    ("path", pa.string()),
    ("content_hash", pa.string()),
    ("channel", pa.int16()),
    ("segment", pa.int32()),
    ("variant", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("duration_s", pa.float64()),
    ("sampling_rate", pa.int32()),
    ("n_channels", pa.int16()),
    ("n_frames", pa.int16()),
    *METADATA_COLUMNS,
    ("speech_ratio", pa.float64()),
]

KEY = ("dataset", "path", "channel", "segment", "variant")

REJECTS = pa.schema([(name, pa.string()) for name in ("path", "stage", "error", "message")])


def features_schema(spec: FeatureSpec) -> pa.Schema:
    """Return the schema of ``features/part-*.parquet``.

    Parameters
    ----------
    spec
        Gives the shape of mfcc, (n_frames, n_mfcc), frames first.
    """
    row = pa.list_(pa.float32(), spec.n_mfcc)
    return _versioned(
        [
            *SEGMENT_COLUMNS,
            ("mfcc", pa.list_(row, spec.n_frames)),
            ("mfcc_mean", row),
            ("mfcc_std", row),
        ]
    )


def model_predictions_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of a model's predictions.parquet: the evaluation rows.

    Parameters
    ----------
    labels
        Of the model, in its order; one probability column each.
    """
    return _versioned(
        [
            *SEGMENT_COLUMNS,
            ("fold", pa.string()),
            ("seed", pa.int64()),
            ("predicted", pa.string()),
            *_probability_columns(labels),
        ]
    )


def predictions_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of preds.parquet, one row a segment."""
    return _versioned(
        [
            ("path", pa.string()),
            ("content_hash", pa.string()),
            ("channel", pa.int16()),
            ("role", pa.string()),
            ("segment", pa.int32()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("speech_ratio", pa.float64()),
            ("rms_dbfs", pa.float64()),
            ("clipped_ratio", pa.float64()),
            ("predicted", pa.string()),
            ("abstained", pa.bool_()),
            ("confidence", pa.float64()),
            ("entropy", pa.float64()),
            ("margin", pa.float64()),
            *_probability_columns(labels),
            ("model_id", pa.string()),
            ("emotion", pa.string()),
        ]
    )


def calls_schema(labels: Sequence[str]) -> pa.Schema:
    """Return the schema of preds.calls.parquet, one row a recording and channel."""
    negative = [label for label in NEGATIVE if label in labels]
    return _versioned(
        [
            ("path", pa.string()),
            ("content_hash", pa.string()),
            ("channel", pa.int16()),
            ("role", pa.string()),
            ("duration_s", pa.float64()),
            ("speech_s", pa.float64()),
            ("overlap_s", pa.float64()),
            ("n_segments", pa.int32()),
            ("predicted", pa.string()),
            *_probability_columns(labels),
            *((f"share_{label}", pa.float64()) for label in labels),
            *((f"p_{label}_q{quarter}", pa.float64()) for quarter in QUARTERS for label in labels),
            *((f"peak_s_{label}", pa.float64()) for label in negative),
            *((f"peak_p_{label}", pa.float64()) for label in negative),
            *((f"longest_start_s_{label}", pa.float64()) for label in negative),
            *((f"longest_s_{label}", pa.float64()) for label in negative),
            *((f"change_{label}", pa.float64()) for label in labels),
            ("priority", pa.float64()),
            ("status", pa.string()),
            ("model_id", pa.string()),
            ("emotion", pa.string()),
        ]
    )


def _probability_columns(labels: Sequence[str]) -> list[tuple[str, pa.DataType]]:
    """Return one column for each label of the model."""
    return [(f"p_{label}", pa.float64()) for label in labels]


def _versioned(columns: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    """Return a schema that carries the version of the tables."""
    return pa.schema(columns, metadata={"schema_version": SCHEMA_VERSION})


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place, fsynced, when the block ends well.

    A reader sees the old file or the whole new one. Where the block raises, nothing is left behind.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); free or choose another place with --out") from error
    finally:
        # also where the folder itself is gone or read-only: the first error is the one to tell
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises
    ------
    OutputError
        It cannot be made, or a file stands there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another place with --out") from error


def remove_temporaries(folder: Path) -> None:
    """Remove what writers that were killed have left in `folder` and below."""
    for leftover in folder.rglob(f".*{TEMPORARY_MARK}*"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, for people to read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file atomically."""
    with atomic_path(path) as temporary, part_writer(temporary, table.schema) as writer:
        writer.write_table(table)


def part_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a Parquet writer with the settings that suit `schema`; the caller closes it.

    Float columns are split into byte planes before zstd: dictionaries make such data larger than raw.
    """
    leaves = [_leaf_name(field) for field in schema if _is_float(field.type)]
    others = [field.name for field in schema if not _is_float(field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=others,
        use_byte_stream_split=leaves,
        write_statistics=others,
    )


def _is_float(kind: pa.DataType) -> bool:
    """Whether the leaf of a column, however nested, is a float."""
    while pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_floating(kind))


def _leaf_name(field: pa.Field) -> str:
    """Return the name of a column's leaf in the file; options that name the column alone are ignored."""
    name, kind = field.name, field.type
    while pa.types.is_fixed_size_list(kind):
        name, kind = f"{name}.list.element", kind.value_type
    return str(name)


def rows_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of exactly `schema`; a column that no row has is null."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def read_parts(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all ``part-*.parquet`` of a folder as one table.

    Parameters
    ----------
    folder
        A features folder, or the parts of a scoring run.
    columns
        Those to read; None for all.

    Raises
    ------
    InputError
        There are no parts, or one of them cannot be read.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise InputError(f"{folder}: holds no part-*.parquet; make it with `ser-batch featurize AUDIO`")
    tables = []
    for part in parts:
        try:
            tables.append(pq.ParquetFile(part, memory_map=True).read(columns=columns))
        except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise InputError(f"{part}: cannot be read as Parquet ({error}); featurize again") from error
    return pa.concat_tables(tables)


def merge_parts(parts: Sequence[Path], out: Path, schema: pa.Schema) -> int:
    """Write many parts as one Parquet file, one part in memory at a time; return the number of rows."""
    rows = 0
    with atomic_path(out) as temporary, part_writer(temporary, schema) as writer:
        for part in parts:
            table = pq.ParquetFile(part).read()
            rows += table.num_rows
            writer.write_table(table.cast(schema))
    return rows


Mfcc = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Features:
    """One or more features folders in memory, rows without an emotion left out.

    Parameters
    ----------
    rows
        All columns but the arrays, in the order of the key.
    mfcc
        float32, shape (n, n_frames, n_mfcc), padded with 0.0.
    n_frames
        Real frames, int64, shape (n,).
    spec, segmentation
        How they were computed.
    n_unlabelled
        Rows left out.
    """

    rows: "pl.DataFrame"
    mfcc: Mfcc
    n_frames: npt.NDArray[np.int64]
    spec: FeatureSpec
    segmentation: Segmentation
    n_unlabelled: int


def load_features(folders: Sequence[Path]) -> Features:
    """Read features folders into arrays.

    Parameters
    ----------
    folders
        Made by featurize with one spec.

    Raises
    ------
    InputError
        A folder holds no features, specs differ, a key occurs twice, or nothing is labelled.
    """
    specs = [_read_spec(folder) for folder in folders]
    spec, segmentation = specs[0]
    for folder, (other, _) in zip(folders[1:], specs[1:], strict=True):
        differing = [
            f"{name} is {value!r} there and {other.to_dict()[name]!r} here"
            for name, value in spec.to_dict().items()
            if other.to_dict()[name] != value
        ]
        if differing:
            raise InputError(
                f"{folder}: features of another spec than {folders[0]}: {'; '.join(differing)}. "
                "Featurize both with the same --preset"
            )
    table = pa.concat_tables([read_parts(folder) for folder in folders])
    n_all = table.num_rows
    table = table.filter(table["emotion"].is_valid())
    if not table.num_rows:
        raise InputError(
            f"{folders[0]}: no row has an emotion; name the files as RAVDESS does, or give "
            "`ser-batch featurize --labels FILE`"
        )
    # parts come in the order of the shards; sorting makes a training the same whatever the shards were
    table = table.take(pc.sort_indices(table, [(name, "ascending") for name in KEY]))
    import polars as pl

    rows = pl.from_arrow(table.drop_columns(["mfcc", "mfcc_mean", "mfcc_std"]))
    assert isinstance(rows, pl.DataFrame)
    twice = rows.filter(rows.select(KEY).is_duplicated())
    if len(twice):
        raise InputError(
            f"{twice['path'][0]}: stands twice in the features (dataset {twice['dataset'][0]}); leave one folder "
            "out, or featurize it with another --name"
        )
    leaves = table["mfcc"].combine_chunks().flatten().flatten().to_numpy(zero_copy_only=True)
    return Features(
        rows=rows,
        mfcc=leaves.reshape(len(rows), spec.n_frames, spec.n_mfcc),
        n_frames=rows["n_frames"].cast(pl.Int64).to_numpy(),
        spec=spec,
        segmentation=segmentation,
        n_unlabelled=n_all - len(rows),
    )


def _read_spec(folder: Path) -> tuple[FeatureSpec, Segmentation]:
    path = folder / "spec.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return FeatureSpec.from_dict(values["feature_spec"]), Segmentation.from_dict(values["segmentation"])
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no spec.json; expected a folder made by `ser-batch featurize AUDIO --out {folder}`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise InputError(f"{path}: cannot be read ({error}); featurize again with --overwrite") from error


def write_frame(frame: "pl.DataFrame", path: Path, schema: pa.Schema | None = None) -> None:
    """Write a Polars frame atomically, with the version of the tables.

    Parameters
    ----------
    frame
        Its columns may stand in any order where `schema` is given.
    path
        The Parquet file.
    schema
        To write; None takes the frame's own.
    """
    table = frame.to_arrow()
    if schema is None:
        # Polars hands over large strings; other readers are happier with plain ones
        fields = [
            (field.name, pa.string() if pa.types.is_large_string(field.type) else field.type) for field in table.schema
        ]
        schema = _versioned(fields)
    write_table(path, table.select(schema.names).cast(schema))
