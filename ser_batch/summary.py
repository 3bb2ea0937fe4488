"""Summaries: one class per command, whose fields are the keys of ``--json`` and carry their description."""

import datetime
import inspect
import reprlib
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

NOT_IN_JSON = "for Python only"  # marks a field that `to_json` leaves out

_REPR_LINES, _REPR_WIDTH = 10, 100


class _FieldRepr(reprlib.Repr):
    """Shortens the values of a summary; a frame is its number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring, self.maxother, self.maxtuple, self.maxlist, self.maxdict, self.maxlevel = 60, 100, 4, 4, 8, 3

    def repr_DataFrame(self, frame: Any, _level: int) -> str:  # noqa: N802 - reprlib finds it by the name of the type
        return f"<{frame.height} rows>"


_SHORT = _FieldRepr()


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what commands return: printed as text, written as JSON, listed in docs/cli.md."""

    def __repr__(self) -> str:
        """Return name and fields in at most ten lines; long values are cut."""
        fields = ", ".join(f"{name}={_SHORT.repr(getattr(self, name))}" for name in json_fields(type(self)))
        text = f"{type(self).__name__}({fields})"
        return textwrap.fill(text, _REPR_WIDTH, max_lines=_REPR_LINES, placeholder=" ...", subsequent_indent="  ")


class StageSummary(Summary, frozen=True, kw_only=True):
    """What each stage tells."""

    warnings: Annotated[tuple[str, ...], msgspec.Meta(description="list of sentences")]
    seconds: Annotated[float, msgspec.Meta(description="duration of this call, s")]


class JobSummary(Summary, frozen=True, kw_only=True):
    """What the steps of a job did."""

    steps: Annotated[
        tuple[Mapping[str, Any], ...],
        msgspec.Meta(description="list of the objects of the commands that ran, each with `command` before its keys"),
    ]


def json_fields(kind: type[Summary]) -> dict[str, Any]:
    """Return name and annotation of each field that goes into JSON: its own first, then those of its bases."""
    return {
        name: annotation
        for base in kind.__mro__
        for name, annotation in inspect.get_annotations(base).items()
        if NOT_IN_JSON not in getattr(annotation, "__metadata__", ())
    }


def to_json(value: Any) -> Any:
    """Return a value as JSON has it: summaries as objects, frames as lists of rows, no number that is not finite."""
    if isinstance(value, Summary):
        value = {name: getattr(value, name) for name in json_fields(type(value))}
    elif isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    elif isinstance(value, datetime.datetime):
        value = value.isoformat()
    elif hasattr(value, "to_dicts"):  # a frame; Polars is not loaded for those that have none
        value = value.to_dicts()
    if isinstance(value, Mapping):
        return {"null" if name is None else _text(name): to_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(one) for one in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, (bool, int)) else _text(value)


def _text(value: object) -> str:
    r"""Return text without undecodable bytes, which are written ``\xNN`` as in the tables."""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
