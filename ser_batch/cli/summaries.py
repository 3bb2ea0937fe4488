"""The summary of each command as text: results to stdout, warnings and rejected recordings to stderr."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ser_batch.cli.console import Output
from ser_batch.errors import printable

if TYPE_CHECKING:
    import polars as pl

    from ser_batch.download import DownloadSummary
    from ser_batch.encoder.convert import ConvertSummary
    from ser_batch.featurization import FeaturizeSummary
    from ser_batch.inspection import Inspection
    from ser_batch.model.export import ExportSummary
    from ser_batch.plot import PlotSummary
    from ser_batch.report.pages import PageSummary
    from ser_batch.runs.summary import RunSummary
    from ser_batch.scoring.summary import ModelSummary, ReferenceSummary, ScoreSummary
    from ser_batch.synth import SynthSummary
    from ser_batch.training.run import TrainSummary

REJECTS_SHOWN = 10
VALUES_SHOWN = 12
CELL_WIDTH = 24
# of columns whose names are wide; a terminal has 80 columns
_TITLES = {"n_predicted": "segments", "mean_confidence": "confidence"}


def print_featurize(summary: "FeaturizeSummary", output: Output) -> None:
    """Print what featurize did."""
    _print_first(summary, output)
    variants = f" in {summary.n_variants} variants" if summary.n_variants > 1 else ""
    output.line(f"{printable(summary.out)}: {_segments(summary)}{variants}")
    unknown = {"unknown": summary.n_without_emotion} if summary.n_without_emotion else {}
    output.line(f"emotions: {_listed({**summary.emotions, **unknown})}")
    if summary.verified:
        compared = _count(summary.verified.n_recordings, "recording")
        output.line(
            f"verified: {compared} against librosa, largest difference {summary.verified.largest_difference:.4f}"
        )
    _print_last(summary, output)


def print_train(summary: "TrainSummary", output: Output) -> None:
    """Print what train did."""
    for warning in summary.warnings:
        output.warning(warning)
    if summary.report is not None and summary.models is not None:
        print_labels(summary.report, ("precision", "recall", "f1", "support"), output)
        output.line()
        print_models(summary.models, output)
        for name, figures in summary.metrics.get("corpora", {}).items():
            output.line(
                f"{printable(name)}, on its own labels: UAR {figures['uar']:.3f}, accuracy {figures['accuracy']:.3f}, "
                f"{_count(figures['n'], 'segment')}"
            )
        output.line()
        output.line(printable(summary.metrics["description"]))
    how = f"trained in {summary.seconds:.0f} s" if summary.is_new else "up to date, nothing to do"
    output.line(
        f"{printable(summary.out)}: model {summary.model_id}, {_count(summary.n_train, 'training segment')}, "
        f"{summary.n_test} held out; {how}"
    )


def print_score(summary: "ScoreSummary", output: Output) -> None:
    """Print what score did."""
    from ser_batch.report.metrics import SUMMARY_ROWS
    from ser_batch.report.predictions import known_truth

    _print_first(summary, output)
    print_model(summary.model, output)
    if summary.reference is not None:
        output.line(f"reference: {_reference_text(summary.reference)}")
    shares = summary.prior.values()
    is_balanced = max(shares) - min(shares) < 1e-9
    listed = ", ".join(f"{printable(label)} {share:.2f}" for label, share in summary.prior.items())
    output.line(f"prior: {'balanced, each emotion is expected equally often' if is_balanced else listed}")
    labels = summary.labels.filter(summary.labels["role"].is_null())
    if known_truth(labels):
        print_labels(labels, ["n_predicted", "share", "precision", "recall", "f1", "support"], output)
    else:
        labels = labels.filter(~labels["label"].is_in(SUMMARY_ROWS))
        columns = ["n_predicted", "share", "mean_confidence"]
        print_labels(labels, columns, output, of_roles=summary.labels.drop_nulls("role"))
    if len(summary.first):
        output.line()
        what = f"{len(summary.first)} of {summary.n_prioritized} channels with a priority"
        output.line(f"listen to these first ({what}; all are in {printable(summary.calls)}):")
        print_first_calls(summary.first, output)
    output.line()
    output.line(f"{printable(summary.out)}: {_segments(summary)}")
    if summary.page is not None:
        output.link("report: ", summary.page)
    _print_last(summary, output, f" ({summary.done_s / summary.seconds:.0f} times real time)" if summary.done_s else "")


def print_first_calls(calls: "pl.DataFrame", output: Output) -> None:
    """Print a table of calls to listen to: priority, where and why."""
    from ser_batch.report.html import clock

    rows = [
        [
            row["listen_why"],
            row["path"] + f" ({row['role'] or 'channel ' + str(row['channel'])})" * (row["channel"] >= 0),
            clock(row["listen_at_s"]),
            _number(row["priority"], 2),
        ]
        for row in calls.iter_rows(named=True)
    ]
    output.table(["why", "recording", "at", "priority"], rows, n_left=2)


def print_page(summary: "PageSummary", output: Output) -> None:
    """Print what report wrote."""
    output.line(f"{printable(summary.out)}: the report of {printable(summary.source)}")


def print_synth(summary: "SynthSummary", output: Output) -> None:
    """Print what synth made."""
    recordings = _count(summary.n_recordings, "made-up recording")
    output.line(f"{printable(summary.out)}: {recordings}, {summary.audio_s / 60:.1f} minutes")


def print_download(summary: "DownloadSummary", output: Output) -> None:
    """Print what was downloaded, and what to do with weights."""
    for name in summary.fetched:
        output.line(f"{printable(name)}: downloaded, checksum verified")
    for name in summary.already_here:
        output.line(f"{printable(name)}: downloaded before")
    out = printable(summary.out)
    recordings = _count(summary.n_recordings, "recording")
    output.line(f"{out}: {recordings if summary.n_recordings else f'next, run `ser-batch encoder convert {out} OUT`'}")


def print_convert(summary: "ConvertSummary", output: Output) -> None:
    """Print which encoder was made."""
    spec = summary.encoder
    outputs = ", ".join(map(str, spec.outputs))
    output.line(
        f"{printable(summary.out)}: encoder {spec.encoder}, outputs {outputs} of {summary.n_blocks} blocks, width "
        f"{spec.width}, {spec.embedding_size} numbers per segment, {summary.n_bytes / 1e6:.1f} MB"
    )


def print_plot(summary: "PlotSummary", output: Output) -> None:
    """Print what a picture shows."""
    output.line(
        f"{printable(summary.out)}: channel {summary.channel} of {printable(summary.path)}, "
        f"{summary.duration_s:.1f} s, of which {summary.silence_s:.1f} s silence"
    )
    output.line(f"model: {printable(summary.model)} ({summary.model_id})")
    _print_license(summary.license, output)


def print_export(summary: "ExportSummary", output: Output) -> None:
    """Print what the graph takes and gives, and how near it is to score."""
    inputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in summary.inputs.items())
    output.line(f"{printable(summary.out)}: model {summary.model_id} from {printable(summary.model)}")
    output.line(f"inputs: {inputs}")
    output.line(f"outputs: probabilities (n, {len(summary.labels)}) of {', '.join(map(printable, summary.labels))}")
    output.line(
        f"checked: {_count(summary.n_checked, 'segment')} with ONNX Runtime, largest difference from score "
        f"{summary.largest_difference:.1e}"
    )
    _print_license(summary.license, output)


def print_inspection(found: "Inspection", output: Output) -> None:
    """Print what it is, its settings, its health, its columns with their first values."""
    rows = "" if found.n_rows is None else f"{_count(found.n_rows, 'row')} in "
    size = f"{found.n_bytes / 1e6:.1f} MB" if found.n_bytes >= 1e6 else f"{found.n_bytes / 1e3:.1f} kB"
    version = f", schema version {found.schema_version}" if found.schema_version else ""
    output.line(f"{printable(found.path)}: {found.kind}, {rows}{_count(found.n_files, 'file')}, {size}{version}")
    for name, value in found.spec.items():
        output.line(f"{printable(name)}: {_settings(value)}")
    _print_block((f"{printable(name)}: {_number(number)}" for name, number in found.figures.items()), output)
    counted = {name: counts for name, counts in found.counts.items() if counts}
    _print_block((f"{printable(name)}: {_listed(counts, VALUES_SHOWN)}" for name, counts in counted.items()), output)
    if len(found.columns):
        first = found.first.to_dicts()
        headers = ["column", "dtype", *(f"row {number + 1}" for number in range(len(first)))]
        output.line()
        output.table(
            headers,
            (
                [name, _cell(dtype), *(_cell(row[name]) for row in first if name in row)]
                for name, dtype in found.columns.iter_rows()
            ),
            n_left=len(headers),
        )
    _print_block((f"note: {printable(note)}" for note in found.notes), output)


def _print_first(summary: "RunSummary", output: Output) -> None:
    """Print warnings, skipped files and rejected recordings."""
    for warning in summary.warnings:
        output.warning(warning)
    if summary.skipped_files:
        n, kinds = sum(summary.skipped_files.values()), sorted(summary.skipped_files.items())
        of_each = ", ".join(f"{count} {suffix}" if len(kinds) > 1 else suffix for suffix, count in kinds)
        output.remark(f"skipped {_count(n, 'non-audio file')} ({printable(of_each)})")
    for rejects in (summary.warned, summary.rejected):
        shown = len(rejects) if output.verbose else REJECTS_SHOWN
        for reject in rejects[:shown]:
            output.warning(
                reject.message, "warning" if reject.is_warning else f"rejected ({reject.stage})", reject.path
            )
        if len(rejects) > shown:
            kind = "warning" if rejects[0].is_warning else "rejected"
            output.warning(f"{len(rejects) - shown} more, listed in {summary.rejects}", kind)


def _print_last(summary: "RunSummary", output: Output, speed: str = "") -> None:
    """Print what is left to do and the closing line."""
    if summary.n_missing:
        output.line(f"missing: {_count(summary.n_missing, 'recording')}; add --prune to drop their rows")
    if summary.n_before_since:
        output.line(f"skipped: {_count(summary.n_before_since, 'recording')}, not modified since --since")
    if summary.n_beyond_limit:
        output.line(f"left: {_count(summary.n_beyond_limit, 'recording')} beyond --limit; run again to continue")
    up_to_date = f", {summary.n_up_to_date} already up to date" if summary.n_up_to_date else ""
    warned = f", {summary.n_warned} with a warning" if summary.n_warned else ""
    output.line(
        f"done: {_count(summary.n_done, 'recording')} in {summary.seconds:.1f} s{speed}{up_to_date}; "
        f"{summary.audio_s / 3600:.2f} h of audio in total, {summary.n_rejected} rejected{warned}"
    )


def print_model(model: "ModelSummary", output: Output) -> None:
    """Print which model it was, how right it is on unseen corpora, and its license."""
    output.line(f"model: {printable(model.path)} ({model.model_id})")
    for line in model.accuracy_lines:
        output.line(line)
    _print_license(model.license, output)
    if model.recommended_model:
        output.line(f"recommended: --model {model.recommended_model}, which was tested on unseen corpora")


def _print_license(text: str, output: Output) -> None:
    if text:
        output.line(f"license: {printable(text)}")


def _reference_text(reference: "ReferenceSummary") -> str:
    from ser_batch.scoring.reference import MIN_RECORDINGS

    if reference.kind == "archive":
        source = printable(reference.given or ("stored sample" if reference.is_stored else "sample of this archive"))
        sizes = f"{_count(reference.n_recordings, 'recording')}, {_count(reference.n_segments, 'segment')}"
        return f"{source} ({sizes}), made {reference.created:%Y-%m-%d %H:%M} UTC"
    if not reference.n_sampled:
        return "each channel by itself (--reference none)"
    return f"each channel by itself, because fewer than {MIN_RECORDINGS} recordings have speech"


def print_labels(
    report: "pl.DataFrame", columns: Sequence[str], output: Output, *, of_roles: "pl.DataFrame | None" = None
) -> None:
    """Print a table with one row per label; with the number of segments of each role, where there are several."""
    from ser_batch.report.metrics import SUMMARY_ROWS

    roles = [] if of_roles is None else of_roles["role"].unique(maintain_order=True).to_list()
    of_role = {} if of_roles is None else {(row["role"], row["label"]): row for row in of_roles.iter_rows(named=True)}
    roles = roles if len(roles) > 1 else []
    rows: list[list[str]] = []
    for row in report.iter_rows(named=True):
        if row["label"] == SUMMARY_ROWS[0]:
            rows.append([])
        counts = [_number(of_role[role, row["label"]]["n_predicted"], 0, "") for role in roles]
        rows.append([row["label"], *(_number(row[name], 2, "") for name in columns), *counts])
    titles = [_TITLES.get(name, name) for name in columns]
    output.table(["label", *titles, *roles], rows)


def print_models(models: "pl.DataFrame", output: Output) -> None:
    """Print a table with one row per model and condition."""
    speech = {(row["estimator"], row["condition"]): row["uar"] for row in models.filter(subset="speech").to_dicts()}
    drawn = " or ".join(f"{unit}s" for unit in models.filter(subset="all")["resampled"].drop_nulls().unique().sort())
    interval_title = f"95 % of {drawn}" if drawn else "95 %"
    last_title = ["speech UAR"] if speech else []
    headers = ["model", "condition", "accuracy", "UAR", interval_title, "macro F1", "ECE", *last_title]
    rows = []
    for row in models.filter(subset="all").to_dicts():
        key = (row["estimator"], row["condition"])
        interval = "" if row["uar_low"] is None else f"{row['uar_low']:.2f} to {row['uar_high']:.2f}"
        figures = [_number(row[name], 3, "") for name in ("accuracy", "uar", "macro_f1", "ece")]
        last = [_number(speech.get(key), 3, "")] if speech else []
        rows.append([*key, *figures[:2], interval, *figures[2:], *last])
    output.table(headers, rows, n_left=2)


def _print_block(lines: Iterable[str], output: Output) -> None:
    """Print lines after an empty one; nothing if there are none."""
    for number, line in enumerate(lines):
        output.line(f"\n{line}" if number == 0 else line)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _segments(summary: "RunSummary") -> str:
    return f"{_count(summary.n_segments, 'segment')} from {_count(summary.n_recordings, 'recording')}"


def _listed(counts: Mapping[Any, int], most: int | None = None) -> str:
    """Return names and their counts, at most so many."""
    items = [f"{'none' if name is None else printable(name)} {n}" for name, n in counts.items()]
    return ", ".join(items[:most]) + (f", and {len(items) - most} more" if most and len(items) > most else "")


def _settings(value: Any) -> str:
    """Return settings as one line: names and values of a table, values of a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name)}={_settings(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_settings(one) for one in value)
    return "none" if value is None else printable(value)


def _number(number: float | None, digits: int = 3, none: str = "none") -> str:
    return none if number is None else str(number) if isinstance(number, int) else f"{number:.{digits}f}"


def _cell(value: Any) -> str:
    """Return a value short enough for a line of several."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else printable(value)
    return text if len(text) <= CELL_WIDTH else f"{text[: CELL_WIDTH - 3]}..."
