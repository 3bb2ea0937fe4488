"""Heads on embeddings: what they compute, what they learn, how they are combined, and what a model folder keeps."""

import dataclasses
import json
import shutil

import numpy as np
import polars as pl
import pytest
from helpers import jax_events, quiet, values_of

from ser_batch.config.features import EncoderSpec
from ser_batch.config.options import TrainOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.encoder.model import SPEC_FILE, load_encoder, read_encoder_spec
from ser_batch.errors import EncoderError, InputError, ModelError, UsageError
from ser_batch.model.folder import load_model
from ser_batch.network import heads, optimization
from ser_batch.network.cmvn import Scaler
from ser_batch.network.heads import ChannelMean, HeadModel, Heads, Layers, log_prior_of, probabilities_of
from ser_batch.network.recipes import HEAD
from ser_batch.storage.atomic import write_json
from ser_batch.storage.installed import INSTALLED_ENCODERS
from ser_batch.tables.features import load_features
from ser_batch.tables.parquet import rows_table, write_table
from ser_batch.tables.schemas import features_schema
from ser_batch.training.batches import EmbeddedSegments
from ser_batch.training.decisions import HeadsDecide
from ser_batch.training.heads import _predict, fit_embedding_scaler, with_temperatures
from ser_batch.training.multi_corpus import Targets
from ser_batch.training.references import DrawnReferences, channel_mean, group_numbers, mean_references
from ser_batch.training.run import train
from ser_batch.training.tasks import FoldResult, FoldTask, HeadPredictions, Predictions

SPEC = EncoderSpec(encoder="toy", source="none", revision="1", license="MIT", sha256="0" * 64, outputs=(1,), width=6)
SIZE = SPEC.embedding_size
LABELS = ("angry", "happy", "neutral")
SMALL = dataclasses.replace(
    HEAD, epochs=6, batch=16, learning_rate=0.02, hidden=8, members=1, input_dropout=0.0, hidden_dropout=0.0
)


def made_features(
    folder, *, corpus=None, labels=LABELS, n_speakers=4, clips=3, variants=("clean",), spec=SPEC, shift=0
):
    """Write embeddings in which each label has a direction of its own, and each speaker and variant a place."""
    generator = np.random.default_rng(len(folder.name))
    places = generator.normal(0, 0.3, (n_speakers, spec.embedding_size))
    rows = []
    for speaker in range(n_speakers):
        for label in labels:
            for clip in range(clips):
                direction = np.eye(spec.embedding_size)[LABELS.index(label) if label in LABELS else 3]
                values = 3 * direction + places[speaker] + generator.normal(0, 0.3, spec.embedding_size) + shift
                path = f"{speaker}/{label}-{clip}.wav"
                rows += [
                    {
                        "dataset": folder.name, "path": path, "content_hash": folder.name + path, "channel": 0,
                        "segment": 0, "variant": variant, "start_s": 0.0, "end_s": 1.0, "duration_s": 1.0,
                        "sampling_rate": 16000, "n_channels": 1, "n_tokens": 50, "corpus": corpus, "emotion": label,
                        "speaker": f"{folder.name}-{speaker}", "sex": ("female", "male")[speaker % 2],
                        "rms_dbfs": -20.0, "embedding": (values + 0.1 * number).astype(np.float32),
                    }
                    for number, variant in enumerate(variants)
                ]  # fmt: skip
    folder.mkdir(parents=True)
    write_table(folder / "part-000001.parquet", rows_table(rows, features_schema(spec, [])))
    write_spec(folder, spec)
    return folder


def write_spec(folder, spec, **more):
    values = {"feature_spec": spec.to_dict(), "segmentation": Segmentation(mode="clip").to_dict()}
    write_json(folder / "spec.json", values | more)


@pytest.fixture
def small(monkeypatch, no_encoder):
    """Heads that compile and learn in a moment."""
    for module in ("heads", "run"):
        monkeypatch.setattr(f"ser_batch.training.{module}.HEAD", SMALL)


