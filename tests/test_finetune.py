"""Networks that start from a trained one: what they take along, what is recorded and said of it, what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner
from helpers import values_of
from model_json import MINIMAL, SAVED, schema

from ser_batch.cli.commands import cli
from ser_batch.config.features import FeatureSpec
from ser_batch.config.job import read_job
from ser_batch.config.options import TrainOptions
from ser_batch.errors import InputError, JobError, ModelError, OutputError, UsageError
from ser_batch.model.folder import Model, load_model
from ser_batch.network import architectures, numpy_inference, optimization
from ser_batch.network.recipes import RECIPES
from ser_batch.storage.installed import INSTALLED_MODELS
from ser_batch.tables.features import load_features
from ser_batch.training.finetune import Start, load_start, with_inherited
from ser_batch.training.run import train

LICENCE = "CC BY-NC-SA 4.0 (RAVDESS; not for commercial use)"


def run(features, out, **options):
    return train([features], TrainOptions(out=out, **options), say=lambda line: None)


def network_of(model):
    return numpy_inference.load_network(model / "network.keras").layer_weights


# --- which weights it starts with ---------------------------------------------------------------------------------


def randomised(name, n_labels, members):
    """A network all of whose weights are drawn, as if it had been trained, and its weights by layer."""
    generator = np.random.default_rng(0)
    network = architectures.build(name, 174, 40, n_labels, members=members)
    network.set_weights([generator.uniform(0.1, 1, w.shape).astype(np.float32) for w in network.get_weights()])
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


@pytest.fixture(scope="module")
def plain():
    """An untrained network of the recipe published and four labels."""
    return architectures.build("published", 174, 40, 4)


@pytest.mark.parametrize(("name", "members"), [("published", 1), ("robust", 2)])
def test_each_member_starts_from_its_own_with_the_columns_of_shared_labels(name, members, plain):
    weights = randomised(name, 3, members)
    known, labels = ("angry", "calm", "sad"), ("annoyed", "calm", "angry", "zealous")
    network = plain if name == "published" else architectures.build(name, 174, 40, len(labels))
    for member in range(1, members + 2):  # one more than there are: the first again
        architectures.start_from(network, weights, member=member, labels=labels, known=known)
        of = f"{(member - 1) % members + 1}_"
        for layer in network.layers:
            there = weights.get(of + layer.name.removeprefix("1_"), ())
            for own, trained in zip(layer.get_weights(), there, strict=True):
                if layer.name != "1_probabilities":
                    np.testing.assert_array_equal(own, trained)
                    continue
                np.testing.assert_array_equal(own[..., 1], trained[..., 1])
                np.testing.assert_array_equal(own[..., 2], trained[..., 0])
                assert not own[..., [0, 3]].any()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop("1_2_convolution"), "its layer 1_2_convolution is missing"),
        (lambda weights: weights["1_2_convolution"].append(np.zeros(1)), "1_2_convolution is missing or of another"),
        (lambda weights: weights.pop("1_probabilities"), "its layer 1_probabilities is missing"),
        (lambda weights: weights.update({"1_probabilities": [np.zeros((512, 3))] * 2}), "is not of 2 labels"),
    ],
)
def test_weights_of_a_network_that_is_built_otherwise_are_refused(change, told, plain):
    weights = randomised("published", 2, 1)
    change(weights)
    with pytest.raises(ValueError, match=told):
        architectures.start_from(plain, weights, member=1, labels=tuple("abcd"), known=("a", "b"))


def start_of(init: Path | str) -> tuple[Start, numpy_inference.Network]:
    start = load_start(TrainOptions(init=str(init)))
    assert start is not None
    assert isinstance(start.network, numpy_inference.Network)
    return start, start.network


@pytest.mark.parametrize("name", [name for name, at in INSTALLED_MODELS.items() if not load_model(at).is_head_model])
def test_with_the_same_labels_it_starts_with_the_shipped_model_s_predictions(name):
    start, shipped = start_of(name)
    spec, labels = start.model.spec, start.model.labels
    network = architectures.build(start.recipe, spec.n_frames, spec.n_mfcc, len(labels))
    n_members = max(1, sum(layer.endswith("_probabilities") for layer in shipped.layer_weights))
    x = np.random.default_rng(0).normal(size=(3, spec.n_frames, spec.n_mfcc)).astype(np.float32)
    said = []
    for member in range(1, n_members + 1):
        start.begin(network, member, labels)
        said.append(optimization.predict(network, x))
    np.testing.assert_allclose(np.mean(said, axis=0), shipped.predict(x), atol=1e-5)


# --- a whole training ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls(small_corpus, tmp_path_factory):
    """Features of 10 calls by 10 callers, 4 stretches each, in words of their own; calm is one of the model's."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "calls").mkdir()
    clips = sorted(small_corpus.rglob("*.wav"))
    rows = ["path,speaker,start_s,end_s,emotion"]
    for call in range(10):
        samples, rate = zip(*(soundfile.read(clip) for clip in clips[4 * call : 4 * call + 4]), strict=True)
        soundfile.write(folder / "calls" / f"call_{call}.wav", np.concatenate(samples), rate[0])
        for stretch, emotion in enumerate(("calm", "impatient", "pleased", "calm")):
            rows.append(f"call_{call}.wav,caller_{call},{stretch}.0,{stretch + 1}.0,{emotion}")
    (folder / "labels.csv").write_text("\n".join(rows))
    command = ["featurize", str(folder / "calls"), "--out", str(folder / "features"), "--segments", "labels"]
    result = CliRunner().invoke(cli, [*command, "--labels", str(folder / "labels.csv"), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    return folder / "features"


@pytest.fixture(scope="module")
def tuned(calls, small_model, tmp_path_factory):
    """The model of the made-up RAVDESS, fine-tuned on them for two epochs."""
    out = tmp_path_factory.mktemp("tuned") / "model"
    command = ["train", str(calls), "--init", str(small_model), "--out", str(out), "--split", "speaker"]
    result = CliRunner().invoke(cli, [*command, "--epochs", "2"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def test_own_labels_of_forty_segments_are_learned_from_a_trained_network(tuned, small_model):
    values, before = values_of(tuned), values_of(small_model)
    assert values["labels"] == ["calm", "impatient", "pleased"]
    assert values["recipe"] == before["recipe"] == "published"
    assert values["scaler"] == before["scaler"]
    rows = pl.read_parquet(tuned / "predictions.parquet")
    assert rows["speaker"].n_unique() == 2
    assert len(rows) == 8
    assert values["metrics"]["description"] == (
        "Measured on a speaker hold-out: 0 of 10 speakers stand on both sides, so these are speakers never heard in "
        "training."
    )
    assert pl.read_parquet(tuned / "summary.parquet")["estimator"].to_list() == ["tuned"]
    predict = load_model(tuned).predictor()
    assert predict(np.zeros((2, 174, 40), np.float32), np.array([174, 174])).shape == (2, 3)


def test_it_is_recorded_what_it_started_from_and_the_license_is_inherited(tuned, small_model):
    values, before = values_of(tuned), values_of(small_model)
    assert values["init_name"] == small_model.name
    assert values["init"] == {name: before[name] for name in ("model_id", "recipe", "labels", "license", "training")}
    assert values["license"] == before["license"] == LICENCE
    card = (tuned / "MODEL_CARD.md").read_text()
    assert f"Started from the model {small_model.name} ({before['model_id']})" in card
    assert f"{before['training']['n_recordings']} recordings" in card
    assert card.count(LICENCE) == 2
    assert before["model_id"] in (tuned / "report.html").read_text()
    assert not {"init", "init_name"} & before.keys()


def test_repeating_the_command_does_nothing_even_if_the_first_model_moved(calls, tuned, small_model, tmp_path):
    moved = shutil.copytree(small_model, tmp_path / "moved")
    again = run(calls, tuned, init=str(moved), split="speaker", epochs=2)
    assert not again.is_new
    cross_corpus = run(calls, tmp_path / "model", init=str(moved), split="speaker", epochs=2)
    assert cross_corpus.model_id == again.model_id


@pytest.mark.parametrize("options", [{}, {"init": "other"}])
def test_a_model_that_started_elsewhere_is_another_one(options, calls, tuned, small_model, monkeypatch):
    if options:
        start, _ = start_of(small_model)
        other = Model(start.model.folder, msgspec.structs.replace(start.model.schema, model_id="0123456789abcdef"))
        monkeypatch.setattr("ser_batch.training.run.load_start", lambda _: dataclasses.replace(start, model=other))
    was = values_of(tuned)["init"]["model_id"]
    now = "'0123456789abcdef'" if options else "None"
    with pytest.raises(OutputError, match=f"init was '{was}' and is {now}.*--overwrite"):
        run(calls, tuned, **options, recipe="published", split="speaker", epochs=2)


def test_a_model_without_a_start_is_not_one_with_it(small_features, small_model, tmp_path):
    out = shutil.copytree(small_model, tmp_path / "other")
    with pytest.raises(OutputError, match="init was None and is "):
        run(small_features, out, init=str(small_model), epochs=3)


def test_at_rate_0_only_statistics_move_and_the_description_warns(small_features, small_model, tmp_path, monkeypatch):
    still = dataclasses.replace(RECIPES["published"], learning_rate=1e-12)
    monkeypatch.setitem(RECIPES, "published", still)
    summary = run(small_features, tmp_path / "model", init=str(small_model), split="speaker", epochs=1)
    moved = 0
    before, after = network_of(small_model), network_of(summary.out)
    assert before.keys() == after.keys()
    for layer, weights in before.items():
        learned = slice(2) if layer.endswith("normalization") else slice(None)  # the others are mean and variance
        for old, new in zip(weights[learned], after[layer][learned], strict=True):
            np.testing.assert_allclose(new, old, atol=1e-6)
        moved += sum(not np.array_equal(old, new) for old, new in zip(weights[2:], after[layer][2:], strict=True))
    assert moved, "batch normalisation goes on learning"
    rows = pl.read_parquet(summary.out / "predictions.parquet")
    data = load_features([small_features])
    place = rows.select("path").join(data.rows.select("path").with_row_index(), on="path", maintain_order="left")
    numbers = place["index"].to_numpy()
    expected = load_model(small_model).predictor()(data.mfcc[numbers], data.n_frames[numbers])
    # as far off as the statistics have moved in the six steps of an epoch
    np.testing.assert_allclose(rows.select(pl.col("^p_.*$")).to_numpy(), expected, atol=0.05)
    model_id = load_model(small_model).model_id
    assert summary.metrics["description"] == (
        "Measured on a speaker hold-out: 0 of 4 speakers stand on both sides; but it started from the model "
        f"{model_id}, which learned from audio and ravdess too and may have heard what is held out here, so it is not "
        "a figure for new speakers."
    )
    (warning,) = summary.warnings
    assert warning.startswith("model was trained on audio and ravdess, which may include rows held out here")


# --- how it is trained --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_fine_tuning_is_gentler_and_shorter(name):
    recipe, tuning = RECIPES[name], RECIPES[name].tuning
    assert tuning.epochs < recipe.epochs
    assert tuning.learning_rate == pytest.approx(0.3 * recipe.learning_rate)
    assert 2 * tuning.batch <= 40, "40 segments would be one batch"
    as_before = dataclasses.replace(
        tuning, epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch=recipe.batch
    )
    assert as_before == recipe


def test_the_recipe_of_the_first_model_decides_epochs_variants_and_network(calls, small_model, tmp_path, monkeypatch):
    fitted = []

    def fit(network, segments, recipe, *, epochs, seed, on_epoch, **_):
        fitted.append((network.name, recipe, epochs, len(segments)))
        on_epoch(1, {"loss": 1.0, "accuracy": 0.5})

    monkeypatch.setattr(optimization, "fit", fit)
    run(calls, tmp_path / "model", init=str(small_model), split="speaker", baselines="published")
    # the baseline is the same network from the beginning
    assert fitted == [("published", RECIPES["published"].tuning, 50, 32), ("published", RECIPES["published"], 100, 32)]
    assert values_of(tmp_path / "model")["epochs"] == 50
    summary = pl.read_parquet(tmp_path / "model" / "summary.parquet")
    assert summary["estimator"].unique(maintain_order=True).to_list() == ["tuned", "published"]


# --- what was heard before, whose license -------------------------------------------------------------------------


TRAINING = MINIMAL["training"]
MADE = MINIMAL | SAVED | {
    "labels": ["a"],
    "feature_spec": FeatureSpec().to_dict(),
    "feature_spec_hash": FeatureSpec().digest(),
    "scaler": {"mean": [0.0] * 40, "scale": [1.0] * 40},
}  # fmt: skip
INIT = {"model_id": "0", "recipe": "published", "labels": ["a"], "training": TRAINING, "license": ""}


def start_with(values):
    network = numpy_inference.Network.__new__(numpy_inference.Network)
    return Start("name", Model(Path("name"), schema(MADE | values)), network)


@pytest.mark.parametrize(
    ("values", "heard"),
    [
        ({"training": TRAINING | {"datasets": ["calls_2023"]}}, ()),
        ({"training": TRAINING | {"datasets": ["calls"]}}, ("calls",)),
        ({"training": TRAINING | {"corpora": {"ravdess": {"n_rows": 1, "labels": ["a"]}}}}, ("ravdess",)),
        ({"license": LICENCE}, ("ravdess",)),
        (
            {
                "init": INIT | {"training": TRAINING | {"datasets": ["calls"]}, "license": LICENCE},
                "init_name": "before",
            },
            ("calls", "ravdess"),
        ),
        ({}, ()),
    ],
)
def test_what_a_model_and_those_before_it_learned_from_is_found_by_name(values, heard):
    rows = pl.DataFrame({"dataset": ["calls", "mine"], "corpus": [None, "ravdess"]})
    assert start_with(values).seen_corpora(rows) == heard


@pytest.mark.parametrize(
    ("own", "inherited", "both"),
    [
        ("", LICENCE, LICENCE),
        (LICENCE, "", LICENCE),
        (LICENCE, LICENCE, LICENCE),
        ("ODbL", LICENCE, f"{LICENCE}; ODbL"),
        (f"ODbL; {LICENCE}", LICENCE, f"ODbL; {LICENCE}"),
    ],
)
def test_a_license_is_inherited_and_said_once(own, inherited, both):
    assert with_inherited(own, start_with({"license": inherited})) == both
    assert with_inherited(own, None) == own


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"init": "nothing"}, r"--init nothing: no such folder; expected one, or .*research"),
        ({"recipe": "robust"}, r"is a network of the recipe published, --recipe says robust; leave --recipe out"),
        ({"out": None}, r"the new model would take its place; choose another --out"),
    ],
)
def test_what_cannot_be_started_from_is_wrong_usage(options, told, small_model, tmp_path):
    options = {"init": str(small_model), "out": tmp_path / "model"} | options
    options["out"] = options["out"] or small_model
    with pytest.raises(UsageError, match=told):
        run(tmp_path / "never_read", **options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("estimator", ["svm", "forest", "logistic"])
def test_only_a_network_starts_from_another_model(estimator):
    with pytest.raises(UsageError, match=f"--init research with --estimator {estimator}; only a network"):
        TrainOptions(init="research", estimator=estimator)


def test_a_classical_model_is_no_start(small_features, tmp_path):
    run(small_features, tmp_path / "classical", estimator="logistic")
    with pytest.raises(UsageError, match=r"a model of logistic; expected a network of the recipe published or robust"):
        run(small_features, tmp_path / "model", init=str(tmp_path / "classical"))


def test_features_of_another_spec_are_refused_by_field_with_the_command(small_variants, small_model, tmp_path):
    told = r"sampling_rate is 8000 and was 22050; .*featurize again: ser-batch featurize AUDIO --preset wideband"
    with pytest.raises(InputError, match=told):
        run(small_variants, tmp_path / "model", init=str(small_model))
    assert not any(tmp_path.iterdir())


def test_a_spec_of_no_preset_has_no_command(small_model):
    start, _ = start_of(small_model)
    spec = FeatureSpec(n_mels=100)
    changed = msgspec.structs.replace(start.model.schema, feature_spec=spec, feature_spec_hash=spec.digest())
    own = dataclasses.replace(start, model=Model(start.model.folder, changed))
    with pytest.raises(InputError, match=r"n_mels is 128 and was 100; no preset of this version"):
        own.check_spec(FeatureSpec())


def test_a_network_that_is_built_otherwise_is_a_model_error(small_model, plain):
    start, network = start_of(small_model)
    del network.layer_weights["1_2_convolution"]
    with pytest.raises(ModelError, match=r"its layer 1_2_convolution is missing.*leave --init out"):
        start.begin(plain, 1, start.model.labels)


def test_a_damaged_model_is_no_start(small_model, tmp_path):
    model = shutil.copytree(small_model, tmp_path / "damaged")
    changed = values_of(model) | {"temperature": 2.0}
    (model / "model.json").write_text(json.dumps(changed))
    with pytest.raises(ModelError, match="not those that were saved together"):
        load_start(TrainOptions(init=str(model), out=tmp_path / "model"))


def test_a_job_names_what_to_start_from_and_recipes_are_still_checked(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('[train]\ninit = "research"\n')
    assert read_job(job).steps[0][1] == TrainOptions(init="research")
    assert read_job(job, ("train.recipe=published",)).steps[0][1] == TrainOptions(init="research", recipe="published")
    with pytest.raises(JobError, match="--recipe 'best'; expected one of robust, published, head"):
        read_job(job, ("train.recipe=best",))
