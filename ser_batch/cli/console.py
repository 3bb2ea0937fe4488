"""All printing: results to stdout, everything else to stderr."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from ser_batch.errors import SerBatchError, printable

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from ser_batch.corpus.manifest import Reject
    from ser_batch.download import DownloadSummary
    from ser_batch.encoder.convert import ConvertSummary
    from ser_batch.featurization import FeaturizeSummary
    from ser_batch.model.export import ExportSummary
    from ser_batch.model.folder import Model
    from ser_batch.plot import Look
    from ser_batch.runs.progress import Progress
    from ser_batch.scoring.run import ScoreSummary
    from ser_batch.synth import SynthSummary
    from ser_batch.training.run import TrainSummary

_META = "ser_batch.output."


@dataclasses.dataclass(frozen=True)
class Output:
    """How a command speaks."""

    as_json: bool = False  # its summary is one JSON object, instead of lines
    quiet: bool = False  # no progress and no lines of a summary; errors, warnings and JSON stay
    verbose: bool = False  # more on stderr: versions, settings, each shard, each rejected recording

    @classmethod
    def current(cls) -> "Output":
        """Return that of the command that is running."""
        meta = click.get_current_context().meta
        return cls(**{field.name: meta.get(_META + field.name, False) for field in dataclasses.fields(cls)})

    def line(self, text: str = "") -> None:
        """Print a line of the summary to stdout."""
        if not (self.as_json or self.quiet):
            click.echo(text)

    def table(self, plain: str, headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
        """Print a table: `plain` as it is, or on a terminal its headers and cells drawn."""
        # A row of empty cells is a rule; the first `left` columns hold words, the others numbers.
        if self.as_json or self.quiet:
            return
        if not sys.stdout.isatty():
            click.echo(plain)
            return
        import rich.box
        import rich.console
        import rich.table
        import rich.text

        drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, header_style="bold")
        rows = list(rows)
        # on a narrow terminal other columns are cut first
        least = [max(len(printable(row[0])) for row in [headers, *rows]), *[None] * (len(headers) - 1)]
        for number, header in enumerate(headers):
            justify: Literal["left", "right"] = "left" if number < left else "right"
            drawn.add_column(rich.text.Text(header), no_wrap=True, justify=justify, min_width=least[number])
        for row in rows:
            if any(row):
                drawn.add_row(*(rich.text.Text(printable(cell)) for cell in row))
            else:
                drawn.add_section()
        rich.console.Console(file=sys.stdout).print(drawn)

    def result(self, values: Mapping[str, Any], *, failed: bool = False) -> None:
        """Print the summary as JSON where that was asked for, in one line; exit with status 3 where it `failed`."""
        if self.as_json:
            import json

            # ASCII: no character of a name reaches a terminal as it is
            click.echo(json.dumps(_plain(values), allow_nan=False))
        if failed:
            click.get_current_context().exit(3)

    def warning(self, text: object, kind: str = "warning") -> None:
        """Print a warning to stderr, whatever was asked for."""
        click.echo(f"{colored(kind, 'yellow')}: {printable(text)}", err=True)

    def remark(self, text: str) -> None:
        """Print what need not be acted upon to stderr."""
        if not self.quiet:
            click.echo(text, err=True)

    def detail(self, text: object) -> None:
        """Print to stderr what only those want to know who asked for it."""
        if self.verbose:
            click.echo(printable(text), err=True)

    def progress(self) -> "Progress | None":
        """Return what shows the progress of featurize and score."""
        from ser_batch.runs.progress import each_shard, no_progress

        return no_progress if self.quiet else each_shard if self.verbose else None

    @contextlib.contextmanager
    def epochs(self) -> Iterator[Callable[[str], None]]:
        """Give what shows the progress of train: a line that is written over on a terminal, lines elsewhere."""
        if self.quiet:
            yield _nothing
        elif self.verbose or not sys.stderr.isatty():
            yield lambda line: click.echo(printable(line), err=True)
        else:
            import rich.console
            import rich.text

            with rich.console.Console(stderr=True).status(rich.text.Text("train: reading features")) as status:
                yield lambda line: status.update(rich.text.Text(printable(line)))

    @contextlib.contextmanager
    def transfers(self) -> Iterator[Callable[[str, int, int], None]]:
        """Give what shows a download: a bar an archive on a terminal, a line every tenth of it elsewhere."""
        if self.quiet:
            yield _nothing
        elif not sys.stderr.isatty():
            yield _transfer_lines()
        else:
            import rich.console
            import rich.progress as bars

            columns = (
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.DownloadColumn(),
                bars.TransferSpeedColumn(),
                bars.TimeRemainingColumn(),
            )
            with bars.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
                tasks: dict[str, bars.TaskID] = {}

                def advance(name: str, done: int, total: int) -> None:
                    if name not in tasks:
                        tasks[name] = bar.add_task(printable(name), total=None)
                    bar.update(tasks[name], completed=done, total=total or None)

                yield advance


def output_options() -> list[click.Option]:
    """Return the options that every command has; what they say comes by `Output.current`."""

    def keep(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        ctx.meta[f"{_META}{option.name}"] = value

    return [
        click.Option([*names], is_flag=True, expose_value=False, callback=keep, help=text)
        for names, text in (
            (
                ("--json", "as_json"),
                "Print the summary as one JSON object on stdout; progress and warnings stay on stderr.",
            ),
            (("-q", "--quiet"), "No progress, no summary; errors, warnings and what --json prints stay."),
            (
                ("-v", "--verbose"),
                "More on stderr: versions, settings, each shard, every rejected recording (else ten), where a fault "
                "of the program comes from.",
            ),
        )
    ]


def colored(text: str, color: str) -> str:
    """Return a word in a color, for `click.echo`, which takes it out again where it prints to no terminal."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=color)


