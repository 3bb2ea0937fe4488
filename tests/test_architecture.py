"""The flow of the modules, and what each process loads: facts, not seconds."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ser_batch"
TABLE = re.findall(
    r"^\| `(\w+)` \|(.*)\|(.*)\|$", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
)
# a module imports only those above it
ORDER = [name for name, _, _ in TABLE]
HEAVY = ("numpy", "polars", "pyarrow", "scipy", "librosa", "joblib", "sklearn", "keras", "jax")
# a module is a file, or a folder of files
MODULES = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("[!_]*.py")})


def sources(module: str) -> list[Path]:
    """The files of a module."""
    return [*PACKAGE.glob(f"{module}.py"), *PACKAGE.glob(f"{module}/*.py")]


def imported_by(module: str) -> set[str]:
    """Every name a module imports from outside of itself, at its top or in a function."""
    names = set()
    for source in sources(module):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{source}: imports are absolute"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if not name.startswith(f"ser_batch.{module}.")}


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded after `code` ran in a new process."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split("\n"))


def test_the_table_lists_every_module_and_file():
    assert sorted(ORDER) == MODULES
    for name, _, files in TABLE:
        known = {path.stem for path in PACKAGE.glob(f"{name}/[!_]*.py")}
        assert set(re.findall(r"`(\w+)`", files)) == known, name


def test_no_files_import_each_other_in_a_circle():
    """Imports at the top of a file; inside functions they are lazy."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("[!_]*.py")}
    graph = {}
    for name, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
        named = {f"{node.module}.{alias.name}" for node in found for alias in node.names} | {n.module for n in found}
        graph[name] = named & set(files)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_those_above_it(module):
    own = {name.split(".")[1] for name in imported_by(module) if name.startswith("ser_batch.")}
    above = set(ORDER[: ORDER.index(module)])
    assert own - {"__version__"} <= above


def test_mfcc_needs_errors_and_config_only():
    own = {name.split(".")[1] for name in imported_by("mfcc") if name.startswith("ser_batch.")}
    assert own <= {"errors", "config"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"network"}))
def test_only_network_imports_keras_and_jax(module):
    assert not {name for name in imported_by(module) if name.split(".")[0] in {"keras", "jax"}}


def test_inference_needs_neither_keras_nor_jax():
    loaded = {name.split(".")[0] for name in loaded_by("import ser_batch.network.numpy_inference")}
    assert not loaded & {"keras", "jax", "sklearn"}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_pickled(module):
    names = {name.split(".")[0] for name in imported_by(module)}
    assert not names & {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    text = "".join(source.read_text(encoding="utf-8") for source in sources(module))
    assert "joblib.dump" not in text
    assert "joblib.load" not in text
    assert "allow_pickle=True" not in text


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments):
    code = f"from ser_batch.cli.commands import cli\ncli({arguments!r}, standalone_mode=False)"
    assert not {name.split(".")[0] for name in loaded_by(code)} & set(HEAVY)


MAKE_FEATURIZE_WORK = """
from ser_batch.config.features import PRESETS
from ser_batch.featurization import FeaturizeWork
work = FeaturizeWork(folder / "out", "d", PRESETS["wideband"], Segmentation())
"""
MAKE_SCORE_WORK = """
from ser_batch.model.folder import find_model
from ser_batch.scoring.worker import ScoreWork
model = find_model("research")
segmentation = Segmentation(mode="windows")
work = ScoreWork(folder / "out", model.folder, model.labels, model.model_id, segmentation)
"""


@pytest.mark.parametrize(
    ("make_work", "rate", "n_rows"),
    [pytest.param(MAKE_FEATURIZE_WORK, 48000, 1, id="featurize"), pytest.param(MAKE_SCORE_WORK, 8000, 2, id="score")],
)
def test_a_worker_stays_light(make_work, rate, n_rows, tmp_path):
    code = f"""
import pathlib
import numpy as np, soundfile
from ser_batch.config.segmentation import Segmentation
from ser_batch.corpus.walk import walk
from ser_batch.runs.ledger import Shard
from ser_batch.runs.worker import do_shard
folder = pathlib.Path({str(tmp_path)!r})
(folder / "audio").mkdir()
soundfile.write(folder / "audio" / "tone.wav", np.sin(np.arange(48000) / 20) / 2, {rate})
recordings = walk(folder / "audio").recordings
(folder / "out" / "_meta" / "ledger").mkdir(parents=True)
{make_work}
summary = do_shard(work, Shard("part-000001", recordings))
assert summary.n_rows == {n_rows} and summary.n_rejects == 0, summary
"""
    loaded = {name.split(".")[0] for name in loaded_by(code)}
    assert not loaded & {"keras", "jax", "sklearn", "librosa", "numba", "polars", "joblib", "rich"}


@pytest.mark.parametrize("module", ["api", "training.run"])
def test_keras_is_loaded_where_a_network_is_trained_only(module):
    loaded = {name.split(".")[0] for name in loaded_by(f"import ser_batch.{module}")}
    assert not loaded & {"keras", "jax", "sklearn", "librosa", "altair"}


@pytest.mark.parametrize("stage", ["featurization", "scoring.run"])
def test_the_first_process_leaves_computing_to_the_workers(stage):
    loaded = loaded_by(f"import ser_batch.{stage}")
    assert not {name.split(".")[0] for name in loaded} & {"scipy", "soundfile", "soxr", "polars", "sklearn", "joblib"}


def test_the_wheel_holds_the_package_only(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["ser_batch"]


def test_jobs_holds_toml_only(root):
    assert {path.suffix for path in (root / "jobs").iterdir()} == {".toml"}


def test_every_dependency_is_pinned(root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert {name.split(">=")[0].split("[")[0] for name in wanted} <= pinned
