"""One training from several corpora: masks, shares of an epoch, corpora held out, votes of listeners."""

import dataclasses
import re
from collections import Counter

import keras
import msgspec
import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from helpers import quiet, values_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.cli.commands import cli
from ser_batch.config.features import FeatureSpec
from ser_batch.config.options import TrainOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.errors import InputError, UsageError
from ser_batch.model.folder import load_model
from ser_batch.network import optimization
from ser_batch.network.cmvn import Scaler
from ser_batch.network.optimization import MaskedCrossentropy, masked_accuracy
from ser_batch.network.recipes import RECIPES
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import restricted
from ser_batch.splits.performances import copy_warnings, with_performances
from ser_batch.storage.atomic import write_json
from ser_batch.tables.features import load_features
from ser_batch.tables.parquet import rows_table, write_table
from ser_batch.tables.schemas import features_schema
from ser_batch.training import temperature
from ser_batch.training.batches import TrainingSegments
from ser_batch.training.multi_corpus import Targets, corpora_of, target_shares
from ser_batch.training.run import train

TINY = FeatureSpec(n_mels=8, n_mfcc=6, n_frames=24)
LABELS = ["angry", "calm", "sad"]
# what each emotion adds to all MFCCs, so that there is something to learn
LEVEL = {"angry": 4.0, "calm": 0.0, "sad": -4.0, "keen": 8.0}


def make_features(folder, *, corpus=None, dataset=None, emotions=("angry", "sad"), n_speakers=4, clips=2, **changes):
    """Write a features folder: each speaker has some clips of each emotion, whose MFCCs are told apart easily.

    changes: `spec`, `prefix` of the contents, and `votes`, shares by emotion.
    """
    spec, votes = changes.get("spec", TINY), changes.get("votes", {})
    voted = sorted({label for shares in votes.values() for label in shares})
    dataset = dataset or folder.name
    generator = np.random.default_rng(len(dataset))
    rows = []
    for speaker in range(n_speakers):
        for emotion in emotions:
            for clip in range(clips):
                path = f"{speaker}/{emotion}-{clip}.wav"
                mfcc = generator.normal(LEVEL[emotion], 1, (spec.n_frames, spec.n_mfcc)).astype(np.float32)
                row = {
                    "dataset": dataset, "path": path, "content_hash": changes.get("prefix", dataset) + path,
                    "channel": 0, "segment": 0, "variant": "clean", "start_s": 0.0, "end_s": 1.0, "duration_s": 1.0,
                    "sampling_rate": 8000, "n_channels": 1, "n_frames": spec.n_frames, "corpus": corpus,
                    "emotion": emotion, "speaker": f"{dataset}-{speaker}", "sex": ("female", "male")[speaker % 2],
                    "rms_dbfs": -20.0, "mfcc": mfcc, "mfcc_mean": mfcc.mean(axis=0), "mfcc_std": mfcc.std(axis=0),
                }  # fmt: skip
                shares = votes.get(emotion, {})
                rows.append(row | {f"p_{label}": shares.get(label, 0.0) for label in voted if shares})
    folder.mkdir(parents=True)
    write_table(folder / "part-000001.parquet", rows_table(rows, features_schema(spec, voted)))
    write_json(
        folder / "spec.json", {"feature_spec": spec.to_dict(), "segmentation": Segmentation(mode="clip").to_dict()}
    )
    return folder


pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture
def two(tmp_path):
    """A corpus with three labels and one, called by its dataset, that lacks calm."""
    return [
        make_features(tmp_path / "wide", corpus="ravdess", emotions=LABELS, n_speakers=6),
        make_features(tmp_path / "narrow", n_speakers=4),
    ]


def run(folders, out, **options):
    return train(folders, TrainOptions(out=out, **{"recipe": "published", "epochs": 1, **options}), say=quiet)


def table(out, name, **wanted):
    return pl.read_parquet(out / f"{name}.parquet").filter(**wanted)


# --- the tables together ------------------------------------------------------------------------------------------


