"""What bundle.json may hold: it comes with a model from elsewhere, and all that reads it relies on types and ranges.

A field is looked at here by whoever made the file, before any code uses it; what is not named here is not used either.
"""

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from ser_batch.config import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, Normalize
from ser_batch.corpus import is_label
from ser_batch.errors import BundleError, shortened

# a model of many corpora has some 20 kB
MAX_JSON_BYTES = 16_000_000
_HEX_16, _HEX_64 = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{64}")
_MOST_LABELS = 1000
# what no model of ours comes near; beyond, a single segment would fill the memory
_SPEC_RANGES = {
    "sampling_rate": (MIN_SAMPLING_RATE, MAX_SAMPLING_RATE),
    "n_mfcc": (1, 1024),
    "n_fft": (2, 65_536),
    "win_length": (1, 65_536),
    "hop_length": (1, 65_536),
    "n_mels": (1, 1024),
    "n_frames": (1, 10_000),
    "top_db": (0, 1000),
}

Check = Callable[[Any], bool]


def _is_number(value: object) -> bool:
    # comparing takes integers of any size, converting does not
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 <= value <= 1e300


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= float(value) <= 1  # type: ignore[arg-type]  # a number by now


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _between(low: float, high: float) -> Check:
    return lambda value: bool(low <= value <= high)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(one) for one in value)


def _table_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(check(one) for one in value.values())


def _fields(required: Mapping[str, Check] | None = None, optional: Mapping[str, Check] | None = None) -> Check:
    """Return what looks at an object: `required` have to be there, other fields than these two may be anything."""

    def check(value: Any) -> bool:
        return isinstance(value, dict) and (
            all(name in value and one(value[name]) for name, one in (required or {}).items())
            and all(one(value[name]) for name, one in (optional or {}).items() if name in value)
        )

    return check


_FIGURE = _or_null(_is_share)
_FIGURES = _fields(
    {"uar": _is_share, "accuracy": _is_share},
    {"macro_f1": _FIGURE, "ece": _FIGURE, "n": _is_count, "speech_uar": _FIGURE},
)
_NAMES = _list_of(_is_text)


def _are_some_names(value: Any) -> bool:
    return _NAMES(value) and bool(value)


def _is_elsewhere(value: Any) -> bool:
    more = {"labels": _are_some_names, "conditions": _table_of(_FIGURE), "n": _is_count}
    return _FIGURES(value) and _fields(more)(value)