@pytest.fixture
def no_encoder(monkeypatch):
    """What sounds that are no speech would give, if there were an encoder."""

    def made_up(spec, encoder_place):
        return np.random.default_rng(0).normal(9, 1, (20, spec.embedding_size)).astype(np.float32)

    monkeypatch.setattr("ser_batch.training.out_of_domain.sounds_embedding", made_up)


def run(folders, out, **options):
    return train(folders, TrainOptions(out=out, **options), say=quiet)


def drawn_layers(generator, hidden=4):
    shapes = ((SIZE, hidden), (hidden,), (1, hidden), (hidden, len(LABELS)), (len(LABELS),))
    return Layers(*(generator.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))


@pytest.fixture
def model():
    generator = np.random.default_rng(0)
    scaler = Scaler(tuple(generator.normal(size=SIZE)), tuple(generator.uniform(0.5, 2, SIZE)))
    members = {reference: [drawn_layers(generator), drawn_layers(generator)] for reference in heads.REFERENCES}
    return HeadModel(Heads(scaler, members), LABELS, 0.8, 0.7, 0.5)


@pytest.fixture
def embedding():
    return np.random.default_rng(1).normal(size=(5, SIZE)).astype(np.float32)


# --- what heads compute -------------------------------------------------------------------------------------------


def test_numpy_computes_what_keras_trained(embedding, tmp_path):
    from ser_batch.network import head_training

    recipe = dataclasses.replace(SMALL, members=2)
    optimization.set_seed(0)
    network = head_training.build(SIZE, len(LABELS), recipe.references, recipe)
    generator = np.random.default_rng(2)
    network.set_weights([generator.normal(0, 0.5, w.shape).astype(np.float32) for w in network.get_weights()])
    scaler = Scaler((0.0,) * SIZE, (1.0,) * SIZE)
    center = embedding.mean(axis=0)
    inputs = {}
    for reference in recipe.references:
        inputs[reference] = embedding if reference == heads.NONE else embedding - center
        inputs[f"{reference}_share_input"] = np.full((5, 1), heads.share_input(0.8))
    expected = [np.log(output) for output in network.predict(inputs, verbose=0)]
    optimization.save(network, tmp_path / "network.keras")
    loaded, _, _ = heads.load_heads(tmp_path / "network.keras", scaler, len(LABELS))
    for place, reference in enumerate(recipe.references):
        given = None if reference == heads.NONE else center
        found = loaded.log_probabilities(reference, embedding, given, neutral_share=0.8)
        np.testing.assert_allclose(found, np.mean(expected[2 * place : 2 * place + 2], axis=0), atol=1e-5)


def test_without_an_archive_the_heads_that_need_none_decide(model, embedding):
    found = model.log_probabilities(embedding, archive=None, channel=None, is_balanced=True)
    np.testing.assert_array_equal(found, model.heads.log_probabilities(heads.NONE, embedding))


def test_without_an_archive_a_channel_that_was_heard_decides(model, embedding):
    log_prior = log_prior_of(LABELS, {"neutral": 0.5})
    channel = ChannelMean(embedding + 1, np.array([1, 12, 100, 12, 1]))
    of_channel = model.heads.log_probabilities(heads.CHANNEL, embedding, embedding + 1, neutral_share=0.8)
    alone = model.probabilities(embedding, archive=None, channel=None, log_prior=log_prior)
    found = model.probabilities(embedding, archive=None, channel=channel, log_prior=log_prior)
    np.testing.assert_allclose(found[[0, 4]], alone[[0, 4]])
    expected = probabilities_of(of_channel, temperature=0.8 * 0.5, log_prior=log_prior / 0.5)
    np.testing.assert_allclose(found[1:4], expected[1:4])


@pytest.mark.parametrize(
    ("count", "is_balanced", "weight"), [(1, True, 0), (12, True, 1), (100, True, 1), (12, False, 0.5), (1, False, 0)]
)
def test_the_channel_counts_by_what_was_heard_of_it(count, is_balanced, weight, model, embedding):
    archive = embedding.mean(axis=0)
    channel = ChannelMean(embedding + 1, np.full(5, count))
    share = 1 / 3 if is_balanced else heads.MOSTLY_NEUTRAL_SHARE
    of_archive = model.heads.log_probabilities(heads.ARCHIVE, embedding, archive, neutral_share=share)
    of_channel = model.heads.log_probabilities(heads.CHANNEL, embedding, embedding + 1, neutral_share=share)
    found = model.log_probabilities(embedding, archive=archive, channel=channel, is_balanced=is_balanced)
    np.testing.assert_allclose(found, weight * of_channel + (1 - weight) * of_archive)