def test_several_folders_are_one_table_and_copies_are_counted(tmp_path):
    first = make_features(tmp_path / "a", prefix="same")
    second = make_features(tmp_path / "b", prefix="same", clips=3)
    third = make_features(tmp_path / "c")
    data = load_features([first, second, third])
    assert len(data.rows) == 16 + 24 + 16
    (warning,) = copy_warnings(with_performances(data).rows)
    assert warning.startswith(
        "16 recordings are copies of others, such as 0/angry-0.wav of 0/angry-0.wav; a performance"
    )
    assert list(copy_warnings(with_performances(load_features([first, third])).rows)) == []


def test_copies_are_warned_of_and_stand_on_one_side(tmp_path):
    folders = [make_features(tmp_path / "a", prefix="same"), make_features(tmp_path / "b", prefix="same")]
    summary = run(folders, tmp_path / "model", estimator="logistic")
    (warning,) = summary.warnings
    assert warning.startswith("16 recordings are copies of others")
    rows = table(tmp_path / "model", "predictions")
    assert rows["content_hash"].n_unique() == len(rows)  # each is in the figures once
    assert set(rows["dataset"]) == {"a"}
    assert values_of(tmp_path / "model")["training"]["n_recordings"] == 16 - len(rows)


def test_a_key_that_stands_twice_says_to_give_a_name(tmp_path):
    folders = [make_features(tmp_path / "a", dataset="calls"), make_features(tmp_path / "b", dataset="calls")]
    with pytest.raises(InputError, match=r"angry-0\.wav: stands twice .*dataset calls\).* another --name"):
        load_features(folders)


def test_other_specs_are_refused_with_the_field_both_folders_and_what_to_do(tmp_path):
    other = msgspec.structs.replace(TINY, n_mels=9)
    folders = [make_features(tmp_path / "a"), make_features(tmp_path / "b", spec=other)]
    with pytest.raises(InputError, match=r"/b: .*than .*/a: n_mels is 8 there and 9 here\. .*same --preset"):
        run(folders, tmp_path / "model")


# --- the loss -----------------------------------------------------------------------------------------------------


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def loss_of(targets, logits, smoothing=0.0):
    found = MaskedCrossentropy(smoothing).call(
        keras.ops.convert_to_tensor(targets, "float32"), keras.ops.convert_to_tensor(softmax(logits), "float32")
    )
    return np.asarray(found)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_where_all_labels_are_allowed_it_is_the_usual_loss(smoothing):
    logits = np.random.default_rng(0).normal(0, 3, (20, 4))
    targets = np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    usual = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing, reduction=None)
    expected = np.asarray(usual(targets, softmax(logits).astype(np.float32)))
    np.testing.assert_allclose(loss_of(targets[:, None], logits, smoothing), expected, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_is_masked_is_as_if_its_logit_were_not_there(smoothing):
    logits = np.random.default_rng(1).normal(0, 3, (20, 4))
    targets = np.eye(3, dtype=np.float32)[np.arange(20) % 3]
    masked = np.concatenate([targets, np.full((20, 1), -1)], axis=1)[:, None]
    expected = loss_of(targets[:, None], logits[:, :3], smoothing)
    for offset in (0.0, -50.0, 30.0):
        moved = logits + np.array([0, 0, 0, offset])
        np.testing.assert_allclose(loss_of(masked, moved, smoothing), expected, rtol=1e-3, atol=1e-4)


def test_a_masked_label_gets_no_gradient_also_in_a_mixture():
    import jax

    def loss(logits):
        return MaskedCrossentropy(0.1).call(targets, jax.nn.softmax(logits)).sum()

    # narrow alone; narrow mixed with narrow; narrow mixed with wide, which may be calm
    targets = np.array(
        [
            [[1.0, -1.0, 0.0], [0.0, -1.0, 0.0]],
            [[0.7, -1.0, 0.0], [0.0, -1.0, 0.3]],
            [[0.7, -1.0, 0.0], [0.0, 0.3, 0.0]],
        ],
        dtype=np.float32,
    )
    logits = np.array([[0.5, 4.0, -0.2]] * 3, dtype=np.float32)
    gradient = np.asarray(jax.grad(loss)(logits))
    assert np.abs(gradient[:2, 1]).max() < 1e-6
    assert np.abs(gradient[:2, 0]).min() > 1e-2
    # the part that may be calm pulls there with its own share and nothing else does
    own = (softmax(logits)[2, 1] - (0.9 + 0.1 / 3)) * 0.3
    assert gradient[2, 1] == pytest.approx(own, abs=1e-4)


def test_the_loss_is_finite_where_all_allowed_labels_are_improbable():
    logits = np.array([[-90.0, 90.0, -95.0]])
    targets = np.array([[[1.0, -1.0, 0.0]]])
    assert np.isfinite(loss_of(targets, logits, 0.1)).all()


def test_the_accuracy_is_that_among_the_labels_allowed():
    p = np.array([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.1, 0.7, 0.2]], dtype=np.float32)
    targets = np.array([[[1, -1, 0]], [[1, 0, 0]], [[1, -1, 0]]], dtype=np.float32)
    assert np.asarray(masked_accuracy(targets, p)).tolist() == [1.0, 0.0, 0.0]


