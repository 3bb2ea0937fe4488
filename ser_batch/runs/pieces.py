"""The pieces that a shard is cut into on a cluster, and which of them are done.

A piece is named by its shard and the places of its recordings in it, ``part-000003-0017-0018``: whoever does a shard
again, on another machine, reads from the names in the ledger what is left of it. That a shard was cut is noted in
``_meta/at/part-000003.cut``, so that nobody lists a ledger of a hundred thousand entries for one that was not.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ser_batch.corpus.manifest import Recording
from ser_batch.errors import OutputError
from ser_batch.runs.ledger import Shard, ShardSummary, ledger_path, summary_of
from ser_batch.runs.part_writer import remove_parts

_NAME = re.compile(r"(part-\d+)(?:-(\d+)-(\d+))?")


class Pieces:
    """A shard and the pieces it was cut into."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._folder, self._shard = folder, shard
        self._whole, self._start, _ = _span(shard.name)
        self._place = {recording.path: self._start + i for i, recording in enumerate(shard.recordings)}
        self._mark = folder / "_meta" / "at" / f"{self._whole}.cut"

    def name(self, recordings: Sequence[Recording]) -> str:
        """Return what the piece with these recordings, neighbours in the shard, is called; note that it was cut."""
        start = self._place[recordings[0].path]
        try:
            self._mark.write_bytes(b"")
        except OSError as error:
            raise OutputError(
                f"{self._mark}: cannot be written ({error.strerror}); the folder of the output has to stay where it is "
                "while a run goes on"
            ) from error
        return f"{self._whole}-{start:04d}-{start + len(recordings):04d}"

    def state(self) -> tuple[list[ShardSummary], list[Shard]]:
        """Return the summaries of what is done of the shard, and what is left of it."""
        for name in (self._shard.name, self._whole):
            if ledger_path(self._folder, name).is_file():
                return [_summary(self._folder, name)], []
        if not self._mark.exists():
            return [], [self._shard]
        end = self._start + len(self._shard.recordings)
        names, done = [], set()
        for name in _ledger_names(self._folder, self._whole):
            _, start, stop = _span(name)
            if name == self._whole:  # it is there since a moment ago
                return [_summary(self._folder, name)], []
            if self._start <= start and stop <= end:
                names.append(name)
                done |= set(range(start, stop))
        left: list[Shard] = []
        group: list[Recording] = []
        for place, recording in enumerate(self._shard.recordings, start=self._start):
            if place not in done:
                group.append(recording)
            elif group:
                left.append(Shard(self.name(group), tuple(group)))
                group = []
        if len(group) == len(self._shard.recordings):
            return [], [self._shard]
        if group:
            left.append(Shard(self.name(group), tuple(group)))
        return [_summary(self._folder, name) for name in names], left

    def halves(self) -> list[Shard]:
        """Return the shard as two pieces."""
        recordings = self._shard.recordings
        half = len(recordings) // 2
        return [Shard(self.name(part), part) for part in (recordings[:half], recordings[half:])]


def drop_repeated(folder: Path, tables: Iterable[str], shards: Iterable[Shard]) -> list[Shard]:
    """Drop what was done twice, as a whole and in pieces; return what is then left to do."""
    # A cluster gives the shard of a machine that it has lost sight of to another one, and the first may finish it yet.
    tables = tuple(tables)
    left: list[Shard] = []
    cut = {path.stem for path in (folder / "_meta" / "at").glob("*.cut")}
    for shard in shards:
        if shard.name not in cut:
            continue
        end = 0
        spans = sorted(
            (start, -stop, name) for name in _ledger_names(folder, shard.name) for _, start, stop in [_span(name)]
        )
        for start, minus_stop, name in spans:  # a whole shard before its pieces
            if start < end:
                ledger_path(folder, name).unlink(missing_ok=True)
                remove_parts(folder, tables, name)
            else:
                end = -minus_stop
        left += Pieces(folder, shard).state()[1]
    return left


def number_of(name: str) -> int:
    """Return the number in the name of a part, or of a piece of one."""
    return int(name.split("-")[1])


def _span(name: str) -> tuple[str, int, int]:
    """Return the shard that a name is of, and the places in it: from, and up to, without the last."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    return found[1], int(found[2] or 0), int(found[3] or sys.maxsize)


def _ledger_names(folder: Path, whole: str) -> list[str]:
    paths = ledger_path(folder, whole).parent.glob(f"{whole}*.json")
    names = [path.stem for path in paths if _NAME.fullmatch(path.stem)]
    return sorted(name for name in names if _span(name)[0] == whole)


def _summary(folder: Path, name: str) -> ShardSummary:
    return summary_of(name, json.loads(ledger_path(folder, name).read_text(encoding="utf-8")))
