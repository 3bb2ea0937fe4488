"""The documents tell the truth: their commands and code run, their tables are those of the code."""

import dataclasses
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import make_docs
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.config.features import FeatureSpec
from ser_batch.config.job import read_job
from ser_batch.network.recipes import HEAD
from ser_batch.tables.schemas import (
    REJECTS,
    REPORT,
    calls_schema,
    features_schema,
    predictions_schema,
    regimes_schema,
)

ROOT = Path(__file__).parent.parent
LABELS = ("angry", "sad")


def commands(document: Path) -> list[list[str]]:
    """The lines after a $ in console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


def make_calls(corpus: Path) -> None:
    """Write two calls of made-up voices, the first one on two channels."""
    Path("calls").mkdir()
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(corpus.rglob("*.wav"))[:12]])[::2]
    soundfile.write("calls/call_1.wav", np.stack((voice, voice[::-1]), axis=1), 8000)
    soundfile.write("calls/call_2.wav", voice[::-1], 8000)


def run_commands(page: Path, *names: str, train: tuple[str, ...]) -> None:
    """Run the commands of a page in their order, trainings with more options."""
    ran = [line for line in commands(page) if line[0] == "ser-batch" and line[1] != "download"]
    assert tuple(line[1] for line in ran) == names
    for line in ran:
        result = CliRunner().invoke(cli, [*line[1:], *(train if line[1] == "train" else ())], catch_exceptions=False)
        assert result.exit_code == 0, f"{shlex.join(line)}: {result.output}"


@pytest.mark.usefixtures("small_networks")
def test_the_commands_and_the_code_of_the_readme_run_in_their_order(small_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_corpus, "audio")
    make_calls(small_corpus)
    page = ROOT / "README.md"
    run_commands(page, "featurize", "train", "score", train=("--epochs", "1", "--recipe", "published"))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_training_page_runs_as_it_stands_in_an_empty_folder_with_its_own_labels(
    small_corpus, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ser_batch.training.out_of_domain.SOUNDS_PER_KIND", 1)
    for module in ("heads", "run"):  # one of each kind compiles in half the time
        monkeypatch.setattr(f"ser_batch.training.{module}.HEAD", dataclasses.replace(HEAD, members=1))
    make_calls(small_corpus)
    page = ROOT / "docs" / "training.md"
    lines = re.findall(r"^    (path,.*|call_.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(lines) == 5
    Path("labels.csv").write_text("\n".join(lines))
    run_commands(page, "featurize", "train", "score", "train", train=("--epochs", "1"))


def test_the_tutorial_runs_from_its_second_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "tutorial.md"
    ran = [line for line in commands(page) if line[0] == "ser-batch" and line[1] != "--version"]
    assert [line[1] for line in ran] == ["synth", "score", "inspect", "score", "score"]
    for line in ran:
        shorter = {"synth": ["--calls", "10"], "score": ["--jobs", "1"]}.get(line[1], [])
        result = CliRunner().invoke(cli, [*line[1:], *shorter], catch_exceptions=False)
        assert result.exit_code == 0, f"{shlex.join(line)}: {result.output}"
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, "docs/tutorial.md", "exec"), names)
    assert len(names["ten"]) == 10
    assert names["ten"]["priority"].is_not_null().all()


def test_the_commands_and_queries_of_the_calls_page_run(small_corpus, small_model, tmp_path, monkeypatch):
    import duckdb

    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_model, "model")
    Path("calls").mkdir()
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:12]])[::2]
    for name, customer in (("early", voice[::-1]), ("late", np.roll(voice, len(voice) // 3))):
        soundfile.write(f"calls/{name}.wav", np.stack((voice, customer), axis=1), 8000)
    page = (ROOT / "docs" / "calls.md").read_text(encoding="utf-8")
    for line in commands(ROOT / "docs" / "calls.md"):
        result = CliRunner().invoke(cli, line[1:], catch_exceptions=False)
        assert result.exit_code == 0, f"{shlex.join(line)}: {result.output}"
    blocks = re.findall(r"```(python|sql)\n(.*?)```", page, flags=re.DOTALL)
    assert {kind for kind, _ in blocks} == {"python", "sql"}
    for kind, block in blocks:
        if kind == "sql":
            rows = duckdb.sql(block)
            assert rows is not None, block
            assert len(rows.fetchall()) == 2, "a row for each customer"
        else:
            exec(compile(block, "docs/calls.md", "exec"), {})


def commands_of_results() -> list[list[str]]:
    """The commands over the tables of docs/results.md, and those within its lines."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^    (ser-batch .*)$|`(ser-batch [^`]*)`", text, flags=re.MULTILINE)
    return [shlex.split(" ".join(pair), comments=True) for pair in found]


@pytest.mark.parametrize("line", commands_of_results(), ids=shlex.join)
def test_a_command_of_the_results_is_one_of_today_whatever_the_defaults(line):
    _, name, *arguments = line
    context = cli.commands[name].make_context(name, list(arguments))
    if name == "run":
        read_job(ROOT / context.params["job"], context.params["overrides"])
    if name == "train":
        assert {"--recipe", "--estimator"} & set(arguments), "another default would give other figures"