# --- what a network is fed ----------------------------------------------------------------------------------------


def segments_of(data, recipe="published", *, rows=None, **changes):
    rows = np.arange(len(data.rows)) if rows is None else rows
    labels = sorted(set(data.rows["emotion"]))
    scaler = Scaler((0.0,) * TINY.n_mfcc, (1.0,) * TINY.n_mfcc)
    recipe = dataclasses.replace(RECIPES[recipe], augmentation=None, **changes)
    return TrainingSegments(data, rows, Targets.of(data, labels, rows), scaler, recipe)


def test_labels_that_a_corpus_lacks_are_masked_and_mixtures_keep_both_masks(two):
    data = load_features(two)
    is_narrow = (data.rows["dataset"] == "narrow").to_numpy()
    numbers = np.arange(len(data.rows))
    plain = segments_of(data)
    assert plain.is_masked
    _, targets = plain.batch(numbers, np.random.default_rng(0))
    assert targets.shape == (len(numbers), 1, 3)
    assert ((targets[:, 0, 1] == -1) == is_narrow).all()
    assert (targets[:, :, [0, 2]] >= 0).all()
    x, mixed = segments_of(data, mixup=0.5).batch(numbers, np.random.default_rng(0))
    assert mixed.shape == (len(numbers), 2, 3)
    assert ((mixed[:, 0, 1] == -1) == is_narrow).all()
    other = mixed[:, 1, 1] == -1
    assert (other & ~is_narrow).any()
    assert (~other & is_narrow).any()
    np.testing.assert_allclose(np.maximum(mixed, 0).sum(axis=(1, 2)), 1, rtol=1e-6)
    assert x.shape == (len(numbers), TINY.n_frames, TINY.n_mfcc)


def test_one_corpus_is_fed_as_ever(two):
    data = load_features(two)
    narrow = np.flatnonzero((data.rows["dataset"] == "narrow").to_numpy())
    segments = segments_of(data, rows=narrow, mixup=0.5)
    assert not segments.is_masked
    _, targets = segments.batch(np.arange(4), np.random.default_rng(0))
    assert targets.shape == (4, 3)
    order = segments.order(np.random.default_rng(5))
    np.testing.assert_array_equal(order, np.random.default_rng(5).permutation(len(narrow)))