def _nothing(*_progress: object) -> None:
    return


def _transfer_lines() -> Callable[[str, int, int], None]:
    said: dict[str, int] = {}

    def advance(name: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else done // 50_000_000
        if said.get(name) != tenth:
            said[name] = tenth
            of = f" of {total / 1e6:.0f}" if total else ""
            click.echo(f"{name}: {done / 1e6:.0f}{of} MB", err=True)

    return advance


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: paths as text, no number that is none."""
    if isinstance(value, Mapping):
        return {_text(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (bool, int)) else _text(value)


def _text(value: object) -> str:
    r"""Return text without undecodable bytes, which are written ``\xNN`` as in the tables."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# what the features may differ from librosa's by: float32 sums in another order, after the logarithm
LARGEST_DIFFERENCE = 0.01
REJECTS_SHOWN = 10


def print_synth(summary: "SynthSummary", output: Output) -> None:
    """Print what was made up."""
    output.line(
        f"{printable(summary.folder)}: {summary.n_recordings} made-up recordings, {summary.audio_s / 60:.1f} minutes"
    )


def print_download(summary: "DownloadSummary", output: Output) -> None:
    """Print what was fetched."""
    for name in summary.fetched:
        output.line(f"{printable(name)}: fetched, checksum right")
    for name in summary.already_here:
        output.line(f"{printable(name)}: already here")
    if summary.n_recordings:
        output.line(f"{printable(summary.folder)}: {summary.n_recordings} recordings")
    else:
        output.line(
            f"{printable(summary.folder)}: ready for `ser-batch encoder convert {printable(summary.folder)} OUT`"
        )


def print_convert(summary: "ConvertSummary", output: Output) -> None:
    """Print what was made of a checkpoint."""
    spec = summary.spec
    outputs = ", ".join(map(str, spec.outputs))
    output.line(
        f"{printable(summary.folder)}: encoder {spec.encoder}, outputs {outputs} of {summary.n_blocks} blocks, width "
        f"{spec.width}, {spec.embedding_size} numbers per segment, {summary.n_bytes / 1e6:.1f} MB"
    )


def print_featurize(summary: "FeaturizeSummary", output: Output) -> None:
    """Print what featurize did."""
    for warning in summary.warnings:
        output.warning(warning)
    _print_passed_over(summary.skipped_files, output)
    _print_rejects(summary.rejects, output)
    n_segments = summary.n_segments // summary.n_variants  # each has a row for every variant
    in_variants = f" in {summary.n_variants} variants" if summary.n_variants > 1 else ""
    output.line(f"{printable(summary.out)}: {n_segments} segments of {summary.n_recordings} recordings{in_variants}")
    known = sorted((label, count) for label, count in summary.emotions.items() if label)
    unknown = summary.emotions.get(None, 0)
    listed = ", ".join(f"{label} {count}" for label, count in known) + (f", unknown {unknown}" if unknown else "")
    output.line(f"emotions: {printable(listed.removeprefix(', '))}")
    if summary.verified:
        output.line(
            f"verified: {summary.verified[0]} recordings against librosa, largest difference "
            f"{summary.verified[1]:.4f} ({LARGEST_DIFFERENCE} is allowed)"
        )
        if summary.verified[1] > LARGEST_DIFFERENCE:
            raise SerBatchError(
                f"{summary.out}: the features are not those of librosa; please report this with the output of "
                "`ser-batch --version`"
            )
    _print_last(summary, output)


def print_train(summary: "TrainSummary", output: Output) -> None:
    """Print what train did."""
    for warning in summary.warnings:
        output.warning(warning)
    if summary.report is not None and summary.models is not None:
        _print_figures(summary.report, ("precision", "recall", "f1", "support"), output)
        output.line()
        _print_models(summary.models, output)
        for name, figures in summary.metrics.get("corpora", {}).items():
            output.line(
                f"{printable(name)}, on its own labels: UAR {figures['uar']:.3f}, accuracy {figures['accuracy']:.3f}, "
                f"{figures['n']} segments"
            )
        output.line()
        output.line(printable(summary.metrics["description"]))
    how = f"trained in {summary.seconds:.0f} s" if summary.is_new else "was trained already, nothing to do"
    output.line(
        f"{printable(summary.out)}: model {summary.model_id}, {summary.n_train} segments for training, "
        f"{summary.n_test} held out; {how}"
    )


def print_score(summary: "ScoreSummary", output: Output) -> None:
    """Print what score did."""
    from ser_batch.report.metrics import SUMMARY_ROWS
    from ser_batch.report.predictions import known_truth, page_file

    for warning in summary.warnings:
        output.warning(warning)
    _print_passed_over(summary.skipped_files, output)
    _print_rejects(summary.rejects, output)
    _print_model(summary.model, output)
    _print_reference(summary, output)
    columns = ["n_predicted", "share", "mean_confidence"]
    if known_truth(summary.report):
        columns += ["precision", "recall", "f1", "support"]
    together = summary.report.filter(summary.report["role"].is_null())
    if "f1" not in columns:
        together = together.filter(~together["label"].is_in(SUMMARY_ROWS))
    _print_figures(together, columns, output)
    output.line(f"{printable(summary.out)}: {summary.n_segments} segments of {summary.n_recordings} recordings")
    output.line(f"to look at: {printable(page_file(summary.out))}")
    speed = f", {summary.done_s / summary.seconds:.0f} times real time" if summary.done_s else ""
    _print_last(summary, output, speed=speed)


def print_plot(seen: "Look", out: "Path", output: Output) -> None:
    """Print what a picture shows, by which model, and on what terms that may be used."""
    output.line(
        f"{printable(out)}: channel {seen.channel} of {printable(seen.path)}, {seen.duration_s:.1f} s, "
        f"{seen.silence_s:.1f} s of them silence"
    )
    output.line(f"model: {printable(seen.model.folder)} ({seen.model.model_id})")
    if seen.model.schema.license:
        output.line(f"license: {seen.model.schema.license}")


def print_export(summary: "ExportSummary", output: Output) -> None:
    """Print what export wrote, what it takes and gives, how near it is, and on what terms it may be used."""
    inputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in summary.inputs.items())
    output.line(f"{printable(summary.out)}: model {summary.model.model_id} from {printable(summary.model.folder)}")
    output.line(f"takes: {inputs}")
    output.line(f"gives: probabilities (n, {len(summary.model.labels)}) of {', '.join(summary.model.labels)}")
    output.line(
        f"checked: {summary.n_checked} segments with onnxruntime, largest difference from score "
        f"{summary.largest_difference:.1e}"
    )
    if summary.model.schema.license:
        output.line(f"license: {summary.model.schema.license}")


