"""The functions of the library: what they take, what they give, and that they are there whatever was imported."""

import pickle
import shutil
import subprocess
import sys
from typing import Any

import cloudpickle
import msgspec
import numpy as np
import polars as pl
import pytest
import soundfile

import ser_batch
from ser_batch import featurize, score, train
from ser_batch.errors import InputError, UsageError


@pytest.fixture(scope="module")
def three(small_corpus, smaller, tmp_path_factory):
    """What the three functions gave, one after the other."""
    folder = tmp_path_factory.mktemp("library")
    features = featurize(str(small_corpus), out=folder / "features", jobs=1, progress=False)
    with smaller():
        model = train(features.path, out=str(folder / "model"), recipe="published", epochs=1, progress=False)
    audio = folder / "calls"
    audio.mkdir()
    first = next(small_corpus.rglob("*.wav"))
    soundfile.write(audio / "a.wav", np.tile(soundfile.read(first)[0], 4), soundfile.info(first).samplerate)
    (audio / "broken.wav").write_bytes(b"RIFF")
    return features, model, score(audio, out=folder / "preds.parquet", model=model.path, jobs=1, progress=False)


def test_frames_come_back(three):
    features, model, scored = three
    assert isinstance(features.features, pl.LazyFrame)
    table = features.features.select("emotion", "mfcc").collect()
    assert len(table) == features.summary.n_segments == 120
    assert table["mfcc"].to_numpy().shape == (120, 174, 40)
    assert features.rejects.is_empty()
    assert (features.path / "spec.json").is_file()
    assert set(model.report["label"]) >= {"angry", "accuracy"}
    assert len(model.predictions.collect()) == model.summary.n_test > 0
    assert model.history["epoch"].max() == 1
    assert model.metrics["uar"] == model.summary.metrics["uar"]
    segments = scored.predictions.collect()
    assert len(segments) == scored.summary.n_segments > 1
    assert set(segments["model_id"]) == {model.summary.model_id}
    assert scored.calls["path"].to_list() == ["a.wav"]
    assert scored.rejects["path"].to_list() == ["broken.wav"]
    assert scored.report.equals(scored.summary.labels)


def test_frames_come_back_from_folders_whose_names_are_patterns(three, tmp_path):
    folder = tmp_path / "calls [1-9]"
    shutil.copytree(three[2].path.parent, folder)
    features, model, scored = (
        type(one)(msgspec.structs.replace(one.summary, out=folder / one.path.name)) for one in three
    )
    assert len(features.features.select("path").collect()) == 120
    assert features.rejects.is_empty()
    assert model.report.equals(three[1].report)
    assert len(scored.predictions.collect()) == scored.summary.n_segments
    assert scored.calls.equals(three[2].calls)


def test_a_folder_of_parts_is_one_frame(three, tmp_path):
    _, model, scored = three
    parts = score(scored.path.parent / "calls", out=tmp_path / "parts", model=model.path, jobs=1, progress=False)
    assert parts.predictions.collect().equals(scored.predictions.collect())
    assert parts.calls.equals(scored.calls)


def test_a_model_that_holds_nothing_out_has_empty_frames(three, tmp_path):
    features, _, _ = three
    model = train([features.path], out=tmp_path / "model", estimator="logistic", split="none", progress=False)
    assert model.report.is_empty()
    assert model.predictions.collect().is_empty()
    assert model.metrics == {}


def test_strict_raises_and_keeps_what_could_be_done(three):
    _, model, scored = three
    audio = scored.path.parent / "calls"
    with pytest.raises(InputError, match=r"1 recordings were rejected, the first one: .*broken\.wav"):
        score(audio, out=scored.path, model=model.path, jobs=1, strict=True, progress=False)
    assert len(scored.predictions.collect()) == scored.summary.n_segments


@pytest.mark.usefixtures("small_networks")
def test_progress_is_shown_where_it_is_wanted(small_features, tmp_path, capsys):
    options: dict[str, Any] = {"recipe": "published", "epochs": 1}
    train(small_features, out=tmp_path / "quiet", progress=False, **options)
    assert capsys.readouterr().err == ""
    train(small_features, out=tmp_path / "loud", **options)
    assert "epoch" in capsys.readouterr().err


def test_options_are_checked(tmp_path):
    with pytest.raises(UsageError, match="--jobs 0"):
        featurize(tmp_path, jobs=0)
    with pytest.raises(TypeError, match="preseet"):
        featurize(tmp_path, preseet="telephone")  # type: ignore[call-arg]  # wrong on purpose


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import ser_batch.featurization",
        "import ser_batch.cli.commands",
        "from ser_batch.scoring.run import score as other",
    ],
)
def test_stages_are_functions_whatever_was_imported_before(before):
    code = f"""
{before}
import ser_batch
from ser_batch import featurize, score, train
assert all(map(callable, (featurize, score, train, ser_batch.featurize, ser_batch.score, ser_batch.train)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_importing_the_package_loads_nothing_and_names_the_stages():
    code = """
import sys, ser_batch
heavy = {"numpy", "polars", "pyarrow", "scipy", "keras", "jax", "sklearn", "inspect"} & set(sys.modules)
assert not heavy, heavy
assert not any(name.startswith("ser_batch.") for name in sys.modules)
assert {"featurize", "train", "score", "__version__"} <= set(dir(ser_batch))
try:
    ser_batch.transcribe
except AttributeError as error:
    assert "transcribe" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert set(ser_batch.__all__) == {"__version__", "featurize", "score", "train"}


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_stage_travels_to_other_processes(pickler):
    assert pickle.loads(pickler.dumps(featurize)) is featurize
