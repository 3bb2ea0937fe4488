"""Training: what it writes, that it repeats, what it refuses; which rows go where, and how they are fed."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from helpers import quiet, values_of

from ser_batch.config.features import FeatureSpec
from ser_batch.config.options import FeaturizeOptions, TrainOptions
from ser_batch.errors import InputError, OutputError, UsageError
from ser_batch.featurization import featurize
from ser_batch.model.folder import load_model
from ser_batch.model.prediction import tempered
from ser_batch.network import architectures, optimization
from ser_batch.network.cmvn import Scaler
from ser_batch.network.recipes import RECIPES
from ser_batch.splits.performances import with_performances
from ser_batch.tables.features import Features, load_features
from ser_batch.training.batches import TrainingSegments, fit_scaler
from ser_batch.training.fit import fit_fold
from ser_batch.training.multi_corpus import Targets
from ser_batch.training.run import _identity, train
from ser_batch.training.tasks import EpochLog, FoldTask, Settings, make_plan, usable_rows
from ser_batch.training.temperature import fitted_temperature

# how the fixture small_robust is trained
ROBUST = {
    "recipe": "robust",
    "epochs": 2,
    "split": "speaker",
    "conditions": "clean,g711",
    "baselines": "majority,logistic",
}


def run(features, out, **options):
    """Train; a network by the recipe published, which is quick, if nothing else is asked for."""
    return train([features], TrainOptions(out=out, **({"recipe": "published"} | options)), say=quiet)


def table(model, name, **wanted):
    return pl.read_parquet(model / f"{name}.parquet").filter(**wanted)


def probabilities(rows):
    return rows.select(pl.col("^p_.*$")).to_numpy()


def rescored(model, features, rows):
    """What the model of the folder says of these rows of the features."""
    data = load_features([features])
    key = ["path", "variant"]
    places = rows.select(key).join(data.rows.select(key).with_row_index(), on=key, how="left", maintain_order="left")
    place = places["index"].to_numpy()
    return load_model(model).predictor()(data.mfcc[place], data.n_frames[place])


def test_the_model_folder_holds_all_that_was_promised(small_model):
    assert {path.name for path in small_model.iterdir()} == {
        "network.keras",
        "model.json",
        "predictions.parquet",
        "summary.parquet",
        "report.parquet",
        "confusion.parquet",
        "reliability.parquet",
        "coverage.parquet",
        "regimes.parquet",
        "history.parquet",
        "report.html",
        "MODEL_CARD.md",
    }


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("estimator", ["network", "logistic"])
def test_a_table_too_large_for_memory_gives_the_very_same_model(estimator, small_features, tmp_path, monkeypatch):
    loaded = []

    def load(folders, *, in_memory_bytes, **others):
        loaded.append(load_features(folders, in_memory_bytes=in_memory_bytes, **others))
        return loaded[-1]

    models = []
    for place, in_memory_bytes in (("memory", 2**30), ("disk", 0)):
        monkeypatch.setattr("ser_batch.training.run.load_features", partial(load, in_memory_bytes=in_memory_bytes))
        models.append(run(small_features, tmp_path / place, epochs=3, estimator=estimator))
    assert [isinstance(features.mfcc, np.ndarray) for features in loaded] == [True, False]
    if estimator == "network":
        assert models[0].model_id == models[1].model_id
    in_memory, on_disk = (pl.read_parquet(tmp_path / place / "predictions.parquet") for place in ("memory", "disk"))
    assert in_memory.equals(on_disk)
    assert {path.name for path in tmp_path.iterdir()} == {"memory", "disk"}


@pytest.mark.usefixtures("small_networks")
def test_a_robust_training_repeats_also_from_a_table_too_large_for_memory(
    small_variants, small_robust, tmp_path, monkeypatch
):
    monkeypatch.setattr("ser_batch.training.run.load_features", partial(load_features, in_memory_bytes=0))
    again = run(small_variants, tmp_path / "model", **ROBUST)
    assert again.model_id == load_model(small_robust).model_id
    for name in ("predictions", "summary", "history"):
        assert table(again.out, name).equals(table(small_robust, name))


def test_predictions_hold_the_held_out_rows_with_their_metadata(small_model, small_features):
    rows = pl.read_parquet(small_model / "predictions.parquet")
    assert len(rows) == 24
    key = ["dataset", "path", "channel", "segment", "variant", "seed"]
    assert rows.select(key).n_unique() == 24
    p = rows.select(pl.col("^p_.*$"))
    labels = [name.removeprefix("p_") for name in p.columns]
    assert labels == sorted(labels)
    np.testing.assert_allclose(p.sum_horizontal(), 1)
    assert rows["predicted"].to_list() == [labels[i] for i in p.to_numpy().argmax(axis=1)]
    features = pl.read_parquet(small_features / "*.parquet", columns=["path", "emotion"])
    joined = rows.join(features, on="path", suffix="_features")
    assert joined["emotion"].to_list() == joined["emotion_features"].to_list()


def test_report_confusion_summary_and_model_json_agree_with_the_predictions(small_model):
    rows = table(small_model, "predictions")
    accuracy = (rows["emotion"] == rows["predicted"]).mean()
    assert table(small_model, "report", condition="clean", subset="all", label="accuracy")["f1"].item() == accuracy
    summary = table(small_model, "summary", condition="clean", subset="all")
    assert summary.select("estimator", "n", "accuracy").rows() == [("published", 24, accuracy)]
    assert values_of(small_model)["metrics"]["accuracy"] == accuracy
    counts = table(small_model, "confusion")
    right = counts.filter(pl.col("emotion") == pl.col("predicted"))["count"].sum()
    assert (right / counts["count"].sum()) == accuracy


def test_the_history_has_each_epoch_and_nothing_of_the_held_out_rows(small_model, small_robust):
    history = table(small_model, "history")
    assert history.columns == ["fold", "seed", "member", "epoch", "loss", "accuracy", "dev_loss", "dev_accuracy"]
    assert history.select("fold", "seed", "member", "epoch").rows() == [("stratified", 0, 1, i) for i in (1, 2, 3)]
    assert history["dev_loss"].null_count() == 3  # the recipe published sets nothing apart
    history = table(small_robust, "history")
    assert history.select("member", "epoch").rows() == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert history.null_count().pipe(sum).item() == 0


def test_the_scaler_is_fitted_on_the_real_frames_of_the_training_part(small_model, small_features):
    data = load_features([small_features])
    assert isinstance(data.mfcc, np.ndarray)
    held_out = set(pl.read_parquet(small_model / "predictions.parquet")["path"])
    frames = np.concatenate(
        [m[:n] for m, n, path in zip(data.mfcc, data.n_frames, data.rows["path"], strict=True) if path not in held_out]
    ).astype(np.float64)
    scaler = json.loads((small_model / "model.json").read_text())["scaler"]
    np.testing.assert_allclose(scaler["mean"], frames.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(scaler["scale"], frames.std(axis=0), rtol=1e-9)


def test_the_same_seed_gives_the_same_model_whatever_the_shards(small_corpus, small_model, tmp_path):
    featurize(small_corpus, FeaturizeOptions(out=tmp_path / "features", jobs=1, shard_size=7))
    again = run(tmp_path / "features", tmp_path / "model", epochs=3)
    assert again.model_id == load_model(small_model).model_id
    first, second = (pl.read_parquet(folder / "predictions.parquet") for folder in (small_model, again.out))
    assert first.equals(second)


@pytest.mark.usefixtures("small_networks")
def test_another_seed_gives_another_model(small_features, tmp_path):
    one, other = (run(small_features, tmp_path / f"{seed}", epochs=1, seed=seed) for seed in (0, 1))
    assert one.model_id != other.model_id


def test_the_same_command_again_does_nothing(small_features, small_model):
    before = (small_model / "network.keras").stat().st_mtime_ns
    again = run(small_features, small_model, epochs=3)
    assert not again.is_new
    assert again.report is not None
    assert (small_model / "network.keras").stat().st_mtime_ns == before


def test_another_training_into_the_same_folder_is_refused(small_features, small_model):
    with pytest.raises(OutputError, match=r"epochs was 3 and is 4.*--overwrite"):
        run(small_features, small_model, epochs=4)


@pytest.mark.parametrize(
    ("split", "changed"),
    [
        ("stratified", {"speaker": pl.col("speaker").reverse()}),
        ("speaker:2", {"sex": pl.col("speaker").is_in(["ravdess-01", "ravdess-04"]).cast(pl.String)}),
        ("text", {"statement": pl.col("emotion")}),
    ],
)
def test_a_model_belongs_to_the_speakers_and_folds_of_its_rows(small_features, split, changed):
    data, options = with_performances(load_features([small_features])), TrainOptions(split=split)
    other = dataclasses.replace(data, rows=data.rows.with_columns(**changed))
    assert data_hash(data, options) == data_hash(data, options) != data_hash(other, options)


def test_a_model_belongs_to_what_stands_in_its_file_of_folds(small_features, tmp_path):
    data = with_performances(load_features([small_features]))
    options = TrainOptions(split=str(tmp_path / "folds.csv"))
    found = set()
    for folds in ("aabb", "abab"):
        lines = [f"ravdess-0{actor},{fold}" for actor, fold in enumerate(folds, start=1)]
        (tmp_path / "folds.csv").write_text("\n".join(["speaker,fold", *lines]))
        found.add(data_hash(data, options))
    assert len(found) == 2


def data_hash(data: Features, options: TrainOptions) -> str:
    return _identity(data, options, None).data_hash


def test_a_folder_with_something_else_is_left_alone(small_features, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        run(small_features, tmp_path, epochs=1, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.usefixtures("small_networks")
def test_overwrite_replaces_the_model_and_leaves_nothing_beside_it(small_features, small_model, tmp_path):
    out = shutil.copytree(small_model, tmp_path / "model")
    run(small_features, out, epochs=1, overwrite=True)
    assert json.loads((out / "model.json").read_text())["epochs"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_folder_that_is_a_link_is_written_where_it_leads_to(small_features, tmp_path):
    (tmp_path / "disk" / "models").mkdir(parents=True)
    (tmp_path / "model").symlink_to(Path("disk", "models"))

    summary = run(small_features, tmp_path / "model", estimator="logistic", split="none")

    assert (tmp_path / "model").is_symlink()
    assert load_model(tmp_path / "disk" / "models").model_id == summary.model_id
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["models"]


def test_a_broken_training_leaves_nothing(small_features, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ser_batch.training.model_folder.model_card", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        run(small_features, tmp_path / "model", estimator="logistic")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("estimator", ["svm", "forest", "logistic"])
def test_classical_models_learn_and_come_back_without_pickle(small_features, tmp_path, estimator):
    summary = run(small_features, tmp_path / "model", estimator=estimator)
    assert summary.metrics["accuracy"] > 0.4
    rows = table(summary.out, "predictions")
    np.testing.assert_allclose(rescored(summary.out, small_features, rows), probabilities(rows), rtol=1e-12)


def test_the_same_seed_gives_the_same_classical_model_to_the_byte(small_features, tmp_path):
    one, other = (run(small_features, tmp_path / name, estimator="forest", split="none") for name in ("one", "other"))
    assert one.model_id == other.model_id
    assert (one.out / "estimator.skops").read_bytes() == (other.out / "estimator.skops").read_bytes()


def test_speaker_split_holds_out_whole_speakers(small_features, tmp_path):
    summary = run(small_features, tmp_path / "model", estimator="logistic", split="speaker")
    assert summary.shared_speakers == 0
    assert "never heard" in summary.metrics["description"]
    assert pl.read_parquet(tmp_path / "model" / "predictions.parquet")["speaker"].n_unique() == 1


def test_folds_cover_every_row_and_the_final_model_is_trained_on_all(small_features, tmp_path):
    summary = run(small_features, tmp_path / "model", estimator="logistic", split="emobox")
    rows = pl.read_parquet(tmp_path / "model" / "predictions.parquet")
    assert len(rows) == rows["path"].n_unique() == 120
    assert rows["fold"].n_unique() == 4  # actors 1 to 4 stand in four of the six folds
    values = json.loads((tmp_path / "model" / "model.json").read_text())
    assert values["cross_validated"]
    assert values["training"]["n_rows"] == 120
    assert summary.n_test == 120


def test_split_none_trains_on_everything_and_claims_nothing(small_features, tmp_path):
    summary = run(small_features, tmp_path / "model", estimator="logistic", split="none")
    assert summary.report is None
    values = json.loads((tmp_path / "model" / "model.json").read_text())
    assert values["metrics"] is None
    assert not values["cross_validated"]
    assert "nothing was held out" in (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert (tmp_path / "model" / "report.html").is_file()


def labelled(corpus, tmp_path, emotion, speaker="s"):
    """Features of the corpus with labels of the test's own."""
    paths = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*.wav"))
    table = pl.DataFrame({"path": paths}).with_row_index()
    labels = tmp_path / "labels.parquet"
    table.with_columns(
        emotion=emotion, speaker=speaker if isinstance(speaker, pl.Expr) else pl.lit(speaker)
    ).write_parquet(labels)
    featurize(corpus, FeaturizeOptions(out=tmp_path / "features", labels=labels, jobs=1))
    return tmp_path / "features"