# every one of them is printed, or stands on the page
_METRICS: dict[str, tuple[Check, str]] = {
    "accuracy": (_is_share, "a number from 0 to 1"),
    "uar": (_is_share, "a number from 0 to 1"),
    "macro_f1": (_FIGURE, "a number from 0 to 1, or null"),
    "weighted_f1": (_FIGURE, "a number from 0 to 1, or null"),
    "meaning": (_is_text, "text"),
}
_MORE_METRICS: dict[str, tuple[Check, str]] = {
    "n": (_is_count, "a whole number"),
    "ece": (_FIGURE, "a number from 0 to 1, or null"),
    "seeds": (_list_of(_is_count), "a list of whole numbers"),
    "condition": (_is_text, "text"),
    "intervals": (
        _table_of(lambda value: _list_of(_FIGURE)(value) and len(value) == 2),
        "by name two numbers from 0 to 1, or null",
    ),
    "conditions": (_table_of(_FIGURES), "by condition uar and accuracy"),
    "corpora": (_table_of(_FIGURES), "by corpus uar and accuracy"),
    "held_out_corpora": (_table_of(_is_elsewhere), "by corpus uar, accuracy, n, labels and conditions"),
    "recordings_alone": (_FIGURES, "uar and accuracy"),
    "speech": (_FIGURES, "uar and accuracy"),
    "song": (_FIGURES, "uar and accuracy"),
}
_TRAINING: dict[str, tuple[Check, str]] = {
    "n_rows": (_is_count, "a whole number"),
    "n_recordings": (_is_count, "a whole number"),
    "n_speakers": (_is_count, "a whole number"),
    "datasets": (_NAMES, "a list of names"),
}
_MORE_TRAINING: dict[str, tuple[Check, str]] = {
    "lowest_sampling_rate": (lambda value: _is_count(value) and value > 0, "a rate in Hz"),
    "sources": (_NAMES, "a list of text"),
    "rows_by_emotion": (_table_of(_is_count), "whole numbers by label"),
    "corpora": (_table_of(_fields({"n_rows": _is_count, "labels": _NAMES})), "by corpus n_rows and labels"),
}
# of the page and of what commands print
_TEXTS = ("model_id", "estimator", "description", "licence")
_SETTINGS: dict[str, tuple[Check, str]] = {
    "recipe": (_or_null(_is_text), "text or null"),
    "epochs": (_or_null(_is_count), "a whole number or null"),
    "seed": (_is_count, "a whole number"),
    "split": (_is_text, "text"),
    "created": (_is_text, "text"),
    "versions": (_table_of(_is_text), "text by name"),
    "feature_spec": (lambda value: isinstance(value, dict), "an object"),
}
_OPTIONAL: dict[str, tuple[Check, str]] = {
    "normalize": (lambda value: value in get_args(Normalize), f"one of {', '.join(get_args(Normalize))}"),
    "init_name": (_is_text, "text"),
}
_NONE = object()
_INIT: dict[str, tuple[Check, str]] = {
    "model_id": (_is_text, "text"),
    "labels": (_NAMES, "a list of labels"),
    "licence": (_or_null(_is_text), "text or null"),
    "training": (
        _or_null(_fields(optional={"datasets": _NAMES, "corpora": lambda value: isinstance(value, dict)})),
        "what it learned from, or null",
    ),
}


def read_values(path: Path) -> dict[str, Any]:
    """Read a bundle.json as far as it is an object of what JSON and UTF-8 can hold.

    Raises
    ------
    FileNotFoundError
        It is not there.
    BundleError
        It is no JSON, or far larger than any.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_JSON_BYTES:
            raise ValueError(f"{size} bytes; expected a file of at most {MAX_JSON_BYTES}")
        values = json.loads(path.read_text(encoding="utf-8"))
        # neither NaN nor half a character, which could not be written again
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({error}); copy the folder again") from error
    if not isinstance(values, dict):
        raise BundleError(f"{path}: holds no JSON object; copy the folder again or train again")
    return values


def check_used(path: Path, values: Mapping[str, Any], model_file: str) -> None:
    """Check all that loading and applying a model relies on.

    Parameters
    ----------
    path
        Of bundle.json, for messages.
    values
        What it holds: schema version, estimator and the fields that have to be there were looked at.
    model_file
        Name of the network or estimator.

    Raises
    ------
    BundleError
        Naming the field.
    """
    is_network = values["estimator"] == "cnn"
    _check(path, "model_id", values["model_id"], lambda value: _is_hex(value, _HEX_16), "16 hex digits")
    _check(path, "labels", values["labels"], _are_labels, "some lower-case words such as angry, sorted, each once")
    _check(
        path,
        "feature_spec_hash",
        values["feature_spec_hash"],
        lambda value: _is_hex(value, _HEX_64),
        "64 hex digits",
    )
    _check(
        path,
        "files",
        values["files"],
        lambda value: isinstance(value, dict) and all(_is_hex(one, _HEX_64) for one in value.values()),
        "64 hex digits by name of a file",
    )
    if model_file not in values["files"]:
        raise BundleError(f"{path}: files names no {model_file}, so it may be altered; copy the whole folder again")
    spec = values["feature_spec"]
    _check(path, "feature_spec", spec, lambda value: isinstance(value, dict), "an object")
    for name, (low, high) in _SPEC_RANGES.items():
        if _is_number(spec.get(name)) and spec[name] > 0:  # what is none is told by the spec itself
            _check(path, f"feature_spec.{name}", spec[name], _between(low, high), f"{low} to {high}")
    n_mfcc = spec.get("n_mfcc", 40)
    _check(path, "feature_spec.n_mfcc", n_mfcc, _is_count, "a whole number")
    if is_network:
        _check_moments(path, "scaler", values["scaler"], n_mfcc)
        in_order = "a number above 0"
        _check(path, "temperature", values["temperature"], lambda value: _is_number(value) and value > 0, in_order)
    familiar = values.get("familiar")
    if familiar is not None:
        _check_moments(path, "familiar", familiar, 2 * n_mfcc, others={"limit"})
        _check(path, "familiar.limit", familiar["limit"], lambda value: _is_number(value) and value > 0, "above 0")
    check_told(path, values)


def check_told(path: Path, values: Mapping[str, Any]) -> None:
    """Check all that is printed of a model, and what its page shows.

    Raises
    ------
    BundleError
        Naming the field.
    """
    _check(path, "labels", values.get("labels"), _are_some_names, "a list of labels")
    for name in _TEXTS:
        _check(path, name, values.get(name), _is_text, "text")
    _check_table(path, "", values, _SETTINGS, _OPTIONAL)
    _check_table(path, "training", values.get("training"), _TRAINING, _MORE_TRAINING)
    metrics = values.get("metrics")
    if metrics != {}:  # nothing was held out
        _check_table(path, "metrics", metrics, _METRICS, _MORE_METRICS)
    if ("init" in values) != ("init_name" in values):
        raise BundleError(f"{path}: init and init_name go together; copy the folder again or train again")
    init, name = values.get("init", _NONE), "init"
    while init is not _NONE:
        _check_table(path, name, init, _INIT, {})
        init, name = init.get("init", _NONE), f"{name}.init"


def check_archive(path: Path) -> None:
    """Refuse a zip archive of which more would be read than it is long: ours are not compressed.

    Raises
    ------
    BundleError
        It is none, or its members claim more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # zipfile raises whatever its parts do on a broken file
        raise BundleError(f"{path}: cannot be read ({error}); copy the folder again, or train again") from error
    size = path.stat().st_size
    if claimed > size:
        raise BundleError(f"{path}: its parts claim {claimed} bytes, it has {size}; train again")


