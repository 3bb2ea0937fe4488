"""What surrounds a run: names of paths, the home folder, processes and threads of the user, streams, settings."""

import concurrent.futures
import contextlib
import inspect
import multiprocessing
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jinja2
import joblib.externals.loky
import polars as pl
import pytest
from click.testing import CliRunner

from ser_batch import featurize, score, train
from ser_batch.cli.commands import cli
from ser_batch.config.job import read_job
from ser_batch.config.options import FeaturizeOptions, ScoreOptions, TrainOptions
from ser_batch.errors import OutputError, UsageError
from ser_batch.storage.paths import local_path

# ---- paths are no patterns ----

# what shells, glob and format strings give a meaning to; as a pattern it matches no name that is used here
MARKS = "x[1]*?{a,b}%d"


def run(*arguments: Any) -> str:
    """Run a command; return what it prints."""
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(small_corpus, here):
    """Eight recordings in a folder whose name has marks of patterns."""
    folder = here / f"calls {MARKS}"
    folder.mkdir()
    for number, clip in enumerate(sorted(small_corpus.rglob("*.wav"))[::15]):
        shutil.copy(clip, folder / f"{MARKS} {number}.wav")
    return folder


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_training_takes_names_with_marks_of_patterns_for_names(suffix, small_features, here):
    shutil.copytree(small_features, MARKS)
    speakers = pl.read_parquet(small_features / "part-*.parquet", columns=["speaker"]).unique().sort("speaker")
    folds = speakers.with_columns(fold=pl.Series(["a", "b", "a", "b"]))
    (folds.write_csv if suffix == "csv" else folds.write_parquet)(f"{MARKS}.{suffix}")

    trained = train(MARKS, estimator="logistic", split=f"{MARKS}.{suffix}", out=f"model {MARKS}", progress=False)

    assert set(trained.predictions.collect()["fold"]) == {"a", "b"}
    assert trained.report.height
    assert f"model {trained.summary.model_id}" in run(
        "train", MARKS, "--estimator", "logistic", "--split", f"{MARKS}.{suffix}", "--out", f"model {MARKS}"
    )
    assert f"{MARKS}: features, 120 rows" in run("inspect", MARKS)
    assert f"model {MARKS}: model" in run("inspect", f"model {MARKS}")
    run("report", f"model {MARKS}", "--out", f"{MARKS}.html")
    assert (here / f"{MARKS}.html").read_bytes() == (trained.path / "report.html").read_bytes()


@pytest.mark.parametrize("out", [f"{MARKS}/preds.parquet", f"{MARKS} parts"])
def test_a_scoring_takes_names_with_marks_of_patterns_for_names(out, calls, small_model, here):
    shutil.copytree(small_model, f"model {MARKS}")
    paths = sorted(file.name for file in calls.iterdir())
    labels = here / f"labels {MARKS}.parquet"
    pl.DataFrame({"path": paths, "emotion": ["angry", "happy"] * 4}).write_parquet(labels)
    options = {"model": f"model {MARKS}", "labels": labels, "jobs": 1, "progress": False}

    scored = score(calls.name, out=out, **options)

    assert sorted(scored.calls["path"]) == paths
    assert sorted(scored.predictions.collect()["path"].unique()) == paths
    assert scored.report.height
    assert score(calls.name, out=out, **options).summary.n_up_to_date == 8
    assert f"{out}: predictions" in run("inspect", out)
    run("report", out, "--out", f"{MARKS}.html")
    run("plot", calls / paths[0], "--model", f"model {MARKS}", "--out", f"{MARKS}.svg")


def test_the_tables_and_page_are_of_this_run_where_its_name_matches_those_of_others(calls, small_model, here):
    others = here / "others"
    others.mkdir()
    for number in range(3):
        shutil.copy(min(calls.iterdir()), others / f"other_{number}.wav")
    options = {"model": small_model, "jobs": 1, "progress": False}
    score(others, out="s1/preds.parquet", **options)

    scored = score(calls, out="s*/preds.parquet", **options)

    assert scored.summary.n_calls == len(scored.calls) == 8
    assert scored.summary.labels["n_predicted"].sum() == scored.predictions.collect()["predicted"].is_not_null().sum()
    assert "other_" not in (here / "s*" / "preds.report.html").read_text()
    assert '"n_calls": 8' in run("score", calls, "--model", small_model, "--out", "s*/preds.parquet", "--json")


