"""A job file: TOML whose tables are the options of the stages."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_batch.config.fields import Options, fields_of, shown
from ser_batch.config.options import STAGE_INPUTS, STAGES
from ser_batch.errors import JobError, UsageError, did_you_mean
from ser_batch.storage.paths import local_path, to_path


@dataclasses.dataclass(frozen=True)
class Job:
    """A job file: what to run, in this order; paths are relative to the working directory."""

    # what a stage works on (a folder; for train a tuple of them) and its options
    steps: tuple[tuple[Any, Options], ...]


def read_job(path: Path, overrides: tuple[str, ...] = ()) -> Job:
    """Read a job file into the options of its stages.

    Parameters
    ----------
    path
        TOML with the tables ``[synth]``, ``[[featurize]]`` (may repeat; ``[featurize]`` is fine too), ``[train]``
        and ``[score]``, whose keys are the options of the command and what it works on.
    overrides
        ``table.key=value`` with a TOML value (a bare word is taken as a string).

    Raises
    ------
    JobError
        The file is not TOML, or holds unknown tables, unknown keys or values of the wrong type.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    # ValueError: no TOML, no UTF-8, or a number of thousands of digits; the other: brackets within brackets
    except (OSError, ValueError, RecursionError) as error:
        raise JobError(f"{path}: cannot be read as TOML ({error}); see jobs/ for complete examples") from error
    for override in overrides:
        _override(tables, override)
    _refuse_unknown(str(path), "table", tables, tuple(STAGES))
    steps = []
    for stage in STAGES:
        entries = tables.get(stage, [])
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, dict):
                raise JobError(f"{path}: {stage} is {shown(entry)}; expected a table, [{stage}]")
            steps.append(_step(path, stage, entry))
    if not steps:
        raise JobError(f"{path}: nothing to run; expected one of the tables {', '.join(f'[{s}]' for s in STAGES)}")
    return Job(tuple(steps))


def _step(path: Path, stage: str, entry: dict[str, Any]) -> tuple[Any, Options]:
    """Turn one table of a job into (input, options)."""
    kind, input_key = STAGES[stage], STAGE_INPUTS[stage]
    where = f"{path}: [{stage}]"
    _refuse_unknown(where, "key", entry, (input_key, *(field.name for field in fields_of(kind))))
    source: Any = entry.get(input_key)
    try:
        options = kind(**{key: value for key, value in entry.items() if key != input_key})
        if stage == "train":
            folders = [source] if isinstance(source, str) else source or []
            if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
                raise UsageError(f'{input_key} is {shown(source)}; expected a folder or a list, ["features"]')
            return tuple(map(local_path, folders)), options
        if not isinstance(source, str):
            raise UsageError(f'expected {input_key} = "folder", where the recordings are')
        return to_path(source) if stage in ("featurize", "score") else local_path(source), options
    except UsageError as error:
        raise JobError(f"{where}: {error}") from error


def _override(tables: dict[str, Any], override: str) -> None:
    """Set one ``table.key=value`` in the tables of a job, in every one where the table repeats."""
    name, equals, text = override.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise JobError(f"--set {shown(override)}; expected table.key=value, such as train.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or none that can be read
        value = text.strip()
    if table not in tables:
        hint = did_you_mean(table, tables)
        raise JobError(f"--set {shown(override)}: the job has no table [{table}]; it has {', '.join(tables)}{hint}")
    entries = tables[table] if isinstance(tables[table], list) else [tables[table]]
    for entry in entries:
        if not isinstance(entry, dict):
            raise JobError(
                f"--set {shown(override)}: {table} is {shown(entry)} in the job; expected a table, [{table}]"
            )
        entry[key] = value


def _refuse_unknown(where: str, what: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise a JobError that names the first unknown key and the nearest known one."""
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known, "") or f"expected one of {', '.join(known)}"
            raise JobError(f"{where}: unknown {what} {shown(key)}; {hint}")