def test_corpora_with_the_same_labels_need_no_mask_but_share_the_epoch(tmp_path):
    folders = [make_features(tmp_path / "a", n_speakers=9), make_features(tmp_path / "b", n_speakers=2)]
    data = load_features(folders)
    segments = segments_of(data)
    assert not segments.is_masked
    assert Counter(data.rows["dataset"].gather(segments.order(np.random.default_rng(0)))) == {"a": 22, "b": 22}


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=15, deadline=None)
def test_corpora_and_their_labels_have_their_shares_of_an_epoch(tmp_path_factory, n_wide, n_narrow, seed, power):
    folder = tmp_path_factory.mktemp("drawn")
    data = load_features(
        [
            make_features(folder / "wide", emotions=LABELS, n_speakers=n_wide, clips=4),
            make_features(folder / "narrow", n_speakers=n_narrow, clips=5),
        ]
    )
    # calm is rare in the one corpus
    rows = np.flatnonzero(~((data.rows["emotion"] == "calm") & data.rows["path"].str.contains(r"-[123]\.")).to_numpy())
    segments = segments_of(data, rows=rows, corpus_power=power)
    order = segments.order(np.random.default_rng(seed))
    assert len(order) == len(segments) == len(rows)
    np.testing.assert_array_equal(order, segments.order(np.random.default_rng(seed)))
    drawn = data.rows[rows[order]]
    sizes = {"wide": n_wide * 9, "narrow": n_narrow * 10}
    for name, n_labels in (("wide", 3), ("narrow", 2)):
        own = drawn.filter(dataset=name)
        share = sizes[name] ** power / sum(size**power for size in sizes.values())
        assert len(own) == pytest.approx(len(rows) * share, abs=1)
        for count in own["emotion"].value_counts()["count"]:
            assert count == pytest.approx(len(rows) * share / n_labels, abs=1.01)
        # nothing comes twice more often than its like
        for _, cell in own.group_by("emotion"):
            counts = cell["path"].value_counts()["count"].to_list()
            assert max(counts) - min(counts) <= 1


# --- trainings ----------------------------------------------------------------------------------------------------


def test_a_training_from_two_corpora_learns_masked_and_tells_of_each_corpus(two, tmp_path):
    out = tmp_path / "model"
    summary = run(two, out, recipe="robust", epochs=2, split="speaker", train_variants="clean", baselines="logistic")
    assert load_model(out).labels == tuple(LABELS)
    history = table(out, "history")
    assert history["loss"].is_finite().all()
    assert history["dev_loss"].is_finite().all()
    rows = table(out, "predictions")
    # a fifth of the speakers of each corpus
    assert rows.group_by("dataset").agg(pl.col("speaker").n_unique()).sort("dataset").rows() == [
        ("narrow", 1),
        ("wide", 1),
    ]
    values = values_of(out)
    assert values["training"]["corpora"] == {
        "narrow": {"n_rows": 12, "labels": ["angry", "sad"]},
        "ravdess": {"n_rows": 30, "labels": LABELS},
    }
    by_corpus = table(out, "summary", estimator="robust", condition="clean").filter(
        pl.col("subset").is_in(["ravdess", "narrow"])
    )
    assert dict(by_corpus.select("subset", "n").rows()) == {"narrow": 4, "ravdess": 6}
    assert set(summary.metrics["corpora"]) == {"narrow", "ravdess"}
    assert summary.metrics["corpora"]["narrow"]["uar"] == by_corpus.filter(subset="narrow")["uar"].item()
    narrow = table(out, "report", condition="clean", subset="narrow", label="calm")
    assert narrow["support"].item() == 0
    card = (out / "MODEL_CARD.md").read_text()
    assert "Corpus narrow: 12 segments, labelled angry, sad;" in card
    assert re.search(r"^\| narrow \| 4 \|", card, re.MULTILINE)
    page = (out / "report.html").read_text()
    assert "<td>narrow</td>" in page
    assert "<h2>By corpus, speech" in page
    again = run(two, out, recipe="robust", epochs=2, split="speaker", train_variants="clean", baselines="logistic")
    assert not again.is_new


