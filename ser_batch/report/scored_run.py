"""The run that a page of calls shows: the model as it was, and which rows are new."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from ser_batch.storage.atomic import write_text

_FILE = Path("_meta", "page.json")


class ScoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as its page shows it; written by score, so that the page can be made again without the model."""

    model: str  # name of the folder
    model_id: str
    accuracy: str
    license: str
    last_part: int  # number of the last part that a page has shown
    first_new_part: int  # parts from here on were not on the page before

    def after(self, earlier: "ScoredRun | None") -> "ScoredRun":
        """Return this run with what is new since the page of an earlier one."""
        first = 1 if earlier is None else earlier.first_new_part
        if earlier is not None and self.last_part > earlier.last_part:
            first = earlier.last_part + 1
        return msgspec.structs.replace(self, first_new_part=first)


def write_run(folder: Path, run: ScoredRun) -> None:
    """Write what the page tells of the run, into its store."""
    write_text(folder / _FILE, msgspec.json.encode(run.after(read_run(folder))).decode())


def read_run(folder: Path) -> ScoredRun | None:
    """Return what the page tells of the run; None where tables were copied without their store."""
    file = folder / _FILE
    return msgspec.json.decode(file.read_bytes(), type=ScoredRun) if file.is_file() else None


def run_key(source: Path, settings: dict[str, Any]) -> str:
    """Return what marks are kept by in a browser: the same for every page of a run."""
    return hashlib.sha256(json.dumps([source.name, settings], sort_keys=True).encode()).hexdigest()[:16]
