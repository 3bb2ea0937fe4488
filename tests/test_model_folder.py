"""A model folder: whole, unaltered, without code."""

import dataclasses
import io
import json
import shutil
import tomllib
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest

import ser_batch
from ser_batch.errors import ModelError, UsageError
from ser_batch.model.folder import DEFAULT_MODEL, find_model, load_model
from ser_batch.model.prediction import tempered
from ser_batch.network import numpy_inference
from ser_batch.network.cmvn import Scaler
from ser_batch.storage.installed import INSTALLED_MODELS


@pytest.fixture
def model(small_model, tmp_path):
    """A copy of a trained model that may be damaged."""
    return shutil.copytree(small_model, tmp_path / "model")


def change(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_model_folder_loads_and_predicts(model):
    loaded = load_model(model)
    assert len(loaded.model_id) == 16
    assert loaded.labels == ("angry", "calm", "disgust", "fearful", "happy", "neutral", "sad", "surprised")
    p = loaded.predictor()(np.zeros((2, 174, 40), dtype=np.float32), np.array([174, 10]))
    assert p.shape == (2, 8)
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_times_and_versions_are_not_part_of_the_id(model):
    change(model, created="1999-01-01T00:00:00+00:00", versions={}, seconds=0.0)
    load_model(model).predictor()


@pytest.mark.parametrize(
    ("on_embeddings", "rate", "variants", "expected"),
    [
        (True, None, (), 16_000),
        (True, 44_100, ("clean",), 16_000),
        (True, 11_025, ("clean", "noise10"), 11_025),
        (True, 44_100, ("clean", "noise15+g711+loss5"), 8000),
        (False, 44_100, ("clean", "noise15+g711+loss5"), 22_050),
        (False, 16_000, ("clean", "g711"), 16_000),
    ],
)
def test_the_lowest_rate_is_that_of_the_training_or_of_its_telephones(
    small_model, on_embeddings, rate, variants, expected
):
    loaded = load_model(INSTALLED_MODELS["open"] if on_embeddings else small_model)
    training = msgspec.structs.replace(loaded.schema.training, lowest_sampling_rate=rate, variants=variants)
    own = dataclasses.replace(loaded, schema=msgspec.structs.replace(loaded.schema, training=training))
    assert own.lowest_rate == expected


@pytest.mark.parametrize("name", ["model.json", "network.keras"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(model)


def test_an_altered_network_is_refused(model):
    path = model / "network.keras"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"network\.keras: altered"):
        load_model(model)


def test_the_network_of_another_model_is_refused(model):
    labels = load_model(model).labels
    change(model, labels=[*labels[:-1], "tired"])
    with pytest.raises(ModelError, match="saved together"):
        load_model(model).predictor()


def test_an_altered_feature_spec_is_refused(model):
    spec = load_model(model).spec.to_dict() | {"top_db": 60.0}
    change(model, feature_spec=spec)
    with pytest.raises(ModelError, match="feature_spec was altered"):
        load_model(model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema_version": 2}, "upgrade ser-batch"),
        ({"estimator": "../../etc/passwd"}, "estimator is .*; expected one of network, svm"),
        ({"feature_spec": {"sampling_rate": 22050, "loudness": 1}}, "unknown field 'loudness'"),
        ({"feature_spec": {"sampling_rate": -1}}, "sampling_rate is -1; expected a whole number >= 1000"),
        ({"files": {}}, "altered"),
    ],
)
def test_a_model_json_that_cannot_be_used_is_refused(model, values, message):
    change(model, **values)
    with pytest.raises(ModelError, match=message):
        load_model(model)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_id", "../../x"),
        ("labels", []),
        ("labels", ["sad", "angry"]),
        ("labels", ["angry", "angry"]),
        ("labels", ["Angry", "sad"]),
        ("labels", ["accuracy", "sad"]),
        ("labels", ["\x1b[31m", "sad"]),
        ("feature_spec", 3),
        ("feature_spec.n_frames", 10**9),
        ("feature_spec.n_fft", 2**40),
        ("feature_spec.n_mfcc", "40"),
        ("feature_spec_hash", None),
        ("scaler", None),
        ("scaler.mean", [0.0] * 39),
        ("scaler.scale", [0.0] * 40),
        ("scaler.scale", [-1.0] * 40),
        ("scaler.scale", [2.2e-308] * 40),  # 0 as float32
        ("scaler.mean", ["0"] * 40),
        ("temperature", 0),
        ("temperature", True),
        ("temperature", 10**400),
        ("mfcc_domain", {"mean": [0.0] * 80, "scale": [1.0] * 80}),
        ("mfcc_domain", {"mean": [0.0] * 80, "scale": [1.0] * 79, "limit": 1.0}),
        ("mfcc_domain", {"mean": [0.0] * 80, "scale": [2.2e-308] * 80, "limit": 1.0}),
        ("files", ["network.keras"]),
        ("files", {"network.keras": "../../etc/passwd"}),
        ("normalize", "everything"),
        ("license", None),
        ("training", None),
        ("training.lowest_sampling_rate", 0),
        ("training.datasets", "ravdess"),
        ("metrics", 3),
        ("metrics.uar", None),
        ("metrics.description", 3),
        ("metrics.held_out_corpora", {"x": {"uar": 0.5}}),
        ("metrics.intervals", {"uar": [0.1]}),
        ("recipe", ["published"]),
        ("init_name", "x"),
    ],
)
def test_a_field_of_a_wrong_type_or_range_is_named_with_its_file(model, field, value):
    values = json.loads((model / "model.json").read_text())
    *tables, name = field.split(".")
    place = values
    for table in tables:
        place = place[table]
    place[name] = value
    change(model, **values)
    with pytest.raises(ModelError, match=rf"model\.json: (.*{field}\b)") as caught:
        load_model(model)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "field",
    [
        *("license", "training", "metrics", "training.datasets", "metrics.accuracy"),
        *("split", "seed", "created", "versions", "recipe", "epochs"),
    ],
)
def test_a_field_that_is_not_there_is_named(model, field):
    values = json.loads((model / "model.json").read_text())
    *tables, name = field.split(".")
    place = values
    for table in tables:
        place = place[table]
    del place[name]
    (model / "model.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=f"no {field}"):
        load_model(model)


@pytest.mark.parametrize(
    "text", ['{"seconds": NaN}', '{"seconds": 1e999}', '{"x": "\\ud800"}', '{"x": ' + "[" * 99_999]
)
def test_what_json_cannot_write_again_is_refused(model, text):
    (model / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json: cannot be read as JSON"):
        load_model(model)


def test_a_model_json_without_end_is_not_read(model):
    with (model / "model.json").open("r+b") as file:
        file.truncate(10**12)
    with pytest.raises(ModelError, match="at most 16000000"):
        load_model(model)


def packed(folder, **members):
    """Write a .keras file of some members in place of those that are there, packed as small as they get."""
    with zipfile.ZipFile(folder / "network.keras") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "network.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (held | {name.replace("__", "."): content for name, content in members.items()}).items():
            archive.writestr(name, content)


def test_a_zip_bomb_is_not_unpacked(model, monkeypatch):
    packed(model, model__weights__h5=bytes(200_000_001))
    assert (model / "network.keras").stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"network\.keras: .*200000001 bytes, expected at most 200000000"):
        numpy_inference.load_network(model / "network.keras")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def hdf5(**options):
    """Weights of one layer, kept in some way."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.attrs["name"] = "dense"
        if "link" in options:
            group["0"] = options["link"]
        else:
            group.create_dataset("0", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": (10**6, 10**6), "dtype": "f4"}, "its weights have 4000000000000 bytes or more, expected at most"),
        ({"shape": (10**6, 10**6), "dtype": "f4", "chunks": (1000, 1000)}, "kept in a way"),
        ({"data": np.zeros(10**6, np.float32), "compression": "gzip"}, "kept in a way"),
        ({"shape": (9,), "dtype": "f4", "external": [("/etc/passwd", 0, 36)]}, "kept in a way"),
        ({"shape": (9,), "dtype": "f8"}, "kept in a way"),
        ({"link": h5py.ExternalLink("/tmp/other.h5", "/x")}, "is not what it is"),
        ({"link": h5py.SoftLink("/layers")}, "is not what it is"),
    ],
)
def test_weights_are_what_the_file_itself_holds_and_no_more_than_it_holds(model, options, said):
    packed(model, model__weights__h5=hdf5(**options))
    tracemalloc.start()
    with pytest.raises(ModelError, match=said):
        numpy_inference.load_network(model / "network.keras")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"config": []}', '{"config": {"layers": [3]}}', "[" * 99_999]
)
def test_a_configuration_that_is_none_is_told(model, text):
    packed(model, config__json=text)
    with pytest.raises(ModelError, match=r"network\.keras: cannot be read"):
        numpy_inference.load_network(model / "network.keras")


def test_names_in_files_are_no_paths(model):
    values = json.loads((model / "model.json").read_text())
    change(model, files=values["files"] | {"../../../etc/passwd": "0" * 64, "/etc/passwd": "0" * 64})
    load_model(model)  # only the fixed names are opened


def test_nothing_in_the_package_lets_keras_load_or_pickle_anything():
    sources = [path.read_text(encoding="utf-8") for path in Path(ser_batch.__file__).parent.rglob("*.py")]
    for word in (".load_model(", "load_weights", "enable_unsafe_deserialization", "import pickle", "joblib.load("):
        assert not any(word in source for source in sources), word


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema_version": 1}', "null"])
def test_json_that_is_no_model_json_is_refused(model, text):
    (model / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_model(model)


def test_find_takes_a_folder_a_name_or_what_is_there(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_model(None).folder.name == "model"
    assert find_model("research").folder == INSTALLED_MODELS["research"]
    shutil.rmtree(model)
    assert find_model(None).folder == INSTALLED_MODELS[DEFAULT_MODEL]
    with pytest.raises(UsageError, match="research"):
        find_model("nowhere")


def test_the_shipped_models_are_whole_and_small_and_say_their_license(root):
    free = ("commercial use allowed", "ODbL 1.0")
    terms = {"open": free, "fast": free, "research": ("not for commercial use", "CC BY-NC-SA")}
    assert set(INSTALLED_MODELS) == set(terms)
    for name, folder in INSTALLED_MODELS.items():
        project = root / ("packages/research" if name == "research" else "") / "pyproject.toml"
        license = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["license"]
        loaded = load_model(folder)
        if loaded.is_head_model:
            loaded.head_model()
        else:
            loaded.predictor()
        use, terms_of = terms[name]
        assert use in loaded.schema.license
        assert terms_of.replace(" ", "-") in license
        assert (folder / "network.keras").stat().st_size < 10_000_000
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert loaded.model_id in card
        assert terms_of in card
        assert loaded.schema.metrics is not None
        assert 0.3 < loaded.schema.metrics.uar < 0.9
        assert "never heard" in loaded.schema.metrics.description


def test_the_default_model_may_be_used_commercially_and_is_measured_on_a_corpus_never_heard():
    model = find_model(DEFAULT_MODEL)
    assert "not for commercial use" not in model.schema.license
    assert "ravdess" not in model.schema.training.corpora
    assert not {"ravdess", "nemo"} & set(model.schema.training.corpora)
    assert model.cross_corpus["ravdess"].uar > 0.6
    assert model.regimes["mostly_neutral"]["accuracy"] > 0.75
    assert (model.is_head_model, model.recommended_model) == (True, None)
    assert model.domain is not None
    assert model.schema.prior == {"neutral": 0.35}


def test_a_model_of_one_corpus_is_told_that_the_default_one_travels_better(small_model):
    assert find_model("research").recommended_model is None
    assert load_model(small_model).recommended_model == DEFAULT_MODEL


def test_scaled_padding_is_zero():
    scaler = Scaler(mean=(5.0, 1.0), scale=(2.0, 4.0))
    mfcc = np.array([[[7.0, 5.0], [3.0, 1.0], [0.0, 0.0]]], dtype=np.float32)
    scaled = scaler.transform(mfcc, np.array([2]))
    np.testing.assert_array_equal(scaled, [[[1.0, 1.0], [-1.0, 0.0], [0.0, 0.0]]])


def test_temperature_keeps_the_order_and_softens():
    p = np.array([[0.7, 0.2, 0.1]])
    soft = tempered(p, 2.0)
    assert (soft.argsort() == p.argsort()).all()
    assert soft[0, 0] < 0.7
    np.testing.assert_allclose(soft.sum(), 1)
    np.testing.assert_allclose(soft, np.sqrt(p) / np.sqrt(p).sum())
