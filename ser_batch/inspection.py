"""Contents of a folder or table that ser-batch writes: rows, schema, settings, first rows, health."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Meta

from ser_batch.config.structs import as_json
from ser_batch.corpus.manifest import WARNING
from ser_batch.errors import InputError, UsageError, did_you_mean
from ser_batch.model.folder import DISTRIBUTIONS, MODEL_FILE, Model, find_model, load_model, unknown_model
from ser_batch.report.predictions import side_tables
from ser_batch.runs.store import run_file
from ser_batch.storage.installed import INSTALLED_MODELS
from ser_batch.storage.paths import refuse_undecodable
from ser_batch.summary import Summary
from ser_batch.tables.mfcc_array import read_arrays
from ser_batch.tables.parquet import read_frame, scan_frames

# columns that no other kind of table has, all of them, and the kind
_KINDS: Mapping[tuple[str, ...], str] = {
    ("mfcc", "n_frames", "variant"): "features",
    ("embedding", "n_tokens", "variant"): "features",
    ("fold", "seed", "predicted", "variant"): "model predictions",
    ("rms_dbfs", "predicted", "margin"): "predictions",
    ("speech_s", "priority", "status"): "calls",
    ("quarter", "speech_s"): "quarters",
    ("role", "label", "n_predicted"): "labels",
    ("stage", "error", "message"): "rejects",
    ("condition", "subset", "label", "support"): "model report",
    ("estimator", "condition", "subset", "uar"): "models",
    ("bin_low", "bin_high"): "reliability",
    ("condition", "coverage"): "coverage",
    ("regime", "condition", "share_error"): "regimes",
    ("emotion", "predicted", "rate"): "confusion",
    ("member", "epoch", "loss"): "history",
}
_WHAT_CAN_BE = (
    "a features folder, a model folder or the name of an installed model, predictions (.parquet or a folder), or any "
    "Parquet table of ser-batch"
)


class Inspection(Summary, frozen=True, kw_only=True):
    """What `inspect` found."""

    path: Annotated[str, Meta(description="what was inspected")]
    kind: Annotated[
        str,
        Meta(
            description="`features`, `model`, `predictions`, `calls`, `labels` (preds.report.parquet), `rejects`, "
            "`table`, or of a model `model predictions`, `model report`, `models` (summary.parquet), `reliability`, "
            "`coverage`, `regimes`, `confusion`, `history`"
        ),
    ]
    schema_version: Annotated[str | None, Meta(description="version of the tables; null for a model")]
    n_files: Annotated[int, Meta(description="Parquet files of the table, or all files of a model")]
    n_bytes: Annotated[int, Meta(description="their size, bytes")]
    n_rows: Annotated[int | None, Meta(description="rows; null for a model")]
    columns: Annotated[pl.DataFrame, Meta(description="list of `name` and `dtype`, as in docs/tables.md")]
    spec: Annotated[
        Mapping[str, Any], Meta(description="settings it was made with: spec.json, model.json, or those of score")
    ]
    figures: Annotated[Mapping[str, float | int | None], Meta(description="numbers by name; the name ends in the unit")]
    counts: Annotated[
        Mapping[str, Mapping[Any, int]],
        Meta(
            description="rows by value, of columns with up to 100 values; `null` counts rows without one. "
            "`rejected at`: rejects by stage. `status` of predictions: rows of the table of calls"
        ),
    ]
    first: Annotated[pl.DataFrame, Meta(description="list of the first rows (`--rows`), without arrays")]
    notes: Annotated[tuple[str, ...], Meta(description="list of sentences on what is missing or odd")]


def inspect(source: Path, *, n_first: int = 5) -> Inspection:
    """Look at a folder or table. Arrays of MFCCs are never read, other columns in one pass, embeddings in another.

    Parameters
    ----------
    source
        A features folder, a model folder or the name of an installed model, what score wrote, or any Parquet file of
        ours.
    n_first
        First rows to show.

    Raises
    ------
    UsageError
        It is not there, or nothing of ours.
    InputError
        A file is broken, or a Parquet table is not one of ours.
    ModelError
        The model folder is incomplete or altered.
    """
    if n_first < 0:
        raise UsageError(f"--rows {n_first}; expected 0 or more")
    refuse_undecodable(source)
    if not source.exists():
        if str(source) in INSTALLED_MODELS:
            return _of_model(str(source), find_model(str(source)))
        if str(source) in DISTRIBUTIONS:
            raise UsageError(f"{source}: {unknown_model(str(source))}")
        hint = did_you_mean(str(source), {*INSTALLED_MODELS, *DISTRIBUTIONS})
        raise UsageError(f"{source}: no such file or folder; expected {_WHAT_CAN_BE}{hint}")
    if (source / MODEL_FILE).is_file():
        return _of_model(str(source), load_model(source))
    if source.is_file():
        return _of_table(source, [source], n_first)
    parts = sorted(source.glob("part-*.parquet"))
    if not parts:
        raise UsageError(
            f"{source}: holds neither model.json nor part-*.parquet; expected {_WHAT_CAN_BE}. Of recordings, "
            "`ser-batch featurize` makes features and `ser-batch score` predictions, which can be inspected"
        )
    return _of_table(source, parts, n_first)


def _of_model(path: str, model: Model) -> Inspection:
    """Look at a checked model folder."""
    files = sorted(file for file in model.folder.iterdir() if file.is_file())
    tables = [file for file in files if file.suffix == ".parquet"]
    values, metrics = as_json(model.schema), model.schema.metrics
    names = (
        "estimator", "recipe", "labels", "normalize", "feature_spec", "segmentation", "split", "cross_validated",
        "train_variants", "conditions", "seed", "seeds", "epochs", "temperature", "license", "created", "versions",
    )  # fmt: skip
    figures = {name: value for name, value in (values["metrics"] or {}).items() if _is_number(value)}
    figures |= {f"uar_on_{name}": held_out.uar for name, held_out in model.cross_corpus.items()}
    figures |= {f"training_{name}": value for name, value in values["training"].items() if _is_number(value)}
    notes = [metrics.description if metrics else "nothing was held out when it was trained, so it has no figures"]
    if not tables:
        notes.append("it has no tables of its evaluation, as a model in the package, or one of --split none")
    return Inspection(
        path=path,
        kind="model",
        schema_version=None,
        n_files=len(files),
        n_bytes=sum(file.stat().st_size for file in files),
        n_rows=None,
        columns=pl.DataFrame(schema={"name": pl.String, "dtype": pl.String}),
        spec={"model_id": model.model_id} | {name: values[name] for name in names if name in values},
        figures=figures,
        counts={"emotion": dict(model.schema.training.rows_by_emotion)},
        first=pl.DataFrame(),
        notes=tuple(notes),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _of_table(source: Path, parts: Sequence[Path], n_first: int) -> Inspection:
    """Look at a table in one or more files."""
    schema, n_rows = _schema_of(parts)
    version = (schema.metadata or {}).get(b"schema_version")
    if version is None:
        raise InputError(
            f"{parts[0]}: a Parquet file without schema_version in its metadata, so no table of ser-batch; expected "
            f"{_WHAT_CAN_BE}"
        )
    kind = next((kind for names, kind in _KINDS.items() if {*names} <= {*schema.names}), "table")
    scan = scan_frames(parts)
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    side = _side_files(source, kind)
    figures, counts = health(scan, flat)
    figures |= embedding_health(parts) if kind == "features" and "embedding" in schema.names else {}
    read = {name: _side_frame(path) for name, path in side.items() if path.is_file()}
    if "rejects" in read:
        rejects = read["rejects"].filter(pl.col("stage") != WARNING)
        figures |= {"n_rejected": len(rejects), "n_warned": len(read["rejects"]) - len(rejects)}
        counts["rejected at"] = _counted(rejects, "stage")
    if "calls" in read:
        of_calls = health(read["calls"].lazy(), read["calls"].columns)
        figures |= {"n_calls": len(read["calls"]), "audio_s": of_calls[0].get("audio_s")}
        counts["status"] = of_calls[1]["status"]
    return Inspection(
        path=str(source),
        kind=kind,
        schema_version=version.decode(errors="replace"),
        n_files=len(parts),
        n_bytes=sum(part.stat().st_size for part in parts),
        n_rows=n_rows,
        columns=pl.DataFrame({"name": schema.names, "dtype": [_dtype(field.type) for field in schema]}),
        spec=_spec(source, kind),
        figures=figures,
        counts=counts,
        first=scan.select(flat).head(n_first).collect(),
        notes=tuple(_notes(kind, side, figures, counts, n_rows)),
    )


def _schema_of(parts: Sequence[Path]) -> tuple[pa.Schema, int]:
    """Return the schema of all parts, and their rows; from their ends alone."""
    schemas, n_rows = [], 0
    for part in parts:
        try:
            metadata = pq.read_metadata(part)
            schemas.append(metadata.schema.to_arrow_schema())
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{part}: cannot be read as Parquet ({error}); expected a table of ser-batch, make it again"
            ) from error
        if schemas[-1].names != schemas[0].names:
            raise InputError(f"{part}: has other columns than {parts[0].name}; make the folder again with --overwrite")
        n_rows += metadata.num_rows
    return schemas[0], n_rows


def _dtype(kind: pa.DataType) -> str:
    """Return a type as docs/tables.md has it."""
    return str(kind).replace("element: ", "").replace("item: ", "").replace(" ", "")


def _side_files(source: Path, kind: str) -> dict[str, Path]:
    """Return the tables that belong to another one, where they should lie."""
    if kind == "features" and source.is_dir():
        return {"rejects": source / "_meta" / "rejects.parquet"}
    if kind == "predictions" and not source.name.startswith("part-"):
        return side_tables(source)
    return {}


def _side_frame(path: Path) -> pl.DataFrame:
    try:
        return read_frame(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error}); run the same command again") from error


def _counted(frame: pl.DataFrame, name: str) -> dict[Any, int]:
    return dict(frame.group_by(name).len().sort("len", name, descending=[True, False]).iter_rows())


def _spec(source: Path, kind: str) -> Mapping[str, Any]:
    """Return what the folder says on how it came about; nothing where there is nothing to read."""
    if kind == "features":
        path = (source if source.is_dir() else source.parent) / "spec.json"
    elif kind == "predictions":
        path = run_file(source if source.is_dir() else source.with_suffix(".parts"))
    else:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); run the same command again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: {type(values).__name__}; expected a JSON object, run the same command again")
    return {name: value for name, value in values.items() if name != "schema_version"}


def _notes(
    kind: str, side: Mapping[str, Path], figures: Mapping[str, Any], counts: Mapping[str, Any], n_rows: int
) -> Iterator[str]:
    missing = [path.name for path in side.values() if not path.is_file()]
    if missing:
        yield f"without {', '.join(missing)}: the run is not finished, or they were left behind"
    if not n_rows:
        yield "it has no rows"
    if kind == "features":
        if figures["n_rows_without_emotion"]:
            yield f"{figures['n_rows_without_emotion']} rows have no emotion and are not trained on"
        if figures["n_speakers"] < 2:
            yield "fewer than two speakers are known, so --split speaker is not possible"
        if set(counts.get("variant", ())) == {"clean"}:
            yield "clean rows only; `ser-batch featurize --variants robust` adds telephones, noise and rooms"
        if figures["n_rows_silent"]:
            yield f"{figures['n_rows_silent']} rows are digital silence and are not trained on"
        if n_rows > 1 and figures.get("n_constant_dimensions"):
            yield (
                f"{figures['n_constant_dimensions']} of {figures['embedding_size']} numbers of the embedding are the "
                "same in all rows; expected none: are all recordings copies of one, or silent?"
            )
        if figures.get("n_rows_not_finite"):
            yield f"{figures['n_rows_not_finite']} rows have an embedding with NaN or infinity; featurize again"
    if figures.get("n_rejected"):
        yield f"{figures['n_rejected']} recordings were rejected; the reasons are in the table of rejects"
    if figures.get("n_warned"):
        yield f"{figures['n_warned']} warnings of recordings that were used stand in the table of rejects"
    if len(counts.get("model_id", ())) > 1:
        yield "its rows are of several models"


# rows are counted by the values of these, where a table has them
_COUNTED = (
    "dataset", "corpus", "variant", "channel", "sampling_rate", "role", "vocal_channel", "intensity", "sex", "speaker",
    "emotion", "predicted", "abstained", "status", "model_id", "stage", "error", "fold", "seed", "estimator",
    "condition", "subset", "label",
)  # fmt: skip
_MAX_VALUES = 100


def health(scan: pl.LazyFrame, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[Any, int]]]:
    """Return figures and counts of what a table has; all in one pass over the columns that it takes."""
    there = {*names}
    counted = [name for name in _COUNTED if name in there]
    key = [name for name in ("dataset", "path") if name in there] if "path" in there else []
    queries = [scan.group_by(name).len().sort("len", name, descending=[True, False]) for name in counted]
    numbers: list[pl.Expr] = []
    if "speaker" in there:
        numbers += [pl.col("speaker").n_unique().alias("n_speakers"), pl.col("speaker").null_count().alias("nameless")]
    if "emotion" in there:
        numbers.append(pl.col("emotion").null_count().alias("n_rows_without_emotion"))
    if {"start_s", "end_s"} <= there:
        numbers += _spread(pl.col("end_s") - pl.col("start_s"), "segment_s")
    for name in ("speech_ratio", "confidence", "rms_dbfs"):
        if name in there:
            numbers.append(pl.col(name).mean().alias(f"mean_{name}"))
    if "n_tokens" in there:
        numbers.append(pl.col("n_tokens").mean().alias("mean_n_tokens"))
    if "rms_dbfs" in there:
        numbers.append(pl.col("rms_dbfs").null_count().alias("n_rows_silent"))
    recordings = []
    if key:
        lengths = [pl.col("duration_s").max()] if "duration_s" in there else []
        sums = [pl.col("duration_s").sum().alias("audio_s"), *_spread(pl.col("duration_s"), "duration_s")]
        of_each = scan.group_by(key).agg(pl.len().alias("rows"), *lengths)
        recordings = [of_each.select(pl.len().alias("n_recordings"), *(sums if lengths else []))]
    asked = [*queries, *recordings, *([scan.select(numbers)] if numbers else [])]
    found = pl.collect_all(asked, engine="streaming") if asked else []
    counts = {
        name: dict(frame.iter_rows())
        for name, frame in zip(counted, found, strict=False)
        if 0 < len(frame) <= _MAX_VALUES and frame[name].null_count() < len(frame)
    }
    figures: dict[str, Any] = {}
    for frame in found[len(queries) :]:
        figures |= frame.row(0, named=True)
    if "nameless" in figures:
        nameless = figures.pop("nameless")
        figures["n_speakers"] -= nameless > 0  # null is a value to n_unique
        figures["n_rows_without_speaker"] = nameless
    return figures, counts


def embedding_health(parts: Sequence[Path]) -> dict[str, int]:
    """Return figures of the embeddings in some parts, read a row group at a time."""
    low, high, n_not_finite = np.empty(0), np.empty(0), 0
    for values in read_arrays(parts, "embedding"):
        n_not_finite += int((~np.isfinite(values).all(axis=1)).sum())
        if not len(low):
            low, high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    return {
        "embedding_size": len(low),
        "n_constant_dimensions": int((low == high).sum()),
        "n_rows_not_finite": n_not_finite,
    }


def _spread(values: pl.Expr, name: str) -> list[pl.Expr]:
    return [
        values.min().alias(f"shortest_{name}"),
        values.median().alias(f"median_{name}"),
        values.max().alias(f"longest_{name}"),
    ]
