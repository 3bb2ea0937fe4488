"""An option is declared once: whatever takes or describes options is made of its field."""

import inspect
import re
from pathlib import Path
from typing import Annotated

import click
import make_docs
import pytest
from click.testing import CliRunner

from ser_batch.cli.app import Command
from ser_batch.cli.params import with_options
from ser_batch.config import options
from ser_batch.config.fields import Share, fields_of, option
from ser_batch.config.functions import as_function
from ser_batch.config.job import read_job
from ser_batch.config.options import ScoreOptions, TrainOptions
from ser_batch.errors import JobError, UsageError


class LongerOptions(TrainOptions, frozen=True, kw_only=True):
    """The options of train, and one more."""

    dropout_rate: Annotated[Share, option("Training", "Share of units to drop.", metavar="SHARE")] = 0.25


@pytest.fixture
def longer(monkeypatch):
    """An option field that is added to train: its options, its command, its function."""
    monkeypatch.setitem(options.STAGES, "train", LongerOptions)

    @click.command("train", cls=Command)
    @click.argument("features")
    @with_options(LongerOptions)
    def command(features, options, output):
        r"""Train.

        \b
        Example:
          ser-batch train
        """
        output.line(f"{features} {options.dropout_rate}")
        return {}

    def train(features: str, options: LongerOptions) -> float:
        """Train.

        Parameters
        ----------
        features
            A folder.

        Returns
        -------
        float
            What was given.
        """
        return options.dropout_rate

    return command, as_function(LongerOptions, train)


def test_an_option_that_is_added_to_the_fields_is_there_wherever_options_are(longer, tmp_path):
    command, function = longer
    run = CliRunner().invoke
    assert "--dropout-rate SHARE" in run(command, ["--help"]).stdout
    assert run(command, ["features", "--dropout-rate", "0.5"]).stdout == "features 0.5\n"
    assert run(command, ["features"]).stdout == "features 0.25\n"
    told = "--dropout-rate 2; expected a number from 0 to 1"
    assert str(run(command, ["features", "--dropout-rate", "2"]).exception) == told

    keyword = inspect.signature(function).parameters["dropout_rate"]
    assert (keyword.default, keyword.annotation, keyword.kind) == (0.25, float, keyword.KEYWORD_ONLY)
    assert "dropout_rate\n    Share of units to drop.  [default: 0.25]\n\nReturns" in function.__doc__
    assert function("features", dropout_rate=1) == 1.0
    assert function("features") == 0.25
    with pytest.raises(UsageError, match=told):
        function("features", dropout_rate=2)
    with pytest.raises(TypeError, match="dropout"):
        function("features", dropout=0.5)

    job = tmp_path / "job.toml"
    job.write_text("[train]\ndropout_rate = 0.5\n")
    assert read_job(job).steps == (((), LongerOptions(dropout_rate=0.5)),)
    assert read_job(job, ("train.dropout_rate=1",)).steps == (((), LongerOptions(dropout_rate=1.0)),)
    with pytest.raises(JobError, match=rf"job\.toml: \[train\]: {told}"):
        read_job(job, ("train.dropout_rate=2",))

    assert "| `--dropout-rate SHARE` | Share of units to drop. [default: 0.25] |" in make_docs.section("train", command)


def test_paths_and_names_are_taken_as_either():
    made = TrainOptions(out="model", init=Path("models/first"), split=Path("folds.csv"))
    assert (made.out, made.init, made.split) == (Path("model"), "models/first", "folds.csv")


@pytest.mark.parametrize(
    ("name", "text", "value"), [("window", ".5", 0.5), ("jobs", "+4", 4), ("max_duration", "inf", float("inf"))]
)
def test_numbers_are_typed_as_click_takes_them(name, text, value):
    field = next(field for field in fields_of(ScoreOptions) if field.name == name)
    assert field.checked(text, is_text=True) == value


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("jobs", "1.0", "a whole number, 1 or more"),
        ("jobs", "1e1", "a whole number, 1 or more"),
        ("limit", "null", "a whole number, 1 or more"),
        ("limit", "9" * 20, "a whole number from 1 to 2147483647"),
        ("window", "nan", "a number from 0.01 to 86400"),
    ],
)
def test_what_is_no_number_is_refused_with_its_range(name, text, expected):
    field = next(field for field in fields_of(ScoreOptions) if field.name == name)
    with pytest.raises(UsageError, match=rf"^--{name} {re.escape(text)}; expected {expected}$"):
        field.checked(text, is_text=True)


def test_empty_roles_are_none():
    assert ScoreOptions(channel_roles="", only="").stored() == ScoreOptions().stored()
