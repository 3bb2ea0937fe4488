"""What a value of JSON may be: checks, and checks made of checks."""

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]


def is_number(value: object) -> bool:
    """Return whether it is a number that a float holds."""
    # comparing takes integers of any size, converting does not
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 <= value <= 1e300


def is_share(value: object) -> bool:
    """Return whether it is a number from 0 to 1."""
    return is_number(value) and 0 <= float(value) <= 1  # type: ignore[arg-type]  # a number by now


def is_count(value: object) -> bool:
    """Return whether it is a whole number, 0 or more, that every reader of JSON holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def is_text(value: object) -> bool:
    """Return whether it is text."""
    return isinstance(value, str)


def between(low: float, high: float) -> Check:
    """Return what looks whether a number is from `low` to `high`."""
    return lambda value: bool(low <= value <= high)


def or_null(check: Check) -> Check:
    """Return a check that null passes, too."""
    return lambda value: value is None or check(value)


def list_of(check: Check) -> Check:
    """Return what looks at each item of a list."""
    return lambda value: isinstance(value, list) and all(check(one) for one in value)


def table_of(check: Check) -> Check:
    """Return what looks at each value of an object, whatever its names."""
    return lambda value: isinstance(value, dict) and all(check(one) for one in value.values())


def fields(required: Mapping[str, Check] | None = None, optional: Mapping[str, Check] | None = None) -> Check:
    """Return what looks at an object: `required` have to be there, other fields than these two may be anything."""

    def check(value: Any) -> bool:
        return isinstance(value, dict) and (
            all(name in value and one(value[name]) for name, one in (required or {}).items())
            and all(one(value[name]) for name, one in (optional or {}).items() if name in value)
        )

    return check
