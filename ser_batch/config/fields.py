"""Declaration of options, and the one conversion and check of their values, wherever they come from."""

import dataclasses
import functools
import glob
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import msgspec.inspect
import msgspec.structs

from ser_batch.errors import UsageError, did_you_mean, shortened
from ser_batch.storage.paths import is_remote, local_path, to_path

# in this order help and docs/cli.md list them
GROUPS = (
    "Input", "Features", "Channels", "Scoring", "Training", "Evaluation", "Incremental", "Execution", "Output",
)  # fmt: skip
_MAX_COUNT = 2**31 - 1
Count = typing.Annotated[int, msgspec.Meta(ge=1, le=_MAX_COUNT)]
CountOrZero = typing.Annotated[int, msgspec.Meta(ge=0, le=_MAX_COUNT)]
Seed = typing.Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Share = typing.Annotated[float, msgspec.Meta(ge=0, le=1)]

_Taken = TypeVar("_Taken")
_Kept = TypeVar("_Kept")

if TYPE_CHECKING:

    class Given(Generic[_Taken, _Kept]):
        """The type of an option that takes more than it keeps: a name or a path becomes a path."""

        def __get__(self, instance: object, owner: object = None) -> _Kept: ...
        def __set__(self, instance: object, value: _Taken) -> None: ...

else:

    class Given:
        """To msgspec, the type that is kept."""

        def __class_getitem__(cls, types):
            """Return it, marked."""
            return typing.Annotated[types[1], cls]


PathOption = Given[Path | str, Path]
PathOrNone = Given[Path | str | None, Path | None]
# a name, or the path of what is named
NameOption = Given[Path | str, str]
NameOrNone = Given[Path | str | None, str | None]


def initial(value: Any) -> Any:
    """Return the default of a `Given` option, which type checkers take for one."""
    return value


def option(
    group: str,
    help: str,
    *,
    default: str = "",
    metavar: str = "",
    short: str = "",
    choices: tuple[str, ...] = (),
    completes: str = "",
    is_remote: bool = False,
    is_input: bool = False,
    decides_rows: bool = False,
) -> msgspec.Meta:
    """Describe an option.

    Parameters
    ----------
    group
        One of `GROUPS`.
    help
        What it does, without the default.
    default
        What None stands for, or how else help calls the default.
    metavar
        What stands for the value in help; made from the type if empty.
    short
        One letter, for ``-o``.
    choices
        Values of a text, where a Literal would repeat what is declared elsewhere.
    completes
        ``models``, for a shell to complete their names.
    is_remote
        Whether a path may be an address, such as ``s3://bucket/calls``.
    is_input
        Whether a file has to be there when it is named on the command line; a step of a job may make it.
    decides_rows
        Whether it is stored with the output, which then belongs to its value.
    """
    assert group in GROUPS
    extra: dict[str, Any] = {"group": group, "default": default, "metavar": metavar, "short": short}
    extra |= {"choices": choices, "completes": completes, "is_remote": is_remote, "is_input": is_input}
    extra["decides_rows"] = decides_rows
    return msgspec.Meta(description=help, extra=extra)