def test_a_prior_moves_decisions_and_the_temperature_of_calls_moves_none(model, embedding):
    prior = log_prior_of(LABELS, {"neutral": 0.9})
    archive = embedding.mean(axis=0)
    balanced, moved = (
        model.probabilities(embedding, archive=archive, channel=None, log_prior=log_prior)
        for log_prior in (log_prior_of(LABELS, None), prior)
    )
    assert moved[:, 2].mean() > balanced[:, 2].mean() + 0.1
    plain = dataclasses.replace(model, temperature_of_calls=1.0)
    flatter = plain.probabilities(embedding, archive=archive, channel=None, log_prior=prior)
    assert (flatter.argmax(axis=1) == moved.argmax(axis=1)).all()
    assert (flatter.max(axis=1) < moved.max(axis=1)).all()
    lp = plain.log_probabilities(embedding, archive=archive, channel=None, is_balanced=False)
    np.testing.assert_allclose(flatter, probabilities_of(lp, temperature=0.8, log_prior=prior))


def test_a_prior_leaves_the_same_to_all_other_labels():
    np.testing.assert_allclose(np.exp(log_prior_of(LABELS, {"neutral": 0.5})), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(np.exp(log_prior_of(LABELS, None)), [1 / 3] * 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda layers: layers.pop("none_1_share"), "shapes"),
        (lambda layers: layers.update(none_2_hidden=layers["none_1_hidden"]), "shapes"),
        (lambda layers: layers.update(dense=layers["none_1_hidden"]), "not those of heads"),
        (lambda layers: layers["none_1_hidden"][0].fill(np.nan), "no numbers"),
        (lambda layers: layers.clear(), "not those of heads"),
    ],
)
def test_weights_that_are_no_heads_are_refused(change, told, model, monkeypatch, tmp_path):
    layers: dict[str, list[np.ndarray]] = {}
    for reference, (member, _) in model.heads.members.items():
        arrays = [getattr(member, field.name).copy() for field in dataclasses.fields(member)]
        layers |= dict(zip(heads.layer_names(reference, 1), (arrays[:2], arrays[2:3], arrays[3:]), strict=True))
    monkeypatch.setattr(heads, "read_saved", lambda _: ({"layers": []}, layers))
    assert heads.load_heads(tmp_path, model.heads.scaler, len(LABELS))[0].members.keys() == set(heads.REFERENCES)
    change(layers)
    with pytest.raises(ModelError, match=told):
        heads.load_heads(tmp_path, model.heads.scaler, len(LABELS))


# --- references ---------------------------------------------------------------------------------------------------


def test_archives_and_channels_are_those_of_one_variant(tmp_path):
    data = load_features([made_features(tmp_path / "a", variants=("clean", "g711")), made_features(tmp_path / "bb")])
    rows = data.rows.with_columns(
        archive=pl.Series(group_numbers(data.rows, heads.ARCHIVE)),
        channel=pl.Series(group_numbers(data.rows, heads.CHANNEL)),
    )
    assert rows.select("dataset", "variant").n_unique() == rows["archive"].n_unique() == 3
    assert rows.select("speaker", "variant").n_unique() == rows["channel"].n_unique() == 12
    assert rows.group_by("archive").agg(pl.struct("dataset", "variant").n_unique())["dataset"].max() == 1
    for group in (rows["archive"].to_numpy(), rows["channel"].to_numpy()):
        found = channel_mean(data.embedding, group)
        means, sizes = found.mean, found.count
        own = group == group[7]
        np.testing.assert_allclose(means[7], data.embedding[own].mean(axis=0), rtol=1e-5)
        assert sizes[7] == own.sum()


