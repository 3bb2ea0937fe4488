"""The commands: parse, one library call, print. Heavy imports stand in the bodies, so that --help comes at once."""

from pathlib import Path
from typing import Any

import click

from ser_batch.cli import steps, summaries
from ser_batch.cli.app import Group, complete_downloads, complete_models, print_versions, report_crash
from ser_batch.cli.console import Output
from ser_batch.cli.params import PLACE, run_options

_PATH = click.Path(path_type=Path)
_VOCAL_CHANNELS = click.Choice(["both", "speech", "song"])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_versions,
    help="Show the versions that matter and exit.",
)
def cli() -> None:
    """Batch speech-emotion analytics: folders of speech to dataframes.

    \b
    ser-batch featurize ./audio                     recordings -> features in Parquet
    ser-batch train                                 features -> a model and its evaluation
    ser-batch score ./calls --out preds.parquet     recordings -> predictions and reports in Parquet
    """


@cli.command()
@click.argument("audio", type=PLACE)
@click.option("--out", type=PLACE, default="features", show_default=True, help="The features folder.")
@click.option(
    "--features",
    metavar="mfcc|whisper-tiny.en|DIR",
    default="mfcc",
    show_default=True,
    help="What to compute for each segment: MFCCs, or the embedding of a pretrained speech encoder, by name or in a "
    "folder.",
)
@click.option(
    "--preset",
    type=click.Choice(["wideband", "telephone"]),
    default="wideband",
    show_default=True,
    help="How MFCCs are computed: at 22050 Hz, or at 8000 Hz. Encoders have a sampling rate of their own.",
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
@click.option("--name", help="Of the dataset in the tables.  [default: the folder's name]")
@click.option(
    "--verify", type=int, default=0, show_default=True, metavar="N", help="Compare N recordings with librosa's MFCCs."
)
@run_options("clip")
def featurize(audio: Path, **options: Any) -> None:
    """Turn AUDIO, a folder of recordings, into features: Parquet keyed by what the file names say.

    AUDIO and --out may be in an object store: s3://bucket/audio.

    \b
    Example:
      ser-batch featurize ./audio
    """
    from ser_batch.config.options import FeaturizeOptions

    output = Output.current()
    values, failed = steps.featurize(audio, FeaturizeOptions(**options), output)
    output.result(values, failed=failed)


@cli.command()
@click.argument("features", nargs=-1, type=_PATH)
@click.option("--out", type=_PATH, default="model", show_default=True, help="The model folder.")
@click.option(
    "--estimator",
    type=click.Choice(["network", "svm", "forest", "logistic"]),
    default="network",
    show_default=True,
    help="A network, or a classical model on embeddings or on the mean and deviation of MFCCs.",
)
@click.option(
    "--recipe",
    type=click.Choice(["robust", "published", "head"]),
    help="How the network is built and trained. published: the published method, a CNN on MFCCs. robust: another CNN. "
    "head: small heads on the embeddings of an encoder.  [default: head for embeddings, else robust; or that of "
    "--init]",
)
@click.option(
    "--init",
    metavar="DIR|NAME",
    shell_complete=complete_models,
    help="Start from the network of a model folder, or of a model that ships with ser-batch, instead of from nothing: "
    "it is fine-tuned on FEATURES, to their labels.  [default: from nothing]",
)
@click.option(
    "--split",
    default="stratified",
    show_default=True,
    metavar="stratified|speaker|speaker:K|emobox|luna|text|corpus|corpus:NAME,...|none|FILE.csv",
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
    help="Variants to train on.  [default: clean for the recipe published and classical models, else all]",
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
    help="Models to fit on the same folds, for the table of models: majority, logistic, svm, forest, published, "
    "robust, head.  [default: none]",
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
    help="Passes over the training data.  [default: that of the recipe: robust 200, published 100, head 14; "
    "--init 50, 14]",
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
    from ser_batch.config.options import TrainOptions

    output = Output.current()
    values, _ = steps.train(features, TrainOptions(**options), output)
    output.result(values)


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
    shell_complete=complete_models,
    help="A model folder, or a model that ships with ser-batch.  [default: model if it is there, else open]",
)
@click.option("--channel-roles", metavar="0=agent,1=customer", help="Who speaks on which channel.  [default: not said]")
@click.option("--roles", metavar="customer", help="Score only the channels of these roles.  [default: all]")
@click.option(
    "--min-confidence",
    type=float,
    default=0.0,
    show_default=True,
    help="Mark segments whose top probability, 0 to 1, is below as abstained; their labels are not counted.",
)
@click.option(
    "--min-speech",
    type=float,
    default=0.3,
    show_default=True,
    help="Score windows and turns with at least this share of speech, 0 to 1; the others keep an empty row.",
)
@click.option(
    "--reference",
    metavar="FILE|none",
    help="For models of the recipe head: the archive to compare voices with, as the .reference.json of another run, or "
    "none.  [default: this archive, from a sample of it in the first run; none with fewer than 10 recordings]",
)
@click.option(
    "--prior",
    metavar="balanced|LABEL=SHARE,...",
    help="How often each emotion is expected, such as neutral=0.35; labels that are not named share the rest evenly.  "
    "[default: balanced for clip and labels; for windows and turns as the model says]",
)
@run_options("windows")
def score(audio: Path, **options: Any) -> None:
    """Score AUDIO, a folder of recordings: predictions by segment, by call and by emotion.

    AUDIO and --out may be in an object store: s3://bucket/calls.

    \b
    Example:
      ser-batch score ./calls --out preds.parquet --channel-roles 0=agent,1=customer
    """
    from ser_batch.config.options import ScoreOptions

    output = Output.current()
    values, failed = steps.score(audio, ScoreOptions(**options), output)
    output.result(values, failed=failed)


@cli.command()
@click.argument("source", type=_PATH, metavar="MODEL_OR_PREDS")
@click.option("--out", type=_PATH, default="report.html", show_default=True, help="The page.")
def report(source: Path, out: Path) -> None:
    """Write the HTML page of a model folder or of predictions.

    \b
    Example:
      ser-batch report preds.parquet --out report.html
    """
    from ser_batch.report.pages import write_page

    output = Output.current()
    summary = write_page(source, out)
    summaries.print_page(summary, output)
    output.result(summary)


@cli.command()
@click.argument("source", type=_PATH, metavar="PATH", shell_complete=complete_models)
@click.option("--rows", type=int, default=5, show_default=True, metavar="N", help="First rows to show.")
def inspect(source: Path, rows: int) -> None:
    """Show what PATH is: rows, schema, settings, first rows, health.

    PATH is a features folder, a model folder or the name of a shipped model, predictions (a .parquet or a folder), or
    any other Parquet table that ser-batch writes.

    \b
    Example:
      ser-batch inspect features
    """
    from ser_batch.inspection import inspect as look

    output = Output.current()
    found = look(source, n_first=rows)
    summaries.print_inspection(found, output)
    output.result(found)


@cli.command()
@click.argument("model", metavar="MODEL", shell_complete=complete_models)
@click.option("--format", type=click.Choice(["onnx"]), default="onnx", show_default=True, help="What to write.")
@click.option("--out", type=_PATH, help="The file.  [default: the model's name and .onnx, in this folder]")
def export(model: str, format: str, out: Path | None) -> None:
    """Write MODEL, a model folder or a model that ships with ser-batch, for programs in other languages.

    The graph takes MFCCs and gives probabilities; it is compared with what score computes before it is written.

    \b
    Example:
      ser-batch export fast --format onnx
    """
    from ser_batch.model.export import export as run
    from ser_batch.model.folder import find_model

    assert format == "onnx"
    output = Output.current()
    found = find_model(model, option="MODEL")
    summary = run(found, out or Path(f"{found.folder.resolve().name}.onnx"))
    summaries.print_export(summary, output)
    output.result(summary)


@cli.command()
@click.argument("recording", type=_PATH)
@click.option(
    "--out",
    type=_PATH,
    help="The picture: .png, .svg or .html.  [default: the recording's name and .png, in this folder]",
)
@click.option(
    "--model",
    metavar="DIR|NAME",
    help="A model folder, or a model that ships with ser-batch.  [default: model if it is there, else open]",
)
@click.option("--channel", default="0", show_default=True, metavar="N|mix", help="Which channel, or the mean of all.")
def plot(recording: Path, out: Path | None, model: str | None, channel: str) -> None:
    """Draw RECORDING: its waveform, its MFCCs, and the probabilities of the model over time.

    \b
    Example:
      ser-batch plot calls/call_1.wav --out call_1.html
    """
    from ser_batch.plot import plot as run

    output = Output.current()
    summary = run(recording, out or Path(f"{recording.stem}.png"), model=model, channel=channel)
    summaries.print_plot(summary, output)
    output.result(summary)


@cli.command("run")
@click.argument("job", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="TABLE.KEY=VALUE",
    help="Override a key, such as train.epochs=2; may be repeated.  [default: as the file says]",
)
def run_job(job: Path, overrides: tuple[str, ...]) -> None:
    """Run JOB, a TOML file with the tables synth, featurize, train and score.

    \b
    Example:
      ser-batch run jobs/ravdess-published.toml --set train.epochs=2
    """
    from ser_batch.config.job import read_job
    from ser_batch.summary import JobSummary

    output = Output.current()
    done: list[dict[str, Any]] = []
    failed = False
    for source, options in read_job(job, overrides).steps:
        values, failed = steps.run_step(source, options, output)
        done.append(values)
        if failed:
            break
    output.result(JobSummary(steps=tuple(done)), failed=failed)


@cli.group("encoder", cls=Group)
def encoder_group() -> None:
    """Make encoders, the pretrained networks that turn speech into embeddings."""


@encoder_group.command()
@click.argument("source", type=_PATH)
@click.argument("out", type=_PATH)
@click.option(
    "--outputs",
    metavar="1,2,3",
    help="Outputs to read: 0 the convolutions, 1 the first block, and so on; one more than there are blocks is the "
    "final norm.  [default: four from a third to five sixths of the blocks; tiny 1,2,3, base 2,3,4,5]",
)
@click.option("--name", help="Name of the encoder.  [default: that of the folder OUT]")
@click.option("--origin", metavar="TEXT", help="Where the weights come from.  [default: as config.json says]")
@click.option("--license", metavar="TEXT", help="License of the weights.  [default: MIT for openai/whisper-*]")
@click.option("--overwrite", is_flag=True, help="Replace an encoder in OUT.")
def convert(
    source: Path,
    out: Path,
    outputs: str | None,
    name: str | None,
    origin: str | None,
    license: str | None,
    overwrite: bool,
) -> None:
    """Convert Whisper weights to an encoder folder OUT.

    SOURCE is a folder with config.json and model.safetensors, as Hugging Face has them for every openai/whisper-*
    (ser-batch download whisper-base), or with a model.bin of CTranslate2 in float16. Needs pip install
    "ser-batch[encoders]".

    \b
    Example:
      ser-batch encoder convert whisper-base encoders/whisper-base
    """
    from ser_batch.encoder.convert import convert as run
    from ser_batch.encoder.convert import read_outputs

    output = Output.current()
    summary = run(
        source,
        out,
        outputs=None if outputs is None else read_outputs(outputs),
        name=name,
        origin=origin,
        license=license,
        overwrite=overwrite,
    )
    summaries.print_convert(summary, output)
    output.result(summary)


@cli.command()
@click.argument("name", shell_complete=complete_downloads)
@click.option("--out", type=_PATH, help="The folder to write to.  [default: audio, or the name of the checkpoint]")
@click.option("--url", help="A mirror that holds the files.  [default: the publisher's address]")
def download(name: str, out: Path | None, url: str | None) -> None:
    """Fetch a corpus or the weights of a speech encoder, and verify the checksums.

    Corpora are ravdess (434 MB), subesco (1.7 GB) and emozionalmente (559 MB); their archives are unpacked. For another
    known corpus it tells where to get it. The license of each is in docs/tables.md.

    Weights are config.json and model.safetensors of openai/whisper-* (MIT), which ser-batch encoder convert reads:
    whisper-tiny, whisper-base, whisper-small, each with .en for English only, whisper-medium, whisper-large-v2,
    whisper-large-v3 and whisper-large-v3-turbo; 151 MB to 6.2 GB. The revision is fixed.

    \b
    Example:
      ser-batch download ravdess --out audio
    """
    from ser_batch.download import CHECKPOINTS, download_checkpoint, download_corpus, find_release

    output = Output.current()
    with output.transfers() as report_bytes:
        if name in CHECKPOINTS:
            summary = download_checkpoint(name, out or Path(name), url=url, report=report_bytes)
        else:
            summary = download_corpus(out or Path("audio"), release=find_release(name), url=url, report=report_bytes)
    summaries.print_download(summary, output)
    output.result(summary)


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
    from ser_batch.config.options import SynthOptions

    output = Output.current()
    values, _ = steps.synth(folder, SynthOptions(**options), output)
    output.result(values)


def main() -> None:
    """Run the command line."""
    try:
        cli(prog_name="ser-batch")
    except Exception as error:  # click has told of everything that may happen; this is a fault, and says where
        report_crash(error)
        raise SystemExit(1) from error
