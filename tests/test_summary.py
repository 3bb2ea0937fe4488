"""Summaries: one class per command, its JSON object, its description, its repr."""

import datetime
import json
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import polars as pl
import pytest
from make_docs import SUMMARIES, described_keys

from ser_batch.cli.console import Output
from ser_batch.cli.summaries import print_first_calls, print_labels, print_models
from ser_batch.corpus.manifest import Reject
from ser_batch.report.metrics import classification
from ser_batch.summary import NOT_IN_JSON, Summary, json_fields, to_json

LARGE = (
    "long " * 2000,
    "\x1b[31mx" * 2000,
    Path("folder/" * 400),
    [f"a sentence about recording {number}" for number in range(1000)],
    (Reject("a.wav", "open", "InputError", "line\n" * 500),) * 1000,
    {f"label {number}": {"uar": 0.5} for number in range(1000)},
    pl.DataFrame({"label": ["sad"] * 5000}),
    np.zeros((100, 100)),
    None,
    1,
)


class Inner(Summary, frozen=True, kw_only=True):
    uar: Annotated[float, msgspec.Meta(description="UAR")]
    hidden: Annotated[str, NOT_IN_JSON] = "hidden"


class Outer(Summary, frozen=True, kw_only=True):
    out: Annotated[Path, msgspec.Meta(description="file")]
    model: Annotated[Inner | None, msgspec.Meta(description="model")]
    table: Annotated[pl.DataFrame, msgspec.Meta(description="rows")]
    created: Annotated[datetime.datetime, msgspec.Meta(description="time")]


OUTER = Outer(
    out=Path("a") / "b",
    model=Inner(uar=float("nan")),
    table=pl.DataFrame({"label": ["sad", None], "f1": [float("inf"), 0.5]}),
    created=datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC),
)


@pytest.mark.parametrize("name", sorted(SUMMARIES))
@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_a_repr_has_at_most_ten_lines(name, value):
    kind = SUMMARIES[name]
    lines = repr(kind(**dict.fromkeys(kind.__struct_fields__, value))).split("\n")
    assert lines[0].startswith(f"{kind.__name__}(")
    assert len(lines) <= 10
    assert all(len(line) <= 100 and line.isprintable() for line in lines)


def test_a_repr_shows_names_and_values():
    text = repr(OUTER)
    assert "model=Inner(uar=nan)" in text
    assert "table=<2 rows>" in text
    assert "hidden" not in text


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_every_key_is_described(name):
    described = dict(described_keys(SUMMARIES[name]))
    assert all(described.values())
    assert [key for key in described if "." not in key] == list(json_fields(SUMMARIES[name]))


def test_a_summary_as_json():
    assert to_json(OUTER) == {
        "out": "a/b",
        "model": {"uar": None},
        "table": [{"label": "sad", "f1": None}, {"label": None, "f1": 0.5}],
        "created": "2026-11-30T00:00:00+00:00",
    }
    assert list(dict(described_keys(Outer))) == ["out", "model", "model.uar", "table", "created"]


def test_fields_of_a_base_come_last():
    assert list(json_fields(SUMMARIES["train"]))[-2:] == ["warnings", "seconds"]
    assert next(iter(json_fields(SUMMARIES["featurize"]))) == "out"


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_a_summary_of_any_content_can_be_written(name):
    kind = SUMMARIES[name]
    for value in (*LARGE[:7], None, 1):
        json.dumps(to_json(kind(**dict.fromkeys(kind.__struct_fields__, value))), allow_nan=False)


REPORT = classification(["sad", "sad", "happy"], ["sad", "happy", "happy"], ["calm", "happy", "sad"])
MODELS = pl.DataFrame(
    {
        "estimator": ["network", "network", "majority"],
        "condition": ["clean", "clean", "g711"],
        "subset": ["all", "speech", "all"],
        "accuracy": [0.5, 0.5, 0.25],
        "uar": [0.5, 0.625, 0.125],
        "resampled": ["recording", "recording", None],
        "uar_low": [0.4, 0.5, None],
        "uar_high": [0.6, 0.7, None],
        "macro_f1": [0.5, 0.5, 0.1],
        "ece": [0.1, 0.1, None],
    }
)


def test_labels_are_printed_as_the_table_people_know(capsys):
    print_labels(REPORT, ("precision", "recall", "f1", "support"), Output())
    assert capsys.readouterr().out.splitlines() == [
        "label         precision  recall    f1  support",
        "calm                                         0",
        "happy              0.50    1.00  0.67        1",
        "sad                1.00    0.50  0.67        2",
        "",
        "accuracy                         0.67        3",
        "macro_avg          0.75    0.75  0.67        3",
        "weighted_avg       0.83    0.67  0.67        3",
    ]


def test_calls_to_listen_to_first_are_printed_with_where_and_why(capsys):
    calls = pl.DataFrame(
        {
            "path": ["a/b.wav", "c.wav", "d.wav"],
            "channel": [1, 0, -1],
            "role": ["customer", None, None],
            "priority": [0.912, 0.5, 0.25],
            "listen_at_s": [67.9, 3661.0, 0.0],
            "listen_why": ["angry for 14 s, 0.81", "angry for 8 s, 0.60", "angry at most 0.20"],
        }
    )
    print_first_calls(calls, Output())
    assert capsys.readouterr().out.splitlines() == [
        "why                   recording                at  priority",
        "angry for 14 s, 0.81  a/b.wav (customer)     1:07      0.91",
        "angry for 8 s, 0.60   c.wav (channel 0)   1:01:01      0.50",
        "angry at most 0.20    d.wav                  0:00      0.25",
    ]


def test_labels_have_the_segments_of_each_role(capsys):
    report = pl.DataFrame({"label": ["angry", "calm"], "n_predicted": [3, 4]})
    of_roles = pl.DataFrame(
        {"role": ["agent"] * 2 + ["customer"] * 2, "label": ["angry", "calm"] * 2, "n_predicted": [1, 0, 2, 4]}
    )
    print_labels(report, ("n_predicted",), Output(), of_roles=of_roles)
    assert capsys.readouterr().out.splitlines() == [
        "label  segments  agent  customer",
        "angry         3      1         2",
        "calm          4      0         4",
    ]
    print_labels(report, ("n_predicted",), Output(), of_roles=of_roles.filter(role="agent"))
    assert capsys.readouterr().out.splitlines()[0] == "label  segments"


def test_models_are_printed_one_per_line(capsys):
    print_models(MODELS, Output())
    assert capsys.readouterr().out.splitlines() == [
        "model     condition  accuracy    UAR  95 % of recordings  macro F1    ECE  speech UAR",
        "network   clean         0.500  0.500        0.40 to 0.60     0.500  0.100       0.625",
        "majority  g711          0.250  0.125                         0.100",
    ]


def test_names_in_tables_are_escaped(capsys):
    hostile = "\x1b[31m[red]\n\x9b"
    print_labels(REPORT.with_columns(pl.col("label").replace("sad", hostile)), ("f1",), Output())
    print_models(MODELS.with_columns(estimator=pl.lit(hostile)), Output())
    printed = capsys.readouterr().out
    assert printed.count(r"\x1b[31m[red]\n\x9b") == 3
    assert printed.replace("\n", "").isprintable()
