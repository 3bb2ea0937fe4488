"""The loop of librosa_loop.py on two processes, by joblib.

python tests/benchmark/peers/librosa_joblib.py WAVS OUT.npy
"""

import sys

import numpy as np
from joblib import Parallel, delayed
from librosa_loop import files, mfcc


def main() -> None:
    """Write all MFCCs as one array."""
    folder, out = sys.argv[1:]
    np.save(out, np.array(Parallel(n_jobs=2)(delayed(mfcc)(path) for path in files(folder))))


if __name__ == "__main__":
    main()
