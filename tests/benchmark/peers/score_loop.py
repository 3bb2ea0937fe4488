"""Score calls with librosa and Keras as one writes it first: `predict` for every window.

KERAS_BACKEND=jax python tests/benchmark/peers/score_loop.py CALLS MODEL OUT.parquet
"""

import sys
from pathlib import Path

from call_windows import load_model, row, scaled_windows, write


def main() -> None:
    """Write a row for each window."""
    calls, model_folder, out = map(Path, sys.argv[1:])
    model = load_model(model_folder)
    rows = []
    for path in sorted(calls.glob("*.wav")):
        for segment, window in enumerate(scaled_windows(path, model)):
            probabilities = model.network.predict(window[None], verbose=0)[0]
            rows.append(row(path, segment, probabilities, model.labels))
    write(rows, out)


if __name__ == "__main__":
    main()
