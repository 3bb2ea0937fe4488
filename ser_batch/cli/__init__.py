"""The commands: parse, one library call, print. Heavy imports stand in the bodies, so that --help comes at once."""

from pathlib import Path
from typing import Any

import click

from ser_batch import __version__
from ser_batch.cli.printing import download_progress, print_featurize, print_score, print_train, synth_line
from ser_batch.cli.shared import PLACE, run_options
from ser_batch.errors import SerBatchError, printable

_PATH = click.Path(path_type=Path)
_VOCAL_CHANNELS = click.Choice(["both", "speech", "song"])


class _Group(click.Group):
    """Turns the errors of ser-batch into a message and an exit status, for every command."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # names come from the shell's wildcards, too; click's own lines and indents stay
            lines = ("\t".join(map(printable, line.split("\t"))) for line in error.message.split("\n"))
            error.message = "\n".join(lines)  # type: ignore[misc]  # the type of error and its usage line are kept
            raise
        except SerBatchError as error:
            click.echo(f"ser-batch: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo(
                "\nser-batch: stopped; what featurize and score have finished is kept, a training is not. "
                "Run the same command again to go on.",
                err=True,
            )
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ser-batch")
def cli() -> None:
    """Batch speech-emotion analytics: folders of speech to dataframes.

    \b
    ser-batch featurize ./audio                     recordings -> MFCCs in Parquet
    ser-batch train                                 features -> a model and its evaluation
    ser-batch score ./calls --out preds.parquet     recordings -> predictions and reports in Parquet
    """


@cli.command()
@click.argument("audio", type=PLACE)
@click.option("--out", type=PLACE, default="features", show_default=True, help="The features folder.")
@click.option(
    "--preset",
    type=click.Choice(["ravdess", "telephone"]),
    default="ravdess",
    show_default=True,
    help="How MFCCs are computed: at 22050 Hz, or at 8000 Hz.",
)
@click.option(
    "--variants",
    default="clean",
    show_default=True,
    metavar="clean,NAME,...",
    help="Changes of the waveform to featurize too, for training and as conditions: speedN, levelN, clipN, noiseN, "
    "room, telephone, g711, gsm, opus, mp3, lossN, joined by +, such as noise10+g711; or the set robust.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what variants draw: noise, rooms, losses.")
@click.option("--name", help="Name of the dataset in the tables.  [default: the folder's name]")
@click.option(
    "--verify", type=int, default=0, show_default=True, metavar="N", help="Compare N recordings with librosa."
)
@run_options("clip")
def featurize(audio: Path, **options: Any) -> None:
    """Turn AUDIO, a folder of recordings, into MFCCs: Parquet keyed by what the file names say.

    AUDIO and --out may be in an object store: s3://bucket/audio.

    \b
    Example:
      ser-batch featurize ./audio
    """
    from ser_batch.config import FeaturizeOptions
    from ser_batch.featurize import featurize as run

    made = FeaturizeOptions(**options)
    print_featurize(run(audio, made), strict=made.strict)


@cli.command()
@click.argument("features", nargs=-1, type=_PATH)
@click.option("--out", type=_PATH, default="model", show_default=True, help="The model folder.")
@click.option(
    "--estimator",
    type=click.Choice(["cnn", "svm", "forest", "logistic"]),
    default="cnn",
    show_default=True,
    help="A 1D CNN on the MFCCs, or a classical model on their mean and deviation.",
)
@click.option(
    "--recipe",
    type=click.Choice(["robust", "seed"]),
    help="How the CNN is built and trained. seed: the published method.  [default: robust, or that of --init]",
)
@click.option(
    "--init",
    metavar="DIR|NAME",
    help="Start from the network of a model folder, or of a model that ships with ser-batch, instead of from nothing: "
    "it is fine-tuned on FEATURES, to their labels.",
)
@click.option(
    "--split",
    default="stratified",
    show_default=True,
    metavar="stratified|speaker|speaker:K|emobox|luna|text|corpus|corpus:NAME|none|FILE.csv",
    help="Who is held out: a random fifth, a fifth of the speakers, each speaker once in K folds, published folds of "
    "RAVDESS, each statement, each corpus, one corpus, nobody, or the folds of a file (columns fold and path or "
    "speaker).",
)
@click.option("--vocal-channel", type=_VOCAL_CHANNELS, default="both", show_default=True, help="What to train on.")
@click.option(
    "--test-vocal-channel", type=_VOCAL_CHANNELS, default="both", show_default=True, help="What to evaluate on."
)
@click.option(
    "--train-variants",
    metavar="all|clean,...",
    help="Variants to train on.  [default: all there are for the recipe robust, else clean]",
)
@click.option(
    "--conditions",
    default="clean",
    show_default=True,
    metavar="clean,g711,...",
    help="Variants to evaluate what is held out in.",
)
@click.option(
    "--baselines",
    metavar="majority,svm,...",
    help="Models to fit on the same folds, for the table of models: majority, logistic, svm, forest, seed, robust.",
)
@click.option(
    "--soft-labels",
    is_flag=True,
    help="Learn the shares of the listeners' votes where a row has them, else its emotion.",
)
@click.option(
    "--normalize",
    type=click.Choice(["none", "recording", "speaker"]),
    help="Scale MFCCs by the mean and deviation of all that is trained on, of each recording, or of all speech of each "
    "speaker (no labels needed; in a call, a channel is a speaker).  [default: none, or that of --init]",
)
@click.option(
    "--epochs",
    type=int,
    help="Passes over the training data.  [default: that of the recipe: robust 200, seed 100; 50 with --init]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, shuffling and splits.")
@click.option("--seeds", type=int, default=1, show_default=True, help="How many seeds to repeat it with, and average.")
@click.option("--overwrite", is_flag=True, help="Replace another model in the output.")
def train(features: tuple[Path, ...], **options: Any) -> None:
    """Train a model on FEATURES (default: the folder features) and evaluate it on what is held out.

    \b
    Example:
      ser-batch train --split speaker --out model-speaker
    """
    from ser_batch.config import TrainOptions
    from ser_batch.train import train as run

    print_train(run(features, TrainOptions(**options)))


@cli.command()
@click.argument("audio", type=PLACE)
@click.option(
    "--out",
    type=PLACE,
    default="preds.parquet",
    show_default=True,
    help="The predictions; side tables lie beside them. Without .parquet: a folder of parts.",
)
@click.option(
    "--model",
    metavar="DIR|NAME",
    help="A model folder, or a model that ships with ser-batch.  [default: model if it is there, else open]",
)
@click.option("--channel-roles", metavar="0=agent,1=customer", help="Who speaks on which channel.")
@click.option("--roles", metavar="customer", help="Score only the channels of these roles.")
@click.option(
    "--min-confidence",
    type=float,
    default=0.0,
    show_default=True,
    help="Mark segments whose top probability is below as abstained; their labels are not counted.",
)
@click.option(
    "--min-speech",
    type=float,
    default=0.3,
    show_default=True,
    help="Score windows and turns with at least this share of speech, 0 to 1; the others keep an empty row.",
)
@run_options("windows")
def score(audio: Path, **options: Any) -> None:
    """Score AUDIO, a folder of recordings: predictions by segment, by call and by emotion.

    AUDIO and --out may be in an object store: s3://bucket/calls.

    \b
    Example:
      ser-batch score ./calls --out preds.parquet --channel-roles 0=agent,1=customer
    """
    from ser_batch.config import ScoreOptions
    from ser_batch.score import score as run

    made = ScoreOptions(**options)
    print_score(run(audio, made), strict=made.strict)


@cli.command()
@click.argument("source", type=_PATH, metavar="MODEL_OR_PREDS")
@click.option("--out", type=_PATH, default="report.html", show_default=True, help="The page.")
def report(source: Path, out: Path) -> None:
    """Write the HTML page of a model folder or of predictions.

    \b
    Example:
      ser-batch report preds.parquet --out report.html
    """
    from ser_batch.report import write_page

    write_page(source, out)
    click.echo(f"{printable(out)}: the report of {printable(source)}")


@cli.command("run")
@click.argument("job", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Override a key, such as train.epochs=2.",
)
def run_job(job: Path, overrides: tuple[str, ...]) -> None:
    """Run JOB, a TOML file with the tables synth, featurize, train and score.

    \b
    Example:
      ser-batch run jobs/ravdess-seed.toml --set train.epochs=2
    """
    import dataclasses

    from ser_batch.config import FeaturizeOptions, ScoreOptions, SynthOptions, read_job

    for source, options in read_job(job, overrides).steps:
        if isinstance(options, SynthOptions):
            from ser_batch.synth import synth as make

            click.echo(synth_line(make(source, **dataclasses.asdict(options))))
        elif isinstance(options, FeaturizeOptions):
            from ser_batch.featurize import featurize as run_featurize

            print_featurize(run_featurize(source, options), strict=options.strict)
        elif isinstance(options, ScoreOptions):
            from ser_batch.score import score as run_score

            print_score(run_score(source, options), strict=options.strict)
        else:
            from ser_batch.train import train as run_train

            print_train(run_train(source, options))


@cli.command()
@click.argument("corpus", type=click.Choice(["ravdess"]))
@click.option("--out", type=_PATH, default="audio", show_default=True, help="Where the recordings go.")
@click.option("--url", help="A mirror that holds the two archives.  [default: Zenodo record 1188976]")
def download(corpus: str, out: Path, url: str | None) -> None:
    """Fetch the official archives of a corpus, verify their checksums and unpack them.

    RAVDESS is 434 MB and licensed CC BY-NC-SA 4.0: not for commercial use.

    \b
    Example:
      ser-batch download ravdess --out audio
    """
    from ser_batch.download import ZENODO, download_ravdess

    assert corpus == "ravdess"
    summary = download_ravdess(out, url=url or ZENODO, report=download_progress())
    for name in summary.fetched:
        click.echo(f"{name}: fetched, checksum right")
    for name in summary.already_here:
        click.echo(f"{name}: already here")
    click.echo(f"{printable(summary.folder)}: {summary.n_recordings} recordings")


@cli.command()
@click.argument("folder", type=_PATH)
@click.option("--actors", type=int, default=4, show_default=True, help="Speakers, 1 to 24.")
@click.option("--seed", type=int, default=0, show_default=True, help="Other seeds make other voices.")
@click.option("--overwrite", is_flag=True, help="Write over recordings of the same names.")
def synth(folder: Path, **options: Any) -> None:
    """Make a small made-up corpus in FOLDER, named as RAVDESS, so that everything runs offline.

    \b
    Example:
      ser-batch synth audio
    """
    from ser_batch.synth import synth as make

    click.echo(synth_line(make(folder, **options)))


def main() -> None:
    """Run the command line."""
    cli(prog_name="ser-batch")
