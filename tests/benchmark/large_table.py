"""Train on a made-up table larger than memory should hold: seconds, and the peak memory of the process.

python tests/benchmark/large_table.py --gigabytes 10
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from harness import argument_parser, scratch_folder, ser_batch, show

from ser_batch.config.features import PRESETS
from ser_batch.config.segmentation import Segmentation
from ser_batch.storage.atomic import write_json
from ser_batch.tables.parquet import part_writer, rows_table
from ser_batch.tables.schemas import features_schema

SPEC = PRESETS["wideband"]
BAR_GIB = 2.0
ROWS_A_GROUP, GROUPS_A_PART = 512, 8
LABELS = ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")


def make_features(folder: Path, gigabytes: float) -> int:
    """Write a features folder of random MFCCs, `gigabytes` of them as float32; return its rows."""
    folder.mkdir()
    random = np.random.default_rng(0)
    mfcc = random.normal(scale=20, size=(ROWS_A_GROUP, SPEC.n_frames, SPEC.n_mfcc)).astype(np.float32)
    n_groups = max(1, round(gigabytes * 1e9 / mfcc.nbytes))
    schema = features_schema(SPEC)
    for part in range(0, n_groups, GROUPS_A_PART):
        with part_writer(folder / f"part-{part:06d}.parquet", schema) as writer:
            for group in range(part, min(part + GROUPS_A_PART, n_groups)):
                rows = [
                    {
                        "dataset": "made",
                        "path": f"{group:06d}-{i:03d}.wav",
                        "content_hash": f"{group:06d}-{i:03d}",
                        "channel": 0,
                        "segment": 0,
                        "variant": "clean",
                        "sampling_rate": SPEC.sampling_rate,
                        "n_frames": SPEC.n_frames,
                        "emotion": LABELS[i % len(LABELS)],
                        "mfcc": values,
                        "mfcc_mean": values.mean(axis=0),
                        "mfcc_std": values.std(axis=0),
                    }
                    for i, values in enumerate(mfcc)
                ]
                writer.write_table(rows_table(rows, schema))
    write_json(folder / "spec.json", {"feature_spec": SPEC.to_dict(), "segmentation": Segmentation().to_dict()})
    return n_groups * ROWS_A_GROUP


def main() -> None:
    """Make the table, train an epoch on it, print."""
    parser = argument_parser(__doc__, "--scratch")
    parser.add_argument("--gigabytes", type=float, default=10, help="MFCCs as float32 (default: %(default)g)")
    arguments = parser.parse_args()
    with scratch_folder(arguments.scratch) as scratch:
        features = scratch / f"table-{arguments.gigabytes:g}gb"
        n_rows = make_features(features, arguments.gigabytes)
        started = time.monotonic()
        options = ("--split", "none", "--epochs", 1, "--overwrite", "--out", scratch / "table-model")
        subprocess.run(ser_batch("train", features, *options), check=True, stdout=sys.stderr)
        wall_s = time.monotonic() - started
        peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    row = {
        "rows": f"{n_rows}",
        "MFCCs, GB": f"{n_rows * SPEC.n_frames * SPEC.n_mfcc * 4 / 1e9:.1f}",
        "seconds": f"{wall_s:.0f}",
        "peak, GiB": f"{peak_gib:.2f}",
        "bar": f"below {BAR_GIB:g}",
        "result": "met" if peak_gib < BAR_GIB else "missed",
    }
    show("train --split none --epochs 1 on a made-up table", [row], arguments.markdown)


if __name__ == "__main__":
    main()