def _check_table(
    path: Path,
    name: str,
    values: Any,
    required: Mapping[str, tuple[Check, str]],
    optional: Mapping[str, tuple[Check, str]],
) -> None:
    if not isinstance(values, dict):
        _refuse(path, name, values, "an object")
    dot = f"{name}." if name else ""
    for field, (check, expected) in required.items():
        if field not in values:
            raise BundleError(f"{path}: no {dot}{field}; it is not complete, copy the folder again or train again")
        _check(path, dot + field, values[field], check, expected)
    for field, (check, expected) in optional.items():
        if field in values:
            _check(path, dot + field, values[field], check, expected)


def _check_moments(path: Path, name: str, values: Any, n: Any, others: frozenset[str] | set[str] = frozenset()) -> None:
    """Check an object of n finite means and n scales above 0, for a `Scaler` or `Familiar`."""
    if not isinstance(values, dict) or values.keys() != {"mean", "scale"} | others:
        _refuse(path, name, values, f"an object of {', '.join(sorted({'mean', 'scale'} | others))}")
    numbers = _list_of(_is_number)
    _check(path, f"{name}.mean", values["mean"], lambda value: numbers(value) and len(value) == n, f"{n} numbers")
    _check(
        path,
        f"{name}.scale",
        values["scale"],
        lambda value: numbers(value) and len(value) == n and min(value, default=1) > 0,
        f"{n} numbers above 0",
    )


def _is_hex(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _are_labels(value: Any) -> bool:
    return (
        _are_some_names(value)
        and len(value) <= _MOST_LABELS
        and all(is_label(label) for label in value)
        and value == sorted(set(value))
    )


def _check(path: Path, field: str, value: Any, check: Check, expected: str) -> None:
    if not check(value):
        _refuse(path, field, value, expected)


def _refuse(path: Path, field: str, value: Any, expected: str) -> NoReturn:
    found = shortened(json.dumps(value), 80)
    raise BundleError(f"{path}: {field} is {found}; expected {expected}. Copy the folder again, or train again")