def test_one_class_only_is_refused(small_corpus, tmp_path):
    features = labelled(small_corpus, tmp_path, pl.lit("bored"))
    with pytest.raises(InputError, match="all 120 rows are labelled 'bored'; training needs 2"):
        run(features, tmp_path / "model", estimator="logistic")


def test_one_speaker_is_refused_under_speaker(small_corpus, tmp_path):
    features = labelled(
        small_corpus, tmp_path, pl.when(pl.col("index") % 2 == 0).then(pl.lit("a")).otherwise(pl.lit("b"))
    )
    with pytest.raises(InputError, match="needs 2 or more"):
        run(features, tmp_path / "model", estimator="logistic", split="speaker")


def test_own_labels_make_the_classes(small_corpus, tmp_path):
    emotion = pl.when(pl.col("index") % 3 == 0).then(pl.lit("bored")).otherwise(pl.lit("keen"))
    features = labelled(small_corpus, tmp_path, emotion)
    run(features, tmp_path / "model", estimator="logistic")
    assert load_model(tmp_path / "model").labels == ("bored", "keen")


def test_features_of_another_spec_are_refused_by_field(small_corpus, small_features, tmp_path):
    featurize(small_corpus, FeaturizeOptions(out=tmp_path / "telephone", preset="telephone", jobs=1))
    with pytest.raises(InputError, match=r"telephone: features of another spec.*sampling_rate is 22050 there and 8000"):
        train([small_features, tmp_path / "telephone"], TrainOptions(out=tmp_path / "model"), say=quiet)