def test_references_are_drawn_with_the_neutral_share_given_to_heads():
    embedding = np.repeat(np.arange(10, dtype=np.float32) >= 5, 2).reshape(10, 2).astype(np.float32)  # 1 is neutral
    neutral, other = np.arange(5, 10), np.arange(5)
    drawn = DrawnReferences(
        embedding, ((neutral, other), (neutral, other[:0]), (neutral[:0], other)), (0.2, 0.8), (40,)
    )
    means, shares = drawn.draw(np.random.default_rng(0))
    np.testing.assert_allclose(means[:, 0], shares, atol=1e-6)
    assert 0.2 <= shares[0] <= 0.8
    assert shares[1:].tolist() == [1, 0], "who is never neutral, or always, has no other share"
    again, other_shares = drawn.draw(np.random.default_rng(1))
    assert other_shares[0] != shares[0]
    np.testing.assert_array_equal(drawn.draw(np.random.default_rng(1))[0], again)


def test_a_batch_is_less_its_references_and_masks_what_a_corpus_lacks(tmp_path):
    data = load_features([made_features(tmp_path / "a"), made_features(tmp_path / "bb", labels=LABELS[:2], shift=5)])
    rows = np.arange(len(data.rows))
    targets = Targets.of(data, LABELS, rows)
    scaler = fit_embedding_scaler(data, rows, targets.corpora)
    segments = EmbeddedSegments(data, rows, targets, scaler, SMALL)
    generator = np.random.default_rng(0)
    order = segments.order(generator)
    assert len(order) == len(segments) == len(rows)
    is_a = (data.rows["dataset"] == "a").to_numpy()
    assert abs(is_a[order].sum() - len(rows) / 2) <= 3, "corpora count the same"
    inputs, found = segments.batch(order, generator)
    scaled = (data.embedding - np.asarray(scaler.mean)) / np.asarray(scaler.scale)
    np.testing.assert_allclose(inputs[heads.NONE][0], scaled[order], atol=1e-4)
    assert np.abs(inputs[heads.ARCHIVE][0].mean(axis=0)).max() < np.abs(scaled[order][is_a[order]].mean(axis=0)).max()
    assert (found[~is_a[order], 0, 2] == -1).all()
    assert (found[is_a[order], 0] >= 0).all()


# --- training -----------------------------------------------------------------------------------------------------


def test_corpora_count_the_same_in_the_scaler_however_large_they_are(tmp_path):
    folders = [
        made_features(tmp_path / name, corpus=name, clips=clips, shift=clips) for name, clips in (("a", 2), ("bb", 9))
    ]
    data = load_features(folders)
    rows = np.arange(len(data.rows))
    scaler = fit_embedding_scaler(data, rows, Targets.of(data, LABELS, rows).corpora)
    is_a = (data.rows["corpus"] == "a").to_numpy()
    means = [data.embedding[side].mean(axis=0, dtype=np.float64) for side in (is_a, ~is_a)]
    np.testing.assert_allclose(scaler.mean, np.mean(means, axis=0), rtol=1e-4)


def test_song_is_no_reference_of_speech(model, tmp_path):
    data = load_features([made_features(tmp_path / "toy")])
    kinds = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("song")).otherwise(pl.lit("speech"))
    data = dataclasses.replace(data, rows=data.rows.with_columns(vocal_channel=kinds))
    rows = np.flatnonzero((data.rows["vocal_channel"] == "speech").to_numpy())
    fold = FoldTask("a", 0, rows[:0], rows, by_speaker=True, has_dev_split=True)
    found = _predict(data, model, rows, fold).known.probabilities[: len(rows)]
    embedding = data.embedding[rows]
    expected = model.log_probabilities(
        embedding,
        archive=mean_references(embedding, group_numbers(data.rows, heads.ARCHIVE)[rows]),
        channel=channel_mean(embedding, group_numbers(data.rows, heads.CHANNEL)[rows]),
        is_balanced=True,
    )
    np.testing.assert_allclose(found, np.exp(expected), rtol=1e-6)