def test_featurize_takes_names_with_marks_of_patterns_for_names(calls, here):
    labels = here / f"{MARKS}.csv"
    pl.DataFrame({"path": [f"{MARKS} {n}.wav" for n in range(8)], "emotion": ["sad"] * 8}).write_csv(labels)
    job = here / f"{MARKS}.toml"
    job.write_text(f"[featurize]\naudio = '{calls.name}'\nlabels = '{labels.name}'\nout = '{MARKS}'\njobs = 1\n")

    assert "emotions: sad 8" in run("run", job.name)
    assert featurize(calls, labels=labels, out=MARKS, jobs=1, progress=False).features.collect().height == 8
    assert sorted(path.name for path in here.iterdir()) == [
        f"calls {MARKS}",
        MARKS,
        job.name and f"{MARKS}.csv",
        f"{MARKS}.toml",
    ]


@pytest.mark.parametrize("mark", ["*", "?", "["])
def test_an_output_in_a_store_is_no_pattern_either(mark, here):
    with pytest.raises(UsageError, match="expected an address without"):
        featurize("audio", out=f"s3://bucket/run{mark}", progress=False)


def test_ruff_refuses_every_reader_of_polars_that_takes_patterns(root):
    banned = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["flake8-tidy-imports"]
    readers = {
        f"polars.{name}"
        for name, function in inspect.getmembers(pl, inspect.isfunction)
        if name.startswith(("read_", "scan_")) and "glob" in inspect.signature(function).parameters
    }
    assert readers <= set(banned["banned-api"])


# ---- ~ is the home folder ----


@pytest.fixture
def home(here, monkeypatch):
    """A home folder that is empty, beside an empty working directory."""
    folder = here / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    (here / "work").mkdir()
    monkeypatch.chdir(here / "work")
    yield folder
    assert not list((here / "work").iterdir()), "nothing was for the working directory"


def test_every_path_of_every_command_is_expanded(small_corpus, small_model, home):
    (home / "folds.csv").write_text("speaker,fold\n" + "".join(f"ravdess-{n:02},{n % 2}\n" for n in range(1, 5)))
    clips = sorted(path.relative_to(small_corpus).as_posix() for path in small_corpus.rglob("*.wav"))
    (home / "labels.csv").write_text("path,emotion\n" + "".join(f"{clip},angry\n" for clip in clips[:60]))
    shutil.copytree(small_model, home / "network")
    run("synth", "~/audio")
    run("featurize", "~/audio", "--out=~/features", "--jobs=1", "--labels=~/labels.csv")
    run("train", "~/features", "--out=~/model", "--estimator=logistic", "--split=~/folds.csv")
    for out in ("preds.parquet", "parts"):
        run("score", "~/audio/Actor_01", "--model=~/model", f"--out=~/{out}", "--jobs=1")
    for source in ("model", "parts", "preds.parquet", "features"):
        run("inspect", f"~/{source}")
    run("report", "~/preds.parquet", "--out=~/report.html")
    run("plot", f"~/audio/{clips[0]}", "--out=~/plot.svg", "--model=~/network")
    (home / "job.toml").write_text("[synth]\nfolder = '~/more'\nactors = 1\n")
    run("run", "~/job.toml")

    assert {path.name for path in home.iterdir()} == {
        "audio", "features", "folds.csv", "job.toml", "labels.csv", "model", "more", "network", "parts", "plot.svg",
        "preds.calls.parquet", "preds.parquet", "preds.parts", "preds.quarters.parquet", "preds.rejects.parquet",
        "preds.report.html", "preds.report.parquet", "report.html",
    }  # fmt: skip


