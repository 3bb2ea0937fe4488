"""JSON files and specs as typed structs: read them, and say which value is wrong."""

import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import msgspec

from ser_batch.errors import UsageError, did_you_mean, shortened

# a model of many corpora has some 20 kB
MAX_JSON_BYTES = 16_000_000
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e300)]
# what arrays are moved and divided by, which may be float32: neither 0 nor beyond it there
Shift = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Scale = Annotated[float, msgspec.Meta(ge=1e-30, le=1e30)]
T = TypeVar("T")
_FIELDS = "__struct_fields__"
_NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of specs: their fields are checked whenever one is made, and unknown ones are refused by name."""

    what: ClassVar[str] = ""  # what messages call it

    def __post_init__(self) -> None:
        """Refuse values of a wrong type or range."""
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            try:
                # 60 and 60.0 are one spec, with one hash
                msgspec.structs.force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError as error:
                raise UsageError(
                    f"{self.what}: {field.name} is {value!r}{_expected(str(error), value, field.type)}"
                ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as they are written to JSON files."""
        values: dict[str, Any] = as_json(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        UsageError
            A field is missing, unknown, of another type or out of its range.
        """
        try:
            return convert(values, cls)
        except ValueError as error:
            raise UsageError(f"{cls.what}: {error}") from error


def as_json(value: Any) -> Any:
    """Return a struct as JSON holds it."""
    return msgspec.json.decode(msgspec.json.encode(value))


def read_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object; a ValueError says what is there instead."""
    size = path.stat().st_size
    if not path.is_file() or size > max_bytes:
        raise ValueError(f"{size} bytes; expected a file of at most {max_bytes}")
    try:
        values = msgspec.json.decode(path.read_bytes())
    except (ValueError, RecursionError) as error:  # those of msgspec are the first
        raise ValueError(f"cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError("holds no JSON object")
    return values


def convert(values: Any, kind: type[T]) -> T:
    """Return values of JSON as a type; a ValueError says which value is wrong."""
    try:
        return msgspec.convert(values, kind)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    except msgspec.ValidationError as error:
        raise ValueError(_explained(str(error), values, kind)) from error


def _explained(message: str, values: Any, kind: Any) -> str:
    """Return a message of msgspec in our words."""
    text, _, place = message.partition(" - at `$")
    place = place.strip("`.")
    if missing := re.fullmatch("Object missing required field `(.*)`", text):
        return f"no {'.'.join(filter(None, (place, missing[1])))}; it is not complete"
    if unknown := re.fullmatch("Object contains unknown field `(.*)`", text, re.DOTALL):
        hint = "" if "[" in place else did_you_mean(unknown[1], _fields(kind, place))
        found = f"unknown field {unknown[1]!r}; written by a newer version of ser-batch?{hint}"
        return f"{place}: {found}" if place else found
    if not place:  # of a cross-check
        return text
    if "[" in place:
        return f"{place}{_expected(text, None, None)}".replace(";", ":", 1)
    for name in place.split("."):
        values = values[name]
    above, _, name = place.rpartition(".")
    return f"{place} is {shortened(json.dumps(values), 80)}{_expected(text, values, _fields(kind, above)[name])}"


def _fields(kind: Any, place: str) -> dict[str, Any]:
    """Return the types of the fields of the struct at a path of names, by name."""
    struct = next(one for one in (kind, *typing.get_args(kind)) if hasattr(typing.get_origin(one) or one, _FIELDS))
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    name, _, rest = place.partition(".")
    return _fields(fields[name], rest) if name else fields


def _expected(text: str, value: Any, kind: Any) -> str:
    """Return what was expected, as the end of a sentence."""
    literals = [one for one in (kind, *typing.get_args(kind)) if typing.get_origin(one) is Literal]
    if literals:
        choices = [str(choice) for one in literals for choice in typing.get_args(one)]
        return f"; expected one of {', '.join(choices)}{did_you_mean(value, choices)}"
    said = re.sub("`([^`]*)`", lambda found: " or ".join(_NAMES.get(one, one) for one in found[1].split(" | ")), text)
    return f"; {said[:1].lower()}{said[1:]}"
