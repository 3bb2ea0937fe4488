"""Messages that are safe to print, exit statuses, and the tree that the docstring draws."""

import inspect
import pickle
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch import errors
from ser_batch.errors import JobError, RecordingError, SerBatchError, UsageError, printable

CLASSES: dict[str, Any] = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and value.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, str]:
    """Class name to the name of its parent, as the module's docstring draws it."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            assert len(match[1]) % 4 == 0, f"crooked branch: {line!r}"
            assert depth <= len(above), f"no parent above: {line!r}"
            above[depth:] = [match[2]]
            parents[match[2]] = above[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    assert drawn_tree() == {name: value.__base__.__name__ for name, value in CLASSES.items()}
    assert len(CLASSES) >= 8


def test_wrong_usage_exits_with_2_and_everything_else_with_1():
    assert {name for name, value in CLASSES.items() if value.exit_code == 2} == {"UsageError", "JobError"}
    assert {value.exit_code for value in CLASSES.values()} == {1, 2}
    assert re.search(r"UsageError .*exit status 2", errors.__doc__)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("call é 日本 'a b'.wav", "call é 日本 'a b'.wav"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("a\x00\x7f\x9b", "a\\x00\\x7f\\x9b"),
        (b"a\xff.wav".decode("utf-8", "surrogateescape"), "a\\udcff.wav"),
        ("invoice\u202evaw.exe", "invoice\\u202evaw.exe"),
    ],
)
def test_printable_escapes_what_a_terminal_would_act_on_and_nothing_else(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(codec=None), max_size=20))
@settings(max_examples=100, deadline=None)
def test_whatever_the_text_its_printable_form_can_be_written_and_stays_as_it_is(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown


def test_a_message_is_one_line_without_escapes():
    error = SerBatchError("first\x1b[2J line\nsecond \udcff line")
    assert str(error) == "first\\x1b[2J line\\nsecond \\udcff line"


def test_a_message_that_quotes_far_too_much_keeps_its_beginning_and_its_end():
    error = UsageError(f"--seeds {'1' * 100_000}; expected 1 or more")
    assert len(str(error)) == 2000
    assert str(error).startswith("--seeds 111")
    assert str(error).endswith("111; expected 1 or more")
    assert str(UsageError(str(error))) == str(error)


def test_a_message_of_common_length_is_left_whole():
    path = "folder/" * 200
    assert str(UsageError(f"{path}: no such folder")) == f"{path}: no such folder"


def test_a_recording_error_travels_between_processes_with_its_stage():
    error = pickle.loads(pickle.dumps(RecordingError("decode", "a\x07.wav: holds no samples")))
    assert type(error) is RecordingError
    assert (error.stage, str(error)) == ("decode", "a\\x07.wav: holds no samples")


@pytest.mark.parametrize("kind", [value for name, value in CLASSES.items() if name != "RecordingError"])
def test_every_other_error_travels_with_its_type_and_message(kind):
    error = pickle.loads(pickle.dumps(kind("a.wav: not there; give another")))
    assert (type(error), str(error)) == (kind, "a.wav: not there; give another")


def test_a_wrong_job_is_wrong_usage():
    with pytest.raises(UsageError):
        raise JobError("job.toml: unknown key")