def test_every_path_of_a_job_and_of_set_is_expanded(small_corpus, home):
    shutil.copytree(small_corpus / "Actor_01", home / "audio")
    (home / "labels.csv").write_text("path,emotion\n" + "".join(f"{c.name},sad\n" for c in (home / "audio").iterdir()))
    (home / "job.toml").write_text(
        "[[featurize]]\naudio = '~/audio'\nout = '~/f'\njobs = 1\nlabels = '~/labels.csv'\n"
        "[train]\nfeatures = ['~/f']\nout = '~/m'\nsplit = '~/none.csv'\n"
        "[score]\naudio = '~/audio'\nmodel = '~/none'\nreference = '~/none.json'\n"
    )

    job = read_job(home / "job.toml", ("score.out=~/p.parquet", "train.init=~/none", "featurize.features=~/encoder"))

    (audio, made), (features, trained), (_, scored) = job.steps
    assert isinstance(made, FeaturizeOptions)
    assert isinstance(trained, TrainOptions)
    assert isinstance(scored, ScoreOptions)
    assert (audio, made.out, made.labels, made.features) == (
        home / "audio", home / "f", home / "labels.csv", str(home / "encoder"),
    )  # fmt: skip
    assert (features, trained.out) == ((home / "f",), home / "m")
    assert (trained.split, trained.init) == (str(home / "none.csv"), str(home / "none"))
    assert (scored.out, scored.model, scored.reference) == (
        home / "p.parquet", str(home / "none"), str(home / "none.json"),
    )  # fmt: skip


def test_paths_given_to_the_functions_are_expanded(small_corpus, home):
    shutil.copytree(small_corpus, home / "audio")

    made = featurize("~/audio", out=Path("~/features"), jobs=1, progress=False)
    trained = train("~/features", estimator="logistic", out="~/model", progress=False)
    scored = score(Path("~/audio/Actor_01"), model=Path("~/model"), out="~/preds.parquet", jobs=1, progress=False)

    assert (made.path, trained.path, scored.path) == (home / "features", home / "model", home / "preds.parquet")
    assert made.features.collect().height == 120
    assert scored.predictions.collect().height == 30


def test_a_name_that_begins_with_a_tilde_is_given_by_its_folder(home):
    me = pwd.getpwuid(os.getuid())
    assert local_path(f"~{me.pw_name}/x") == Path(me.pw_dir) / "x"
    assert local_path("./~") == Path.cwd() / "~"
    assert ScoreOptions(model="./~m").model == str(Path.cwd() / "~m")
    assert local_path("a/~/b~") == Path("a/~/b~")
    for path in ("~nobody-has-this-name/x", "~nobody-has-this-name"):
        with pytest.raises(UsageError, match=rf"{path}: no user .* write \./{path}"):
            featurize("audio", out=path, progress=False)


# ---- settings of Keras and JAX ----

VARIABLES = {
    "nothing": {},
    "Keras": {
        "KERAS_HOME": "keras", "KERAS_BACKEND": "tensorflow", "KERAS_MAX_EPOCHS": "1", "KERAS_NNX_ENABLED": "1",
        "KERAS_MAX_STEPS_PER_EPOCH": "1",
    },
    "JAX": {
        "JAX_ENABLE_X64": "1", "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16", "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_RANDOM_SEED_OFFSET": "3", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_DEFAULT_DTYPE_BITS": "32", "JAX_PLATFORMS": "cuda",
        "XLA_FLAGS": "--xla_cpu_enable_fast_math=true",
    },
    "nonsense": {"KERAS_MAX_EPOCHS": "many", "JAX_ENABLE_X64": "perhaps", "XLA_FLAGS": "--no-such-flag"},
}  # fmt: skip
SMALL = """
from ser_batch.network import architectures, keras_setup
layers = keras_setup.layers
def build(inputs, n_labels, prefix):
    mean = layers.Dropout(0.2)(layers.GlobalAveragePooling1D()(inputs))
    return layers.Dense(n_labels, activation="softmax", name=f"{prefix}probabilities")(mean)
architectures._BUILDERS["published"] = build
"""
TRAINING = """
import sys
from ser_batch import train
print(train(sys.argv[1], out=sys.argv[2], recipe="published", epochs=2, progress=False).summary.model_id)
"""
# settings of the user's own program, and whether it has them still when the training has ended
SETTINGS = """
import jax, keras
keras.config.set_floatx("float16")
keras.config.set_dtype_policy("mixed_float16")
keras.config.set_epsilon(0.01)
keras.config.set_image_data_format("channels_first")
keras.config.set_max_epochs(1)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_threefry_partitionable", False)
{training}
policy = keras.config.dtype_policy().name
assert (keras.config.floatx(), policy, keras.config.epsilon()) == ("float16", "mixed_float16", 0.01)
assert (keras.config.image_data_format(), keras.config.max_epochs()) == ("channels_first", 1)
assert jax.config.jax_enable_x64 and not jax.config.jax_threefry_partitionable
"""


