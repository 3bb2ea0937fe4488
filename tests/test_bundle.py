"""A model folder: whole, unaltered, without code."""

import json
import shutil

import numpy as np
import pytest

from ser_batch import bundle
from ser_batch.errors import BundleError, UsageError
from ser_batch.network.scaling import Scaler


@pytest.fixture
def model(small_model, tmp_path):
    """A copy of a trained model that may be damaged."""
    return shutil.copytree(small_model, tmp_path / "model")


def change(folder, **values):
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_bundle_loads_and_predicts(model):
    loaded = bundle.load(model)
    assert len(loaded.model_id) == 16
    assert loaded.labels == ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")
    p = loaded.predictor()(np.zeros((2, 174, 40), dtype=np.float32), np.array([174, 10]))
    assert p.shape == (2, 8)
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_times_and_versions_are_not_part_of_the_id(model):
    change(model, created="1999-01-01T00:00:00+00:00", versions={}, seconds=0.0)
    bundle.load(model).predictor()


@pytest.mark.parametrize("name", ["bundle.json", "network.keras"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(BundleError, match=name):
        bundle.load(model)


def test_an_altered_network_is_refused(model):
    path = model / "network.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"network\.keras: altered"):
        bundle.load(model)


def test_the_network_of_another_model_is_refused(model):
    labels = bundle.load(model).labels
    change(model, labels=[*labels[:-1], "tired"])
    with pytest.raises(BundleError, match="saved together"):
        bundle.load(model).predictor()


def test_an_altered_feature_spec_is_refused(model):
    spec = bundle.load(model).spec.to_dict() | {"top_db": 60.0}
    change(model, feature_spec=spec)
    with pytest.raises(BundleError, match="feature_spec was altered"):
        bundle.load(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema_version": 2}, "upgrade ser-batch"),
        ({"estimator": "../../etc/passwd"}, "expected one of"),
        ({"feature_spec": {"sampling_rate": 22050, "loudness": 1}}, "unknown field 'loudness'"),
        ({"feature_spec": {"sampling_rate": -1}}, "positive"),
        ({"files": {}}, "altered"),
    ],
)
def test_a_bundle_json_that_cannot_be_used_is_refused(model, values, message):
    change(model, **values)
    with pytest.raises(BundleError, match=message):
        bundle.load(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 1}', "null"])
def test_json_that_is_no_bundle_is_refused(model, text):
    (model / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        bundle.load(model)


def test_find_takes_a_folder_a_name_or_what_is_there(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle.find(None).folder.name == "model"
    assert bundle.find("research").folder == bundle.shipped()["research"]
    shutil.rmtree(model)
    assert bundle.find(None).folder == bundle.shipped()[bundle.DEFAULT_MODEL]
    with pytest.raises(UsageError, match="research"):
        bundle.find("nowhere")


def test_the_shipped_model_is_whole_small_and_says_its_licence():
    for folder in bundle.shipped().values():
        loaded = bundle.load(folder)
        loaded.predictor()
        assert "not for commercial use" in loaded.values["licence"]
        assert (folder / "network.keras").stat().st_size < 5_000_000
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert loaded.model_id in card
        assert "CC BY-NC-SA" in card
        assert 0.3 < loaded.values["metrics"]["uar"] < 0.9
        assert "never heard" in loaded.values["metrics"]["meaning"]


def test_scaled_padding_is_zero():
    scaler = Scaler(mean=(5.0, 1.0), scale=(2.0, 4.0))
    mfcc = np.array([[[7.0, 5.0], [3.0, 1.0], [0.0, 0.0]]], dtype=np.float32)
    scaled = scaler.transform(mfcc, np.array([2]))
    np.testing.assert_array_equal(scaled, [[[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]])


def test_temperature_keeps_the_order_and_softens():
    p = np.array([[0.7, 0.2, 0.1]])
    soft = bundle.tempered(p, 2.0)
    assert (soft.argsort() == p.argsort()).all()
    assert soft[0, 0] < 0.7
    np.testing.assert_allclose(soft.sum(), 1)
    np.testing.assert_allclose(soft, np.sqrt(p) / np.sqrt(p).sum())
