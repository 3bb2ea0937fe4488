"""Segments of the archive's sample: encoded once, for its reference, and not again to be scored."""

import contextlib
import functools
import secrets
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.tables import source, write_table

if TYPE_CHECKING:
    from ser_batch.encoder import Embedding  # loads SciPy, and the process that starts a run needs none of it


class Besides(Container[tuple[int, int]]):
    """All segments but some, by channel and number."""

    def __init__(self, left_out: Container[tuple[int, int]]) -> None:
        self._left_out = left_out

    def __contains__(self, place: object) -> bool:
        return place not in self._left_out


@contextlib.contextmanager
def kept_for_workers(folder: Path, sampled: pa.Table | None) -> Iterator[Path | None]:
    """Give the file of a sample in a store, for as long as its recordings are scored; None where there is none."""
    if sampled is None:
        yield None
        return
    # a new name each time: a worker that has read another run's sample must not take it for this one
    file = folder / "_meta" / f"sample-{secrets.token_hex(8)}.parquet"
    try:
        write_table(file, sampled)
        yield file
    finally:
        file.unlink(missing_ok=True)


def remove_samples(folder: Path) -> None:
    """Remove the samples of runs that were killed."""
    for file in (folder / "_meta").glob("sample-*.parquet"):
        file.unlink()


@functools.lru_cache(maxsize=1)
def read_encoded(file: Path) -> "Mapping[tuple[str, str], Mapping[tuple[int, int], Embedding]]":
    """Read a sample, once a process: by path and hash of the recording, then by channel and number."""
    from ser_batch.encoder import Embedding  # loaded by workers only

    table = pq.ParquetFile(source(file)).read()
    keys = ("path", "content_hash", "channel", "segment", "n_tokens")
    found: dict[tuple[str, str], dict[tuple[int, int], Embedding]] = {}
    for values, row in zip(embeddings_of(table), table.select(keys).to_pylist(), strict=True):
        own = found.setdefault((row["path"], row["content_hash"]), {})
        own[row["channel"], row["segment"]] = Embedding(values, row["n_tokens"])
    return found


def embeddings_of(table: pa.Table) -> npt.NDArray[np.float32]:
    """Return the embeddings of a sample, shape (n, d)."""
    column = table["embedding"].combine_chunks()
    return np.asarray(column.flatten().to_numpy()).reshape(len(table), column.type.list_size)