def test_each_table_of_the_results_names_its_commit():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    sections = re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]
    with_tables = [section for section in sections if "\n|---" in section]
    assert len(with_tables) > 12
    for section in with_tables:
        assert re.search(r"(?i:commits?)\s[0-9a-f]{7}\b", section), section.partition("\n")[0]


def test_the_python_of_the_results_page_uses_names_that_are_there():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), re.DOTALL)
    imports = [line for line in block.splitlines() if re.match("from|import", line)]
    assert len(imports) == 2
    exec("\n".join(imports), {})


def test_the_page_of_architecture_names_files_that_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:ser_batch|tests|docs)/[^`]*)`", page))
    assert len(paths) > 30
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_page_of_commands_is_that_of_the_code():
    assert make_docs.PAGE.read_text(encoding="utf-8") == make_docs.page(), "run `make docs`"


def documented(heading: str) -> list[tuple[str, str]]:
    """Names and dtypes of the table below a heading of docs/tables.md, patterns filled in."""
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    section = re.search(rf"^##+ {re.escape(heading)}.*?\n(.*?)(?=^##+ |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert section, heading
    columns = []
    rows = re.findall(r"^\| (`\S+`(?:, `\S+`)*) \| (\S+) \|", section[1], flags=re.MULTILINE)
    for name, dtype in [(name, dtype) for names, dtype in rows for name in re.findall("`(.*?)`", names)]:
        if "<quarter>" in name:
            filled = [name.replace("<quarter>", str(q)).replace("<label>", x) for q in (1, 2, 3, 4) for x in LABELS]
        else:
            filled = list(dict.fromkeys(re.sub("<(label|negative)>", label, name) for label in LABELS))
        columns += [(column, dtype) for column in filled]
    return columns


@pytest.mark.parametrize(
    ("heading", "schema"),
    [
        ("features/part-*.parquet", features_schema(FeatureSpec(), LABELS)),
        ("preds.parquet", predictions_schema(LABELS)),
        ("preds.calls.parquet", calls_schema(LABELS)),
        ("preds.report.parquet", REPORT),
        ("preds.rejects.parquet", REJECTS),
        ("regimes.parquet", regimes_schema(LABELS)),
    ],
)
def test_tables_md_lists_every_column_in_order(heading, schema):
    found = [(field.name, str(field.type).replace("element: ", "").replace("item: ", "")) for field in schema]
    assert documented(heading) == [(name, kind.replace(" ", "")) for name, kind in found]


@pytest.mark.parametrize("table", ["report", "summary", "reliability", "coverage", "confusion", "history"])
def test_tables_md_lists_every_column_of_the_tables_of_a_model(table, small_robust):
    schema = pq.read_schema(small_robust / f"{table}.parquet")
    assert documented(f"{table}.parquet") == [(field.name, str(field.type)) for field in schema]


def test_every_path_in_the_documents_is_there():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        text = document.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:tests|jobs|docs|ser_batch)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), f"{document.name} names {path}"
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_guarantee_is_held_by_a_test_that_is_there():
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| held by" not in line]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", row)
        assert named, row
        for file, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), row


@pytest.mark.usefixtures("small_networks")
def test_the_python_page_runs(small_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_corpus, "audio")
    Path("calls").mkdir()
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:6]])[::2]
    soundfile.write("calls/call_1.wav", np.stack((voice, voice[::-1]), axis=1), 8000)
    page = ROOT / "docs" / "python.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:  # each goes on from the one before
        exec(compile(block, "docs/python.md", "exec"), names)
    lines = commands(page)
    assert {line[1] for line in lines} == {"plot", "export"}
    for line in lines:
        result = CliRunner().invoke(cli, line[1:], catch_exceptions=False)
        if line[1] == "export" and 'pip install "ser-batch[onnx]"' in result.stderr:
            continue  # tests/test_export.py has what can be tried without the extra
        assert result.exit_code == 0, f"{shlex.join(line)}: {result.output}"


def test_the_manifests_of_the_scale_page_are_whole_and_their_commands_are_understood():
    yaml = pytest.importorskip("yaml", reason="the extra dask brings it")
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/scale.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    manifests = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text)}
    assert [kind for kind, _ in manifests] == ["Service", "Deployment", "Deployment", "Job"]
    containers = {
        name: one["spec"]["template"]["spec"]["containers"][0] for (_, name), one in manifests.items() if name != "dask"
    }
    program, command, *arguments = containers["score"]["command"]
    assert program == "ser-batch"
    context = cli.commands[command].make_context(command, arguments)
    assert context.params["backend"] == "dask"
    scheduler = manifests["Service", "dask"]
    assert context.params["scheduler"] == f"tcp://dask:{scheduler['spec']['ports'][0]['port']}"
    assert containers["dask-worker"]["command"][:3] == ["dask", "worker", context.params["scheduler"]]
    selected = manifests["Deployment", "dask-scheduler"]["spec"]["template"]["metadata"]["labels"]
    assert scheduler["spec"]["selector"] == selected