@pytest.mark.parametrize("options", [{}, {"estimator": "logistic"}])
def test_each_corpus_is_held_out_in_turn_on_the_labels_of_both_sides(options, two, tmp_path):
    third = make_features(tmp_path / "third", emotions=("calm", "keen", "sad"), n_speakers=2)
    out = tmp_path / "model"
    summary = run([*two, third], out, split="corpus", **options)
    rows = table(out, "predictions")
    assert sorted(rows["fold"].unique()) == ["corpus-narrow", "corpus-ravdess", "corpus-third"]
    assert (rows["fold"] == "corpus-" + pl.Series(rows["corpus"].fill_null(rows["dataset"]))).all()
    # keen is heard in the third corpus alone: its four rows are left out
    assert summary.warnings == ("4 held-out rows are ignored, because no training row has their emotion",)
    assert len(rows) == 36 + 16 + 8
    common = {"corpus-narrow": ["angry", "sad"], "corpus-ravdess": LABELS, "corpus-third": ["calm", "sad"]}
    for fold, labels in common.items():
        own = rows.filter(fold=fold)
        p = own.select(pl.col("^p_.*$"))
        np.testing.assert_allclose(p.sum_horizontal(), 1)
        assert [name for name in p.columns if p[name].sum() > 0] == [f"p_{label}" for label in labels]
        assert set(own["predicted"]) <= set(labels)
    values = values_of(out)
    assert values["cross_validated"]
    assert options or set(table(out, "history")["fold"]) == {*common, None}
    assert values["labels"] == ["angry", "calm", "keen", "sad"]
    assert "corpora never heard in training" in summary.metrics["description"]


def test_temperatures_come_from_held_out_corpora_but_the_reported_one(two, tmp_path, monkeypatch):
    third = make_features(tmp_path / "third", n_speakers=2)
    asked = []
    fitted = temperature.fitted_temperature

    def watched(probabilities, truth, weights=None):
        asked.append((len(truth), weights))
        return fitted(probabilities, truth, weights)

    monkeypatch.setattr(temperature, "fitted_temperature", watched)
    out = tmp_path / "model"
    run([*two, third], out, recipe="robust", train_variants="clean", split="corpus")
    # of labels that the others have too, narrow has 16 rows, ravdess 24, third 8
    across = [(rows, weights) for rows, weights in asked if weights is not None]
    # each fold goes by the other two, the model by all three; each corpus counts the same
    assert [rows for rows, _ in across] == [24 + 8, 16 + 8, 16 + 24, 16 + 24 + 8]
    np.testing.assert_allclose(across[0][1], np.repeat([1 / 24, 1 / 8], [24, 8]))
    # a model whose one corpus is left out has nothing else to report on: its temperature is that of this corpus
    asked.clear()
    run([*two, third], tmp_path / "one", recipe="robust", train_variants="clean", split="corpus:third")
    assert [rows for rows, weights in asked if weights is not None] == [8]


@pytest.mark.parametrize("options", [{}, {"estimator": "logistic"}])
def test_a_corpus_by_its_name_is_held_out_and_the_model_is_of_the_others(options, two, tmp_path):
    third = make_features(tmp_path / "third", corpus="crema-d", emotions=("angry", "sad"), n_speakers=2)
    out = tmp_path / "model"
    summary = run([*two, third], out, split="corpus:ravdess", **options)
    rows = table(out, "predictions")
    assert set(rows["fold"]) == {"corpus-ravdess"}
    assert set(rows["corpus"]) == {"ravdess"}
    values = values_of(out)
    assert values["labels"] == ["angry", "sad"]
    assert summary.warnings == ("12 held-out rows are ignored, because no training row has their emotion",)
    assert not values["cross_validated"]
    assert values["training"]["datasets"] == ["narrow", "third"]
    assert values["license"].startswith("ODbL")
    assert "corpora never heard in training" in summary.metrics["description"]


def test_an_unknown_corpus_is_refused_with_the_names_of_those_there_are(two, tmp_path):
    with pytest.raises(InputError, match=r"--split corpus:emodb holds .* there are narrow, ravdess\."):
        run(two, tmp_path / "model", split="corpus:emodb")
    with pytest.raises(InputError, match="Name some of several"):
        run(two[:1], tmp_path / "model", split="corpus:ravdess")


def test_a_corpus_alone_cannot_be_held_out(two, tmp_path):
    with pytest.raises(
        InputError, match=r"--split corpus .* all rows are of ravdess\. Train on the features of several"
    ):
        run(two[:1], tmp_path / "model", split="corpus")


def test_corpora_that_share_one_label_cannot_be_held_out(tmp_path):
    folders = [make_features(tmp_path / "a"), make_features(tmp_path / "b", emotions=("calm", "sad"))]
    told = r"fold corpus-a: what is held out has angry, sad, what is trained on calm, sad; expected 2 labels or more"
    with pytest.raises(InputError, match=told):
        run(folders, tmp_path / "model", split="corpus")


