"""What the commands print: results to stdout, warnings and rejects to stderr."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from ser_batch.errors import SerBatchError, printable

if TYPE_CHECKING:
    from pathlib import Path

    from ser_batch.bundle import Bundle
    from ser_batch.bundle.exporting import ExportSummary
    from ser_batch.corpus import Reject
    from ser_batch.featurize import FeaturizeSummary
    from ser_batch.score import ScoreSummary
    from ser_batch.score.looking import Look
    from ser_batch.synth import SynthSummary
    from ser_batch.train import TrainSummary

# what the features may differ from librosa's by: float32 sums in another order, after the logarithm
LARGEST_DIFFERENCE = 0.01


def synth_line(summary: "SynthSummary") -> str:
    """Return the line on a made-up corpus."""
    return f"{printable(summary.folder)}: {summary.n_recordings} made-up recordings, {summary.audio_s / 60:.1f} minutes"


def print_featurize(summary: "FeaturizeSummary", *, strict: bool) -> None:
    """Print what featurize did; with `strict`, exit with status 3 where anything was rejected."""
    for warning in summary.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    _print_passed_over(summary.passed_over)
    _print_rejects(summary.rejects)
    n_segments = summary.n_segments // summary.n_variants  # each has a row for every variant
    in_variants = f" in {summary.n_variants} variants" if summary.n_variants > 1 else ""
    click.echo(f"{printable(summary.out)}: {n_segments} segments of {summary.n_recordings} recordings{in_variants}")
    known = sorted((label, count) for label, count in summary.emotions.items() if label)
    unknown = summary.emotions.get(None, 0)
    listed = ", ".join(f"{label} {count}" for label, count in known) + (f", unknown {unknown}" if unknown else "")
    click.echo(f"emotions: {printable(listed.removeprefix(', '))}")
    if summary.verified:
        click.echo(
            f"verified: {summary.verified[0]} recordings against librosa, largest difference "
            f"{summary.verified[1]:.4f} ({LARGEST_DIFFERENCE} is allowed)"
        )
        if summary.verified[1] > LARGEST_DIFFERENCE:
            raise SerBatchError(
                f"{summary.out}: the features are not those of librosa; please report this with the output of "
                "`pip freeze`"
            )
    _print_last(summary, strict=strict)


def print_train(summary: "TrainSummary") -> None:
    """Print what train did."""
    from ser_batch.report import summary_text, table_text

    for warning in summary.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    if summary.report is not None and summary.models is not None:
        click.echo(table_text(summary.report))
        click.echo()
        click.echo(summary_text(summary.models))
        for name, figures in summary.metrics.get("corpora", {}).items():
            click.echo(
                f"{printable(name)}, on its own labels: UAR {figures['uar']:.3f}, accuracy {figures['accuracy']:.3f}, "
                f"{figures['n']} segments"
            )
        click.echo()
        click.echo(printable(summary.metrics["meaning"]))
    how = f"trained in {summary.seconds:.0f} s" if summary.is_new else "was trained already, nothing to do"
    click.echo(
        f"{printable(summary.out)}: model {summary.model_id}, {summary.n_train} segments for training, "
        f"{summary.n_test} held out; {how}"
    )


def print_score(summary: "ScoreSummary", *, strict: bool) -> None:
    """Print what score did; with `strict`, exit with status 3 where anything was rejected."""
    from ser_batch.report import SUMMARY_ROWS, known_truth, table_text

    for warning in summary.warnings:
        click.echo(f"warning: {printable(warning)}", err=True)
    _print_passed_over(summary.passed_over)
    _print_rejects(summary.rejects)
    model = summary.model
    _print_model(model)
    columns = ["n_predicted", "share", "mean_confidence"]
    if known_truth(summary.report):
        columns += ["precision", "recall", "f1", "support"]
    together = summary.report.filter(summary.report["role"].is_null())
    if "f1" not in columns:
        together = together.filter(~together["label"].is_in(SUMMARY_ROWS))
    click.echo(table_text(together, columns))
    click.echo(f"{printable(summary.out)}: {summary.n_segments} segments of {summary.n_recordings} recordings")
    speed = f", {summary.done_s / summary.seconds:.0f} times real time" if summary.done_s else ""
    _print_last(summary, speed=speed, strict=strict)


def print_plot(seen: "Look", out: "Path") -> None:
    """Print what a picture shows, by which model, and on what terms that may be used."""
    silent_s = sum(seen.silence["end_s"]) - sum(seen.silence["start_s"])
    click.echo(
        f"{printable(out)}: channel {seen.channel} of {printable(seen.path)}, {seen.duration_s:.1f} s, "
        f"{silent_s:.1f} s of them silence"
    )
    click.echo(f"model: {printable(seen.model.folder)} ({seen.model.model_id})")
    if seen.model.values["licence"]:
        click.echo(f"its licence: {seen.model.values['licence']}")


def print_export(summary: "ExportSummary") -> None:
    """Print what export wrote, what it takes and gives, how near it is, and on what terms it may be used."""
    inputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in summary.inputs.items())
    click.echo(f"{printable(summary.out)}: model {summary.model.model_id} from {printable(summary.model.folder)}")
    click.echo(f"takes: {inputs}")
    click.echo(f"gives: probabilities (n, {len(summary.model.labels)}) of {', '.join(summary.model.labels)}")
    click.echo(
        f"checked: {summary.n_checked} segments with onnxruntime, largest difference from score "
        f"{summary.largest_difference:.1e}"
    )
    if summary.model.values["licence"]:
        click.echo(f"its licence: {summary.model.values['licence']}")


def _print_model(model: "Bundle") -> None:
    """Print which model it was, what it is worth on recordings from elsewhere, and on what terms it may be used."""
    click.echo(f"model: {printable(model.folder)} ({model.model_id})")
    metrics = model.values["metrics"]
    if model.elsewhere:
        of_each = ", ".join(
            f"{printable(name)} {figures['uar']:.2f} (chance {1 / len(figures['labels']):.2f})"
            for name, figures in model.elsewhere.items()
        )
        click.echo(f"its figures: UAR on corpora never heard: {of_each}. Calls are recorded elsewhere, too")
    elif metrics:
        meaning = printable(metrics["meaning"])
        click.echo(f"its figures: UAR {metrics['uar']:.2f}, accuracy {metrics['accuracy']:.2f}. {meaning}")
    else:
        click.echo("its figures: none, nothing was held out when it was trained")
    if model.values["licence"]:
        click.echo(f"its licence: {printable(model.values['licence'])}")
    better = model.better_supported
    if better:
        click.echo(f"better supported for recordings made elsewhere: --model {better}, measured on corpora never heard")


def _print_passed_over(passed_over: Mapping[str, int]) -> None:
    if passed_over:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(passed_over.items()))
        click.echo(f"passed over: {sum(passed_over.values())} other files ({kinds})", err=True)


def _print_rejects(rejects: "tuple[Reject, ...]") -> None:
    for reject in rejects[:10]:
        click.echo(f"rejected ({reject.stage}): {printable(reject.message)}", err=True)
    if len(rejects) > 10:
        click.echo(f"rejected: {len(rejects) - 10} more, all of them in the rejects table", err=True)


def _print_last(summary: "FeaturizeSummary | ScoreSummary", *, strict: bool, speed: str = "") -> None:
    """Print what is not done and the closing line; exit with status 3 where that was asked for."""
    if summary.n_vanished:
        click.echo(f"vanished: {summary.n_vanished} recordings are gone; --prune drops their rows")
    if summary.n_older:
        click.echo(f"older: {summary.n_older} recordings are not done, they were modified before --since")
    if summary.n_left:
        click.echo(f"left: {summary.n_left} recordings beyond --limit; the same command goes on with them")
    already = f", {summary.n_already} were done already" if summary.n_already else ""
    click.echo(
        f"done: {summary.n_done} recordings in {summary.seconds:.1f} s{speed}{already}; "
        f"{summary.audio_s / 3600:.2f} h of audio in all, {len(summary.rejects)} rejected"
    )
    if strict and summary.rejects:
        sys.exit(3)


def download_progress() -> Callable[[str, int, int], None]:
    """Return what reports a transfer: a line every tenth of an archive."""
    said: dict[str, int] = {}

    def report_bytes(name: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else done // 50_000_000
        if said.get(name) != tenth:
            said[name] = tenth
            of = f" of {total / 1e6:.0f}" if total else ""
            click.echo(f"{name}: {done / 1e6:.0f}{of} MB", err=True)

    return report_bytes
