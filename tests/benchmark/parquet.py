"""How large the MFCCs are in Parquet, and how fast they are read back, beside NumPy's own file and a copy in memory.

python tests/benchmark/parquet.py --scratch FOLDER

Each way to read has a process of its own and several tries, of which the best counts: this is about reading, not
about starting.
"""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
from harness import (
    N_RAVDESS,
    Bar,
    Program,
    Row,
    argument_parser,
    corpus_folder,
    digits,
    measure,
    ravdess_wav,
    scratch_folder,
    script,
    ser_batch,
    show,
)

SIZE_BAR = Bar("below", 1)
# by their names in peers/read_mfcc.py
READERS = {
    "load_features": "ser-batch load_features, all columns",
    "pyarrow": "pyarrow, column mfcc",
    "polars": "polars, column mfcc",
    "duckdb": "duckdb, column mfcc",
    "numpy": "numpy.load of .npy",
    "copy": "numpy.copy in memory",
}


def make_features(source: Path, scratch: Path, n_files: int) -> Path:
    """Featurize, anew each time: what wrote an older folder may have been another version."""
    features = scratch / "features"
    command = ser_batch("featurize", ravdess_wav(source, scratch, n_files), "--out", features, "--overwrite")
    measure(Program("featurize", command))
    return features


def size_row(features: Path, shape: tuple[int, ...]) -> Row:
    """Compare the size of all columns with that of the MFCCs alone as raw float32."""
    parquet_mb = sum(part.stat().st_size for part in features.glob("part-*.parquet")) / 1e6
    raw_mb = 4 * math.prod(shape) / 1e6
    ratio = parquet_mb / raw_mb
    return {
        "segments": str(shape[0]),
        "Parquet MB": digits(parquet_mb),
        "raw float32 MB": digits(raw_mb),
        "ratio": digits(ratio),
        **SIZE_BAR.judge(ratio),
    }


def reader_rows(features: Path, array: Path) -> list[Row]:
    """Return a row for each way to read that is installed."""
    gigabytes = np.load(array, mmap_mode="r").nbytes / 1e9
    seconds = {}
    for reader, name in READERS.items():
        if reader == "duckdb" and not importlib.util.find_spec("duckdb"):
            print("duckdb is not installed and left out")
            continue
        command = script("peers/read_mfcc.py", reader, features, array)
        seconds[name] = min(json.loads(measure(Program(name, command)).output))
    pyarrow_s = seconds[READERS["pyarrow"]]
    return [
        {
            "read into one array": name,
            "best s": digits(best_s),
            "GB/s": digits(gigabytes / best_s),
            "speed / pyarrow's": digits(pyarrow_s / best_s),
        }
        for name, best_s in seconds.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--audio", "--scratch")
    parser.add_argument("--files", type=int, default=N_RAVDESS, help="number of recordings (default: %(default)s)")
    arguments = parser.parse_args()
    source = corpus_folder(arguments.audio, "ravdess")
    with scratch_folder(arguments.scratch) as scratch:
        features = make_features(source, scratch, arguments.files)
        mfcc = pl.read_parquet(features / "part-*.parquet", columns=["mfcc"])["mfcc"].to_numpy()
        array = scratch / "mfcc.npy"
        np.save(array, mfcc)
        show("Size of the features", [size_row(features, mfcc.shape)], arguments.markdown)
        show(f"Reading {len(mfcc)} MFCCs", reader_rows(features, array), arguments.markdown)


if __name__ == "__main__":
    main()
