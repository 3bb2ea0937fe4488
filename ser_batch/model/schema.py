"""What a value of JSON may be: checks, and checks made of checks."""

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from ser_batch.config.features import EncoderSpec
from ser_batch.config.option_values import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE, are_shares
from ser_batch.config.options import HEAD_RECIPE, Normalize
from ser_batch.corpus.labels import is_label
from ser_batch.errors import ModelError, UsageError, shortened

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


# a model of many corpora has some 20 kB
MAX_JSON_BYTES = 16_000_000
_HEX_16, _HEX_64 = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{64}")
_MAX_LABELS = 1000
# of a domain: embeddings are some units large, and so is what tells speech from other sounds
_MAX_WEIGHT = 1e6
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
_FIGURE = or_null(is_share)
_FIGURES = fields(
    {"uar": is_share, "accuracy": is_share},
    {"macro_f1": _FIGURE, "ece": _FIGURE, "n": is_count, "speech_uar": _FIGURE},
)
_NAMES = list_of(is_text)


def _are_some_names(value: Any) -> bool:
    return _NAMES(value) and bool(value)


def _is_cross_corpus(value: Any) -> bool:
    more = {"labels": _are_some_names, "conditions": table_of(_FIGURE), "n": is_count}
    return _FIGURES(value) and fields(more)(value)


_REGIME = fields(
    {
        **dict.fromkeys(("uar", "accuracy", "ece", "share_error"), is_share),
        "n": is_count,
        "out_of_domain": _FIGURE,
        "recalls": table_of(is_share),
        "corpora": table_of(is_share),
    }
)
# every one of them is printed, or stands on the page
_METRICS: dict[str, tuple[Check, str]] = {
    "accuracy": (is_share, "a number from 0 to 1"),
    "uar": (is_share, "a number from 0 to 1"),
    "macro_f1": (_FIGURE, "a number from 0 to 1, or null"),
    "weighted_f1": (_FIGURE, "a number from 0 to 1, or null"),
    "description": (is_text, "text"),
}
_MORE_METRICS: dict[str, tuple[Check, str]] = {
    "n": (is_count, "a whole number"),
    "ece": (_FIGURE, "a number from 0 to 1, or null"),
    "seeds": (list_of(is_count), "a list of whole numbers"),
    "condition": (is_text, "text"),
    "intervals": (
        table_of(lambda value: list_of(_FIGURE)(value) and len(value) == 2),
        "by name two numbers from 0 to 1, or null",
    ),
    "conditions": (table_of(_FIGURES), "by condition uar and accuracy"),
    "corpora": (table_of(_FIGURES), "by corpus uar and accuracy"),
    "held_out_corpora": (table_of(_is_cross_corpus), "by corpus uar, accuracy, n, labels and conditions"),
    "per_recording": (_FIGURES, "uar and accuracy"),
    "regimes": (
        table_of(table_of(_REGIME)),
        "by regime and condition n, uar, accuracy, ece, share_error, out_of_domain, recalls and corpora",
    ),
    "speech": (_FIGURES, "uar and accuracy"),
    "song": (_FIGURES, "uar and accuracy"),
}
_TRAINING: dict[str, tuple[Check, str]] = {
    "n_rows": (is_count, "a whole number"),
    "n_recordings": (is_count, "a whole number"),
    "n_speakers": (is_count, "a whole number"),
    "datasets": (_NAMES, "a list of names"),
}
_MORE_TRAINING: dict[str, tuple[Check, str]] = {
    "lowest_sampling_rate": (lambda value: is_count(value) and value > 0, "a rate in Hz"),
    "sources": (_NAMES, "a list of text"),
    "variants": (_NAMES, "a list of variants"),
    "rows_by_emotion": (table_of(is_count), "whole numbers by label"),
    "corpora": (table_of(fields({"n_rows": is_count, "labels": _NAMES})), "by corpus n_rows and labels"),
}
# of the page and of what commands print
_TEXTS = ("model_id", "estimator", "description", "license")
_SETTINGS: dict[str, tuple[Check, str]] = {
    "recipe": (or_null(is_text), "text or null"),
    "epochs": (or_null(is_count), "a whole number or null"),
    "seed": (is_count, "a whole number"),
    "split": (is_text, "text"),
    "created": (is_text, "text"),
    "versions": (table_of(is_text), "text by name"),
    "feature_spec": (lambda value: isinstance(value, dict), "an object"),
}
_OPTIONAL: dict[str, tuple[Check, str]] = {
    "normalize": (lambda value: value in get_args(Normalize), f"one of {', '.join(get_args(Normalize))}"),
    "init_name": (is_text, "text"),
}
_HEAD_TEMPERATURES = ("temperature_without_reference", "temperature_of_calls")
_NONE = object()
_INIT: dict[str, tuple[Check, str]] = {
    "model_id": (is_text, "text"),
    "labels": (_NAMES, "a list of labels"),
    "license": (or_null(is_text), "text or null"),
    "training": (
        or_null(fields(optional={"datasets": _NAMES, "corpora": lambda value: isinstance(value, dict)})),
        "what it learned from, or null",
    ),
}


def read_values(path: Path) -> dict[str, Any]:
    """Read a model.json as far as it is an object of what JSON and UTF-8 can hold."""
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
        raise ModelError(f"{path}: cannot be read as JSON ({error}); copy the folder again") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds no JSON object; copy the folder again or train again")
    return values


