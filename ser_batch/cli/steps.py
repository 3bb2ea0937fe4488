"""The stages as commands run them, each by itself or as a step of a job: one library call, then what it did."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_batch.cli import console, summaries
from ser_batch.cli.console import Output

if TYPE_CHECKING:
    from ser_batch.config.options import FeaturizeOptions, Options, ScoreOptions, SynthOptions, TrainOptions

# what goes into the JSON object, and whether --strict makes of it exit status 3
Done = tuple[dict[str, Any], bool]


def featurize(audio: Path, options: "FeaturizeOptions", output: Output) -> Done:
    """Run featurize."""
    from ser_batch.featurization import featurize as run

    summary = run(audio, options, progress=output.progress())
    console.print_featurize(summary, output)
    return summaries.featurize_result(summary), options.strict and bool(summary.rejects)


def train(features: tuple[Path, ...], options: "TrainOptions", output: Output) -> Done:
    """Run train."""
    from ser_batch.training.run import train as run

    with output.epochs() as say:
        summary = run(features, options, say=say)
    console.print_train(summary, output)
    return summaries.train_result(summary), False


def score(audio: Path, options: "ScoreOptions", output: Output) -> Done:
    """Run score."""
    from ser_batch.scoring.run import score as run

    summary = run(audio, options, progress=output.progress())
    console.print_score(summary, output)
    return summaries.score_result(summary), options.strict and bool(summary.rejects)


def synth(folder: Path, options: "SynthOptions", output: Output) -> Done:
    """Run synth."""
    import dataclasses

    from ser_batch.synth import synth as run

    summary = run(folder, **dataclasses.asdict(options))
    console.print_synth(summary, output)
    return summaries.synth_result(summary), False


def run_step(source: Any, options: "Options", output: Output) -> Done:
    """Run the stage whose options these are, and note which it was."""
    from ser_batch.config.options import STAGES

    command = next(name for name, kind in STAGES.items() if type(options) is kind)
    output.detail(f"{command} {source}: {options}")
    run: Any = {"synth": synth, "featurize": featurize, "train": train, "score": score}[command]
    values, failed = run(source, options, output)
    return {"command": command} | values, failed
