"""What a run has to do, from the recordings there are and what is done already."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ser_batch.corpus.manifest import Recording
from ser_batch.errors import RecordingError
from ser_batch.runs.ledger import cuts_digest, labels_digest
from ser_batch.runs.worker import Work, content_hash_of


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run has to do."""

    todo: tuple[Recording, ...]  # recordings to work on
    relabel: tuple[Recording, ...]  # recordings whose rows get other labels, without being worked on
    n_done: int  # recordings that have their rows
    n_beyond_limit: int  # recordings beyond the limit
    n_before_since: int  # recordings without rows that were not modified since the time asked for
    mtimes_ns: Mapping[str, int]  # of the files that are found to be the same as before, by path
    n_missing: int = 0  # recordings that have rows and are no longer there


def plan_run(
    recordings: Iterable[Recording],
    done: Mapping[str, Mapping[str, Any]],
    work: Work,
    *,
    since_ns: int | None,
    limit: int | None,
    timeout_s: float | None = None,
) -> Plan:
    """Compare recordings with the entries of the ledger."""
    todo: list[Recording] = []
    again: list[Recording] = []
    relabel: list[Recording] = []
    mtimes_ns: dict[str, int] = {}
    n_before_since = n_done = 0
    for recording in recordings:
        entry = done.get(recording.path)
        is_older = since_ns is not None and recording.mtime_ns < since_ns
        if entry is None:
            n_before_since += is_older
            todo += [] if is_older else [recording]
            continue
        has_new_labels = entry["labels"] != labels_digest(recording)
        gave_up_s = entry.get("timeout_s")
        has_more_time = gave_up_s is not None and (timeout_s is None or timeout_s > gave_up_s)
        is_current = not has_more_time and entry["cuts"] == cuts_digest(recording, timed=work.cuts_at_labels)
        if is_current and not is_older:
            is_current = _is_same(entry, recording)
            mtimes_ns |= {recording.path: recording.mtime_ns} if is_current else {}
        if is_older or (is_current and (work.joins_labels or not has_new_labels)):
            n_done += 1
            relabel += [recording] if is_current and has_new_labels and work.joins_labels else []
        else:
            # what could not be done before comes last, so that under a limit it does not take every turn
            (todo if entry["content_hash"] and not has_more_time else again).append(recording)
    due = (*todo, *again)
    chosen = due[:limit]
    return Plan(chosen, tuple(relabel), n_done, len(due) - len(chosen), n_before_since, mtimes_ns)


def _is_same(entry: Mapping[str, Any], recording: Recording) -> bool:
    """Whether a recording is what the ledger remembers: size and time are the fast path, the hash decides."""
    # One that could not be read at all is tried again.
    if entry["content_hash"] is None or entry["size"] != recording.size:
        return False
    if entry["mtime_ns"] == recording.mtime_ns:
        return True
    try:
        return bool(entry["content_hash"] == content_hash_of(recording))
    except RecordingError:
        return False  # it is worked on again, and rejected there with its reason
