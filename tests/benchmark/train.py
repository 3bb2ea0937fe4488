"""How long an epoch of the shipped network takes on JAX, beside the same Keras network on the PyTorch backend.

python tests/benchmark/train.py --torch-python FOLDER/bin/python

The data are random numbers of the corpus's size. An epoch's figure is the median of those after the first, which
compiles and is shown apart. Ours leaves out the rows that fill no batch, at most one batch of 51; Keras trains on them.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

import numpy as np
from harness import Bar, Program, argument_parser, compare, digits, interleave, scratch_folder, script, show

N_FRAMES, N_MFCC, N_LABELS = 174, 40, 8
TORCH_BAR = Bar("at most", 0.7)
OURS, ON_JAX, ON_TORCH = "ser-batch, JAX", "Keras fit, JAX", "Keras fit, PyTorch"
HOW_TO_TORCH = """no row for PyTorch; to have one, make an environment for it and name it, here or in TORCH_PYTHON:
    python -m venv torch-venv
    torch-venv/bin/pip install -c constraints.txt -r tests/benchmark/requirements-torch.txt
    python tests/benchmark/train.py --torch-python torch-venv/bin/python"""


def save_inputs(folder: Path, n_rows: int) -> None:
    """Write x.npy, y.npy (one-hot) and network.keras, untrained, for all programs."""
    from ser_batch.network import architectures, optimization

    random = np.random.default_rng(0)
    np.save(folder / "x.npy", random.standard_normal((n_rows, N_FRAMES, N_MFCC), dtype=np.float32))
    np.save(folder / "y.npy", np.eye(N_LABELS, dtype=np.float32)[random.integers(N_LABELS, size=n_rows)])
    optimization.set_seed(0)
    optimization.save(architectures.build("seed", N_FRAMES, N_MFCC, N_LABELS), folder / "network.keras")


def programs(inputs: Path, arguments: argparse.Namespace) -> list[Program]:
    """Return ours, the same network by Keras's own `fit`, and that on PyTorch if it is there."""
    peer = ("peers/keras_fit.py", inputs, arguments.epochs)
    on_jax, on_torch = ({"KERAS_BACKEND": backend} for backend in ("jax", "torch"))
    found = [
        Program(OURS, script("ours/train_epochs.py", inputs, arguments.epochs), environment=on_jax),
        Program(ON_JAX, script(*peer), environment=on_jax),
    ]
    if arguments.torch_python:
        found.append(Program(ON_TORCH, script(*peer, python=arguments.torch_python), environment=on_torch))
    else:
        print(HOW_TO_TORCH)
    return found


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--runs")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a run, at least 2 (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1628, help="training rows (default: %(default)s)")
    parser.add_argument(
        "--torch-python",
        metavar="PATH",
        default=os.environ.get("TORCH_PYTHON"),
        help="Python that has keras and torch (default: TORCH_PYTHON, else no such row)",
    )
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs has to be at least 2: the first one compiles")
    with scratch_folder(None) as inputs:
        save_inputs(inputs, arguments.rows)
        measured = interleave(programs(inputs, arguments), arguments.runs)
    epochs_s = {name: [json.loads(run.output) for run in runs] for name, runs in measured.items()}
    rows = compare(
        {name: [statistics.median(run[1:]) for run in runs] for name, runs in epochs_s.items()}, {ON_TORCH: TORCH_BAR}
    )
    for row in rows:
        row["first epoch s"] = digits(statistics.median(run[0] for run in epochs_s[row["program"]]))
    show(f"Seconds of an epoch, {arguments.rows} rows", rows, arguments.markdown)


if __name__ == "__main__":
    main()