def test_the_same_features_twice_are_refused(small_features, tmp_path):
    with pytest.raises(InputError, match="stands twice"):
        train([small_features, small_features], TrainOptions(out=tmp_path / "model"), say=quiet)


def test_no_features_say_how_to_make_them(tmp_path):
    with pytest.raises(UsageError, match="ser-batch featurize"):
        run(tmp_path / "features", tmp_path / "model")


def test_a_replacement_that_fails_leaves_the_old_model_in_its_place(small_features, small_model, tmp_path, monkeypatch):
    out = shutil.copytree(small_model, tmp_path / "model")
    real = Path.rename

    def full(self, target):
        if Path(target) == out and not self.name.endswith(".older"):
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="No space left"):
        run(small_features, out, estimator="logistic", overwrite=True)
    assert load_model(out).model_id == load_model(small_model).model_id
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_damaged_model_names_the_way_out(small_features, small_model, tmp_path):
    out = shutil.copytree(small_model, tmp_path / "model")
    (out / "network.keras").write_bytes(b"")
    with pytest.raises(OutputError, match=r"altered.*--overwrite"):
        run(small_features, out, epochs=3)


# --- which rows are trained on and tried on -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(small_variants):
    return with_performances(load_features([small_variants]))


def plan_of(data, **options):
    train_options = TrainOptions(**options)
    usable = usable_rows(data, train_options)
    return make_plan(data, usable, sorted(set(data.rows["emotion"].gather(usable.train))), train_options)


