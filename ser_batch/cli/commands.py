"""The commands: parse, one library call, print. Heavy imports stand in the bodies, so that --help comes at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ser_batch.cli import summaries
from ser_batch.cli.app import (
    Group,
    complete_downloads,
    complete_models,
    print_versions,
    report_crash,
    report_unprinted,
)
from ser_batch.cli.console import Output
from ser_batch.cli.params import FILE, PATH, PLACE, RUN_OF, is_failed, with_options
from ser_batch.config.options import (
    STAGES,
    ConvertOptions,
    DownloadOptions,
    ExportOptions,
    FeaturizeOptions,
    InspectOptions,
    PlotOptions,
    ReportOptions,
    ScoreOptions,
    SynthOptions,
    TrainOptions,
)
from ser_batch.storage.streams import TolerantStreams

if TYPE_CHECKING:
    from ser_batch.summary import Summary


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("-v", "--verbose", is_flag=True, is_eager=True, help="With --version: the versions of all libraries.")
@click.option(
    "-V", "--version", is_flag=True, expose_value=False, callback=print_versions, help="Show the version and exit."
)
def cli(verbose: bool) -> None:
    """Find the calls worth listening to: score the emotion in a folder of recordings.

    \b
    ser-batch featurize ./audio                     recordings -> features in Parquet
    ser-batch train                                 features -> a model and its evaluation
    ser-batch score ./calls --out preds.parquet     recordings -> predictions and reports in Parquet
    """


@cli.command(section="Train")
@click.argument("audio", type=PLACE)
@with_options(FeaturizeOptions)
def featurize(audio: Path, options: FeaturizeOptions, output: Output) -> "Summary":
    """Compute the features of recordings.

    AUDIO is a folder or one recording. The features are Parquet with the metadata that file names tell. AUDIO and
    --out may be in an object store: s3://bucket/audio.

    \b
    Example:
      ser-batch featurize ./audio
    """
    import ser_batch.featurization

    summary = ser_batch.featurization.featurize(audio, options, progress=output.progress())
    summaries.print_featurize(summary, output)
    return summary


@cli.command(section="Train")
@click.argument("features", nargs=-1, type=PATH)
@with_options(TrainOptions)
def train(features: tuple[Path, ...], options: TrainOptions, output: Output) -> "Summary":
    """Train and evaluate a model.

    FEATURES are folders that featurize wrote; by default the folder features.

    \b
    Example:
      ser-batch train --split speaker --out model-speaker
    """
    import ser_batch.training.run

    with output.epochs() as say:
        summary = ser_batch.training.run.train(features, options, say=say)
    summaries.print_train(summary, output)
    return summary


@cli.command(section="Score")
@click.argument("audio", type=PLACE)
@with_options(ScoreOptions)
def score(audio: Path, options: ScoreOptions, output: Output) -> "Summary":
    """Score the emotion in recordings.

    AUDIO is a folder or one recording. Writes tables of segments, calls and labels, and an HTML page. AUDIO and
    --out may be in an object store: s3://bucket/calls.

    \b
    Example:
      ser-batch score ./calls --out preds.parquet --channel-roles agent,customer
    """
    import ser_batch.scoring.run

    summary = ser_batch.scoring.run.score(audio, options, progress=output.progress())
    summaries.print_score(summary, output)
    return summary


@cli.command(section="Score")
@click.argument("source", type=PATH, metavar="MODEL_OR_PREDS")
@with_options(ReportOptions)
def report(source: Path, options: ReportOptions, output: Output) -> "Summary":
    """Write the HTML page of a model folder or of predictions.

    \b
    Example:
      ser-batch report preds.parquet --out report.html
    """
    from ser_batch.report.pages import write_page

    summary = write_page(source, options.out, options.playback)
    summaries.print_page(summary, output)
    return summary


@cli.command(section="Score")
@click.argument("source", type=PATH, metavar="PATH", shell_complete=complete_models)
@with_options(InspectOptions)
def inspect(source: Path, options: InspectOptions, output: Output) -> "Summary":
    """Show what a folder or table holds.

    PATH is a features folder, a model folder or the name of an installed model, predictions (a .parquet or a folder),
    or any other Parquet table that ser-batch writes.

    \b
    Example:
      ser-batch inspect features
    """
    import ser_batch.inspection

    found = ser_batch.inspection.inspect(source, n_first=options.rows)
    summaries.print_inspection(found, output)
    return found


@cli.command(section="Train")
@click.argument("model", type=PATH, metavar="MODEL", shell_complete=complete_models)
@with_options(ExportOptions)
def export(model: Path, options: ExportOptions, output: Output) -> "Summary":
    """Write a model as ONNX, for other languages.

    MODEL is a model folder or the name of an installed model. The graph takes MFCCs and returns probabilities; it is
    compared with what score computes before it is written.

    \b
    Example:
      ser-batch export fast --format onnx
    """
    import ser_batch.model.export
    from ser_batch.model.folder import find_model

    found = find_model(str(model), option="MODEL")
    summary = ser_batch.model.export.export(
        found, options.out or Path(f"{found.folder.resolve().name}.{options.format}")
    )
    summaries.print_export(summary, output)
    return summary


@cli.command(section="Score")
@click.argument("recording", type=PATH)
@with_options(PlotOptions)
def plot(recording: Path, options: PlotOptions, output: Output) -> "Summary":
    """Draw a recording and its emotions.

    The picture shows the waveform, the MFCCs, and the probabilities of the model over time.

    \b
    Example:
      ser-batch plot calls/call_1.wav --out call_1.html
    """
    import ser_batch.plot

    out = options.out or Path(f"{recording.stem}.html")
    summary = ser_batch.plot.plot(recording, out, model=options.model, channel=options.channel)
    summaries.print_plot(summary, output)
    return summary


@cli.command("run")
@click.argument("job", type=FILE)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Override a key, such as train.epochs=2; may be repeated.  [default: as the file says]",
)
def run_job(job: Path, overrides: tuple[str, ...]) -> None:
    """Run a job file.

    JOB is TOML with the tables synth, featurize, train and score.

    \b
    Example:
      ser-batch run jobs/ravdess-published.toml --set train.epochs=2
    """
    from ser_batch.config.job import read_job
    from ser_batch.summary import JobSummary, to_json

    output = Output.current()
    done: list[dict[str, Any]] = []
    failed = False
    for source, options in read_job(job, overrides).steps:
        command = next(name for name, kind in STAGES.items() if type(options) is kind)
        output.detail(f"{command} {source}: {options}")
        summary = RUN_OF[type(options)](source, options, output)
        done.append({"command": command} | to_json(summary))
        failed = is_failed(options, summary)
        if failed:
            break
    output.result(JobSummary(steps=tuple(done)), failed=failed)


@cli.group("encoder", cls=Group)
def encoder_group() -> None:
    """Convert speech encoders."""


@encoder_group.command()
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@with_options(ConvertOptions)
def convert(source: Path, out: Path, options: ConvertOptions, output: Output) -> "Summary":
    """Convert Whisper weights to an encoder.

    SOURCE is a folder with config.json and model.safetensors, as Hugging Face has them for every openai/whisper-*
    (ser-batch download whisper-base), or with a model.bin of CTranslate2 in float16. Needs pip install
    "ser-batch[encoders]".

    \b
    Example:
      ser-batch encoder convert whisper-base encoders/whisper-base
    """
    import ser_batch.encoder.convert
    from ser_batch.encoder.convert import read_outputs

    summary = ser_batch.encoder.convert.convert(
        source,
        out,
        outputs=None if options.outputs is None else read_outputs(options.outputs),
        name=options.name,
        origin=options.origin,
        license=options.license,
        overwrite=options.overwrite,
    )
    summaries.print_convert(summary, output)
    return summary


@cli.command()
@click.argument("name", shell_complete=complete_downloads)
@with_options(DownloadOptions)
def download(name: str, options: DownloadOptions, output: Output) -> "Summary":
    """Download a corpus or encoder weights.

    Checksums are verified. Corpora are ravdess (434 MB), subesco (1.7 GB) and emozionalmente (559 MB); their
    archives are unpacked. For other known corpora the command says where to get them. Licenses: docs/tables.md.

    Weights are config.json and model.safetensors of openai/whisper-* (MIT), which ser-batch encoder convert reads:
    whisper-tiny, whisper-base, whisper-small, each with .en for English only, whisper-medium, whisper-large-v2,
    whisper-large-v3 and whisper-large-v3-turbo; 151 MB to 6.2 GB. The revision is fixed.

    \b
    Example:
      ser-batch download ravdess --out audio
    """
    from ser_batch.download import CHECKPOINTS, download_checkpoint, download_corpus, find_release

    url = options.url
    with output.transfers() as report_bytes:
        if name in CHECKPOINTS:
            summary = download_checkpoint(name, options.out or Path(name), url=url, report=report_bytes)
        else:
            out, release = options.out or Path("audio"), find_release(name)
            summary = download_corpus(out, release=release, url=url, report=report_bytes)
    summaries.print_download(summary, output)
    return summary


@cli.command()
@click.argument("folder", type=PATH)
@with_options(SynthOptions)
def synth(folder: Path, options: SynthOptions, output: Output) -> "Summary":
    """Make synthetic recordings.

    Writes a small corpus with names like those of RAVDESS, or with --calls telephone calls, to try everything
    offline.

    \b
    Example:
      ser-batch synth audio
    """
    import ser_batch.synth
    import ser_batch.synth_calls

    seed, overwrite = options.seed, options.overwrite
    if options.calls is None:
        summary = ser_batch.synth.synth(folder, actors=options.actors, seed=seed, overwrite=overwrite)
    else:
        summary = ser_batch.synth_calls.synth_calls(folder, calls=options.calls, seed=seed, overwrite=overwrite)
    summaries.print_synth(summary, output)
    return summary


def main() -> None:
    """Run the command line."""
    streams = TolerantStreams()
    status: str | int | None = 1
    try:
        cli(prog_name="ser-batch")
    except SystemExit as end:
        status = end.code
    except Exception as error:  # click has told of everything that may happen; this is a fault, and says where
        report_crash(error)
    errors = streams.errors()
    report_unprinted(errors, is_done=not status)
    raise SystemExit(status or int(bool(errors)))