def test_heads_of_another_length_of_training_are_not_compiled_anew(small, tmp_path):
    table, larger = (made_features(tmp_path / name, n_speakers=n) for name, n in (("toy", 5), ("larger", 7)))
    run([table], tmp_path / "model", split="speaker:2")
    with jax_events() as events:
        run([larger], tmp_path / "other", split="speaker:2", epochs=4)
    assert events["cache_hits"] > 0, "the listener hears nothing, so this test would prove nothing"
    assert events["cache_misses"] == 0


def test_heads_are_trained_tried_and_kept(small, tmp_path):
    features = made_features(tmp_path / "toy", n_speakers=6, clips=6, variants=("clean", "g711"))
    told = run([features], tmp_path / "model", split="speaker:3", conditions="clean,g711", baselines="logistic")
    values = values_of(tmp_path / "model")
    assert told.metrics["uar"] > 0.9
    assert (values["recipe"], values["epochs"], values["prior"]) == ("head", 6, {"neutral": 0.35})
    assert values["feature_spec"]["encoder"] == "toy"
    assert values["training"]["variants"] == ["clean", "g711"]
    loaded = load_model(tmp_path / "model")
    own = loaded.head_model()
    assert own.labels == LABELS
    assert {own.temperature, own.temperature_without, own.temperature_of_calls} != {1.0}
    data = load_features([features])
    rows = np.arange(len(data.rows))
    decide = HeadsDecide(data, own, LABELS)
    found = decide(
        rows, archive=group_numbers(data.rows, heads.ARCHIVE), channel=None, log_prior=log_prior_of(LABELS, None)
    )
    assert (np.asarray(LABELS)[found.argmax(axis=1)] == data.rows["emotion"].to_numpy()).mean() > 0.9
    regimes = pl.read_parquet(tmp_path / "model" / "regimes.parquet")
    assert set(regimes["regime"]) == {"none", "alone", "balanced", "mostly_neutral"}
    assert set(regimes["condition"]) == {"clean", "g711"}
    assert values["metrics"]["regimes"]["mostly_neutral"]["clean"]["recalls"]["neutral"] > 0.5
    models = pl.read_parquet(tmp_path / "model" / "summary.parquet")["estimator"].unique().to_list()
    assert set(models) >= {"head", "logistic", "head, recordings alone"}
    assert pl.read_parquet(tmp_path / "model" / "history.parquet")["epoch"].max() == 6
    again = run([features], tmp_path / "again", split="speaker:3", conditions="clean,g711", baselines="logistic")
    assert again.model_id == told.model_id
    with pytest.raises(EncoderError, match="needs the encoder toy"):
        loaded.encoder_place()


@pytest.mark.parametrize("estimator", ["svm", "forest", "logistic"])
def test_classical_models_learn_from_embeddings(estimator, no_encoder, tmp_path):
    features = made_features(tmp_path / "toy", clips=6)
    told = run([features], tmp_path / "model", split="speaker", estimator=estimator)
    assert told.metrics["uar"] > 0.9
    loaded = load_model(tmp_path / "model")
    assert loaded.takes_embeddings
    found = loaded.predictor()(load_features([features]).embedding[:3], np.full(3, 50))
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_several_corpora_are_held_out_at_once(small, tmp_path):
    folders = [
        made_features(tmp_path / name, corpus=corpus, labels=labels, shift=shift)
        for name, corpus, labels, shift in (
            ("one", "emodb", LABELS, 0),
            ("other", "crema-d", LABELS, 1),
            ("third", "ravdess", (*LABELS, "sad"), 2),
            ("fourth", "nemo", LABELS[1:], 3),
        )
    ]
    told = run(folders, tmp_path / "model", split="corpus:ravdess,nemo")
    assert set(told.metrics["held_out_corpora"]) == {"ravdess", "nemo"}
    assert load_model(tmp_path / "model").labels == LABELS
    assert set(values_of(tmp_path / "model")["training"]["datasets"]) == {"one", "other"}
    regimes = pl.read_parquet(tmp_path / "model" / "regimes.parquet")
    assert set(regimes["corpus"]) == {"all", "ravdess", "nemo"}
    assert load_model(tmp_path / "model").head_model().temperature != 1.0, "fitted on each of the two that it has"