def held(data, numbers, column):
    return set(data.rows[column].gather(numbers))


@pytest.mark.parametrize("split", ["stratified", "speaker", "emobox", "luna", "text"])
def test_no_variant_of_a_clip_crosses_a_fold(split, data):
    plan = plan_of(data, split=split, conditions="noise10,clean,g711", seeds=2)
    assert {fold.seed for fold in plan.folds} == {0, 1}
    for fold in plan.folds:
        assert not held(data, fold.train, "content_hash") & held(data, fold.test, "content_hash")
        for side in (fold.train, fold.test):
            assert held(data, side, "variant") == {"clean", "g711", "noise10"}


def test_all_conditions_of_a_clip_are_predicted_in_one_fold(small_variants, data, tmp_path):
    conditions = ["clean", "noise10"]
    run(small_variants, tmp_path / "model", estimator="logistic", split="text", conditions=",".join(conditions))
    rows = table(tmp_path / "model", "predictions")
    found = rows.group_by("path").agg("variant", pl.col("fold", "statement").n_unique())
    assert len(found) == 64
    assert all(sorted(variants) == conditions for variants in found["variant"])
    assert found["fold"].to_list() == [1] * 64
    assert rows["fold"].to_list() == [f"text-{statement}" for statement in rows["statement"]]


@pytest.mark.parametrize(
    ("options", "trained", "tried"),
    [
        ({}, {"clean", "g711", "noise10"}, {"clean"}),
        ({"recipe": "published"}, {"clean"}, {"clean"}),
        ({"estimator": "svm", "train_variants": "all"}, {"clean", "g711", "noise10"}, {"clean"}),
        ({"train_variants": "g711"}, {"g711"}, {"clean"}),
        ({"recipe": "published", "conditions": "noise10,g711"}, {"clean"}, {"noise10", "g711"}),
    ],
)
def test_variants_to_train_on_and_conditions_to_try_are_chosen(options, trained, tried, data):
    usable = usable_rows(data, TrainOptions(**options))
    assert held(data, usable.train, "variant") == trained
    assert held(data, usable.test, "variant") == tried
    for fold in plan_of(data, split="speaker", **options).folds:
        assert held(data, fold.train, "variant") == trained
        assert held(data, fold.test, "variant") == tried


@pytest.mark.parametrize(
    ("options", "trained", "tried"),
    [
        ({}, {"speech", "song"}, {"speech", "song"}),
        ({"vocal_channel": "speech"}, {"speech"}, {"speech", "song"}),
        ({"vocal_channel": "speech", "test_vocal_channel": "song"}, {"speech"}, {"song"}),
        ({"test_vocal_channel": "speech"}, {"speech", "song"}, {"speech"}),
    ],
)
def test_speech_and_song_to_train_on_and_to_try_are_chosen(options, trained, tried, data):
    (fold,) = plan_of(data, split="speaker", **options).folds
    assert held(data, fold.train, "vocal_channel") == trained
    assert held(data, fold.test, "vocal_channel") == tried
    assert not held(data, fold.train, "speaker") & held(data, fold.test, "speaker")


@pytest.mark.parametrize("options", [{"conditions": "clean,gsm"}, {"train_variants": "all", "conditions": "gsm"}])
def test_a_condition_that_was_not_featurized_is_refused_with_what_to_do(options, small_variants, tmp_path):
    told = r"no row .* variant 'gsm'; featurize into another --out .* --variants (clean,)?gsm$"
    with pytest.raises(InputError, match=told):
        run(small_variants, tmp_path / "model", **({"recipe": "robust"} | options))
    assert not any(tmp_path.iterdir())


def test_a_fold_without_rows_to_try_is_refused(data, tmp_path):
    folds = tmp_path / "folds.csv"
    paths = data.rows.select("path", fold="vocal_channel").unique()
    paths.write_csv(folds)
    with pytest.raises(InputError, match="fold speech has no rows to hold out with these variants and vocal channels"):
        plan_of(data, split=str(folds), test_vocal_channel="song")


def test_labels_that_nobody_sings_are_left_out_of_what_singers_are_tried_on(small_variants, tmp_path):
    summary = run(small_variants, tmp_path / "model", estimator="logistic", split="speaker", vocal_channel="song")
    rows = table(summary.out, "predictions")
    assert load_model(summary.out).labels == ("happy", "sad")
    assert set(rows["emotion"]) == {"happy", "sad"}
    assert set(rows["vocal_channel"]) == {"speech", "song"}
    # two speakers are held out, each angry in both statements
    assert summary.warnings == ("4 held-out rows are ignored, because no training row has their emotion",)