@dataclasses.dataclass(frozen=True)
class Field:
    """One option, as it is declared."""

    name: str
    hint: Any  # the annotation, which msgspec converts to
    type: msgspec.inspect.Type  # the same without None
    default: Any
    help: str
    choices: tuple[str, ...]  # the values it may have; empty where they are not listed
    extra: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_flag(self) -> bool:
        """Whether it has no value on the command line."""
        return isinstance(self.type, msgspec.inspect.BoolType)

    @property
    def is_path(self) -> bool:
        """Whether it is a path."""
        return isinstance(self.type, msgspec.inspect.CustomType)

    @property
    def takes_path(self) -> bool:
        """Whether it is a path, or a text that may be one."""
        return Given in self.hint.__metadata__

    @property
    def metavar(self) -> str:
        """What stands for the value in help."""
        names = {msgspec.inspect.IntType: "N", msgspec.inspect.FloatType: "X", msgspec.inspect.CustomType: "PATH"}
        return self.extra["metavar"] or "|".join(self.choices) or names.get(type(self.type), "TEXT")

    @property
    def default_text(self) -> str:
        """The default as help shows it."""
        default = f"{self.default:g}" if isinstance(self.default, float) else str(self.default)
        return self.extra["default"] or default

    @property
    def help_text(self) -> str:
        """What it does, and the default."""
        return self.help if self.is_flag else f"{self.help}  [default: {self.default_text}]"

    def checked(self, value: Any, *, is_text: bool = False) -> Any:
        """Convert a value; `is_text` where it was typed on a command line.

        Raises
        ------
        UsageError
            It has another type, is out of range or none of the choices.
        """
        if isinstance(value, Path) and not self.is_path:
            value = str(value)
        try:
            if self.is_path and value is not None:
                return self._path(value, is_text=is_text)
            converted = msgspec.convert(self._parsed(value) if is_text else value, self.hint)
        # ValueError: an integer of thousands of digits
        except (msgspec.ValidationError, ValueError) as error:
            raise self._refusal(value, is_text) from error
        if self.choices and converted is not None and converted not in self.choices:
            raise self._refusal(value, is_text)
        if self.takes_path and converted is not None and converted.startswith(("~", "./~")):
            return str(local_path(converted))
        return converted

    def _parsed(self, text: Any) -> Any:
        """Return the number that was typed, where a number is wanted."""
        if not isinstance(text, str):
            return text
        if isinstance(self.type, msgspec.inspect.IntType):
            return int(text)
        return float(text) if isinstance(self.type, msgspec.inspect.FloatType) else text

    def _path(self, value: Any, *, is_text: bool) -> Any:
        if not (isinstance(value, str | Path) or is_remote(value)) or "\0" in str(value):
            raise ValueError
        if not self.extra["is_remote"] and "://" in str(value):
            raise UsageError(f"{self.flag} {value}; expected a path on this machine")
        if "://" in str(value) and glob.has_magic(str(value)):
            # the libraries of object stores read, and delete, all that it matches
            raise UsageError(f"{self.flag} {value}; expected an address without *, ? and [, choose another name")
        path = to_path(value)
        if is_text and self.extra["is_input"] and not path.is_file():
            found = "is a folder; expected a file" if path.is_dir() else "no such file"
            raise UsageError(f"{self.flag} {value}: {found}")
        return path

    def _refusal(self, value: Any, is_text: bool) -> UsageError:
        said = str(value) if is_text and value else shown(value)
        hint = did_you_mean(value, self.choices)
        return UsageError(f"{self.flag} {said}; expected {_expected(self, value)}{hint}")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options whose values are converted and checked when they are made."""

    def __post_init__(self) -> None:
        """Convert and check each value by its field."""
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if value is not field.default:
                self._set(field.name, field.checked(value))

    def _set(self, name: str, value: Any) -> None:
        msgspec.structs.force_setattr(self, name, value)

    def stored(self) -> dict[str, Any]:
        """Return the options that decide rows, as they are stored with an output."""
        values = {
            field.name: getattr(self, field.name) for field in fields_of(type(self)) if field.extra["decides_rows"]
        }
        # JSON has no infinity
        return {name: "inf" if value == math.inf else value for name, value in values.items()}


@functools.cache
def fields_of(options: type[Options]) -> tuple[Field, ...]:
    """Return the options that a class declares, those of its bases first."""
    hints = typing.get_type_hints(options, include_extras=True)
    kind = msgspec.inspect.type_info(options)
    assert isinstance(kind, msgspec.inspect.StructType)
    return tuple(_field(field, hints[field.name]) for field in kind.fields)


def _field(field: msgspec.inspect.Field, hint: Any) -> Field:
    described = field.type
    assert isinstance(described, msgspec.inspect.Metadata), f"{field.name}: declare it with option(...)"
    kind = described.type
    if isinstance(kind, msgspec.inspect.UnionType):
        (kind,) = (one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType))
    help_text = (described.extra_json_schema or {})["description"]
    extra = described.extra or {}
    return Field(field.name, hint, kind, field.default, help_text, extra["choices"] or _literals(hint), extra)


def _literals(hint: Any) -> tuple[str, ...]:
    """Return the values of a Literal in a type, in their order."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return next(filter(None, map(_literals, typing.get_args(hint))), ())


def _expected(field: Field, value: object) -> str:
    """Return what a value has to be, in words."""
    kind = field.type
    if field.choices:
        return f"one of {', '.join(field.choices)}"
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        name = "a whole number" if isinstance(kind, msgspec.inspect.IntType) else "a number"
        if kind.gt is not None:
            return f"{name} above {kind.gt:g}" + ("" if kind.le is None else f", up to {kind.le:.0f}")
        if kind.ge is None or kind.le is None:
            return name
        is_large = isinstance(value, int) and value > kind.le
        if (
            kind.le == _MAX_COUNT
            and not is_large
            and not re.fullmatch(r"\+?\d{10,}", value if isinstance(value, str) else "")
        ):
            return f"{name}, {kind.ge} or more"
        return f"{name} from {kind.ge} to {kind.le:.0f}"
    return "true or false" if field.is_flag else "a path" if field.is_path else "text"


def shown(value: object) -> str:
    """Return a value as a message has it; integers of thousands of digits cannot be written."""
    try:
        text = repr(value)
    except ValueError:
        text = f"{type(value).__name__} with a number of thousands of digits"
    return shortened(text, 200)