def head_predictions(model, right, n=20):
    """Confident predictions, of which this share is right."""
    truth = np.zeros(n, dtype=np.int64)
    sure = np.full((n, 3), 0.1)
    sure[np.arange(n), np.where(np.arange(n) < right * n, 0, 1)] = 0.8
    own = Predictions(sure, truth, np.ones(n))
    return HeadPredictions(model, own, own, own, np.zeros(0, dtype=np.int64), np.zeros(0))


def test_temperatures_are_those_of_what_others_say(model):
    nothing = np.empty(0, dtype=np.int64)
    fold = FoldTask("a", 0, nothing, nothing, by_speaker=True, has_dev_split=True)
    raw, heads = np.empty((0, 3)), head_predictions(model, 1.0)
    before = FoldResult(fold, None, model.heads.scaler, [], raw, Predictions(raw, nothing), 1.0, heads=heads)
    after = with_temperatures(before, [head_predictions(model, 0.5)], LABELS)
    assert after.temperature > 1 > with_temperatures(before, [heads], LABELS).temperature
    assert after.heads is not None
    assert after.heads.model.temperature == after.temperature
    assert with_temperatures(before, [], LABELS) is before


def test_an_encoder_that_does_not_ship_goes_into_the_model_folder(small, tmp_path):
    shipped = INSTALLED_ENCODERS["whisper-tiny.en"]
    own = tmp_path / "mine"
    shutil.copytree(shipped, own)
    described = json.loads((own / SPEC_FILE).read_text()) | {"encoder": "mine"}
    (own / SPEC_FILE).write_text(json.dumps(described))
    spec = read_encoder_spec(own)
    features = made_features(tmp_path / "toy", spec=spec)
    write_spec(features, spec, encoder_folder=str(own))
    run([features], tmp_path / "model", split="speaker", epochs=1)
    place = load_model(tmp_path / "model").encoder_place()
    assert place == str((tmp_path / "model" / "encoder").resolve())
    load_encoder((tmp_path / "model" / "encoder"), expected=spec)


# --- starting from other heads ------------------------------------------------------------------------------------


def test_heads_start_from_a_model_and_stay_near_it(small, monkeypatch, tmp_path):
    first = made_features(tmp_path / "first")
    run([first], tmp_path / "before", split="none")
    other = made_features(tmp_path / "other", labels=(*LABELS, "sad"), shift=0.5)
    started = load_model(tmp_path / "before").head_model().heads

    def distance(near):
        recipe = dataclasses.replace(SMALL, near=near)
        monkeypatch.setattr("ser_batch.training.heads.HEAD", recipe)
        out = tmp_path / f"after-{near}"
        run([other], out, split="none", init=str(tmp_path / "before"))
        loaded = load_model(out)
        assert loaded.scaler == started.scaler
        assert loaded.labels == (*LABELS, "sad")
        own = loaded.head_model().heads
        pairs = zip(own.members[heads.ARCHIVE], started.members[heads.ARCHIVE], strict=True)
        return sum(float(np.abs(after.hidden - before.hidden).sum()) for after, before in pairs)

    assert distance(10.0) < 0.2 * distance(0.0001)
    assert values_of(tmp_path / "after-10.0")["init"]["recipe"] == "head"


def test_figures_of_heads_say_what_they_make_use_of_and_of_whom(small, tmp_path):
    run([made_features(tmp_path / "first", corpus="emodb")], tmp_path / "before", split="none")
    own = made_features(tmp_path / "own")
    started = run([own], tmp_path / "started", split="speaker", init=str(tmp_path / "before"))
    assert started.metrics["description"] == (
        "Measured on a speaker hold-out: 0 of 4 speakers stand on both sides, so these are speakers never heard in "
        "training; embeddings are compared with all speech of the speaker and of the archive, without labels."
    )
    both = run([own], tmp_path / "both", split="stratified", estimator="logistic")
    assert both.metrics["description"].endswith(
        "4 of 4 speakers stand on both sides, so it is not a figure for new speakers."
    )


