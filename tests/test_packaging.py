"""Distributions: the models and encoders that they bring, what the wheels hold, and where an installation runs."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.encoder.model import find_encoder
from ser_batch.errors import EncoderError, ModelError, UsageError
from ser_batch.inspection import inspect
from ser_batch.model.folder import find_model
from ser_batch.storage.installed import INSTALLED_ENCODERS, INSTALLED_MODELS

# ---- models and encoders of other distributions ----


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that Python imports from."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, name: str, group: str = "ser_batch.models", **entries: str) -> None:
    """Put what pip writes of a distribution into `site`: its name and its entry points."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"{entry} = {package}" for entry, package in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]), encoding="utf-8")


def uninstall_research(site: Path) -> None:
    """Hide the distribution of the model `research` behind one that declares nothing."""
    install(site, "ser-batch-research")


def test_another_distribution_may_bring_a_model(site):
    shutil.copytree(INSTALLED_MODELS["fast"], site / "acme_model" / "calls")
    install(site, "acme-model", acme="acme_model.calls")
    assert find_model("acme").folder == INSTALLED_MODELS["acme"] == site / "acme_model" / "calls"
    assert INSTALLED_MODELS.name_of(site / "acme_model" / "calls") == "acme"
    assert list(INSTALLED_MODELS) == ["acme", "fast", "open", "research"]
    assert len(INSTALLED_MODELS) == 4


def test_another_distribution_may_bring_an_encoder(site):
    shutil.copytree(INSTALLED_ENCODERS["whisper-tiny.en"], site / "acme_encoder")
    (site / "acme_encoder" / "__init__.py").touch()
    install(site, "acme-encoder", "ser_batch.encoders", **{"whisper-acme": "acme_encoder"})
    assert find_encoder("whisper-acme") == site / "acme_encoder"


@pytest.mark.parametrize(
    ("package", "what"),
    [
        ("no_such_package", "is not there"),
        ("no_such_package.inside", r"cannot be imported \(ModuleNotFoundError"),
        ("json.decoder", "is not there"),  # a module, which has no folder
        ("json", r"has no model\.json"),
        ("raises.inside", r"cannot be imported \(ZeroDivisionError"),
        ("..", "cannot be imported"),
        ("/etc", "is not there"),
    ],
)
def test_a_broken_distribution_is_named_by_who_asks_for_it_alone(site, package, what):
    (site / "raises").mkdir()
    (site / "raises" / "__init__.py").write_text("1 / 0", encoding="utf-8")
    install(site, "acme-model", acme=package)
    with pytest.raises(ModelError, match=rf"^model acme: acme-model names the package .* which {what}.*; reinstall"):
        find_model("acme")
    assert find_model("open").folder.name == "open"
    assert INSTALLED_MODELS.name_of(site) is None


def test_a_distribution_cannot_put_its_model_in_place_of_another_one(site):
    shutil.copytree(INSTALLED_MODELS["fast"], site / "acme_model")
    install(site, "acme-model", open="acme_model")
    for name in ("open", None):
        with pytest.raises(ModelError, match=r"^model open: acme-model and ser-batch declare one each; uninstall"):
            find_model(name)
    assert find_model("fast").folder.name == "fast"


def test_a_broken_encoder_is_an_error_of_encoders(site):
    install(site, "acme-encoder", "ser_batch.encoders", acme="no_such_package")
    with pytest.raises(EncoderError, match=r"^encoder acme: acme-encoder names the package no_such"):
        find_encoder("acme")


def test_a_model_of_ours_that_is_not_installed_is_named_with_its_distribution(site, tmp_path, monkeypatch):
    uninstall_research(site)
    monkeypatch.chdir(tmp_path)
    expected = "the model research is not installed; pip install ser-batch-research"
    done = CliRunner().invoke(cli, ["score", ".", "--model", "research"])
    assert done.exit_code == 2
    assert f"--model research: {expected}" in done.stderr
    with pytest.raises(UsageError, match=f"^research: {expected}$"):
        inspect(Path("research"))
    with pytest.raises(UsageError, match=r"--model reserch: no such folder; .* fast, open; did you mean research"):
        find_model("reserch")


# ---- wheels ----

NOT_COMMERCIAL = re.compile(r"not for commercial use|\bNC\b", re.IGNORECASE)
TIMEOUT_S = 600