def test_silence_is_neither_trained_on_nor_evaluated_and_is_counted(small_corpus, tmp_path):
    audio = shutil.copytree(small_corpus, tmp_path / "audio")
    clips = sorted(audio.rglob("*.wav"))
    for clip, level in zip(clips[::10], (0.0, 0.25) * 6, strict=True):
        soundfile.write(clip, np.full(8000, level), 8000)
    options = FeaturizeOptions(out=tmp_path / "features", preset="telephone", variants="clean,noise10", jobs=1)
    featurize(audio, options)
    summary = run(options.out, tmp_path / "model", estimator="logistic", split="speaker:4")
    assert summary.warnings == ("12 segments are digital silence and are left out",)
    assert (summary.n_train, summary.n_test) == (108, 108)
    silent = {clip.relative_to(audio).as_posix() for clip in clips[::10]}
    assert not silent & set(table(summary.out, "predictions")["path"])


def test_figures_say_what_they_are_figures_of(small_variants, tmp_path):
    options = {"estimator": "logistic", "split": "speaker", "seeds": 2, "test_vocal_channel": "song"}
    metrics = run(small_variants, tmp_path / "model", **options).metrics
    assert metrics["description"] == (
        "Measured on a speaker hold-out, mean of 2 seeds, song only: 0 of 8 speakers stand on both sides, so these "
        "are speakers never heard in training."
    )
    assert metrics["n"] == table(tmp_path / "model", "predictions").height
    assert set(table(tmp_path / "model", "predictions")["vocal_channel"]) == {"song"}


# --- seeds, conditions, baselines ---------------------------------------------------------------------------------


def test_of_several_seeds_each_has_its_rows_and_figures_are_their_means(small_variants, tmp_path):
    options = {"estimator": "logistic", "split": "speaker", "conditions": "noise10", "seed": 3, "seeds": 3}
    summary = run(small_variants, tmp_path / "model", **options)
    rows = table(summary.out, "predictions")
    by_seed = rows.group_by("seed").agg(
        accuracy=(pl.col("emotion") == pl.col("predicted")).mean(), speakers=pl.col("speaker").unique().sort()
    )
    assert sorted(by_seed["seed"]) == [3, 4, 5]
    assert len({tuple(speakers) for speakers in by_seed["speakers"]}) > 1, "each seed holds out the same speakers"
    assert by_seed["accuracy"].n_unique() > 1, "one seed is like the other, so this test would prove little"
    assert summary.metrics["accuracy"] == pytest.approx(by_seed["accuracy"].mean())
    assert summary.metrics["deviation_over_seeds"]["accuracy"] == pytest.approx(by_seed["accuracy"].std())
    # what is kept is the first seed's
    first = rows.filter(seed=3)
    np.testing.assert_allclose(rescored(summary.out, small_variants, first), probabilities(first))
    assert (summary.n_train, summary.n_test) == (48, 16)


def test_each_condition_has_its_figures(small_robust):
    metrics = values_of(small_robust)["metrics"]
    rows = table(small_robust, "predictions")
    assert metrics["condition"] == "clean"
    assert set(metrics["conditions"]) == set(rows["variant"]) == {"clean", "g711"}
    for condition, found in metrics["conditions"].items():
        own = rows.filter(variant=condition)
        assert found["accuracy"] == (own["emotion"] == own["predicted"]).mean()
        summary = table(small_robust, "summary", estimator="robust", condition=condition)
        assert found["ece"] == summary.filter(subset="all")["ece"].item()
        assert found["speech_uar"] == summary.filter(subset="speech")["uar"].item()
    for subset in ("speech", "song"):
        own = rows.filter(variant="clean", vocal_channel=subset)
        assert metrics[subset]["accuracy"] == (own["emotion"] == own["predicted"]).mean()
    for name, (low, high) in metrics["intervals"].items():
        assert low <= metrics[name] <= high
    assert metrics["resampled"] == "recording"  # two speakers are held out
    for name in ("report", "reliability", "coverage"):
        assert set(table(small_robust, name)["condition"]) == {"clean", "g711"}
    counts = table(small_robust, "confusion")
    assert counts["count"].sum() == len(rows.filter(variant="clean"))


def test_baselines_stand_beside_the_model_on_the_same_rows(small_robust):
    summary = table(small_robust, "summary")
    assert summary["estimator"].unique(maintain_order=True).to_list() == ["robust", "majority", "logistic"]
    per_group = summary.group_by("condition", "subset").agg(pl.col("estimator"), pl.col("n").n_unique())
    assert all(sorted(names) == ["logistic", "majority", "robust"] for names in per_group["estimator"])
    assert set(per_group["n"]) == {1}
    # always the most frequent label: happy and sad are as frequent
    assert summary.filter(estimator="majority", condition="clean", subset="all")["uar"].item() == pytest.approx(1 / 3)
    assert set(table(small_robust, "predictions")["seed"]) == {0}


# --- how networks are fed and tried, with networks that learn nothing ---------------------------------------------

TINY = FeatureSpec(n_mels=4, n_mfcc=3, n_frames=5)


