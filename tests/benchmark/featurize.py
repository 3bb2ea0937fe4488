"""How long featurize takes on RAVDESS, beside librosa in a loop, librosa on two processes, and the bare arithmetic.

python tests/benchmark/featurize.py --scratch FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from harness import (
    N_RAVDESS,
    Bar,
    Program,
    Row,
    argument_parser,
    compare_runs,
    corpus_folder,
    interleave,
    ravdess_wav,
    scratch_folder,
    script,
    ser_batch,
    show,
)

BARS = {"librosa loop": Bar("at least", 4), "librosa joblib": Bar("at least", 2), "parts only": Bar("at most", 1.5)}
DIFFERENCE_BAR = Bar("at most", 1e-2)


def programs(wavs: Path, scratch: Path) -> list[Program]:
    """Return ours and the peers on one folder; what they write goes to `scratch`."""
    features, loop, joblib, filterbank = (
        scratch / name for name in ("features", "loop.npy", "joblib.npy", "filterbank.npy")
    )
    return [
        Program("ser-batch", ser_batch("featurize", wavs, "--out", features, "--jobs", 2), [features]),
        Program("librosa loop", script("peers/librosa_loop.py", wavs, loop), [loop]),
        Program("librosa joblib", script("peers/librosa_joblib.py", wavs, joblib), [joblib]),
        Program("parts only", script("peers/parts_only.py", wavs, filterbank)),
    ]


def save_filterbank(path: Path) -> None:
    """Write librosa's mel filters for the program that does without librosa."""
    import librosa

    np.save(path, librosa.filters.mel(sr=22050, n_fft=2048, n_mels=128))


def largest_difference(features: Path, loop: Path) -> float:
    """Return the largest absolute difference between our table and the array of the librosa loop."""
    ours = pl.read_parquet(features / "part-*.parquet", columns=["path", "mfcc"]).sort("path")["mfcc"].to_numpy()
    return float(np.abs(ours - np.load(loop).transpose(0, 2, 1)).max())


def cold_rows(wav: Path, scratch: Path) -> list[Row]:
    """Compare ours and the loop on one recording, numba's cache being empty: what the very first run costs."""
    cache = scratch / "numba-cache"
    cold = [
        Program(program.name, program.command, [*program.fresh, cache], {"NUMBA_CACHE_DIR": str(cache)})
        for program in programs(wav, scratch)[:2]
    ]
    return compare_runs(interleave(cold, 1, warm_up=False), {})


def measure_all(arguments: argparse.Namespace, source: Path, scratch: Path) -> None:
    """Make the audio, run everything, print the tables."""
    wavs = ravdess_wav(source, scratch, arguments.files)
    save_filterbank(scratch / "filterbank.npy")
    rows = compare_runs(interleave(programs(wavs, scratch), arguments.runs), BARS)
    show(f"Featurize {arguments.files} files of RAVDESS, 16-bit WAV", rows, arguments.markdown)
    difference = largest_difference(scratch / "features", scratch / "loop.npy")
    row = {"figure": "ser-batch - librosa loop", "largest": f"{difference:.1e}", **DIFFERENCE_BAR.judge(difference)}
    show("Difference of the MFCCs", [row], arguments.markdown)
    if arguments.cold:
        rows = cold_rows(ravdess_wav(source, scratch, 1), scratch)
        show("The first run of all: 1 file, numba's cache empty", rows, arguments.markdown)


def main() -> None:
    """Read the arguments and measure."""
    parser = argument_parser(__doc__, "--runs", "--audio", "--scratch")
    parser.add_argument("--files", type=int, default=N_RAVDESS, help="number of recordings (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="also one run of 1 file with an empty cache of numba")
    arguments = parser.parse_args()
    source = corpus_folder(arguments.audio, "ravdess")
    with scratch_folder(arguments.scratch) as scratch:
        measure_all(arguments, source, scratch)


if __name__ == "__main__":
    main()