def done(*command: Any, status: int = 0, **settings: Any) -> str:
    """Run a program; return what it prints."""
    words = [*map(str, command)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, **settings)
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def distributions(root, once) -> Path:
    """What `make wheels` leaves in dist/."""

    def make(folder: Path) -> None:
        for project in (root, root / "packages" / "research"):
            done(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=project)

    return once("distributions", make)


def wheel_of(distributions: Path, name: str) -> Path:
    (wheel,) = distributions.glob(f"{name}-*.whl")
    return wheel


@pytest.fixture
def environment(tmp_path, root) -> Iterator[Path]:
    """A virtual environment that holds nothing, and is removed after the test: it grows to more than 1 GB."""
    folder = tmp_path / "environment"
    done(sys.executable, "-m", "venv", folder)
    yield folder
    shutil.rmtree(folder)


def install_into(environment: Path, constraints: Path, *wheels: Path) -> None:
    done(environment / "bin" / "pip", "install", "--quiet", "-c", constraints, *wheels)


@pytest.fixture
def surroundings() -> dict[str, str]:
    """The environment of a user who has no checkout."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "KERAS_BACKEND", "CI"}}


def test_no_model_in_the_package_forbids_commercial_use(root):
    found = {
        path.parent.name: json.loads(path.read_bytes())["license"] for path in root.glob("ser_batch/**/model.json")
    }
    assert found.keys() == {"fast", "open"}
    assert not [name for name, license in found.items() if NOT_COMMERCIAL.search(license)]


@pytest.mark.slow
def test_the_wheel_and_sdist_hold_nothing_that_forbids_commercial_use(distributions):
    with zipfile.ZipFile(wheel_of(distributions, "ser_batch")) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist()}
    assert not [name for name in held if "research" in name]
    (metadata,) = (
        email.message_from_bytes(text) for name, text in held.items() if name.endswith(".dist-info/METADATA")
    )
    assert not NOT_COMMERCIAL.search(metadata["License-Expression"].replace("-", " "))
    (sdist,) = distributions.glob("ser_batch-*.tar.gz")
    with tarfile.open(sdist) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert "ser_batch_research" not in member.name
            if stream is not None:
                held[member.name] = stream.read()
    models = [json.loads(text)["license"] for name, text in held.items() if name.endswith("/model.json")]
    assert len(models) == 4  # two, twice
    assert not [license for license in models if NOT_COMMERCIAL.search(license)]


@pytest.mark.slow
def test_the_wheel_of_research_says_its_terms(distributions):
    with zipfile.ZipFile(wheel_of(distributions, "ser_batch_research")) as wheel:
        held = {name: wheel.read(name).decode() for name in wheel.namelist() if not name.endswith(".keras")}
    (metadata,) = (email.message_from_string(text) for name, text in held.items() if name.endswith("/METADATA"))
    assert "CC-BY-NC-SA-4.0" in metadata["License-Expression"]
    (text,) = (text for name, text in held.items() if name.endswith("/LICENSE"))
    assert "Attribution-NonCommercial-ShareAlike 4.0 International Public License" in text


@pytest.fixture
def calls(tmp_path) -> Path:
    """Two recordings of buzzing in bursts."""
    folder = tmp_path / "calls"
    folder.mkdir()
    times_s = np.arange(8 * 8000) / 8000
    for number in range(2):
        hertz = 120 + 40 * number
        voice = sum(np.sin(2 * np.pi * hertz * k * times_s) / k for k in range(1, 15)) * (np.sin(6 * times_s) > 0)
        soundfile.write(folder / f"call_{number}.wav", 0.1 * voice, 8000)
    return folder


# ---- where an installation runs ----


def instructions_of(containerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Containerfile with what they are given, lines that go on joined."""
    lines = re.sub(r"^#.*\n", "", containerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    joined = lines.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined if line.strip())]


def test_the_image_runs_the_command_as_a_user_without_rights_and_holds_no_secret(root):
    instructions = instructions_of(root / "Containerfile")
    assert instructions[0] == ("FROM", "docker.io/library/python:3.12-slim")
    last = dict(instructions)
    assert last["USER"] == "10001:10001"
    assert json.loads(last["ENTRYPOINT"]) == ["ser-batch"]
    words = [word for word, _ in instructions]
    assert words.index("RUN") < words.index("USER"), "it is installed by root, so that its user cannot change it"
    assert "ADD" not in words
    assert [rest.split()[:-1] for word, rest in instructions if word == "COPY"] == [
        ["constraints.txt", "dist/ser_batch-*.whl"]
    ]
    text = (root / "Containerfile").read_text(encoding="utf-8")
    assert not re.search(r"password|token|secret|api_?key|credential", text, re.IGNORECASE)
    assert (root / ".dockerignore").read_text(encoding="utf-8").splitlines() == [
        "*", "!constraints.txt", "!dist/ser_batch-*.whl"
    ]  # fmt: skip


