"""Parquet files: written whole or not at all, read, merged."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import InputError
from ser_batch.storage.atomic import atomic_path
from ser_batch.storage.paths import parquet_source
from ser_batch.tables.schemas import LABEL_PREFIX, versioned

if TYPE_CHECKING:
    import polars as pl  # loaded by the functions that return frames: workers need none of it

# rows of small parts that are merged into one row group
MERGED_ROWS = 16_384


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file atomically."""
    with atomic_path(path) as temporary, part_writer(temporary, table.schema) as writer:
        writer.write_table(table)


def part_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a Parquet writer with the settings that suit `schema`; the caller closes it."""
    # Float columns are split into byte planes before zstd: dictionaries make such data larger than raw.
    leaves = [_leaf_name(field) for field in schema if _is_float(field.type)]
    others = [field.name for field in schema if not _is_float(field.type)]
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=others, use_byte_stream_split=leaves, write_statistics=others
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
    """Return rows as a table of exactly `schema`; a column that a row lacks is null there."""
    # Values given as NumPy arrays of a column's shape become fixed-size lists without Python numbers between.
    arrays = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        shaped = [value for value in values if isinstance(value, np.ndarray)]
        if shaped and len(shaped) == len(values):
            arrays.append(fixed_size_lists(np.stack(shaped), field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def fixed_size_lists(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return an array of shape (n, ...) as nested fixed-size lists; the numbers are not copied."""
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values.reshape(-1), kind)
    return pa.FixedSizeListArray.from_arrays(fixed_size_lists(values, kind.value_type), type=kind)


def part_files(folder: Path) -> list[Path]:
    """Return all ``part-*.parquet`` of a folder, in order."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise InputError(f"{folder}: holds no part-*.parquet; make it with `ser-batch featurize AUDIO`")
    return parts


def read_parts(folder: Path, columns: Sequence[str] | None = None, *, with_votes: bool = False) -> pa.Table:
    """Read all ``part-*.parquet`` of a folder as one table."""
    tables = []
    for part in part_files(folder):
        with reading(part):
            file = pq.ParquetFile(parquet_source(part), memory_map=True)
            there = file.schema_arrow.names
            missing = [name for name in columns or () if name not in there]
            if missing:
                raise InputError(f"{part}: has no column {missing[0]}; featurize again with --overwrite")
            votes = [name for name in there if with_votes and name.startswith(LABEL_PREFIX)]
            tables.append(file.read(columns=None if columns is None else [*columns, *votes]))
    return concat(tables)


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables as one; a column that some of them lack is null there."""
    return pa.concat_tables(tables, promote_options="default")


@contextlib.contextmanager
def reading(part: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a broken or foreign part into an `InputError` that names it."""
    try:
        yield
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InputError(f"{part}: cannot be read as Parquet ({error}); featurize again") from error


def merge_parts(parts: Sequence[Path], out: Path, schema: pa.Schema) -> int:
    """Write many parts as one Parquet file, few of them in memory at a time; return the number of rows."""
    # Parts of a few rows, as a nightly run makes them, are written together: each write is a row group.
    rows = 0
    waiting: list[pa.Table] = []
    with atomic_path(out) as temporary, part_writer(temporary, schema) as writer:
        for number, part in enumerate(parts, start=1):
            table = pq.ParquetFile(parquet_source(part)).read()
            # a cast loads pyarrow.compute, which takes a quarter of a second
            waiting.append(table if table.schema.equals(schema, check_metadata=True) else table.cast(schema))
            if number == len(parts) or sum(table.num_rows for table in waiting) >= MERGED_ROWS:
                together = pa.concat_tables(waiting)
                rows += together.num_rows
                writer.write_table(together)
                waiting = []
    return rows


def read_frame(path: Path, columns: list[str] | None = None) -> "pl.DataFrame":
    """Return one Parquet file as a frame; whatever characters its name has, it is no pattern."""
    import polars as pl

    return pl.read_parquet(parquet_source(path), columns=columns, glob=False)  # noqa: TID251 - here it is set


def scan_frames(paths: Sequence[Path]) -> "pl.LazyFrame":
    """Return Parquet files as one lazy frame; their names are no patterns."""
    import polars as pl

    return pl.scan_parquet([parquet_source(path) for path in paths], glob=False)  # noqa: TID251 - here it is set


def write_frame(frame: "pl.DataFrame", path: Path, schema: pa.Schema | None = None) -> None:
    """Write a Polars frame atomically, with the version of the tables."""
    table = frame.to_arrow()
    if schema is None:
        # Polars hands over large strings; other readers are happier with plain ones
        fields = [
            (field.name, pa.string() if pa.types.is_large_string(field.type) else field.type) for field in table.schema
        ]
        schema = versioned(fields)
    write_table(path, table.select(schema.names).cast(schema))
