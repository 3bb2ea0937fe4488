"""A training that is broken off goes on where it was, and ends with the very model of one that was not."""

import os
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ser_batch.config.options import TrainOptions
from ser_batch.errors import OutputError
from ser_batch.model.folder import load_model
from ser_batch.network.state import State
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.training import checkpoints
from ser_batch.training.checkpoints import Checkpoints
from ser_batch.training.run import train


class BrokenOffError(Exception):
    """What ends a training in the middle."""


def breaks_after(n_lines):
    """Progress that raises with its nth epoch, and keeps the lines of epochs."""
    lines = []

    def say(line):
        if "epoch" in line:
            lines.append(line)
        if "epoch" in line and len(lines) == n_lines:
            raise BrokenOffError

    return say, lines


def run(features, options, break_after):
    """Train, broken off after so many epochs in all each time; return the numbers of epochs that each call trained."""
    counts = []
    for n_lines in [*break_after, None]:
        say, lines = breaks_after(n_lines)
        try:
            train([features], options, say=say)
        except BrokenOffError:
            assert n_lines is not None
            assert not options.out.exists()
        counts.append(len(lines))
    return counts


@pytest.fixture(autouse=True)
def kept_at_once(monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 0.0)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_network_with_dropout_ends_the_same_to_the_bit(small_features, small_model, tmp_path):
    options = TrainOptions(out=tmp_path / "model", recipe="published", epochs=3)
    # the epoch in which it broke off is done again
    assert run(small_features, options, [2]) == [2, 2]
    assert load_model(tmp_path / "model").model_id == load_model(small_model).model_id
    assert_frame_equal(
        pl.read_parquet(tmp_path / "model" / "history.parquet"), pl.read_parquet(small_model / "history.parquet")
    )
    assert not leftovers(tmp_path)


MEMBERS_AND_FOLDS: dict[str, Any] = {
    "recipe": "robust", "epochs": 3, "split": "speaker:2", "baselines": "published", "train_variants": "clean",
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(small_variants, smaller, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    with smaller():
        train([small_variants], TrainOptions(out=out, **MEMBERS_AND_FOLDS), say=lambda line: None)
    return out


# in a first member, in a second one, in another fold; and again and again
BREAKS = [
    pytest.param([1], marks=pytest.mark.slow), [5], pytest.param([7], marks=pytest.mark.slow), [3, 4, 5],
    pytest.param([1, 1, 1], marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("break_after", BREAKS, ids=str)
def test_members_and_folds_go_on_where_they_were(break_after, undisturbed, small_variants, tmp_path):
    out = tmp_path / "model"
    counts = run(small_variants, TrainOptions(out=out, **MEMBERS_AND_FOLDS), break_after)
    n_epochs = 2 * 2 * 3 + 2 * 3 + 2 * 3  # two folds of two members, their baseline, the model itself
    assert sum(counts) == n_epochs + len(break_after)
    whole, broken = (load_model(folder) for folder in (undisturbed, out))
    assert whole.model_id == broken.model_id
    assert whole.schema.metrics == broken.schema.metrics
    for table in ("predictions", "summary", "history"):
        assert_frame_equal(*(pl.read_parquet(folder / f"{table}.parquet") for folder in (undisturbed, out)))
    assert not leftovers(tmp_path)


@pytest.mark.usefixtures("small_networks")
def test_a_second_training_into_a_folder_is_refused_and_leftovers_removed(small_variants, tmp_path):
    options = TrainOptions(out=tmp_path / "model", recipe="published", epochs=1, split="speaker")
    leftover = tmp_path / f".model{TEMPORARY_MARK}1-abcd"
    leftover.mkdir()
    refused = []

    def say(line):
        with pytest.raises(
            OutputError, match=rf"model: another run is writing there: process {os.getpid()} on "
        ) as told:
            train([small_variants], options, say=lambda line: None)
        refused.append(told)

    train([small_variants], options, say=say)
    assert len(refused) == 3, "compiling, training, an epoch"
    assert not leftovers(tmp_path)


@pytest.mark.usefixtures("small_networks")
def test_another_training_into_the_same_place_begins_anew(small_variants, tmp_path):
    def options(seed):
        return TrainOptions(out=tmp_path / "model", recipe="published", epochs=3, seed=seed, split="speaker")

    with pytest.raises(BrokenOffError):
        train([small_variants], options(0), say=breaks_after(3)[0])
    assert leftovers(tmp_path) == [".model.unfinished"]
    lines: list[str] = []
    train([small_variants], options(1), say=lines.append)
    assert lines[0].endswith("model: the training that was begun there is not gone on with, seed was 0 and is 1")
    assert sum("epoch" in line for line in lines[1:]) == 3


def test_what_other_versions_began_is_begun_anew_and_told(tmp_path):
    told: list[str] = []
    resume_from = Checkpoints(tmp_path / "model", {"a": 1}, told.append)
    resume_from.prepare()
    settings = resume_from.folder / "training.json"
    settings.write_text(settings.read_text().replace('"numpy":"', '"numpy":"0.'))

    Checkpoints(tmp_path / "model", {"a": 1}, told.append)

    version = np.__version__
    assert told == [
        f"{tmp_path / 'model'}: the training that was begun there is not gone on with, "
        f"numpy was 0.{version} and is {version}"
    ]
    assert not resume_from.folder.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"versions": 1}'])
def test_what_cannot_be_read_is_begun_anew(text, tmp_path):
    told: list[str] = []
    (tmp_path / ".model.unfinished").mkdir()
    (tmp_path / ".model.unfinished" / "training.json").write_text(text)
    Checkpoints(tmp_path / "model", {"a": 1}, told.append)
    assert told == [
        f"{tmp_path / 'model'}: the training that was begun there is not gone on with, as it cannot be read"
    ]
    assert not leftovers(tmp_path)


def test_what_was_kept_is_read_back_and_what_is_broken_is_not(tmp_path):
    place = Checkpoints(tmp_path / "model", {"a": 1}, print).of("robust", False, None, 0, 1)
    assert place.load() is None
    arrays = [np.arange(3, dtype=np.float32), np.array(7, dtype=np.uint32)]
    place.keep(lambda: State(4, arrays), [{"epoch": 4, "loss": 0.1, "fold": None}], is_last=False)
    kept = Checkpoints(tmp_path / "model", {"a": 1}, print).of("robust", False, None, 0, 1).load()
    assert kept is not None
    assert kept.state.epoch == 4
    assert kept.history == [{"epoch": 4, "loss": 0.1, "fold": None}]
    for array, expected in zip(kept.state.arrays, arrays, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert Checkpoints(tmp_path / "model", {"a": 1}, print).of("robust", False, "fold", 0, 1).load() is None
    (file,) = (tmp_path / ".model.unfinished").glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert place.load() is None
    Checkpoints(tmp_path / "model", {"a": 2}, print)
    assert not file.exists()


def test_networks_are_kept_now_and_then_and_always_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN", 1000.0)
    place = Checkpoints(tmp_path / "model", {}, print).of("robust")
    asked = []

    def state():
        asked.append(1)
        return State(1, [])

    place.keep(state, [], is_last=False)
    assert not asked
    place.keep(state, [], is_last=True)
    assert asked
    assert place.load() is not None