def check_used(path: Path, values: Mapping[str, Any], model_file: str) -> None:
    """Check all that loading and applying a model relies on."""
    is_network = values["estimator"] == "network"
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
        raise ModelError(f"{path}: files names no {model_file}, so it may be altered; copy the whole folder again")
    spec = values["feature_spec"]
    _check(path, "feature_spec", spec, lambda value: isinstance(value, dict), "an object")
    for name, (low, high) in _SPEC_RANGES.items():
        if is_number(spec.get(name)) and spec[name] > 0:  # what is none is told by the spec itself
            _check(path, f"feature_spec.{name}", spec[name], between(low, high), f"{low} to {high}")
    n_mfcc = spec.get("n_mfcc", 40)
    _check(path, "feature_spec.n_mfcc", n_mfcc, is_count, "a whole number")
    n_scaled = n_mfcc
    if (values.get("recipe") == HEAD_RECIPE) != ("encoder" in spec and is_network):
        raise ModelError(
            f"{path}: recipe is {values.get('recipe')!r}, and feature_spec that of "
            f"{'embeddings' if 'encoder' in spec else 'MFCCs'}; copy the folder again, or train again"
        )
    if "encoder" in spec:
        try:
            n_scaled = EncoderSpec.from_dict(spec).embedding_size
        except UsageError as error:
            raise ModelError(f"{path}: feature_spec: {error}") from error
        if values.get("domain") is not None:
            _check_domain(path, values["domain"], n_scaled)
    if is_network:
        _check_moments(path, "scaler", values["scaler"], n_scaled)
        for name in ("temperature", *(_HEAD_TEMPERATURES if "encoder" in spec else ())):
            _check(path, name, values.get(name), lambda value: is_number(value) and value > 0, "a number above 0")
    if "prior" in values:
        _check(
            path,
            "prior",
            values["prior"],
            lambda value: table_of(is_number)(value) and are_shares(value, values["labels"]),
            "shares of labels of the model, each above 0 and below 1, together below 1 (or 1, where all are named)",
        )
    mfcc_domain = values.get("mfcc_domain")
    if mfcc_domain is not None:
        _check_moments(path, "mfcc_domain", mfcc_domain, 2 * n_mfcc, others={"limit"})
        _check(path, "familiar.limit", mfcc_domain["limit"], lambda value: is_number(value) and value > 0, "above 0")
    check_told(path, values)


def check_told(path: Path, values: Mapping[str, Any]) -> None:
    """Check all that is printed of a model, and what its page shows."""
    _check(path, "labels", values.get("labels"), _are_some_names, "a list of labels")
    for name in _TEXTS:
        _check(path, name, values.get(name), is_text, "text")
    _check_table(path, "", values, _SETTINGS, _OPTIONAL)
    _check_table(path, "training", values.get("training"), _TRAINING, _MORE_TRAINING)
    metrics = values.get("metrics")
    if metrics != {}:  # nothing was held out
        _check_table(path, "metrics", metrics, _METRICS, _MORE_METRICS)
    if ("init" in values) != ("init_name" in values):
        raise ModelError(f"{path}: init and init_name go together; copy the folder again or train again")
    init, name = values.get("init", _NONE), "init"
    while init is not _NONE:
        _check_table(path, name, init, _INIT, {})
        init, name = init.get("init", _NONE), f"{name}.init"


def check_archive(path: Path) -> None:
    """Refuse a zip archive of which more would be read than it is long: ours are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # zipfile raises whatever its parts do on a broken file
        raise ModelError(f"{path}: cannot be read ({error}); copy the folder again, or train again") from error
    size = path.stat().st_size
    if claimed > size:
        raise ModelError(f"{path}: its parts claim {claimed} bytes, it has {size}; train again")


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
            raise ModelError(f"{path}: no {dot}{field}; it is not complete, copy the folder again or train again")
        _check(path, dot + field, values[field], check, expected)
    for field, (check, expected) in optional.items():
        if field in values:
            _check(path, dot + field, values[field], check, expected)


def _check_moments(path: Path, name: str, values: Any, n: Any, others: frozenset[str] | set[str] = frozenset()) -> None:
    """Check an object of n finite means and n scales above 0, for a `Scaler` or `DomainModel`."""
    if not isinstance(values, dict) or values.keys() != {"mean", "scale"} | others:
        _refuse(path, name, values, f"an object of {', '.join(sorted({'mean', 'scale'} | others))}")
    numbers = list_of(is_number)
    _check(path, f"{name}.mean", values["mean"], lambda value: numbers(value) and len(value) == n, f"{n} numbers")
    _check(
        path,
        f"{name}.scale",
        values["scale"],
        lambda value: numbers(value) and len(value) == n and min(value, default=1) > 0,
        f"{n} numbers above 0",
    )


def _check_domain(path: Path, values: Any, n: int) -> None:
    """Check what a `Domain` is made of: n weights, and an offset."""
    if not isinstance(values, dict) or values.keys() != {"direction", "offset"}:
        _refuse(path, "domain", values, "an object of direction, offset")
    is_weight = _within(_MAX_WEIGHT)
    _check(
        path,
        "domain.direction",
        values["direction"],
        lambda value: list_of(is_weight)(value) and len(value) == n,
        f"{n} numbers within ±{_MAX_WEIGHT:g}",
    )
    _check(path, "domain.offset", values["offset"], is_weight, f"a number within ±{_MAX_WEIGHT:g}")


def _within(most: float) -> Check:
    return lambda value: is_number(value) and -most <= value <= most


def _is_hex(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _are_labels(value: Any) -> bool:
    return (
        _are_some_names(value)
        and len(value) <= _MAX_LABELS
        and all(is_label(label) for label in value)
        and value == sorted(set(value))
    )


def _check(path: Path, field: str, value: Any, check: Check, expected: str) -> None:
    if not check(value):
        _refuse(path, field, value, expected)


def _refuse(path: Path, field: str, value: Any, expected: str) -> NoReturn:
    found = shortened(json.dumps(value), 80)
    raise ModelError(f"{path}: {field} is {found}; expected {expected}. Copy the folder again, or train again")
