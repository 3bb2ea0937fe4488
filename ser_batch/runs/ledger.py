"""The ledger: one file per shard, with the state, the row counts and the rejects of its recordings."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from ser_batch.corpus.manifest import Recording, Reject
from ser_batch.errors import OutputError
from ser_batch.runs.part_writer import MAIN
from ser_batch.storage.atomic import write_text


@dataclasses.dataclass(frozen=True)
class Shard:
    """Recordings that one worker processes together; `name` is that of the part."""

    name: str
    recordings: tuple[Recording, ...]

    @classmethod
    def numbered(cls, number: int, recordings: tuple[Recording, ...]) -> Self:
        """Return a shard named by its number."""
        return cls(f"part-{number:06d}", recordings)


def shard_number(name: str) -> int:
    """Return the number in the name of a shard."""
    return int(name.removeprefix("part-"))


@dataclasses.dataclass(frozen=True)
class ShardSummary:
    """What a worker returns for a shard: counts, never rows."""

    name: str
    n_recordings: int
    n_rows: int
    n_rejects: int
    audio_s: float


class LedgerEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A recording as it was read, and how many rows it has."""

    path: str
    size: int  # bytes
    mtime_ns: int
    content_hash: str | None  # None: it could not be read, and every run tries it again
    rows: int  # in the main table
    side_rows: dict[str, int]  # in the other tables
    audio_s: float
    labels: str  # digests of what the labels file says: in all, and of channels and times
    cuts: str
    timeout_s: float | None = None  # the limit that it exceeded

    @classmethod
    def of(
        cls,
        recording: Recording,
        content_hash: str | None,
        counts: Mapping[str, int] | None = None,
        audio_s: float = 0.0,
        *,
        timed: bool,
        timeout_s: float | None = None,
    ) -> Self:
        """Return the entry of a recording with so many rows by table; `timed` as in `cuts_digest`."""
        counts = counts or {}
        return cls(
            path=recording.path,
            size=recording.size,
            mtime_ns=recording.mtime_ns,
            content_hash=content_hash,
            rows=counts.get(MAIN, 0),
            side_rows={table: count for table, count in counts.items() if table != MAIN},
            audio_s=audio_s,
            labels=labels_digest(recording),
            cuts=cuts_digest(recording, timed=timed),
            timeout_s=timeout_s,
        )


class ShardLedger(msgspec.Struct, kw_only=True):
    """The ledger of one shard."""

    recordings: list[LedgerEntry]
    rejects: list[Reject]  # and warnings

    @property
    def row_counts(self) -> Counter[str]:
        """The number of rows by table, those of the main table included."""
        counts = Counter({MAIN: sum(entry.rows for entry in self.recordings)})
        for entry in self.recordings:
            counts.update(entry.side_rows)
        return counts

    @property
    def audio_s(self) -> float:
        """The duration of all recordings."""
        return sum(entry.audio_s for entry in self.recordings)

    def summary(self, name: str) -> ShardSummary:
        """Return the counts of the shard."""
        n_rejects = sum(not reject.is_warning for reject in self.rejects)
        return ShardSummary(name, len(self.recordings), self.row_counts[MAIN], n_rejects, self.audio_s)


def ledger_path(folder: Path, name: str) -> Path:
    """Return the path of the ledger of a shard."""
    return folder / "_meta" / "ledger" / f"{name}.json"


def read_ledger(path: Path) -> ShardLedger:
    """Read the ledger of a shard."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ShardLedger)
    except msgspec.DecodeError as error:
        raise OutputError(f"{path}: is no ledger ({error}); remove it, and its recordings are done again") from error


def finished_summary(folder: Path, name: str) -> ShardSummary | None:
    """Return the counts of a shard that is done; None if it is not."""
    path = ledger_path(folder, name)
    return read_ledger(path).summary(name) if path.is_file() else None


def write_ledger(folder: Path, name: str, ledger: ShardLedger) -> None:
    """Write the ledger of a shard."""
    write_text(ledger_path(folder, name), msgspec.json.encode(ledger).decode())


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