def test_a_corpus_with_one_label_is_warned_of_and_never_drawn(two, tmp_path):
    one = make_features(tmp_path / "one", emotions=("calm",), n_speakers=3)
    data = load_features([*two, one])
    order = segments_of(data).order(np.random.default_rng(0))
    assert Counter(data.rows["dataset"].gather(order)) == {"narrow": 29, "wide": 29}
    summary = run([*two, one], tmp_path / "model", split="none")
    assert summary.warnings == ("corpus one is not learned, because all its rows have the same label",)


def test_a_label_that_no_corpus_has_beside_another_is_refused(two, tmp_path):
    one = make_features(tmp_path / "one", emotions=("keen",))
    with pytest.raises(InputError, match=r"^the label 'keen' is the only one of one, .* column corpus with one name"):
        run([*two, one], tmp_path / "model")
    # a classical model takes the table as it is
    run([*two, one], tmp_path / "model", estimator="logistic", split="none")


def test_a_label_without_contrast_in_a_fold_is_refused_before_training(tmp_path, monkeypatch):
    folders = [
        make_features(tmp_path / "a"),
        make_features(tmp_path / "b", emotions=LABELS),
        make_features(tmp_path / "c", emotions=("calm",)),
        make_features(tmp_path / "d", emotions=("calm",)),
    ]
    folds = tmp_path / "folds.csv"
    names = load_features(folders).rows.select("speaker", fold="dataset").unique()
    names.with_columns(fold=pl.col("fold").replace({"d": "a"})).write_csv(folds)
    monkeypatch.setattr(optimization, "fit", None)
    with pytest.raises(InputError, match="fold b: the label 'calm' is the only one of c and d, and no"):
        run(folders, tmp_path / "model", split=str(folds))


