"""What commands print: JSON for programs, less or more of it, drawn on a terminal only, colors where wanted."""

import contextlib
import dataclasses
import io
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers import Log
from make_docs import SUMMARIES

from ser_batch.cli import app
from ser_batch.cli.app import commands_of
from ser_batch.cli.commands import cli
from ser_batch.cli.console import Output, colored, wrapped
from ser_batch.download import RELEASES, DownloadSummary
from ser_batch.summary import json_fields
from ser_batch.tables.parquet import rows_table, write_table
from ser_batch.tables.schemas import REJECTS

PROGRAM = "from ser_batch.cli.commands import main; main()"


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch, small_corpus):
    """A working directory with a recording that is none, and five that are."""
    monkeypatch.chdir(tmp_path)
    Path("calls").mkdir()
    for recording in sorted(small_corpus.rglob("*.wav"))[:5]:
        shutil.copy(recording, "calls")
    Path("calls/bro\x1bken.wav").write_bytes(b"no sound")
    return tmp_path


def test_every_example_runs_and_its_object_has_the_documented_keys(small_corpus, tmp_path, monkeypatch, root, smaller):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "jobs", "jobs")
    shutil.copytree(small_corpus / "Actor_01", "calls")
    shutil.copy(min(Path("calls").iterdir()), "calls/call_1.wav")  # for plot

    def fetch(out, *, release, url, report):
        assert (release, url) == (RELEASES["ravdess"], None)
        report("Audio.zip", 5, 10)
        return DownloadSummary(out=out, n_recordings=1440, fetched=("Audio.zip",), already_here=())

    monkeypatch.setattr("ser_batch.download.download_corpus", fetch)
    first = ("synth", "featurize", "train", "score")  # what one makes the next one takes
    commands = commands_of(cli)
    names = [*first, *(name for name in commands if name not in first)]
    shorter = {
        "synth": ["--actors", "2"],
        "train": ["--epochs", "1", "--recipe", "published"],
        "featurize": ["--jobs", "1"],
        "score": ["--jobs", "1"],
        "run": ["--set", "train.epochs=1", "--set", "featurize.jobs=1"],
    }
    for name in names:
        if name == "run":  # the job makes these anew, of another dataset
            shutil.rmtree("features")
            shutil.rmtree("model", ignore_errors=True)
        program, *arguments = shlex.split(commands[name].example)
        assert program == "ser-batch"
        assert " ".join(arguments).startswith(name)
        with contextlib.nullcontext() if name == "export" else smaller():  # that builds the shipped network anew
            status, out, err = run(*arguments, *shorter.get(name, []), "--json")
        if (
            name == "encoder convert"
        ):  # weights of what it reads are fetched, and tests/test_encoder_convert.py makes some
            assert (status, "whisper-base: no such file or folder" in err) == (2, True)
            continue
        if name == "export" and 'pip install "ser-batch[onnx]"' in err:
            continue  # tests/test_export.py has what can be tried without the extra
        assert status == 0, err
        assert list(json.loads(out)) == list(json_fields(SUMMARIES[name])), name
        assert out.count("\n") == 1
        if name == "download":
            assert "Audio.zip: 0 of 0 MB" in err
        if name == "run":
            assert [list(step) for step in json.loads(out)["steps"]] == [
                ["command", *json_fields(SUMMARIES[step["command"]])] for step in json.loads(out)["steps"]
            ]
    assert SUMMARIES.keys() == commands.keys()


def test_the_object_of_score_says_what_the_lines_say(folder):
    status, lines, err = run("score", "calls", "--jobs", 1)
    assert status == 0
    assert r"rejected (open): bro\x1bken.wav" in err
    status, out, again = run("score", "calls", "--jobs", 1, "--json", "--strict")
    assert status == 3
    assert r"rejected (open): bro\x1bken.wav" in again
    told = json.loads(out)
    assert told["n_segments"] == 5
    assert told["n_rejected"] == 1
    assert (told["n_done"], told["n_up_to_date"]) == (0, 6)
    assert f"preds.parquet: {told['n_segments']} segments from {told['n_recordings']} recordings" in lines
    assert told["model"]["model_id"] in lines
    assert all(Path(told[name]).is_file() for name in ("out", "calls", "report", "page", "rejects"))
    assert sum(row["n_predicted"] or 0 for row in told["labels"]) <= 5


def test_a_job_stops_at_a_strict_step_and_tells_what_was_done(folder):
    Path("job.toml").write_text(
        '[featurize]\naudio = "calls"\nstrict = true\njobs = 1\n[score]\naudio = "calls"\njobs = 1\n', encoding="utf-8"
    )
    status, out, _ = run("run", "job.toml", "--json")
    assert status == 3
    assert [step["command"] for step in json.loads(out)["steps"]] == ["featurize"]


