"""The stages as commands run them, each by itself or as a step of a job: one library call, then what it did."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_batch.cli import summaries
from ser_batch.cli.console import Output
from ser_batch.errors import SerBatchError

if TYPE_CHECKING:
    from ser_batch.config.options import FeaturizeOptions, Options, ScoreOptions, SynthOptions, TrainOptions
    from ser_batch.summary import Summary

# float32 sums in another order, after the logarithm
LARGEST_DIFFERENCE = 0.01

# the summary, and whether --strict makes of it exit status 3
Done = tuple["Summary", bool]


def featurize(audio: Path, options: "FeaturizeOptions", output: Output) -> Done:
    """Run featurize."""
    from ser_batch.featurization import featurize as run

    summary = run(audio, options, progress=output.progress())
    summaries.print_featurize(summary, output)
    if summary.verified and summary.verified.largest_difference > LARGEST_DIFFERENCE:
        raise SerBatchError(
            f"{summary.out}: the features differ from those of librosa by more than {LARGEST_DIFFERENCE}; please "
            "report this with the output of `ser-batch --version`"
        )
    return summary, options.strict and bool(summary.rejected)


def train(features: tuple[Path, ...], options: "TrainOptions", output: Output) -> Done:
    """Run train."""
    from ser_batch.training.run import train as run

    with output.epochs() as say:
        summary = run(features, options, say=say)
    summaries.print_train(summary, output)
    return summary, False


def score(audio: Path, options: "ScoreOptions", output: Output) -> Done:
    """Run score."""
    from ser_batch.scoring.run import score as run

    summary = run(audio, options, progress=output.progress())
    summaries.print_score(summary, output)
    return summary, options.strict and bool(summary.rejected)


def synth(folder: Path, options: "SynthOptions", output: Output) -> Done:
    """Run synth."""
    import dataclasses

    from ser_batch.synth import synth as run

    summary = run(folder, **dataclasses.asdict(options))
    summaries.print_synth(summary, output)
    return summary, False


def run_step(source: Any, options: "Options", output: Output) -> tuple[dict[str, Any], bool]:
    """Run the stage whose options these are; return its JSON object with the name of the command."""
    from ser_batch.config.options import STAGES
    from ser_batch.summary import to_json

    command = next(name for name, kind in STAGES.items() if type(options) is kind)
    output.detail(f"{command} {source}: {options}")
    run: Any = {"synth": synth, "featurize": featurize, "train": train, "score": score}[command]
    summary, failed = run(source, options, output)
    return {"command": command} | to_json(summary), failed