def made(*, n_speakers=8, clips=4, variants=("clean", "g711", "noise10")):
    """A table whose MFCCs are the row's number and 1, so that it can be told wherever it turns up."""
    rows = pl.DataFrame(
        [
            {
                "dataset": "d",
                "path": f"{speaker}/{clip}.wav",
                "channel": 0,
                "segment": 0,
                "variant": variant,
                "content_hash": f"{speaker}-{clip}",
                "start_s": 0.0,
                "end_s": 1.0,
                "duration_s": 1.0,
                "emotion": ("calm", "sad")[clip % 2],
                "speaker": f"s{speaker}",
                "sex": ("female", "male")[speaker % 2],
                "vocal_channel": "speech",
                "corpus": "d",
            }
            for speaker in range(n_speakers)
            for clip in range(clips)
            for variant in variants
        ]
    )
    n = len(rows)
    n_frames = np.full(n, TINY.n_frames)
    mfcc = np.arange(1, n + 1, dtype=np.float32)[:, None, None].repeat(TINY.n_frames, 1).repeat(TINY.n_mfcc, 2)
    return with_performances(Features(rows, mfcc, n_frames, TINY, (), 0))


def numbers_in(x, scaler):
    """The numbers of the rows that a batch was made of."""
    return np.rint(x[:, 0, 0] * scaler.scale[0] + scaler.mean[0]).astype(int) - 1


def said(numbers):
    """Probabilities of two labels for rows, some of them wrong."""
    p = 0.5 + 0.49 * np.sin(numbers + 1.0)
    return np.stack([p, 1 - p], axis=1)


@pytest.fixture
def networks(monkeypatch):
    """Networks without weights; each keeps its seed, what it was trained on and what it was asked afterwards."""
    made_so_far = []

    def build(name, n_frames, n_mfcc, n_labels):
        made_so_far.append(SimpleNamespace(name=name, trained=[], asked=[], seed=None))
        return made_so_far[-1]

    def fit(network, segments, recipe, *, epochs, seed, on_epoch, **_):
        network.seed = seed
        for epoch in range(1, epochs + 1):
            x, _ = segments.batch(np.arange(len(segments)), np.random.default_rng((seed, epoch)))
            network.trained.append(numbers_in(x, segments._scaler))
            on_epoch(epoch, {"loss": 1.0, "accuracy": 0.5})

    def predict(network, x):
        network.asked.append(numbers_in(x[:], x._scaler))
        return said(network.asked[-1])

    def join(name, members):
        return SimpleNamespace(members=members, asked=[])

    monkeypatch.setattr(architectures, "build", build)
    monkeypatch.setattr(architectures, "join", join)
    monkeypatch.setattr(optimization, "fit", fit)
    monkeypatch.setattr(optimization, "predict", predict)
    plain = dataclasses.replace(RECIPES["robust"], augmentation=None, mixup=0.0, members=2)
    monkeypatch.setitem(RECIPES, "robust", plain)
    return made_so_far


def part_of(data, test_speakers, **changes):
    is_test = data.rows["speaker"].is_in(test_speakers).to_numpy()
    fold = FoldTask(
        "speaker", 0, np.flatnonzero(~is_test), np.flatnonzero(is_test), by_speaker=True, has_dev_split=True
    )
    return dataclasses.replace(fold, **changes)


def run_robust(data, fold, epochs=1):
    return fit_fold(data, ["calm", "sad"], fold, "robust", Settings(epochs=epochs))


@pytest.mark.parametrize("by_speaker", [True, False])
def test_a_member_trains_on_neither_development_nor_held_out_rows(by_speaker, networks):
    data = made(clips=16)
    fold = part_of(data, ["s0", "s3"], by_speaker=by_speaker)
    result = run_robust(data, fold, epochs=3)
    column = "speaker" if by_speaker else "path"
    developed = []
    for member in networks:
        trained, asked = set(np.concatenate(member.trained)), set(np.concatenate(member.asked))
        assert trained | asked <= set(fold.train)
        assert trained
        assert asked
        assert not held(data, list(trained), column) & held(data, list(asked), column)
        # between them they have all clips
        assert held(data, list(trained | asked), "path") == held(data, fold.train, "path")
        developed.append(held(data, list(asked), column))
    assert not developed[0] & developed[1]
    (asked,) = result.model.asked
    assert sorted(asked) == sorted(fold.test)


def test_an_epoch_has_each_segment_once_and_all_variants_come_by_and_by(networks):
    data = made()
    run_robust(data, part_of(data, ["s0"]), epochs=20)
    for member in networks:
        for numbers in member.trained:
            paths = data.rows["path"].gather(numbers).to_list()
            assert len(paths) == len(set(paths)) == 6 * 4  # of seven speakers one is set apart
        assert len({tuple(numbers) for numbers in member.trained}) == 20
        drawn = np.concatenate(member.trained)
        assert held(data, drawn, "variant") == {"clean", "g711", "noise10"}
        assert set(drawn) == set(np.flatnonzero(data.rows["path"].is_in(paths).to_numpy()))


