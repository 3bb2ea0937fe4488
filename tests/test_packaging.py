"""Distributions: the models and encoders that they bring, what the wheels hold, and where an installation runs."""

import shutil
from pathlib import Path

import pytest
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


def test_another_distribution_may_bring_a_model(site, small_model):
    shutil.copytree(small_model, site / "acme_model" / "calls")
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


def test_a_distribution_cannot_put_its_model_in_place_of_another_one(site, small_model):
    shutil.copytree(small_model, site / "acme_model")
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
