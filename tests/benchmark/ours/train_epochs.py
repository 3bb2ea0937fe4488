"""Train the network of the recipe published as ser-batch does; print the seconds of each epoch as JSON.

python tests/benchmark/ours/train_epochs.py FOLDER EPOCHS
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np

from ser_batch.network import architectures, optimization
from ser_batch.network.recipes import RECIPES


class Rows:
    """Rows as they are, x and one-hot y, as training asks for them."""

    is_masked = False

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def order(self, generator: np.random.Generator) -> np.ndarray:
        return generator.permutation(len(self.x))

    def batch(self, numbers: np.ndarray, _: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.x[numbers], self.y[numbers]


def main() -> None:
    """Train on x.npy and y.npy of the folder."""
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    _, n_frames, n_mfcc = x.shape
    n_labels = y.shape[1]
    optimization.set_seed(0)
    made = architectures.build("seed", n_frames, n_mfcc, n_labels)
    times_s = [time.perf_counter()]
    optimization.fit(
        made,
        Rows(x, y),
        RECIPES["published"],
        epochs=epochs,
        seed=0,
        on_epoch=lambda epoch, logs: times_s.append(time.perf_counter()),
    )
    print(json.dumps([end - start for start, end in itertools.pairwise(times_s)]))


if __name__ == "__main__":
    main()