def test_the_temperature_of_development_rows_is_applied_to_held_out_rows(networks):
    data = made()
    result = run_robust(data, part_of(data, ["s0"]))
    # after training each member is asked for all variants of its development clips, before for one of each
    asked = np.concatenate([member.asked[-1] for member in networks])
    assert len(asked) == 2 * 4 * 3
    assert [len(member.asked[0]) for member in networks] == [4, 4]
    p, y = result.development.probabilities, result.development.truth
    np.testing.assert_array_equal(p, said(asked))
    np.testing.assert_array_equal(y, (data.rows["emotion"].gather(asked) == "sad").to_numpy())
    assert result.temperature == fitted_temperature(p, y) != 1
    expected = tempered(said(result.fold.test), result.temperature)
    np.testing.assert_array_equal(result.probabilities(["calm", "sad"]), expected)


def test_without_development_rows_all_are_trained_on_and_temperature_is_1(networks):
    data = made()
    everything = np.arange(len(data.rows))
    result = run_robust(data, part_of(data, [], train=everything, test=everything[:0], has_dev_split=False))
    for member in networks:
        assert held(data, member.trained[0], "path") == set(data.rows["path"])
        assert not any(len(rows) for rows in member.asked)
    assert result.temperature == 1
    assert result.raw.shape == (0, 2)
    assert all("dev_loss" not in row for row in result.history)


def test_members_have_seeds_of_their_own_whatever_the_seed(networks):
    data = made()
    for seed in (0, 1, 2**32 - 1):
        run_robust(data, part_of(data, ["s0"], seed=seed))
    seeds = [member.seed for member in networks]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.fixture
def written(monkeypatch):
    """What a training would write, kept instead."""
    calls = []

    def write_model(training, runs, final):
        calls.append(SimpleNamespace(runs=runs, final=final))
        return SimpleNamespace(schema=SimpleNamespace(metrics=None), model_id="0")

    monkeypatch.setattr("ser_batch.training.run.write_model", write_model)
    return calls


def trained_on(monkeypatch, data, tmp_path, **options):
    monkeypatch.setattr("ser_batch.training.run.load_features", lambda *_, **__: data)
    monkeypatch.setattr("ser_batch.training.run.read_features_spec", lambda _: SimpleNamespace(feature_spec=data.spec))
    return train([tmp_path], TrainOptions(out=tmp_path / "model", **options), say=quiet)


def test_the_model_of_all_rows_has_the_temperature_of_all_folds(networks, written, tmp_path, monkeypatch):
    data = made(n_speakers=12)
    folds = tmp_path / "folds.csv"
    folds.write_text("speaker,fold\n" + "".join(f"s{i},{'ab'[i % 4 // 2]}\n" for i in range(12)))
    trained_on(monkeypatch, data, tmp_path, split=str(folds), epochs=1)
    (call,) = written
    own = call.runs["robust"]
    assert [run.fold.name for run in own] == ["a", "b"]
    p = np.concatenate([run.development.probabilities for run in own])
    y = np.concatenate([run.development.truth for run in own])
    assert len(p) == 2 * 2 * 4 * 3  # a speaker for each of two members in each of two folds
    assert call.final.temperature == fitted_temperature(p, y)
    assert call.final.temperature not in {1.0, *(run.temperature for run in own)}
    assert held(data, call.final.fold.train, "path") == set(data.rows["path"])
    for member in networks[-2:]:
        assert held(data, member.trained[0], "path") == set(data.rows["path"])


@pytest.mark.parametrize(
    ("options", "own", "baseline"),
    [
        ({}, {"clean", "g711", "noise10"}, {"clean"}),
        ({"train_variants": "g711,noise10"}, {"g711", "noise10"}, {"g711", "noise10"}),
    ],
)
def test_baselines_hear_clean_rows_where_there_are_any(
    options, own, baseline, networks, written, tmp_path, monkeypatch
):
    data = made()
    trained_on(monkeypatch, data, tmp_path, split="speaker", epochs=1, baselines="majority,robust,logistic", **options)
    (call,) = written
    assert list(call.runs) == ["robust", "majority", "logistic"]
    assert len(networks) == 2, "the model is trained twice, once as its own baseline"
    for kind, (result,) in call.runs.items():
        assert held(data, result.fold.train, "variant") == (own if kind == "robust" else baseline)


@pytest.mark.parametrize(
    ("variants", "options", "is_warned"),
    [
        (("clean",), {}, True),
        (("clean",), {"train_variants": "all"}, True),
        (("clean",), {"train_variants": "clean"}, False),
        (("clean",), {"recipe": "published"}, False),
        (("clean", "g711"), {}, False),
    ],
)
def test_a_robust_model_of_clean_recordings_is_warned_of(
    variants, options, is_warned, networks, written, tmp_path, monkeypatch
):
    summary = trained_on(monkeypatch, made(variants=variants), tmp_path, split="speaker", epochs=1, **options)
    assert sum("--variants robust" in warning for warning in summary.warnings) == is_warned


def targets_of(y):
    """Targets of rows with these label numbers, of one corpus."""
    n = y.max() + 1
    return Targets([str(number) for number in range(n)], y, np.eye(n, dtype=np.float32)[y], None)