def test_an_error_leaves_stdout_empty(tmp_path):
    status, out, err = run("score", tmp_path / "nowhere", "--json")
    assert (status, out) == (2, "")
    assert "no such folder or file" in err


def test_quiet_keeps_warnings_and_rejects(folder):
    Path("calls/notes.txt").write_text("nothing", encoding="utf-8")
    status, out, err = run("featurize", "calls", "--jobs", 1, "-q")
    assert (status, out) == (0, "")
    assert err.splitlines() == [
        r"rejected (open): bro\x1bken.wav: it cannot be read as audio (Format not recognised); replace the file or "
        "remove it"
    ]
    _, loud_out, loud_err = run("featurize", "calls", "--jobs", 1)
    assert "5 segments" in loud_out
    assert "skipped 1 non-audio file (.txt)" in loud_err


def test_quiet_training_says_nothing(small_features, tmp_path):
    arguments = ("train", small_features, "--out", tmp_path / "m", "--estimator", "logistic")
    assert run(*arguments, "--quiet")[:2] == (0, "")
    assert "fitting" not in run(*arguments, "--overwrite", "--quiet")[2]
    assert "fitting logistic" in run(*arguments, "--overwrite")[2]


def test_verbose_tells_versions_settings_shards_and_every_reject(folder):
    for number in range(12):
        Path(f"calls/empty{number}.wav").write_bytes(b"")
    status, out, err = run("featurize", "calls", "--jobs", 1, "--verbose", "--shard-size", 10)
    assert status == 0
    assert re.search(r"^ser-batch \S+, python \S+, numpy ", err, re.MULTILINE)
    assert "preset=wideband" in err
    assert re.search(r"featurize: part-000001: \d+ recordings, \d+ rows, \d+ rejected, \d+\.\d s of audio; ", err)
    assert err.count("rejected (") == 13
    assert "part-000001" not in out
    err = run("featurize", "calls", "--jobs", 1)[2]
    assert err.count("rejected (") == 10
    assert "rejected: 3 more" in err


def test_quiet_and_verbose_contradict(folder):
    status, out, err = run("featurize", "calls", "-q", "-v")
    assert (status, out) == (2, "")
    assert "--quiet and --verbose" in err
    assert not Path("features").exists()


def test_json_takes_any_value():
    @app.Group().command()
    def say() -> None:
        r"""Say it.

        \b
        Example:
          ser-batch say
        """
        values = {"path": Path(os.fsdecode(b"a\xff\x1b\xc2\x9b")), "number": float("nan"), None: (1, True, None)}
        Output.current().result(values)

    result = CliRunner().invoke(say, ["--json"])
    assert json.loads(result.stdout) == {"path": "a\\xff\x1b\x9b", "number": None, "null": [1, True, None]}
    assert result.stdout.rstrip("\n").isprintable()
    assert result.stdout.isascii()
    assert CliRunner().invoke(say).stdout == ""


def test_colours_obey_no_color(monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert colored("warning", "yellow") == "\x1b[33mwarning\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert colored("warning", "yellow") == "warning"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert colored("warning", "yellow") == "warning"


def on_a_terminal(*arguments, **variables):
    """Run the program on a terminal of 100 columns; return its status and what the terminal gets."""
    ours, its = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "100", **variables}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], stdout=its, stderr=its, stdin=its, env=environment
    )
    os.close(its)
    shown = b""
    while True:
        try:
            some = os.read(ours, 65536)
        except OSError:  # what Linux gives instead of an end
            break
        if not some:
            break
        shown += some
    os.close(ours)
    return process.wait(timeout=60), shown.decode("utf-8")


def test_a_terminal_gets_a_bar_and_drawn_tables(folder):
    status, shown = on_a_terminal("score", "calls", "--jobs", 1)
    assert status == 0
    assert "━" in shown
    assert "6/6 files" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "\x1b[33mrejected (open)\x1b[0m" in shown
    assert r"bro\x1bken.wav" in shown
    assert re.search(r"segments.*share.*precision", shown)
    assert "─" in shown
    page = Path("preds.report.html").absolute()
    assert f"report: \x1b]8;;{page.as_uri()}\x1b\\preds.report.html\x1b]8;;\x1b\\" in shown
    _, plain = on_a_terminal("score", "calls", "--jobs", 1, NO_COLOR="1")
    assert "report: preds.report.html" in plain
    status, shown = on_a_terminal("inspect", "preds.parquet", NO_COLOR="1")
    assert status == 0
    assert "─" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)
    status, shown = on_a_terminal("inspect", "preds.parquet", "--json")
    assert json.loads(shown)["n_rows"] == 5


