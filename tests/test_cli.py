"""The commands as a user meets them: exit status, stdout, stderr, help."""

import re
import shutil

import click
import numpy as np
import pytest
from click.testing import CliRunner

from ser_batch import __version__
from ser_batch.cli.app import commands_of
from ser_batch.cli.commands import cli
from ser_batch.synth import synth

COMMANDS = commands_of(cli)


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_version():
    assert run("--version") == (0, f"ser-batch {__version__}\n", "")
    status, out, err = run("--version", "-v")
    assert (status, err) == (0, "")
    assert run("-v", "--version") == run("-Vv") == (status, out, err)
    first, *others = out.splitlines()
    assert first == f"ser-batch {__version__}"
    versions = dict(line.split(" ", maxsplit=1) for line in others)
    assert versions["numpy"] == np.__version__
    assert {"python", "polars", "librosa", "keras", "platform"} <= versions.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_help_says_what_it_does_and_ends_with_an_example(name):
    status, out, _ = run(*name.split(), "--help")
    assert status == 0
    last = out.splitlines()[-2:]
    assert last[0] == "  Example:"
    assert last[1].startswith(f"    ser-batch {name} ")
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.name} says nothing"


OPTIONS = [
    pytest.param(name, option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_says_its_default_and_unit(name, option):
    context = click.Context(COMMANDS[name], info_name=name)
    _, text = option.get_help_record(context)
    assert re.search(r"\[default: [^\]]+\]$|\[required\]$", text), text
    assert option.metavar not in (None, "X"), "a number has a unit"


def test_help_lists_commands_by_section_and_options_by_group():
    out = run("--help")[1]
    sections = re.findall(r"^(\w+):\n((?:  .*\n?)+)", out, re.MULTILINE)
    listed = {name: re.findall(r"^  (\w+)  ", lines, re.MULTILINE) for name, lines in sections}
    assert listed["Score"] == ["score", "report", "inspect", "plot"]
    assert listed["Train"] == ["featurize", "train", "export"]
    assert listed["More"] == ["run", "encoder", "download", "synth"]
    groups = re.findall(r"^(\w+):$", run("score", "--help")[1], re.MULTILINE)
    assert groups == ["Input", "Features", "Channels", "Scoring", "Incremental", "Execution", "Output"]


def test_short_forms(tmp_path):
    assert run("-V") == run("--version")
    context = cli.commands["score"].make_context("score", ["calls", "-o", "p.parquet", "-j", "2", "-m", "fast", "-q"])
    assert str(context.params["out"]) == "p.parquet"
    assert (context.params["jobs"], context.params["model"]) == (2, "fast")


@pytest.mark.usefixtures("small_networks")
def test_the_three_lines_as_they_stand(small_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_corpus, "audio")
    shutil.copytree(small_corpus / "Actor_01", "calls")
    status, out, err = run("featurize", "./audio", "--jobs", 1)
    assert status == 0
    assert out.splitlines()[0] == "features: 120 segments from 120 recordings"
    assert re.fullmatch(r"done: 120 recordings in \S+ s; 0\.05 h of audio in total, 0 rejected", out.splitlines()[-1])
    status, out, err = run("train", "--epochs", 1)
    assert status == 0
    assert "4 of 4 speakers stand on both sides" in out
    assert "weighted_avg" in out
    steps = ("compiling", "training", r"epoch 1/1  loss \d\.\d+  accuracy 0\.\d+")
    assert re.search(r"\n.*".join(f"network 1 of 2: {step}" for step in steps), err)
    assert "featurize --variants robust" in err, "the recordings are clean, and nobody is told"
    status, out, err = run("score", "./calls", "--out", "preds.parquet", "--jobs", 1)
    assert status == 0
    assert "model: model (" in out
    assert "precision" in out, "the names say the truth"
    assert "preds.parquet: 30 segments from 30 recordings" in out
    status, out, err = run("report", "preds.parquet")
    assert status == 0
    assert "default-src 'none'" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_score_works_right_after_installation(small_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_corpus / "Actor_01", "calls")
    status, out, _ = run("score", "calls", "--jobs", 1)
    assert status == 0
    assert "models/open" in out
    assert "commercial use allowed with attribution" in out
    assert "unseen corpora (nemo, ravdess)" in out


def test_names_are_text_in_the_page(small_model, tmp_path):
    synth(tmp_path / "made", actors=1, repetitions=1)
    (tmp_path / "audio").mkdir()
    recording = next((tmp_path / "made").rglob("*.wav"))
    shutil.copy(recording, tmp_path / "audio" / "<script>alert(1)<\\script>.wav")
    out = tmp_path / "preds.parquet"
    assert run("score", tmp_path / "audio", "--out", out, "--model", small_model, "--jobs", 1)[0] == 0
    assert run("report", out, "--out", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_synth_refuses_a_folder_in_use(tmp_path):
    assert run("synth", tmp_path / "audio", "--actors", 1)[0] == 0
    status, _, err = run("synth", tmp_path / "audio", "--actors", 1)
    assert status == 1
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train", "--out", "m"], 2, "ser-batch featurize"),
        (["score", ".", "--out", "preds.csv"], 2, "ends in .parquet"),
        (["train", "--epochs", "0"], 2, "--epochs 0"),
        (["train", "--recipe", "best"], 2, "best"),
        (["score", "nowhere"], 2, "nowhere: no such folder"),
        (["score", ".", "--model", "nowhere"], 2, "--model nowhere"),
        (["report", "nowhere"], 2, "neither a model folder"),
        (["run", "nowhere.toml"], 2, "nowhere.toml"),
        (["featurize", "nowhere"], 2, "nowhere: no such folder"),
        (["download", "tess"], 2, "tess"),
        (["download", "ravdess", "--url", "ftp://example.org"], 2, "http"),
        (["featurise"], 2, "Did you mean 'featurize'?"),
        (["score", ".", "--chanels", "mix"], 2, "'--channels'"),
        (
            ["featurize", ".", "--preset", "telefone"],
            2,
            "--preset telefone; expected one of wideband, telephone; did you mean telephone?",
        ),
        (["featurize", ".", "--segments", "window"], 2, "did you mean windows?"),
        (["score", ".", "--jobs", "two"], 2, "--jobs two; expected a whole number, 1 or more"),
        (["score", ".", "--min-speech", "2"], 2, "--min-speech 2; expected a number from 0 to 1"),
        (["score", ".", "--labels", "nowhere.csv"], 2, "--labels nowhere.csv: no such file"),
        (["featurize", ".", "--variants", "clean,g771"], 2, "did you mean g711?"),
        (["featurize", ".", "--variants", "nois10"], 2, "did you mean noise?"),
        (["featurize", ".", "--variants", "robus"], 2, "did you mean robust?"),
        (["featurize", ".", "--raw-format", "mulw:8000:1"], 2, "did you mean mulaw?"),
        (["train", "--split", "speakers"], 2, "did you mean speaker?"),
        (["train", "--baselines", "svn"], 2, "did you mean svm?"),
        (["train", "--init", "opne"], 2, "did you mean open?"),
        (["score", ".", "--model", "reserch"], 2, "did you mean research?"),
        (["score", ".", "--channel-roles", "0=agent", "--only", "agnet"], 2, "did you mean agent?"),
        (["inspect", "opne"], 2, "did you mean open?"),
    ],
)
def test_wrong_usage_is_one_message_and_a_status(arguments, status, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    got, out, err = run(*arguments)
    assert got == status
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_the_shell_hands_over_is_shown_escaped():
    for arguments in (
        ["score", "--\x1b[31m"],
        ["\x1b[31m"],
        ["score", "a", "--jobs", "\x1b[31m"],
        ["score", "a", "\x1b[31m"],
    ):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 2
        assert result.output.replace("\n", "").isprintable(), result.output