def _print_figures(report: "pl.DataFrame", columns: "list[str] | tuple[str, ...]", output: Output) -> None:
    """Print a table with a row a label."""
    from ser_batch.report.metrics import SUMMARY_ROWS, main_rows
    from ser_batch.report.texts import table_text

    rows = []
    for row in main_rows(report).iter_rows(named=True):
        if row["label"] == SUMMARY_ROWS[0]:
            rows.append([""] * (len(columns) + 1))
        rows.append([row["label"], *(_cell(row[name]) for name in columns)])
    output.table(table_text(report, columns), ["label", *columns], rows)


def _print_models(models: "pl.DataFrame", output: Output) -> None:
    """Print a table with a row a model and condition."""
    from ser_batch.report.texts import summary_text

    speech = {(row["estimator"], row["condition"]): row["uar"] for row in models.filter(subset="speech").to_dicts()}
    figures = ("accuracy", "uar", "uar_low", "uar_high", "macro_f1", "ece")
    rows = [
        [row["estimator"], row["condition"], *(_cell(row[name], 3) for name in figures)]
        + ([_cell(speech.get((row["estimator"], row["condition"])), 3)] if speech else [])
        for row in models.filter(subset="all").to_dicts()
    ]
    headers = ["model", "condition", "accuracy", "UAR", "from", "to (95 %)", "macro F1", "ECE"]
    output.table(summary_text(models), [*headers, "speech UAR"] if speech else headers, rows)


