"""Train a network with Keras's own `fit`; print the seconds of each epoch as JSON. Needs keras and a backend only.

KERAS_BACKEND=torch python tests/benchmark/peers/keras_fit.py FOLDER EPOCHS
"""

import itertools
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np


def main() -> None:
    """Train network.keras on x.npy and y.npy of the folder."""
    folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    keras.utils.set_random_seed(0)
    network = keras.saving.load_model(folder / "network.keras")
    network.compile(optimizer=keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
    times_s = [time.perf_counter()]
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: times_s.append(time.perf_counter()))
    network.fit(x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=[callback])
    print(json.dumps([end - start for start, end in itertools.pairwise(times_s)]))


if __name__ == "__main__":
    main()
