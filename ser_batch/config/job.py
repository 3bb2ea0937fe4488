"""A job file: TOML whose tables are the options of the stages."""

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_batch.config.options import STAGE_INPUTS, STAGES, Options
from ser_batch.errors import JobError, UsageError, did_you_mean, shortened
from ser_batch.storage.paths import to_path


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
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
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
                raise JobError(f"{path}: {stage} is {_shown(entry)}; expected a table, [{stage}]")
            steps.append(_step(path, stage, entry))
    if not steps:
        raise JobError(f"{path}: nothing to run; expected one of the tables {', '.join(f'[{s}]' for s in STAGES)}")
    return Job(tuple(steps))


def _step(path: Path, stage: str, entry: dict[str, Any]) -> tuple[Any, Any]:
    """Turn one table of a job into (input, options)."""
    options_type, input_key = STAGES[stage], STAGE_INPUTS[stage]
    where = f"{path}: [{stage}]"
    hints = typing.get_type_hints(options_type)
    _refuse_unknown(where, "key", entry, (input_key, *hints))
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key != input_key:
            values[key] = _coerce(where, key, value, hints[key])
    source: Any = entry.get(input_key)
    if stage == "train":
        folders = [source] if isinstance(source, str) else source or []
        if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
            raise JobError(f'{where}: {input_key} is {_shown(source)}; expected a folder or a list, ["features"]')
        return tuple(Path(folder) for folder in folders), _options(where, options_type, values)
    if not isinstance(source, str):
        raise JobError(f'{where}: expected {input_key} = "folder", where the recordings are')
    audio = to_path(source) if stage in ("featurize", "score") else Path(source)
    return audio, _options(where, options_type, values)


def _options(where: str, options_type: type[Options], values: Mapping[str, Any]) -> Options:
    """Make the options of a stage; what they refuse is told with the name of the file."""
    try:
        return options_type(**values)
    except UsageError as error:
        raise JobError(f"{where}: {error}") from error


def _coerce(where: str, key: str, value: Any, hint: Any) -> Any:
    """Check a TOML value against the type of its option."""
    # the choices of a Literal count one by one, also where it is Literal | None
    choices = [one for choice in typing.get_args(hint) or (hint,) for one in typing.get_args(choice) or (choice,)]
    if Path in choices and isinstance(value, str) and "\0" not in value:
        return to_path(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise JobError(f"{where}: {key} is a number of {value.bit_length()} bits; expected one of 64 bits at most")
    if float in choices and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is not bool and isinstance(value, bool):
        pass  # True is an int to Python, not to the reader of a job
    elif value in [choice for choice in choices if isinstance(choice, str)] or any(
        isinstance(choice, type) and isinstance(value, choice) for choice in choices
    ):
        return value
    expected = " or ".join(getattr(choice, "__name__", repr(choice)) for choice in choices if choice is not type(None))
    hint = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
    raise JobError(f"{where}: {key} is {_shown(value)}; expected {expected}{hint}")


def _override(tables: dict[str, Any], override: str) -> None:
    """Set one ``table.key=value`` in the tables of a job, in every one where the table repeats."""
    name, equals, text = override.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise JobError(f"--set {_shown(override)}; expected table.key=value, such as train.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or none that can be read
        value = text.strip()
    if table not in tables:
        hint = did_you_mean(table, tables)
        raise JobError(f"--set {_shown(override)}: the job has no table [{table}]; it has {', '.join(tables)}{hint}")
    entries = tables[table] if isinstance(tables[table], list) else [tables[table]]
    for entry in entries:
        if not isinstance(entry, dict):
            raise JobError(
                f"--set {_shown(override)}: {table} is {_shown(entry)} in the job; expected a table, [{table}]"
            )
        entry[key] = value


def _refuse_unknown(where: str, what: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise a JobError that names the first unknown key and the nearest known one."""
    for key in given:
        if key not in known:
            hint = did_you_mean(key, known, "") or f"expected one of {', '.join(known)}"
            raise JobError(f"{where}: unknown {what} {_shown(key)}; {hint}")


def _shown(value: object) -> str:
    """Return what stands in a file as a message has it; integers of thousands of digits cannot be written."""
    try:
        text = repr(value)
    except ValueError:
        text = f"{type(value).__name__} with a number of thousands of digits"
    return shortened(text, 200)
