"""What a run remembers of each recording: what it was, how many rows it has, why it was rejected."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_batch.corpus.manifest import Recording
from ser_batch.runs.part_writer import MAIN
from ser_batch.storage.atomic import write_json

if TYPE_CHECKING:
    from ser_batch.runs.worker import Work


@dataclasses.dataclass(frozen=True)
class Shard:
    """Recordings that one worker does in one go; `name` is that of the part."""

    name: str
    recordings: tuple[Recording, ...]


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What comes back from a worker: counts, never rows; `name` is that of the shard."""

    name: str
    n_recordings: int
    n_rows: int
    n_rejects: int
    audio_s: float


def labels_digest(recording: Recording) -> str:
    """Return a hash of what the labels file says of a recording; empty where it says nothing."""
    if not recording.labels:
        return ""
    return _digest([dataclasses.astuple(label) for label in recording.labels])


def cuts_digest(recording: Recording, *, timed: bool) -> str:
    """Return a hash of the channels, and if `timed` the times, that the labels name for a recording; empty for none."""
    if timed:
        cuts = [(label.channel, label.start_s, label.end_s) for label in recording.labels]
    else:
        numbers = {label.channel for label in recording.labels}
        cuts = [(number, None, None) for number in sorted(numbers, key=lambda n: -2 if n is None else n)]
    return _digest(cuts) if any(value is not None for cut in cuts for value in cut) else ""


def _digest(rows: list[tuple[Any, ...]]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def ledger_entry(
    work: "Work",
    recording: Recording,
    *,
    content_hash: str | None,
    state: tuple[int, int],
    counts: Mapping[str, int],
    audio_s: float,
) -> dict[str, Any]:
    """Return what the ledger remembers of a recording: what it was, and how many rows each table has of it."""
    return {
        "path": recording.path,
        "size": state[0],
        "mtime_ns": state[1],
        "content_hash": content_hash,
        "rows": counts.get(MAIN, 0),
        "side_rows": {table: count for table, count in counts.items() if table != MAIN},
        "audio_s": audio_s,
        "labels": labels_digest(recording),
        "cuts": cuts_digest(recording, timed=work.cuts_at_labels),
    }


def summary_of(name: str, ledger: Mapping[str, Any]) -> ShardSummary:
    """Return the summary of a shard from its ledger entry."""
    entries = ledger["recordings"]
    audio_s = sum(entry["audio_s"] for entry in entries)
    return ShardSummary(name, len(entries), ledger["rows"], len(ledger["rejects"]), audio_s)


def ledger_path(folder: Path, name: str) -> Path:
    """Return where the ledger entry of a part stands."""
    return folder / "_meta" / "ledger" / f"{name}.json"


def write_ledger(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Write the ledger entry of a part, in one line: programs read it, and there is one for each shard."""
    write_json(ledger_path(folder, name), entry, indent=None)
