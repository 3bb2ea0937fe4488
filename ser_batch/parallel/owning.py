"""Whose an output folder is: of one run at a time, and of runs with the same settings only."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ser_batch.errors import OutputError
from ser_batch.tables import locked, make_folder


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the output folder of a stage for this run.

    Parameters
    ----------
    folder
        Made where it is not there.

    Raises
    ------
    OutputError
        Another run is writing there, the folder holds something else, or it cannot be written.
    """
    refuse_foreign(folder)
    make_folder(folder / "_meta")
    with locked(lock_file(folder), folder):
        yield


def lock_file(folder: Path) -> Path:
    """Return the file that says which run holds a folder."""
    return folder / "_meta" / "lock.json"


def claim_of(folder: Path) -> str | None:
    """Return the record of the run that holds a folder, which no other run shares; None where none does."""
    try:
        return lock_file(folder).read_text(encoding="utf-8") or None
    except OSError:
        return None


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds something else than a run, or whose name no table can have.

    Raises
    ------
    OutputError
        It is such a folder.
    """
    if os.fsencode(str(folder)).decode("utf-8", errors="replace") != str(folder):
        raise OutputError(f"{folder}: the name is not UTF-8, which Parquet needs; choose another --out")
    meta = folder / "_meta"
    try:
        is_ours = (meta / "run.json").is_file() or (meta / "ledger").is_dir() or lock_file(folder).is_file()
        is_empty = not folder.is_dir() or not any(path != meta or any(meta.iterdir()) for path in folder.iterdir())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read ({error.strerror}); choose another --out") from error
    if not (is_ours or is_empty):
        raise OutputError(f"{folder}: holds something else than a run of ser-batch; choose another --out, or empty it")


def refuse_other(folder: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse a store that was made with other settings.

    Raises
    ------
    OutputError
        What `found` says differs from `identity`.
    """
    before, now = _flat(found), _flat(json.loads(json.dumps(identity)))
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        what = "; ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in differing)
        raise OutputError(
            f"{folder}: belongs to another run: {what}. Choose another --out, or give --overwrite to throw it away"
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level, ``feature_spec.n_mels``."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
