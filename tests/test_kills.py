"""SIGKILL in the middle: the same command again gives the very tables of an undisturbed run.

One kill per stage, when part of its work is done, is part of the suite; `make torture` kills fifty times, at random.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ser_batch.config.options import FeaturizeOptions, ScoreOptions
from ser_batch.featurization import featurize
from ser_batch.model.folder import load_model
from ser_batch.scoring.run import score

PROGRAM = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
import quick_networks  # as small_model was trained
from ser_batch.cli.commands import main
main()
"""
KEY = ["path", "channel", "segment"]
MANY = 50

one_and_many = pytest.mark.parametrize(
    "n_kills", [pytest.param(1, id="one"), pytest.param(MANY, id="many", marks=pytest.mark.torture)]
)


def start(arguments):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def killed_once(arguments, when, *, first_process_only=False):
    """Kill the command as soon as something holds, then let it end."""
    process = start(arguments)
    while not when():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    kill(process, first_process_only=first_process_only)
    completed(arguments)


def kill(process, *, first_process_only):
    if first_process_only:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finished(folder):
    """Shards that are done, while others are not."""
    return list(folder.glob("_meta/ledger/part-*.json"))


def completed(arguments):
    """Run the command to its end; return its seconds."""
    started = time.monotonic()
    process = start(arguments)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    return time.monotonic() - started


def killed(arguments, out, *, n_kills, seconds, seed, first_process_only=False):
    """Kill the command so many times, each time somewhere in what it takes, then let it end.

    Where it ends before it is killed its output is removed, so that there is something to kill again.
    """
    generator = random.Random(seed)
    n_done = 0
    while n_done < n_kills:
        process = start(arguments)
        try:
            process.communicate(timeout=generator.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            kill(process, first_process_only=first_process_only)
            n_done += 1
        else:
            assert process.returncode == 0
            out.rename(out.with_name(f"{out.name}-{n_done}-{generator.random()}"))
    completed(arguments)


def hidden(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def features(folder):
    return pl.read_parquet(folder / "*.parquet").sort(*KEY, "variant")


@one_and_many
@pytest.mark.parametrize("first_process_only", [False, True], ids=["all", "first"])
def test_featurize_survives_kills(n_kills, first_process_only, small_corpus, tmp_path):
    audio = small_corpus if n_kills == MANY else small_corpus / "Actor_01"

    def arguments(out):
        return ["featurize", audio, "--out", out, "--jobs", 2, "--shard-size", 3, "--variants", "clean,noise10"]

    whole, out = tmp_path / "whole", tmp_path / "features"
    if n_kills == 1:
        featurize(audio, FeaturizeOptions(out=whole, jobs=1, variants="clean,noise10"))
        killed_once(arguments(out), lambda: finished(out), first_process_only=first_process_only)
    else:
        seconds = completed(arguments(whole))
        killed(arguments(out), out, n_kills=n_kills, seconds=seconds, seed=1, first_process_only=first_process_only)
    broken = features(out)
    assert not broken.select(*KEY, "variant").is_duplicated().any()
    assert_frame_equal(broken, features(whole))
    assert not hidden(out)


@one_and_many
def test_score_survives_kills(n_kills, small_corpus, small_model, tmp_path):
    audio = small_corpus if n_kills == MANY else small_corpus / "Actor_01"

    def arguments(out):
        return ["score", audio, "--out", out, "--model", small_model, "--jobs", 2, "--shard-size", 3]

    whole, out, parts = tmp_path / "whole.parquet", tmp_path / "preds.parquet", tmp_path / "preds.parts"
    if n_kills == 1:
        score(audio, ScoreOptions(out=whole, model=str(small_model), jobs=1))
        killed_once(arguments(out), lambda: finished(parts))
    else:
        seconds = completed(arguments(whole))
        killed(arguments(out), parts, n_kills=n_kills, seconds=seconds, seed=2)
    for table, key in (("", KEY), (".calls", KEY[:2]), (".report", ["label", "role"]), (".rejects", ["path"])):
        whole, broken = (pl.read_parquet(tmp_path / f"{name}{table}.parquet").sort(key) for name in ("whole", "preds"))
        assert_frame_equal(broken, whole)
    assert not hidden(tmp_path)


# test_checkpoints.py has trainings that are broken off in one process, and quick
@pytest.mark.parametrize(
    "n_kills",
    [pytest.param(1, id="one", marks=pytest.mark.slow), pytest.param(MANY, id="many", marks=pytest.mark.torture)],
)
def test_train_survives_kills(n_kills, small_features, small_model, tmp_path):
    arguments = ["train", small_features, "--out", tmp_path / "model", "--recipe", "published", "--epochs", 3]
    if n_kills == 1:
        # the network is kept, its figures are not there yet
        killed_once(arguments, lambda: any((tmp_path / ".model.unfinished").glob("*.npz")))
    else:
        seconds = completed([*arguments[:3], tmp_path / "whole", *arguments[4:]])
        killed(arguments, tmp_path / "model", n_kills=n_kills, seconds=seconds, seed=3)
        assert load_model(tmp_path / "whole").model_id == load_model(small_model).model_id
    whole, broken = load_model(small_model), load_model(tmp_path / "model")
    assert broken.model_id == whole.model_id
    assert broken.schema.metrics == whole.schema.metrics
    assert not hidden(tmp_path)
