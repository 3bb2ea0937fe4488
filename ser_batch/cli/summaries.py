"""What each command reports, as a JSON object."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ser_batch.cli.console import Output
from ser_batch.errors import printable

if TYPE_CHECKING:
    from pathlib import Path

    from ser_batch.download import DownloadSummary
    from ser_batch.encoder.convert import ConvertSummary
    from ser_batch.featurization import FeaturizeSummary
    from ser_batch.inspection import Inspection
    from ser_batch.model.export import ExportSummary
    from ser_batch.plot import Look
    from ser_batch.scoring.run import ScoreSummary
    from ser_batch.synth import SynthSummary
    from ser_batch.training.run import TrainSummary

_RUN_KEYS = {
    "n_recordings": "recordings that the output knows, rejected ones among them",
    "n_segments": "segments in the output",
    "audio_s": "sound of all recordings in the output, s",
    "n_done": "recordings done by this call",
    "n_up_to_date": "recordings done before",
    "n_missing": "recordings that are gone, whose rows are still there",
    "n_before_since": "recordings not done because of `--since`",
    "n_beyond_limit": "recordings not done because of `--limit`",
    "n_rejected": "recordings that could not be used",
    "rejects": "the table of them",
    "skipped_files": "other files seen, counted by suffix",
    "warnings": "list of sentences",
    "seconds": "time this call took, s",
}
# key to meaning, in the order of the objects; docs/cli.md is made of them
RESULT_KEYS: Mapping[str, Mapping[str, str]] = {
    "featurize": {
        "out": "the features folder",
        "n_rows": "rows of its table: a row a segment and variant",
        "n_variants": "variants of each segment",
        "emotions": "segments by emotion",
        "n_without_emotion": "segments whose emotion is not known",
        "verified": "null, or `n_recordings` compared with librosa and the `largest_difference`",
        **_RUN_KEYS,
    },
    "train": {
        "out": "the model folder",
        "model_id": "the model",
        "is_new": "false where the folder held this very model already",
        "n_train": "segments for training, variants not counted",
        "n_test": "segments held out, of all folds together",
        "shared_speakers": "speakers on both sides of the split, the most of any fold",
        "metrics": "`metrics` of model.json: `accuracy`, `uar`, `macro_f1`, `weighted_f1`, `ece`, `description` and "
        "more; empty with `--split none`",
        "report": "list of the rows of report.parquet for all held-out rows in the first condition; null with "
        "`--split none`",
        "models": "list of the rows of summary.parquet; null with `--split none`",
        "warnings": "list of sentences",
        "seconds": "time this call took, s",
    },
    "score": {
        "out": "preds.parquet, or the folder",
        "calls": "the table of calls",
        "report": "the table of labels",
        "page": "the page to look at",
        "n_calls": "recordings and channels in the table of calls",
        "done_s": "sound that this call scored, s",
        "labels": "list of the rows of the table of labels for all roles together",
        "model": "`path`, `model_id`, `labels`, `license`, `uar` and `accuracy` (null where nothing was held out), "
        "`cross_corpus` (UAR by corpus never heard), `regimes` (`uar`, `accuracy` and `n_labels` on held-out "
        "recordings, by regime), "
        "`recommended_model` (null, or the name of a model)",
        "reference": "null for models that take none; else `file`, `kind` (`archive` or `none`), `n_recordings`, "
        "`n_segments` and `created`, when it was made",
        "prior": "expected share of each label",
        **_RUN_KEYS,
    },
    "report": {"out": "the page", "source": "what it is about"},
    "encoder convert": {
        "out": "the encoder folder",
        "encoder": "its encoder.json",
        "n_blocks": "blocks that the checkpoint has",
        "n_bytes": "size of encoder.onnx",
    },
    "export": {
        "out": "the file",
        "model": "the model's folder",
        "model_id": "the model",
        "inputs": "shapes by name, `n` for any number of segments",
        "labels": "list of the labels, in the order of the probabilities",
        "n_checked": "segments compared with what score computes",
        "largest_difference": "of their probabilities",
        "license": "terms of the model",
    },
    "plot": {
        "out": "the picture",
        "path": "the recording's name",
        "channel": "its channel, -1 for the mean of all",
        "n_channels": "channels it has",
        "duration_s": "its length, s",
        "silence_s": "silence in it that the picture shows, s",
        "model": "the model's folder",
        "model_id": "the model",
        "license": "terms of the model",
    },
    "run": {"steps": "list of the objects of what was run, each with `command` before its own keys"},
    "download": {
        "out": "the folder",
        "n_recordings": "recordings that the archives brought; 0 for weights",
        "fetched": "list of the files that came over the network",
        "already_here": "list of those that did not have to",
    },
    "synth": {
        "out": "the folder",
        "n_recordings": "recordings made",
        "audio_s": "their sound, s",
    },
    "inspect": {
        "path": "what was inspected",
        "kind": "`features`, `model`, `predictions`, `calls`, `labels` (preds.report.parquet), `rejects`, `table`, "
        "or of a model `model predictions`, `model report`, `models` (summary.parquet), `reliability`, `coverage`, "
        "`regimes`, `confusion`, `history`",
        "schema_version": "of the tables; null where there are none",
        "n_files": "Parquet files of the table",
        "n_bytes": "their bytes, or of a model all files",
        "n_rows": "rows",
        "columns": "list of `name`, `dtype` as in docs/tables.md",
        "spec": "how it came about: of spec.json, model.json, or what a score was run with",
        "figures": "numbers by name, with their unit in it",
        "counts": "rows by value, of columns with up to 100 of them; `null` counts rows without one. `rejected at`: "
        "rejects by stage; `status` of predictions: rows of the table of calls",
        "first": "list of the first rows (`--rows`), without arrays",
        "notes": "list of sentences on what is missing or odd",
    },
}


def featurize_result(summary: "FeaturizeSummary") -> dict[str, Any]:
    """Return the object of featurize."""
    verified = summary.verified and {
        "n_recordings": summary.verified[0],
        "largest_difference": summary.verified[1],
    }
    return {
        "out": summary.out,
        "n_rows": summary.n_segments,
        "n_variants": summary.n_variants,
        "emotions": dict(sorted((label, n) for label, n in summary.emotions.items() if label)),
        "n_without_emotion": summary.emotions.get(None, 0),
        "verified": verified,
        **_run(summary, n_segments=summary.n_segments // summary.n_variants),
        "rejects": summary.out / "_meta" / "rejects.parquet",
        **_told(summary),
    }


def export_result(summary: "ExportSummary") -> dict[str, Any]:
    """Return the object of export."""
    return {
        "out": summary.out,
        "model": summary.model.folder,
        "model_id": summary.model.model_id,
        "inputs": summary.inputs,
        "labels": list(summary.model.labels),
        "n_checked": summary.n_checked,
        "largest_difference": summary.largest_difference,
        "license": summary.model.schema.license,
    }


def plot_result(seen: "Look", out: "Path") -> dict[str, Any]:
    """Return the object of plot."""
    return {
        "out": out,
        "path": seen.path,
        "channel": seen.channel,
        "n_channels": seen.n_channels,
        "duration_s": seen.duration_s,
        "silence_s": seen.silence_s,
        "model": seen.model.folder,
        "model_id": seen.model.model_id,
        "license": seen.model.schema.license,
    }


def train_result(summary: "TrainSummary") -> dict[str, Any]:
    """Return the object of train."""
    return {
        "out": summary.out,
        "model_id": summary.model_id,
        "is_new": summary.is_new,
        "n_train": summary.n_train,
        "n_test": summary.n_test,
        "shared_speakers": summary.shared_speakers,
        "metrics": summary.metrics,
        "report": None if summary.report is None else summary.report.to_dicts(),
        "models": None if summary.models is None else summary.models.to_dicts(),
        "warnings": summary.warnings,
        "seconds": summary.seconds,
    }


def score_result(summary: "ScoreSummary") -> dict[str, Any]:
    """Return the object of score."""
    from ser_batch.report.predictions import page_file, side_tables

    side, model = side_tables(summary.out), summary.model
    metrics = model.schema.metrics
    return {
        "out": summary.out,
        "calls": side["calls"],
        "report": side["report"],
        "page": page_file(summary.out),
        "n_calls": summary.n_calls,
        "done_s": summary.done_s,
        "labels": summary.report.filter(summary.report["role"].is_null()).drop("role").to_dicts(),
        "model": {
            "path": model.folder,
            "model_id": model.model_id,
            "labels": model.labels,
            "license": model.schema.license,
            "uar": metrics.uar if metrics else None,
            "accuracy": metrics.accuracy if metrics else None,
            "cross_corpus": {name: figures.uar for name, figures in model.cross_corpus.items()},
            "regimes": {name: dict(figures) for name, figures in model.regimes.items()},
            "recommended_model": model.recommended_model,
        },
        "reference": _reference(summary),
        "prior": dict(summary.prior),
        **_run(summary, n_segments=summary.n_segments),
        "rejects": side["rejects"],
        **_told(summary),
    }


def _reference(summary: "ScoreSummary") -> dict[str, Any] | None:
    if summary.reference is None:
        return None
    own = summary.reference.reference
    return {
        "file": summary.reference.file,
        "kind": own.kind,
        "n_recordings": own.n_recordings,
        "n_segments": own.n_segments,
        "created": own.created.isoformat(),
    }


def convert_result(summary: "ConvertSummary") -> dict[str, Any]:
    """Return the object of encoder convert."""
    return {
        "out": summary.folder,
        "encoder": summary.spec.to_dict(),
        "n_blocks": summary.n_blocks,
        "n_bytes": summary.n_bytes,
    }


def download_result(summary: "DownloadSummary") -> dict[str, Any]:
    """Return the object of download."""
    return {
        "out": summary.folder,
        "n_recordings": summary.n_recordings,
        "fetched": summary.fetched,
        "already_here": summary.already_here,
    }


def synth_result(summary: "SynthSummary") -> dict[str, Any]:
    """Return the object of synth."""
    return {"out": summary.folder, "n_recordings": summary.n_recordings, "audio_s": summary.audio_s}


def _run(summary: "FeaturizeSummary | ScoreSummary", *, n_segments: int) -> dict[str, Any]:
    return {
        "n_recordings": summary.n_recordings,
        "n_segments": n_segments,
        "audio_s": summary.audio_s,
        "n_done": summary.n_done,
        "n_up_to_date": summary.n_up_to_date,
        "n_missing": summary.n_missing,
        "n_before_since": summary.n_before_since,
        "n_beyond_limit": summary.n_beyond_limit,
        "n_rejected": len(summary.rejects),
    }


def _told(summary: "FeaturizeSummary | ScoreSummary") -> dict[str, Any]:
    return {"skipped_files": summary.skipped_files, "warnings": summary.warnings, "seconds": summary.seconds}


_VALUES_SHOWN = 12
_CELL_WIDTH = 24


def print_inspection(found: "Inspection", output: Output) -> None:
    """Print what it is, how it came about, its health, its columns with their first values."""
    rows = "" if found.n_rows is None else f"{found.n_rows} rows in "
    version = f", schema version {found.schema_version}" if found.schema_version else ""
    files = "1 file" if found.n_files == 1 else f"{found.n_files} files"
    size = f"{found.n_bytes / 1e6:.1f} MB" if found.n_bytes >= 1e6 else f"{found.n_bytes / 1e3:.1f} kB"
    output.line(f"{printable(found.path)}: {found.kind}, {rows}{files}, {size}{version}")
    for name, value in found.spec.items():
        output.line(f"{printable(name)}: {_settings(value)}")
    if found.figures:
        output.line()
    for name, number in found.figures.items():
        output.line(f"{printable(name)}: {_number(number)}")
    shown = {name: counts for name, counts in found.counts.items() if counts}
    if shown:
        output.line()
    for name, counts in shown.items():
        output.line(f"{printable(name)}: {_counts(counts)}")
    if len(found.columns):
        output.line()
        first = found.first.to_dicts()
        lines = [
            [row["name"], _cell(row["dtype"]), *(_cell(one[row["name"]]) for one in first if row["name"] in one)]
            for row in found.columns.iter_rows(named=True)
        ]
        headers = ["column", "dtype", *(f"row {number + 1}" for number in range(len(first)))]
        output.table(_aligned([headers, *lines]), headers, lines, left=len(headers))
    if found.notes:
        output.line()
    for note in found.notes:
        output.line(f"note: {printable(note)}")


def inspection_result(found: "Inspection") -> dict[str, Any]:
    """Return the object of inspect."""
    return {
        "path": found.path,
        "kind": found.kind,
        "schema_version": found.schema_version,
        "n_files": found.n_files,
        "n_bytes": found.n_bytes,
        "n_rows": found.n_rows,
        "columns": found.columns.to_dicts(),
        "spec": found.spec,
        "figures": found.figures,
        "counts": {
            name: {"null" if value is None else value: n for value, n in counts.items()}
            for name, counts in found.counts.items()
        },
        "first": found.first.to_dicts(),
        "notes": found.notes,
    }


def _settings(value: Any) -> str:
    """Return settings as one line: names and values of a table, values of a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name)}={_settings(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_settings(one) for one in value)
    return "none" if value is None else printable(value)


def _counts(counts: Mapping[Any, int]) -> str:
    items = [f"{'none' if value is None else printable(value)} {n}" for value, n in counts.items()]
    more = f", and {len(items) - _VALUES_SHOWN} more" if len(items) > _VALUES_SHOWN else ""
    return ", ".join(items[:_VALUES_SHOWN]) + more


def _number(number: float | None) -> str:
    return "none" if number is None else str(number) if isinstance(number, int) else f"{number:.3f}"


def _cell(value: Any) -> str:
    """Return a value short enough for a line of several."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else printable(value)
    return text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 3]}..."


def _aligned(rows: list[list[str]]) -> str:
    """Return rows of cells as text, each column as wide as its longest cell; rows may end early."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return "\n".join(
        "  ".join(f"{printable(cell):<{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )
