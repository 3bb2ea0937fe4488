"""Read the MFCCs of a features folder into one array in one of several ways; print the seconds of each try as JSON.

python tests/benchmark/peers/read_mfcc.py load_features|pyarrow|polars|duckdb|numpy|copy FEATURES SAME.npy
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

TRIES = 5
N_FRAMES, N_MFCC = 174, 40


def by_load_features(features: Path) -> np.ndarray:
    """Read as ser-batch does: all columns, sorted."""
    from ser_batch.tables.features import load_features

    mfcc = load_features([features]).mfcc
    assert isinstance(mfcc, np.ndarray)  # not too large for memory
    return mfcc


def by_pyarrow(features: Path) -> np.ndarray:
    """Read the column with pyarrow."""
    import pyarrow.parquet as pq

    return _leaves(pq.read_table(sorted(features.glob("part-*.parquet")), columns=["mfcc"]))


def by_polars(features: Path) -> np.ndarray:
    """Read the column with Polars."""
    import polars as pl

    return pl.read_parquet(features / "part-*.parquet", columns=["mfcc"])["mfcc"].to_numpy()


def by_duckdb(features: Path) -> np.ndarray:
    """Read the column with DuckDB."""
    import duckdb

    return _leaves(duckdb.read_parquet(f"{features}/part-*.parquet").select("mfcc").fetch_arrow_table())


def _leaves(table: pa.Table) -> np.ndarray:
    """Return a column of lists of lists as one array."""
    leaves = table["mfcc"].combine_chunks().flatten().flatten()
    return leaves.to_numpy().reshape(-1, N_FRAMES, N_MFCC)


def reader(name: str, features: Path, array: Path) -> Callable[[], np.ndarray]:
    """Return what is to be timed."""
    if name == "copy":  # from memory to memory, which nothing that reads can beat
        return np.load(array).copy
    if name == "numpy":
        return partial(np.load, array)
    by_name = {"load_features": by_load_features, "pyarrow": by_pyarrow, "polars": by_polars, "duckdb": by_duckdb}
    return partial(by_name[name], features)


def main() -> None:
    """Time one reader, and check that it reads what there is."""
    name, features, array = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    expected = np.load(array, mmap_mode="r").shape
    read = reader(name, features, array)
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        mfcc = read()
        seconds.append(time.perf_counter() - started)
        assert mfcc.shape == expected, f"{name} gives {mfcc.shape}, expected {expected}"
        assert mfcc.dtype == np.float32, f"{name} gives {mfcc.dtype}"
        del mfcc  # each try has to find memory anew
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