def test_names_beyond_the_encoding_of_stdout_are_written_as_codes(tmp_path):
    rows = [{"path": "\u96fb.wav", "stage": "open", "error": "e", "message": "m"}]
    write_table(tmp_path / "rejects.parquet", rows_table(rows, REJECTS))
    command = [sys.executable, "-m", "ser_batch", "inspect", str(tmp_path / "rejects.parquet")]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert r"\u96fb.wav" in done.stdout


class Terminal(io.StringIO):
    """A terminal that does not tell how wide it is."""

    def isatty(self):
        return True


# what is printed where lines have 30 characters: lines between bars
LINES = (
    "rejected: the word after the|  word that goes",
    "see|  `ser-batch train features --out model`",
    "again:|  ser-batch score calls --model x,|  and so on",
    "open:|  one two/three and four.wav:|  0 bytes in it",
    "it is 'two words and a third'|  of a model's name",
    "report:|  the calls of May.report.html",
    "/a/very/long/path/that/is/wider/than/that.wav",
    "first||  second line, which is longer|  than that",
)


@pytest.mark.parametrize("shown", LINES)
def test_lines_end_between_words_and_never_within_what_is_copied(shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.argv", ["ser-batch", "score", "calls", "--out=the calls of May.parquet"])
    text = shown.replace("||  ", "\n\n  ").replace("|  ", " ")
    assert wrapped(text, Terminal()) == shown.replace("|", "\n")
    assert wrapped(text, io.StringIO()) == text
    found = wrapped(text, Terminal(), before="rejected (open): ")
    assert " ".join(f"rejected (open): {found}".split()) == " ".join(f"rejected (open): {text}".split())


def test_a_terminal_that_does_not_tell_has_80_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert max(map(len, wrapped("word " * 100, Terminal()).splitlines())) == 79
    ours, its = pty.openpty()
    with os.fdopen(ours), os.fdopen(its, "w") as stream:
        assert max(map(len, wrapped("word " * 100, stream).splitlines())) == 79  # it says 0


def test_what_stands_for_stdout_need_not_know_whether_it_is_a_terminal(monkeypatch):
    log = Log()
    monkeypatch.setattr("sys.stdout", log)
    output = Output()
    output.line("a line")
    output.table(["label"], [["angry"]])
    assert log.text == "a line\nlabel\nangry\n"


def test_summaries_warnings_and_errors_are_wrapped_on_a_terminal(folder):
    def shown(*arguments):
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_a_terminal(*arguments, COLUMNS="60")[1]).splitlines()

    shutil.rmtree(folder / "calls")
    (folder / "calls").mkdir()
    (folder / "calls/one call of today.wav").write_bytes(b"no sound")
    for lines in (shown("score", "calls"), shown("score", "nowhere", "--nope"), shown("train", "nowhere")):
        assert max(map(len, lines)) <= 60, lines
        assert any(line.startswith("  ") for line in lines), lines


def test_elsewhere_nothing_is_drawn(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "featurize", "calls", "--jobs", "1", "-v"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=os.environ | {"FORCE_COLOR": "1"},
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "━" not in done.stderr


@pytest.mark.parametrize("verbose", [False, True])
def test_an_internal_error_says_where(tmp_path, verbose):
    program = (
        "import ser_batch.synth\n"
        "def fail(*_, **__): raise KeyError('mu\\x1bte')\n"
        f"ser_batch.synth.synth = fail\n{PROGRAM}"
    )
    arguments = ["synth", str(tmp_path / "audio"), *(["-v"] if verbose else [])]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "ser-batch: internal error: KeyError:" in done.stderr
    assert "\x1b" not in done.stderr
    assert ("Traceback" in done.stderr) == verbose


def test_a_reader_that_goes_away_is_no_error(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "inspect", "open"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert b"error" not in process.stderr.read()
    process.stderr.close()


def test_the_shell_completes():
    def completed(words, **more):
        environment = os.environ | {"_SER_BATCH_COMPLETE": "bash_complete", "COMP_WORDS": words, **more}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60, env=environment
        )
        return [line.split(",", maxsplit=1)[1] for line in done.stdout.splitlines()]

    script = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"_SER_BATCH_COMPLETE": "bash_source"},
    ).stdout
    assert "_SER_BATCH_COMPLETE=bash_complete" in script
    assert "complete -o nosort -F" in script
    assert completed("ser-batch in", COMP_CWORD="1") == ["inspect"]
    assert completed("ser-batch featurize --preset t", COMP_CWORD="3") == ["telephone"]
    assert "--json" in completed("ser-batch score --js", COMP_CWORD="2")
    assert completed("ser-batch score --model re", COMP_CWORD="3")[0] == "research"


def test_output_is_plain_by_default():
    with click.Context(cli):
        assert Output.current() == Output()
    assert not any(dataclasses.astuple(Output()))