def test_a_corpus_that_the_first_model_has_learned_is_not_unseen(small, tmp_path):
    run([made_features(tmp_path / "first", corpus="emodb")], tmp_path / "before", split="none")
    folders = [made_features(tmp_path / "a", corpus="emodb", shift=1), made_features(tmp_path / "bb", corpus="nemo")]
    started = run(folders, tmp_path / "started", split="corpus", init=str(tmp_path / "before"))
    assert set(started.metrics["held_out_corpora"]) == {"nemo"}
    assert "which learned from emodb too" in started.metrics["description"]
    assert "<td>emodb</td>" not in (tmp_path / "started" / "report.html").read_text().partition("Accuracy in use")[0]


def test_many_segments_are_held_less_near_to_the_model_they_start_from(small, monkeypatch, tmp_path):
    from ser_batch.network import head_training

    run([made_features(tmp_path / "first")], tmp_path / "before", split="none")
    fit, found = head_training.fit, []

    def noted(*arguments, near, **options):
        found.append(near)
        fit(*arguments, near=near, **options)

    monkeypatch.setattr(head_training, "fit", noted)
    for clips in (3, 20):  # of 4 speakers and 3 labels
        features = made_features(tmp_path / f"{clips} clips", clips=clips)
        run([features], tmp_path / f"after-{clips}", split="none", init=str(tmp_path / "before"))
    assert found[:2] == pytest.approx([SMALL.near, SMALL.near * 100 / 240]), "the third is for the temperature"


# --- what does not go together ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"recipe": "robust"},
            "recipe robust is of MFCCs, and these features are embeddings; train with --recipe head",
        ),
        ({"normalize": "speaker"}, "leave --normalize out"),
        ({"baselines": "robust"}, "recipe robust is of MFCCs"),
    ],
)
def test_what_is_of_mfccs_is_refused_on_embeddings(options, told, tmp_path):
    features = made_features(tmp_path / "toy")
    with pytest.raises(UsageError, match=told):
        run([features], tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()


def test_heads_are_refused_on_mfccs(small_features, tmp_path):
    with pytest.raises(UsageError, match=r"featurize AUDIO --features whisper-tiny\.en --out OTHER"):
        run([small_features], tmp_path / "model", recipe="head")


def test_features_of_two_encoders_are_refused(tmp_path):
    other = EncoderSpec.from_dict(SPEC.to_dict() | {"encoder": "second", "sha256": "1" * 64})
    folders = [made_features(tmp_path / "a"), made_features(tmp_path / "b", spec=other)]
    with pytest.raises(InputError, match=r"embeddings of the encoder second, .* embeddings of the encoder toy"):
        run(folders, tmp_path / "model")


def test_heads_start_from_heads_on_the_same_encoder(small, small_features, tmp_path):
    run([made_features(tmp_path / "a")], tmp_path / "model", split="none", epochs=1)
    other = EncoderSpec.from_dict(SPEC.to_dict() | {"encoder": "second", "sha256": "1" * 64})
    with pytest.raises(InputError, match=r"embeddings of second, --init model learned from embeddings of toy"):
        run([made_features(tmp_path / "b", spec=other)], tmp_path / "new", init=str(tmp_path / "model"))
    with pytest.raises(UsageError, match="recipe head is of embeddings, and these features are MFCCs"):
        run([small_features], tmp_path / "new", init=str(tmp_path / "model"))


def test_a_model_that_was_altered_is_refused(small, tmp_path):
    run([made_features(tmp_path / "a")], tmp_path / "model", split="none", epochs=1)
    values = values_of(tmp_path / "model")
    for change, told in (
        ({"temperature_of_calls": 0}, "temperature_of_calls is 0; expected a number > 0"),
        ({"temperature_without_reference": None}, "no temperature of heads"),
        ({"recipe": "robust"}, "recipe is robust, and feature_spec that of embeddings"),
        ({"feature_spec": {"encoder": "toy"}}, "no feature_spec.source"),
    ):
        write_json(tmp_path / "model" / "model.json", values | change)
        with pytest.raises(ModelError, match=told):
            load_model(tmp_path / "model")
    write_json(tmp_path / "model" / "model.json", values | {"temperature": 0.5})
    with pytest.raises(ModelError, match="not those that were saved together"):
        load_model(tmp_path / "model").head_model()
