"""MFCCs of a whole table: an array where they fit into memory, else a temporary file that is read by the row."""

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ser_batch.errors import OutputError
from ser_batch.storage.atomic import make_folder
from ser_batch.tables.parquet import reading

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
# tables beyond this go to a file: 19,000 segments, 10 hours of windows; Keras and JAX take as much again
IN_MEMORY_BYTES = 2**29


def chunks(rows: Numbers) -> list[Numbers]:
    """Cut row numbers into stretches of about 1024, 28 MB of MFCCs."""
    return np.array_split(rows, max(1, len(rows) // 1024))


class MfccFile:
    """MFCCs in a temporary file. Rows come by number, as from an array; only those asked for take memory.

    A mapped file would look simpler, but each page once touched counts as memory of this process.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._folder = folder
        self._row_bytes = 4 * shape[1] * shape[2]
        make_folder(folder)
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".ser-batch-")  # noqa: SIM115 - lives as long as this
        except OSError as error:
            raise self._error(error) from error
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: Numbers) -> Array:
        """Return rows by number, shape (len(rows), n_frames, n_mfcc)."""
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for i, row in enumerate(rows.tolist()):
            if os.preadv(self._file.fileno(), [out[i]], row * self._row_bytes) != self._row_bytes:
                raise IndexError(f"row {row} of {len(self)}")
        return out

    def __setitem__(self, rows: Numbers, values: Array) -> None:
        """Write rows by number."""
        try:
            for i, row in enumerate(rows.tolist()):
                # a regular file takes a row whole, or raises
                os.pwritev(self._file.fileno(), [np.ascontiguousarray(values[i]).data], row * self._row_bytes)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> OutputError:
        gigabytes = len(self) * self._row_bytes / 1e9
        return OutputError(
            f"{self._folder}: the table is too large for memory, and its copy of {gigabytes:.1f} GB cannot be written "
            f"here ({error.strerror}); make room, or choose another disk with --out"
        )


Mfcc = Array | MfccFile


def make_mfcc(shape: tuple[int, int, int], folder: Path, in_memory_bytes: int) -> Mfcc:
    """Return room for MFCCs, shape (n, n_frames, n_mfcc): in memory, or beyond `in_memory_bytes` in `folder`."""
    if 4 * int(np.prod(shape)) <= in_memory_bytes:
        return np.empty(shape, dtype=np.float32)
    return MfccFile(folder, shape)


def read_arrays(parts: Sequence[Path], column: str) -> Iterator[Array]:
    """Yield a column of arrays of parts in order, a row group at a time, shape (rows, ...)."""
    # Two threads read ahead, a few row groups of 14 MB at most.
    ahead: deque[Future[list[Array]]] = deque()
    with ThreadPoolExecutor(2) as threads:
        for part in parts:
            with reading(part):
                metadata = pq.read_metadata(part)
            for group in range(metadata.num_row_groups):
                ahead.append(threads.submit(_read_group, part, metadata, group, column))
                if len(ahead) > 3:
                    yield from ahead.popleft().result()
        for group_read in ahead:
            yield from group_read.result()


def _read_group(part: Path, metadata: Any, group: int, column: str) -> list[Array]:
    with reading(part):
        values = pq.ParquetFile(part, metadata=metadata).read_row_group(group, columns=[column])[column]
    return [_as_array(chunk) for chunk in values.chunks]


def _as_array(chunk: Any) -> Array:
    """Return a chunk of fixed-size lists, nested or not, as an array; no number becomes an object, none is copied."""
    shape, values, kind = [len(chunk)], chunk, chunk.type
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        values, kind = values.flatten(), kind.value_type
    return np.asarray(values.to_numpy(zero_copy_only=True)).reshape(shape)
