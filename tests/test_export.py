"""ONNX files: what they say of themselves, that they compute what score does, and what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.config.options import TrainOptions
from ser_batch.errors import ModelError, SerBatchError
from ser_batch.model import export
from ser_batch.model.folder import find_model, load_model
from ser_batch.network.cmvn import FrameStats
from ser_batch.tables.features import load_features
from ser_batch.training.run import train


def exported(model, out):
    """The file that the command makes of a model, opened by onnxruntime; skips without the extra."""
    for package in export._PACKAGES:
        pytest.importorskip(package, reason='needs pip install "ser-batch[onnx]"')
    import onnxruntime

    result = CliRunner().invoke(cli, ["export", str(model), "--format", "onnx", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "largest difference from score" in result.stdout
    return onnxruntime.InferenceSession(out), result.stdout


@pytest.fixture(scope="module")
def open_graph(tmp_path_factory):
    return exported("fast", tmp_path_factory.mktemp("onnx") / "open.onnx")


@pytest.fixture(scope="module")
def segments(small_variants):
    """MFCCs of telephone features, and their numbers of frames."""
    data = load_features((small_variants,))
    return np.asarray(data.mfcc[np.arange(64)]), data.rows["n_frames"].to_numpy()[:64].astype(np.int64)


def test_a_model_normalized_by_voice_takes_the_voice(open_graph, segments):
    session, said = open_graph
    mfcc, n_frames = segments
    model = find_model("fast")
    stats = FrameStats.of(mfcc, n_frames, model.spec.n_mels)
    mean, variance = stats.moments()
    fed = {
        "mfcc": mfcc,
        "n_frames": n_frames.astype(np.int32),
        "voice_mean": mean.astype(np.float32),
        "voice_scale": np.sqrt(variance).astype(np.float32),
        "voice_frames": stats.n_frames.astype(np.float32),
    }
    assert [tensor.name for tensor in session.get_inputs()] == list(fed)
    assert "inputs: mfcc (n, 174, 40), n_frames (n), voice_mean (n, 40)" in said
    assert "ODbL" in said
    predict = model.predictor()
    (own,) = session.run(None, fed)
    assert np.abs(own - predict(mfcc, n_frames, stats)).max() < 1e-4
    # nothing heard: the scaler of what was trained on, whatever the mean and scale are
    (unheard,) = session.run(None, fed | {"voice_frames": np.zeros(len(mfcc), dtype=np.float32)})
    assert np.abs(unheard - predict(mfcc, n_frames)).max() < 1e-4
    assert np.abs(unheard - own).max() > 1e-3


def test_the_file_says_what_it_is(open_graph):
    session, _ = open_graph
    values = session.get_modelmeta().custom_metadata_map
    model = find_model("fast")
    assert json.loads(values["labels"]) == list(model.labels)
    assert values["model_id"] == model.model_id
    assert values["license"] == model.schema.license
    assert values["feature_spec_hash"] == model.spec.digest()
    assert json.loads(values["feature_spec"]) == model.spec.to_dict()
    assert values["normalize"] == "speaker"
    assert {"ser-batch", "jax2onnx", "onnx", "onnxruntime"} <= json.loads(values["versions"]).keys()


@pytest.mark.usefixtures("small_networks")  # the graph is made of the network built anew, which has to be as small
def test_a_model_that_is_not_normalized_takes_mfccs_alone(small_robust, segments, tmp_path):
    session, _ = exported(small_robust, tmp_path / "robust.onnx")
    mfcc, n_frames = segments
    assert [tensor.name for tensor in session.get_inputs()] == ["mfcc", "n_frames"]
    predict = load_model(small_robust).predictor()
    for rows in (slice(0, 1), slice(0, 7), slice(0, 64)):
        (own,) = session.run(None, {"mfcc": mfcc[rows], "n_frames": n_frames[rows].astype(np.int32)})
        assert own.shape == (len(mfcc[rows]), 3)
        np.testing.assert_allclose(own.sum(axis=1), 1, atol=1e-5)
        assert np.abs(own - predict(mfcc[rows], n_frames[rows])).max() < 1e-4


def test_a_model_of_ones_own_is_exported_under_its_name(small_model, small_features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session, _ = exported(small_model, tmp_path / "model.onnx")
    data = load_features((small_features,))
    mfcc, n_frames = np.asarray(data.mfcc[np.arange(30)]), data.rows["n_frames"].to_numpy()[:30].astype(np.int64)
    (own,) = session.run(None, {"mfcc": mfcc, "n_frames": n_frames.astype(np.int32)})
    assert np.abs(own - load_model(small_model).predictor()(mfcc, n_frames)).max() < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_graph_that_differs_is_not_written(small_model, tmp_path, monkeypatch):
    for package in export._PACKAGES:
        pytest.importorskip(package, reason='needs pip install "ser-batch[onnx]"')
    monkeypatch.setattr(export, "_difference", lambda *_: 2e-4)
    with pytest.raises(SerBatchError, match=r"not written: .* differ from those of score by 0\.0002"):
        export.export(load_model(small_model), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_what_a_graph_is_tried_on_is_like_what_it_will_get(small_robust):
    for model, n_inputs in ((find_model("fast"), 5), (load_model(small_robust), 2)):
        cases = list(export._cases(model))
        assert [len(inputs["mfcc"]) for inputs, _ in cases] == [48, 48, 1]
        for inputs, stats in cases:
            assert len(inputs) == n_inputs
            assert (stats is None) == (n_inputs == 2)
            n_frames = inputs["n_frames"]
            assert n_frames.min() >= 1
            assert n_frames.max() <= 174
            assert not inputs["mfcc"][np.arange(174) >= n_frames[:, None]].any()
            assert np.isfinite(inputs["mfcc"]).all()
        assert len(set(cases[1][0]["n_frames"].tolist())) > 10


@pytest.mark.parametrize("missing", export._PACKAGES)
def test_without_the_extra_the_command_names_it(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)  # which makes it impossible to import
    for package in export._PACKAGES[: export._PACKAGES.index(missing)]:
        monkeypatch.setitem(sys.modules, package, sys)
    result = CliRunner().invoke(cli, ["export", "fast", "--out", str(tmp_path / "open.onnx")])
    assert result.exit_code == 2
    assert 'pip install "ser-batch[onnx]"' in result.stderr
    assert missing in result.stderr
    assert not any(tmp_path.iterdir())


def test_a_classical_model_is_refused(small_features, tmp_path):
    train([small_features], TrainOptions(out=tmp_path / "svm", estimator="logistic", split="none"), say=lambda _: None)
    result = CliRunner().invoke(cli, ["export", str(tmp_path / "svm")])
    assert result.exit_code == 2
    assert "a model of logistic; expected a network" in result.stderr


def test_an_altered_model_is_refused(small_model, tmp_path):
    model = shutil.copytree(small_model, tmp_path / "model")
    values = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(values | {"temperature": 2.0}))
    with pytest.raises(ModelError, match="not those that were saved together"):
        export.export(load_model(model), tmp_path / "model.onnx")


def test_a_model_that_is_not_there_is_wrong_usage(tmp_path):
    result = CliRunner().invoke(cli, ["export", str(tmp_path / "nothing")])
    assert result.exit_code == 2
    assert "no such folder; expected one, or fast, open, research" in result.stderr