def python(program: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program without the variables of Keras and JAX that tests have, beside what compiled networks are in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS_", "JAX_DIS", "XLA_"))}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("network", "names"),
    [
        pytest.param(SMALL, ("nothing", "JAX"), id="small"),
        pytest.param(SMALL, tuple(VARIABLES), id="small, all", marks=pytest.mark.slow),
        pytest.param("", tuple(VARIABLES), id="published", marks=pytest.mark.slow),
    ],
)
def test_settings_of_keras_and_jax_decide_nothing_and_stay_as_they_are(network, names, small_features, here):
    (here / "keras").mkdir()
    (here / "keras" / "keras.json").write_text(
        '{"floatx": "float16", "epsilon": 0.01, "backend": "tensorflow", "image_data_format": "channels_first"}'
    )
    training = network + TRAINING
    done = {name: python(training, small_features, name, **VARIABLES[name]) for name in names}
    variables = {"KERAS_BACKEND": "jax", "KERAS_MAX_STEPS_PER_EPOCH": "1", "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}
    done["program"] = python(SETTINGS.replace("{training}", training), small_features, "program", **variables)

    assert all(not one.returncode for one in done.values()), done
    assert len({one.stdout for one in done.values()}) == 1
    assert sorted(path.name for path in (here / "keras").iterdir()) == ["keras.json"]


@pytest.mark.parametrize(
    ("before", "variables", "said"),
    [
        (
            "import keras",
            {"KERAS_BACKEND": "numpy"},
            "Keras was imported with the backend numpy; train",
        ),
        pytest.param(
            "import jax",
            {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"},
            "XLA_FLAGS=--xla_cpu_enable_fast_math=true was set",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import jax",
            {"JAX_PLATFORMS": "cuda"},
            "JAX has been imported without a CPU (JAX_PLATFORMS=cuda: ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import jax; jax.enable_x64(True).__enter__()",
            {},
            "jax_enable_x64 of JAX is True here, by a context",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_be_set_any_more_is_refused_by_name(before, variables, said, small_features, here):
    done = python(f"{before}\n{TRAINING}", small_features, "model", **variables)

    assert f"ser_batch.errors.UsageError: {said}" in done.stderr
    assert not (here / "model").exists()


# ---- pages that cannot be made ----


def remade(warning: str) -> Path:
    """Run the command that a warning names; return the page."""
    program, *arguments = shlex.split(warning.partition("`")[2].removesuffix("`"))
    assert program == "ser-batch"
    run(*arguments)
    return Path(arguments[-1])


FAULTS = {
    "render_page": jinja2.TemplateError("the template is broken"),
    "read_frame": OSError("the disk is gone"),
    "write_text": OutputError("page: cannot be written (No space left on device)"),
}


@contextlib.contextmanager
def broken_pages(fault: str) -> Iterator[None]:
    """Let the pages of models and of predictions fail."""
    places = ["report.pages"] if fault == "write_text" else ["report.model_page", "report.calls_page"]
    with pytest.MonkeyPatch.context() as patch:
        for place in places:
            patch.setattr(f"ser_batch.{place}.{fault}", Mock(side_effect=FAULTS[fault]))
        yield


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_finished_stays_though_its_page_cannot_be_made(fault, small_features, calls, here):
    options: dict[str, Any] = {"out": "a model", "estimator": "logistic", "progress": False}
    scoring: dict[str, Any] = {"model": "a model", "jobs": 1, "progress": False}
    with broken_pages(fault):
        trained = train(small_features, **options)
        scored = [score(calls, out=out, **scoring) for out in ("preds.parquet", "a folder")]

    assert len(trained.predictions.collect())
    assert not Path("a model/report.html").exists()
    warning = trained.summary.warnings[-1]
    assert warning.startswith("a model/report.html: the page could not be made (")
    assert trained.summary.model_id in remade(warning).read_text()
    for one, page in zip(scored, ("preds.report.html", "a folder/_tables/report.html"), strict=True):
        assert (len(one.calls), one.summary.page, Path(page).exists()) == (8, None, False)
        warning = one.summary.warnings[-1]
        assert warning.startswith(f"{page}: the page could not be made (")
        assert remade(warning) == Path(page)


def test_the_same_command_makes_a_page_that_is_not_there(small_features, calls, here):
    options: dict[str, Any] = {"out": "model", "estimator": "logistic", "progress": False}
    scoring: dict[str, Any] = {"out": "preds.parquet", "model": "model", "jobs": 1, "progress": False}
    train(small_features, **options)
    Path("model/report.html").unlink()
    score(min(calls.iterdir()), **scoring | {"out": "other.parquet"})
    Path("other.report.html").rename("preds.report.html")  # of another run
    with broken_pages("render_page"):
        score(calls, **scoring)
    assert not Path("preds.report.html").exists()

    assert not train(small_features, **options).summary.is_new
    assert Path("model/report.html").is_file()
    again = score(calls, **scoring).summary
    assert (again.n_done, again.page) == (0, Path("preds.report.html"))
    assert Path("preds.report.html").is_file()


# ---- processes and threads of the user ----


def featurized(audio: Path, out: Path, jobs: int) -> tuple[int, bool, bool]:
    """Featurize; return the number of rows, whether signals are as before, and whether threads of a worker run."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    n_rows = featurize(audio, out=out, jobs=jobs, preset="telephone", progress=False).features.collect().height
    with pytest.raises(UsageError, match="no such folder"):
        score(audio / "nothing", out=out / "nothing", progress=False)
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    names = {thread.name for thread in threading.enumerate()}
    return (
        n_rows,
        before == after and not signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "ser-batch-parent-watch" in names,
    )


def in_process(daemon: bool, *arguments: Any) -> tuple[int, bool, bool]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        found = manager.list()
        process = context.Process(target=append, args=(found, *arguments), daemon=daemon)
        process.start()
        process.join(60)
        assert process.exitcode == 0, "it ends when its work is done, and does not wait for its workers"
        return found[0]


def append(found: list, *arguments: Any) -> None:
    found.append(featurized(*arguments))


def in_pool(*arguments: Any) -> tuple[int, bool, bool]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(featurized, arguments)


def in_executor(*arguments: Any) -> tuple[int, bool, bool]:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(featurized, *arguments).result()


def in_loky(*arguments: Any) -> tuple[int, bool, bool]:
    with joblib.externals.loky.ProcessPoolExecutor(1) as executor:
        return executor.submit(featurized, *arguments).result()


def in_thread(*arguments: Any) -> tuple[int, bool, bool]:
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(featurized, *arguments).result()


@pytest.mark.parametrize(
    ("somewhere", "jobs"),
    [
        (partial(in_process, False), 1),
        (partial(in_process, False), 2),
        (partial(in_process, True), 2),
        (in_pool, 2),
        (in_executor, 2),
        (in_loky, 2),
        (in_thread, 1),
        (in_thread, 2),
    ],
)
def test_a_stage_does_the_same_in_any_process_or_thread_of_the_user(somewhere, jobs, calls, here):
    started = time.monotonic()
    assert somewhere(calls, here / "out", jobs) == (8, True, False)
    assert time.monotonic() - started < 120  # idle workers wait for 300 s


def test_threads_of_the_user_do_not_disturb_each_other(calls, here):
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        done = [threads.submit(featurized, calls, here / f"out {number}", 1 + number % 2) for number in range(3)]
        assert [one.result() for one in done] == [(8, True, False)] * 3


def test_a_forked_process_works_unless_it_lacks_threads_that_it_would_wait_for(calls, here):
    program = """
import multiprocessing, sys
from ser_batch import featurize

def child(out):
    try:
        print(featurize(sys.argv[1], out=out, jobs=2, progress=False).features.collect().height, flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)

def fork(out):
    process = multiprocessing.get_context("fork").Process(target=child, args=[out])
    process.start()
    process.join(60)
    print("ended by", process.exitcode, flush=True)

fork("before")
child("here")
fork("after")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, calls], capture_output=True, text=True, timeout=200, check=True, cwd=here
    )

    first, *_, refusal, last = done.stdout.splitlines()
    assert [first, last] == ["8", "ended by 0"], done
    assert done.stdout.splitlines()[1:3] == ["ended by 0", "8"]
    assert refusal.startswith("UsageError this process was forked")


# ---- standard streams that are closed, full, or read no further ----

FULL = "cannot be written (No space left on device), so what was printed there is not complete; the work is done"


def shell(line: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a line of bash in which `ser-batch` is the command."""
    program = f'ser-batch() {{ "{sys.executable}" -m ser_batch "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=200, check=False, cwd=folder)


@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, "done: 8 recordings"),
        ("<&-", 0, "done: 8 recordings"),
        (">&- 2>&- <&-", 0, ""),
        (">/dev/full", 1, f"ser-batch: stdout {FULL}"),
        ("--verbose 2>/dev/full", 1, f"ser-batch: stderr {FULL}"),
        ("--json >/dev/full", 1, f"ser-batch: stdout {FULL}"),
        (">/dev/full 2>/dev/full", 1, ""),
        ("| head -1", 0, "out: 8 segments"),
        ("2>&1 | true", 1, ""),
    ],
)
def test_streams_that_are_closed_or_full_cost_no_work(streams, status, said, calls, here):
    done = shell(f"ser-batch featurize 'calls {MARKS}' --out out --preset telephone --jobs 2 {streams}", here)

    printed = done.stdout + done.stderr
    assert "internal error" not in printed
    assert "Traceback" not in printed
    assert said in printed
    assert done.returncode == status or "| " in streams
    parts = pl.read_parquet(here / "out" / "part-*.parquet", columns=["path", "mfcc"])
    assert sorted(parts["path"]) == sorted(path.name for path in calls.iterdir())
    assert (here / "out" / "_meta" / "rejects.parquet").is_file()


@pytest.mark.parametrize("words", ["--help", "--version", "score --help"])
def test_help_and_version_take_any_stream(words, here):
    assert shell(f"ser-batch {words} >&- 2>&- <&-", here).returncode == 0
    full = shell(f"ser-batch {words} >/dev/full", here)
    assert (full.returncode, full.stderr) == (1, f"ser-batch: stdout {FULL}\n")
    assert shell(f"ser-batch {words} | true", here).stderr == ""


def test_all_steps_of_a_job_are_done_where_what_they_print_is_lost(calls, small_model, here):
    audio = f"audio = 'calls {MARKS}'\njobs = 1\n"
    (here / "job.toml").write_text(f"[featurize]\n{audio}[score]\n{audio}model = '{small_model}'\nout = 'p.parquet'\n")

    done = shell("ser-batch run job.toml >/dev/full", here)

    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"ser-batch: stdout {FULL}")
    assert (here / "p.report.html").is_file()
    assert shell("ser-batch report p.parquet", here).returncode == 0


def test_an_error_keeps_its_status_where_it_cannot_be_told(here):
    assert shell("ser-batch featurize nothing 2>/dev/full", here).returncode == 2
    assert shell("ser-batch featurize nothing 2>&-", here).returncode == 2


def test_the_functions_work_without_standard_streams(calls, here):
    program = (
        "import sys; from ser_batch import featurize; "
        "made = featurize(sys.argv[1], out='out', jobs=2); sys.exit(made.features.collect().height)"
    )
    line = f'"{sys.executable}" -c "{program}" "calls {MARKS}"'
    for streams in (">&- 2>&- <&-", "2>/dev/full"):
        assert shell(f"{line} {streams}", here).returncode == 8, streams
        shutil.rmtree(here / "out")


def test_without_docstrings_only_charts_are_refused(small_corpus, tmp_path):
    """Python -OO removes them, and Altair needs them."""
    shutil.copytree(small_corpus / "Actor_01", tmp_path / "calls")

    def ran(*arguments):
        command = [sys.executable, "-OO", "-m", "ser_batch", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    scored, page = ran("score", "calls", "--model", "fast", "--jobs", "1"), ran("report", "preds.parquet")
    assert (scored.returncode, page.returncode) == (0, 0), scored.stderr + page.stderr
    assert "could not be made" not in scored.stderr  # the page of calls has no chart
    picture = ran("plot", str(next((tmp_path / "calls").iterdir())), "--model", "fast", "--out", "picture.svg")
    assert picture.returncode == 2
    assert "charts are drawn by Altair, which needs docstrings; run it without -OO" in picture.stderr
    assert "internal error" not in scored.stderr + page.stderr + picture.stderr
    assert "Traceback" not in scored.stderr + page.stderr + picture.stderr