def test_the_command_takes_several_folders_and_tells_of_each_corpus(two, tmp_path):
    options = ["--recipe", "published", "--epochs", "1", "--split", "speaker:2", "--out", str(tmp_path / "model")]
    result = CliRunner().invoke(cli, ["train", *map(str, two), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    line = r"^narrow, on its own labels: UAR \d\.\d+, accuracy \S+, 16 segments$"
    assert re.search(line, result.output, re.MULTILINE)
    assert "Cross-validated on 2 folds (speaker:2): 0 of 10 speakers" in result.output
    result = CliRunner().invoke(cli, ["train", *map(str, two), *options, "--soft-labels", "--overwrite"])
    assert result.exit_code == 1
    assert "--soft-labels: no row to train on has votes" in result.output


# --- votes --------------------------------------------------------------------------------------------------------

VOTES = {"angry": {"angry": 0.6, "calm": 0.1, "sad": 0.3}, "sad": {"angry": 0.0, "calm": 0.5, "sad": 0.5}}


def test_votes_are_the_targets_where_a_row_has_them(tmp_path):
    voted = make_features(tmp_path / "voted", votes=VOTES)
    wide = make_features(tmp_path / "wide", emotions=LABELS)
    data = load_features([voted, wide])
    shares = target_shares(data, LABELS, soft_labels=True)
    for row, share in zip(data.rows.iter_rows(named=True), shares, strict=True):
        if row["dataset"] == "voted":
            expected = [VOTES[row["emotion"]][label] for label in LABELS]
        else:
            expected = [float(row["emotion"] == label) for label in LABELS]
        np.testing.assert_allclose(share, expected, rtol=1e-6)
    # who was asked whether it is calm says something about it
    soft = corpora_of(data, shares, np.arange(len(shares)))
    assert soft is not None
    assert soft.has.all()
    hard = corpora_of(data, target_shares(data, LABELS), np.arange(len(shares)))
    assert hard is not None
    assert hard.labels_of(LABELS) == {"voted": ["angry", "sad"], "wide": LABELS}


def test_a_model_of_votes_is_another_one_and_votes_decide_which(tmp_path):
    folder = make_features(tmp_path / "a", votes=VOTES, emotions=LABELS)
    options = {"split": "none"}
    hard = run([folder], tmp_path / "hard", **options)
    soft = run([folder], tmp_path / "soft", soft_labels=True, **options)
    assert "soft_labels" not in values_of(tmp_path / "hard")
    assert values_of(tmp_path / "soft")["soft_labels"] is True
    assert hard.model_id != soft.model_id
    assert not run([folder], tmp_path / "soft", soft_labels=True, **options).is_new
    with pytest.raises(Exception, match="soft_labels was True and is False"):
        run([folder], tmp_path / "soft", **options)
    with pytest.raises(Exception, match="soft_labels was False and is True"):
        run([folder], tmp_path / "hard", soft_labels=True, **options)
    other = make_features(tmp_path / "b" / "a", votes=VOTES | {"sad": {"sad": 1.0}}, emotions=LABELS)
    with pytest.raises(Exception, match="data_hash was"):
        run([other], tmp_path / "soft", soft_labels=True, **options)
    assert not run([other], tmp_path / "hard", **options).is_new
    assert "shares of the listeners' votes" in (tmp_path / "soft" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("votes", "told"),
    [
        ({}, "no row to train on has votes"),
        ({"angry": {"angry": 0.5, "bored": 0.5}}, r"votes for bored, .* expected some of angry, sad"),
    ],
)
def test_votes_that_name_no_label_are_refused(votes, told, tmp_path):
    folder = make_features(tmp_path / "a", votes=votes)
    with pytest.raises(InputError, match=told):
        run([folder], tmp_path / "model", soft_labels=True)


def test_votes_that_nobody_gave_name_nothing(tmp_path):
    folder = make_features(tmp_path / "a", votes={"angry": {"angry": 1.0, "bored": 0.0}})
    data = load_features([folder])
    assert data.rows["p_bored"].sum() == 0
    run([folder], tmp_path / "model", soft_labels=True, split="none")


def test_only_a_network_learns_votes():
    with pytest.raises(UsageError, match="--soft-labels with --estimator svm"):
        TrainOptions(soft_labels=True, estimator="svm")


# --- what is reported ---------------------------------------------------------------------------------------------


def test_probabilities_given_some_labels_sum_to_one():
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(restricted(p, np.array([False, True, True])), [[0, 0.6, 0.4], [0, 0.5, 0.5]])
    allowed = np.array([[True, False, True], [True, True, True]])
    np.testing.assert_allclose(restricted(p, allowed), [[5 / 7, 0, 2 / 7], [1.0, 0, 0]])


def predictions(corpora, truth, p):
    n = len(truth)
    p = np.array(p)
    return pl.DataFrame(
        {
            "dataset": ["d"] * n, "content_hash": [str(i) for i in range(n)], "variant": ["clean"] * n,
            "corpus": corpora, "speaker": [str(i) for i in range(n)], "emotion": truth, "seed": [0] * n,
            "vocal_channel": ["speech"] * n, "sex": ["female", "male"] * (n // 2), "intensity": [None] * n,
            "predicted": [LABELS[i] for i in p.argmax(axis=1)],
            **{f"p_{label}": p[:, i] for i, label in enumerate(LABELS)},
        }
    )  # fmt: skip


def test_a_corpus_is_evaluated_on_its_labels_under_a_name_of_its_own():
    rows = predictions(
        ["male", "male", "b", "b"],
        ["angry", "sad", "calm", "angry"],
        [[0.3, 0.6, 0.1], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0.4, 0.5, 0.1]],
    )
    summary = summary_table(rows, LABELS, estimator="x", corpus_labels={"b": ["angry", "calm", "sad"]})
    assert summary["subset"].to_list() == ["all", "b", "corpus-male", "female", "male"]
    accuracy = dict(summary.select("subset", "accuracy").rows())
    assert accuracy["all"] == 0.25
    assert accuracy["b"] == 0.5
    # the second row is as sad as it is angry, and the first label counts
    assert accuracy["corpus-male"] == 0.5
    report = report_table(rows, LABELS)
    assert report.filter(subset="corpus-male", label="angry")["recall"].item() == 1