# As `podman run --network none --read-only --tmpfs /tmp` has it. $1 may be written to and $2 is the temporary folder,
# both in the working folder; the rest is the command.
SANDBOX = """
set -e
mount --bind "$PWD" "$PWD"
mount --bind "$1" "$1"
mount -t tmpfs tmpfs "$2"
mount -o remount,bind,ro "$PWD"
mount -o remount,bind,ro /
cd "$PWD"
shift 2
if touch "$PWD/written" 2>/dev/null; then exit 99; fi
exec unshare --user --map-user=10001 --map-group=10001 env -i "$@"
"""


def sandboxed(folder: Path, *command: Any) -> list[Any]:
    """The command in a sandbox that writes to folder/scored alone."""
    for name in ("scored", "temporary"):
        (folder / name).mkdir(exist_ok=True)
    return ["unshare", "-rmn", "bash", "-c", SANDBOX, "sandbox", folder / "scored", folder / "temporary", *command]


def can_sandbox(folder: Path) -> bool:
    """Whether this user may make one here."""
    command = sandboxed(folder, "true")
    return bool(shutil.which("unshare")) and not subprocess.run(command, cwd=folder, check=False).returncode


@pytest.mark.slow
def test_the_wheel_alone_scores_also_without_network_and_writable_disk(
    distributions, environment, calls, surroundings, root, tmp_path
):
    install_into(environment, root / "constraints.txt", wheel_of(distributions, "ser_batch"))
    program = environment / "bin" / "ser-batch"
    plain: dict[str, Any] = {"cwd": tmp_path, "env": surroundings}
    assert "done: 2 recordings" in done(program, "score", calls, "--out", "preds.parquet", **plain)
    done(program, "plot", calls / "call_0.wav", **plain)
    refused = done(program, "plot", calls / "call_0.wav", "--out", "a.png", status=2, **plain)
    assert 'pip install "ser-batch[plots]"' in refused
    refused = done(program, "score", calls, "--model", "research", status=2, **plain)
    assert "the model research is not installed; pip install ser-batch-research" in refused

    if can_sandbox(tmp_path):
        temporary = f"TMPDIR={tmp_path / 'temporary'}"
        of_image = dict(instructions_of(root / "Containerfile"))["ENV"].replace("/tmp", f"{tmp_path / 'temporary'}")
        for name, home in (("a", of_image), ("b", "HOME=/nonexistent")):
            out = tmp_path / "scored" / f"{name}.parquet"
            said = done(*sandboxed(tmp_path, home, temporary, program, "score", calls, "--out", out), cwd=tmp_path)
            assert "done: 2 recordings" in said
            assert pl.read_parquet(out).equals(pl.read_parquet(tmp_path / "preds.parquet"))

    install_into(environment, root / "constraints.txt", wheel_of(distributions, "ser_batch_research"))
    assert "not for commercial use" in done(program, "inspect", "research", **plain)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="lower bounds are those of the oldest Python")
def test_the_lowest_versions_that_the_bounds_allow_work(distributions, environment, surroundings, root, tmp_path):
    wanted = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lowest = [re.sub(r">=([\w.]+).*", r"==\1", requirement) for requirement in wanted]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in lowest), lowest
    (tmp_path / "lowest.txt").write_text("\n".join(lowest), encoding="utf-8")
    install_into(environment, tmp_path / "lowest.txt", wheel_of(distributions, "ser_batch"))
    program = environment / "bin" / "ser-batch"
    plain: dict[str, Any] = {"cwd": tmp_path, "env": surroundings}
    done(program, "synth", "audio", "--actors", "1", **plain)
    for model in ("open", "fast"):
        assert "60 recordings" in done(
            program, "score", "audio", "--model", model, "--out", f"{model}.parquet", **plain
        )
    assert "60 recordings" in done(program, "featurize", "audio", "--verify", "2", **plain)
