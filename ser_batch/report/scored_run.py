"""What a page of calls tells of their run: the model as it was, where the recordings lie, which rows are new."""

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


def store_folder(source: Path) -> Path:
    """Return the folder that remembers what was scored: that of the parts, or the one beside a file."""
    return source if source.suffix != ".parquet" else source.with_suffix(".parts")


def write_run(folder: Path, run: ScoredRun) -> None:
    """Write what the page tells of the run, into its store."""
    write_text(folder / _FILE, msgspec.json.encode(run.after(read_run(folder))).decode())


def read_run(folder: Path) -> ScoredRun | None:
    """Return what the page tells of the run; None where tables were copied without their store."""
    file = folder / _FILE
    return msgspec.json.decode(file.read_bytes(), type=ScoredRun) if file.is_file() else None


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a run; nothing where tables were copied without their store."""
    file = folder / "_meta" / "run.json"
    settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return settings


def run_key(source: Path, settings: dict[str, Any]) -> str:
    """Return what marks are kept by in a browser: the same for every page of a run."""
    return hashlib.sha256(json.dumps([source.name, settings], sort_keys=True).encode()).hexdigest()[:16]
