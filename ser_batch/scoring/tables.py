"""The tables that users read, made of the parts; made again only where something has changed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_batch import __version__
from ser_batch.config.options import Playback
from ser_batch.report.scored_run import ScoredRun, write_run
from ser_batch.runs.ledger import shard_number
from ser_batch.runs.store import Store, StoreSummary
from ser_batch.scoring.summary import ModelSummary
from ser_batch.scoring.worker import CALLS, QUARTERS
from ser_batch.storage.atomic import make_folder, remove_temporaries_of, write_json
from ser_batch.tables.parquet import merge_parts, read_frame, rows_table, write_table
from ser_batch.tables.schemas import REJECTS, REPORT, calls_schema, predictions_schema, quarters_schema

if TYPE_CHECKING:
    import polars as pl  # workers unpickle their work from this package, and need none of it


@dataclasses.dataclass(frozen=True)
class Tables:
    """What the closing lines tell of the tables."""

    calls: "pl.DataFrame"  # the first columns of preds.calls.parquet, of each recording and channel
    report: "pl.DataFrame"  # the frame of preds.report.parquet
    warnings: tuple[str, ...] = ()  # of a page that could not be made


def write_tables(
    store: Store, held: StoreSummary, out: Path, model: ModelSummary, *, timed: bool, playback: Playback = "link"
) -> Tables:
    """Merge the parts into the tables that users read, and their page, unless they are made of these very parts."""
    import polars as pl

    from ser_batch.report.pages import page_warnings
    from ser_batch.report.predictions import page_file, predictions_report, side_tables

    labels = model.labels
    is_file = out.suffix == ".parquet"
    make_folder(out.parent if is_file else out / "_tables")
    side = side_tables(out)
    page = page_file(out)
    files = {**({"": out} if is_file else {}), **side, "page": page}
    if is_file:  # of a folder, the store has swept all that is in it
        for file in files.values():
            remove_temporaries_of(file)
    record_file = store.folder / "_meta" / "tables.json"
    made_of = {
        "version": __version__,
        "timed": timed,
        "playback": playback,
        "parts": held.digest,
        "rejects": _digest(held),
    }
    columns = ["path", "channel", "role", "status", "priority", "listen_at_s", "listen_why"]
    if _read(record_file) == {**made_of, "bytes": _sizes(files)}:
        return Tables(
            read_frame(side[CALLS], columns),
            read_frame(side["report"]),
        )
    if is_file:
        merge_parts(store.parts(), out, predictions_schema(labels))
    merge_parts(store.parts(CALLS), side[CALLS], calls_schema(labels))
    merge_parts(store.parts(QUARTERS), side[QUARTERS], quarters_schema(labels))
    calls = read_frame(side[CALLS], [*columns, "predicted", "emotion"])
    wanted = ["role", "predicted", "abstained", "confidence", "emotion"]
    none = pl.DataFrame(predictions_schema(labels).empty_table()).select(wanted)  # a run may find nothing but silence
    segments = pl.concat([none, *(read_frame(part, wanted) for part in store.parts())])
    sure = segments.filter(pl.col("abstained").ne_missing(True))
    report = predictions_report(sure, calls, labels, timed=timed)
    write_table(side["report"], rows_table(report.to_dicts(), REPORT))
    rejects = [dataclasses.asdict(reject) for reject in (*held.rejects, *held.warned)]
    write_table(side["rejects"], rows_table(rejects, REJECTS))
    write_run(store.folder, _scored_run(store, model))
    warnings = page_warnings(out, page, playback)
    if not warnings:  # else they are made again next time
        write_json(record_file, {**made_of, "bytes": _sizes(files)})
    return Tables(calls.select(columns), report, warnings)


def _scored_run(store: Store, model: ModelSummary) -> ScoredRun:
    return ScoredRun(
        model=model.path.name,
        model_id=model.model_id,
        accuracy=". ".join(model.accuracy_lines).removeprefix("accuracy: "),
        license=model.license,
        last_part=max((shard_number(part.stem) for part in store.parts(CALLS)), default=0),
        first_new_part=1,
    )


def _digest(held: StoreSummary) -> str:
    return hashlib.sha256(repr((held.rejects, held.warned)).encode()).hexdigest()[:16]


def _sizes(files: Mapping[str, Path]) -> dict[str, int | None]:
    """Return the bytes of each table; None where it is not there."""
    return {name: file.stat().st_size if file.is_file() else None for name, file in files.items()}


def _read(record: Path) -> Any:
    """Return what the tables were made of; None where that is not known."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