def test_a_segment_comes_in_any_of_its_own_variants_however_many_there_are():
    data = made(n_speakers=1, clips=3)
    rows = np.array([0, 1, 2, 4, 6, 8])  # three variants, one, two
    segments = TrainingSegments(
        data, rows, targets_of(np.arange(9) // 3), Scaler((0,) * 3, (1,) * 3), RECIPES["published"]
    )
    assert len(segments) == 3
    drawn = []
    for seed in range(50):
        x, targets = segments.batch(np.array([2, 0, 1]), np.random.default_rng(seed))
        np.testing.assert_array_equal(targets, np.eye(3)[[2, 0, 1]])
        again, _ = segments.batch(np.array([2, 0, 1]), np.random.default_rng(seed))
        np.testing.assert_array_equal(x, again)
        drawn.append(x[:, 0, 0] - 1)
    assert [set(numbers) for numbers in np.transpose(drawn)] == [{6, 8}, {0, 1, 2}, {4}]


def test_mixed_segments_have_labels_in_the_shares_of_the_segments():
    data = made(n_speakers=1, clips=6, variants=("clean",))
    recipe = dataclasses.replace(RECIPES["published"], mixup=0.5)
    segments = TrainingSegments(data, np.arange(6), targets_of(np.arange(6)), Scaler((0,) * 3, (1,) * 3), recipe)
    shares = []
    for seed in range(30):
        x, targets = segments.batch(np.arange(6), np.random.default_rng(seed))
        np.testing.assert_allclose(x[:, 0, 0], targets @ np.arange(1, 7), rtol=1e-5)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
        shares += np.diag(targets).tolist()
    assert min(shares) >= 0.5  # its own label stays the largest
    assert 0.5 < np.mean(shares) < 0.99


def test_augmentation_is_drawn_anew_for_each_batch_and_padding_stays_zero(data):
    rows = np.arange(len(data.rows))
    targets = targets_of(np.zeros(len(rows), dtype=np.int64))
    scaler = fit_scaler(data.mfcc, data.n_frames, rows)
    segments = TrainingSegments(data, rows, targets, scaler, dataclasses.replace(RECIPES["robust"], mixup=0.0))
    one, same, other = (segments.batch(np.arange(4), np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.shape == (4, 174, 40)
    for segment in one:
        last = np.flatnonzero(segment.any(axis=1))[-1]
        assert 20 < last < 170, "nothing is padded, so this test would prove nothing"
        assert not segment[last + 1 :].any()


# --- temperature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "is_right", "temperature"),
    [
        (0.9, 0.75, 2.0),  # odds of 9 are odds of 3
        (0.75, 0.9, 0.5),
        (0.8, 0.8, 1.0),
        (0.9, 0.5, 4.0),  # as far as it goes
        (0.9, 1.0, 0.25),
    ],
)
def test_the_temperature_makes_a_model_as_sure_as_it_is_right(says, is_right, temperature):
    p = np.tile([[says, 1 - says], [1 - says, says]], (20, 1))
    truth = np.tile([0, 1], 20)
    wrong = np.arange(40) < round((1 - is_right) * 40)
    truth[wrong] = 1 - truth[wrong]
    assert fitted_temperature(p, truth) == pytest.approx(temperature, rel=1e-2)


def test_without_rows_the_temperature_is_one():
    assert fitted_temperature(np.empty((0, 3)), np.empty(0, dtype=np.int64)) == 1.0


def test_predictions_and_the_models_folder_have_the_same_temperature(small_robust, small_variants):
    temperature = values_of(small_robust)["temperature"]
    assert temperature != 1
    rows = table(small_robust, "predictions")
    found = rescored(small_robust, small_variants, rows)
    np.testing.assert_allclose(found, probabilities(rows), atol=1e-5)  # Keras there, NumPy here
    plain = tempered(found, 1 / temperature)
    assert np.abs(plain - found).max() > 1e-3, "the temperature changes nothing, so this test would prove nothing"


def test_a_model_without_development_rows_has_no_temperature(small_model):
    assert values_of(small_model)["temperature"] == 1.0


def test_the_time_that_is_left_counts_no_compilation(monkeypatch):
    clock = [0.0]
    said: list[str] = []
    monkeypatch.setattr("ser_batch.training.tasks.time.monotonic", lambda: clock[0])
    task: Any = SimpleNamespace(fold=SimpleNamespace(name="a", seed=0), say=said.append)
    seconds: list[float] = []
    for member in (1, 2):
        log = EpochLog(task, epochs=3, member=member, n_members=2, seconds=seconds)
        log.begin()
        clock[0] += 100  # until the first of ten steps is done
        log.compiled(10)
        clock[0] += 9
        trained = clock[0]
        clock[0] += 50  # what predicts development rows is compiled
        log.add(1, {"loss": 0.5}, trained=trained)
        clock[0] += 10
        log.add(2, {"loss": 0.4}, trained=clock[0])
    assert said == [
        "network 1 of 2: compiling",
        "network 1 of 2: training",
        "network 1 of 2: epoch 1/3  loss 0.500  50 s left",
        "network 1 of 2: epoch 2/3  loss 0.400  40 s left",
        "network 2 of 2: compiling",
        "network 2 of 2: training",
        "network 2 of 2: epoch 1/3  loss 0.500  20 s left",
        "network 2 of 2: epoch 2/3  loss 0.400  10 s left",
    ]
    one_step = EpochLog(task, epochs=3)
    one_step.compiled(1)
    one_step.add(1, {"loss": 0.5})
    assert said[-1] == "epoch 1/3  loss 0.500", "nothing is known of how long an epoch is"
