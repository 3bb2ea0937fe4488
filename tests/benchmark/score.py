"""How long score takes on telephone calls, beside librosa and Keras in a loop, by window and by recording.

python tests/benchmark/score.py --hours 1 --scratch FOLDER
"""

from pathlib import Path

import polars as pl
from harness import (
    Bar,
    Program,
    Row,
    argument_parser,
    compare_runs,
    corpus_folder,
    interleave,
    mulaw_calls,
    scratch_folder,
    script,
    ser_batch,
    show,
)

from ser_batch.storage.installed import INSTALLED_MODELS

MODEL = "research"
BARS = {"a predict a window": Bar("at least", 10), "a predict a recording": Bar("at least", 5)}


def programs(calls: Path, scratch: Path) -> dict[Path, Program]:
    """Return ours and the peers, by the predictions that they write."""
    model = INSTALLED_MODELS[MODEL]
    ours, loop, batched = (scratch / name / "preds.parquet" for name in ("ours", "loop", "batched"))
    on_jax = {"KERAS_BACKEND": "jax"}
    return {
        ours: Program("ser-batch", ser_batch("score", calls, "--model", MODEL, "--out", ours), [ours.parent]),
        loop: Program("a predict a window", script("peers/score_loop.py", calls, model, loop), [loop.parent], on_jax),
        batched: Program(
            "a predict a recording", script("peers/score_batched.py", calls, model, batched), [batched.parent], on_jax
        ),
    }


def agreement(name: str, predictions: Path, ours: Path) -> Row:
    """Return how many windows a program has, and the share to which it gives our emotion; we give silence none."""
    columns = ["path", "segment", "predicted"]
    theirs, own = (pl.read_parquet(path, columns=columns) for path in (predictions, ours))
    both = own.drop_nulls("predicted").join(theirs, on=["path", "segment"], how="left", suffix="_theirs")
    same = both["predicted"].eq_missing(both["predicted_theirs"]).to_numpy().mean()
    return {"program": name, "windows": str(len(theirs)), "same emotion as ours, %": f"{100 * same:.1f}"}


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--runs", "--audio", "--scratch")
    parser.add_argument("--hours", type=float, default=1, help="length of all calls (default: %(default)s)")
    arguments = parser.parse_args()
    source = corpus_folder(arguments.audio, "calls")
    with scratch_folder(arguments.scratch) as scratch:
        by_output = programs(mulaw_calls(source, scratch, arguments.hours), scratch)
        rows = compare_runs(interleave(list(by_output.values()), arguments.runs), BARS)
        ours = next(iter(by_output))
        windows = [agreement(program.name, path, ours) for path, program in by_output.items()]
    show(f"Score {arguments.hours:g} h of calls, 8 kHz mono mu-law WAV, model {MODEL}", rows, arguments.markdown)
    show("How far they agree: the peers scale by all frames of a call, pauses too", windows, arguments.markdown)


if __name__ == "__main__":
    main()