def _cell(value: float | None, digits: int = 2) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def _print_model(model: "Model", output: Output) -> None:
    """Print which model it was, what it is worth on recordings from elsewhere, and on what terms it may be used."""
    from ser_batch.report.regimes import MOSTLY_NEUTRAL

    output.line(f"model: {printable(model.folder)} ({model.model_id})")
    metrics = model.schema.metrics
    calls = model.regimes.get(MOSTLY_NEUTRAL)
    if calls:
        unseen = f"unseen corpora ({', '.join(map(printable, model.cross_corpus))})"
        figures = f"UAR {calls['uar']:.2f} (chance {1 / calls['n_labels']:.2f}), accuracy {calls['accuracy']:.2f}"
        output.line(
            f"accuracy: {figures} on mostly neutral speech composed from "
            f"{unseen if model.cross_corpus else 'held-out recordings'}. Expect less on real calls"
        )
        if metrics and not model.cross_corpus:
            output.line(printable(metrics.description))
    elif model.cross_corpus:
        of_each = ", ".join(
            f"{printable(name)} {figures.uar:.2f} (chance {1 / len(figures.labels):.2f})"
            for name, figures in model.cross_corpus.items()
        )
        output.line(f"accuracy: UAR on unseen corpora: {of_each}. Expect less on real calls")
    elif metrics:
        description = printable(metrics.description)
        output.line(f"accuracy: UAR {metrics.uar:.2f}, accuracy {metrics.accuracy:.2f}. {description}")
    else:
        output.line("accuracy: not known, nothing was held out when the model was trained")
    if model.schema.license:
        output.line(f"license: {printable(model.schema.license)}")
    better = model.recommended_model
    if better:
        output.line(
            f"better supported for recordings made elsewhere: --model {better}, measured on corpora never heard"
        )


def _print_reference(summary: "ScoreSummary", output: Output) -> None:
    """Print what voices were compared with, and how often each label was expected."""
    from ser_batch.scoring.reference import MIN_RECORDINGS

    used = summary.reference
    if used is not None:
        own, made = used.reference, f"made {used.reference.created:%Y-%m-%d %H:%M} UTC"
        n_voices = f"{own.n_recordings} recordings, {own.n_segments} segments"
        if own.kind == "archive":
            of = "stored, a sample of" if used.is_stored else "this archive, a sample of"
            what = f"{printable(used.given)}, {n_voices}" if used.given else f"{of} {n_voices}"
            output.line(f"reference: {what}, {made}")
        elif not own.n_sampled:
            output.line("reference: each segment's own channel; none of the archive, as --reference said")
        else:
            output.line(
                f"reference: each segment's own channel; none of the archive, which had fewer than {MIN_RECORDINGS} "
                f"recordings with speech, {made}"
            )
    shares = summary.prior
    if max(shares.values()) - min(shares.values()) < 1e-9:
        output.line("prior: balanced, each emotion is expected as often as the others")
    else:
        output.line("prior: " + ", ".join(f"{printable(label)} {share:.2f}" for label, share in shares.items()))


def _print_passed_over(skipped_files: Mapping[str, int], output: Output) -> None:
    if skipped_files:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(skipped_files.items()))
        output.remark(f"passed over: {sum(skipped_files.values())} other files ({kinds})")


def _print_rejects(rejects: "tuple[Reject, ...]", output: Output) -> None:
    shown = len(rejects) if output.verbose else REJECTS_SHOWN
    for reject in rejects[:shown]:
        output.warning(reject.message, f"rejected ({reject.stage})")
    if len(rejects) > shown:
        output.warning(f"{len(rejects) - shown} more, all of them in the rejects table", "rejected")


def _print_last(summary: "FeaturizeSummary | ScoreSummary", output: Output, *, speed: str = "") -> None:
    """Print what is not done and the closing line."""
    if summary.n_missing:
        output.line(f"vanished: {summary.n_missing} recordings are gone; --prune drops their rows")
    if summary.n_before_since:
        output.line(f"older: {summary.n_before_since} recordings are not done, they were modified before --since")
    if summary.n_beyond_limit:
        output.line(f"left: {summary.n_beyond_limit} recordings beyond --limit; the same command goes on with them")
    already = f", {summary.n_up_to_date} were done already" if summary.n_up_to_date else ""
    output.line(
        f"done: {summary.n_done} recordings in {summary.seconds:.1f} s{speed}{already}; "
        f"{summary.audio_s / 3600:.2f} h of audio in all, {len(summary.rejects)} rejected"
    )
