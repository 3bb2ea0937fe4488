"""Score calls with librosa and Keras: one `predict` for all windows of a recording.

KERAS_BACKEND=jax python tests/benchmark/peers/score_batched.py CALLS MODEL OUT.parquet
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
        predicted = model.network.predict(scaled_windows(path, model), verbose=0)
        rows += [row(path, segment, probabilities, model.labels) for segment, probabilities in enumerate(predicted)]
    write(rows, out)


if __name__ == "__main__":
    main()
