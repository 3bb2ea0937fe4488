"""Training: what it writes, that it repeats, what it refuses."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ser_batch import bundle
from ser_batch.config import FeaturizeOptions, TrainOptions
from ser_batch.errors import InputError, OutputError, UsageError
from ser_batch.featurize import featurize
from ser_batch.tables import load_features
from ser_batch.train import train


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def run(features, out, **options):
    return train([features], TrainOptions(out=out, **options), say=quiet)


def test_the_model_folder_holds_all_that_was_promised(small_model):
    assert {path.name for path in small_model.iterdir()} == {
        "network.keras",
        "bundle.json",
        "predictions.parquet",
        "report.parquet",
        "confusion.parquet",
        "history.parquet",
        "report.html",
        "MODEL_CARD.md",
    }


@pytest.mark.parametrize("estimator", ["cnn", "logistic"])
def test_a_table_too_large_for_memory_gives_the_very_same_model(estimator, small_features, tmp_path, monkeypatch):
    loaded = []

    def load(folders, *, scratch, in_memory_bytes):
        loaded.append(load_features(folders, scratch=scratch, in_memory_bytes=in_memory_bytes))
        return loaded[-1]

    models = []
    for place, in_memory_bytes in (("memory", 2**30), ("disk", 0)):
        monkeypatch.setattr("ser_batch.train.stage.load_features", partial(load, in_memory_bytes=in_memory_bytes))
        models.append(run(small_features, tmp_path / place, epochs=2, estimator=estimator, split="speaker"))
    assert [isinstance(features.mfcc, np.ndarray) for features in loaded] == [True, False]
    if estimator == "cnn":
        assert models[0].model_id == models[1].model_id
    in_memory, on_disk = (pl.read_parquet(tmp_path / place / "predictions.parquet") for place in ("memory", "disk"))
    assert in_memory.equals(on_disk)
    assert {path.name for path in tmp_path.iterdir()} == {"memory", "disk"}


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


def test_report_confusion_and_bundle_agree_with_the_predictions(small_model):
    rows = pl.read_parquet(small_model / "predictions.parquet")
    accuracy = (rows["emotion"] == rows["predicted"]).mean()
    report = pl.read_parquet(small_model / "report.parquet")
    assert report.filter(label="accuracy")["f1"].item() == accuracy
    values = json.loads((small_model / "bundle.json").read_text())
    assert values["metrics"]["accuracy"] == accuracy
    counts = pl.read_parquet(small_model / "confusion.parquet")
    right = counts.filter(pl.col("emotion") == pl.col("predicted"))["count"].sum()
    assert (right / counts["count"].sum()) == accuracy
    history = pl.read_parquet(small_model / "history.parquet")
    assert history["epoch"].to_list() == [1, 2, 3]
    assert history["test_accuracy"][-1] == accuracy


def test_the_scaler_is_fitted_on_the_real_frames_of_the_training_part(small_model, small_features):
    data = load_features([small_features])
    held_out = set(pl.read_parquet(small_model / "predictions.parquet")["path"])
    frames = np.concatenate(
        [m[:n] for m, n, path in zip(data.mfcc, data.n_frames, data.rows["path"], strict=True) if path not in held_out]
    ).astype(np.float64)
    scaler = json.loads((small_model / "bundle.json").read_text())["scaler"]
    np.testing.assert_allclose(scaler["mean"], frames.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(scaler["scale"], frames.std(axis=0), rtol=1e-9)


def test_the_same_seed_gives_the_same_model_whatever_the_shards(small_corpus, small_model, tmp_path):
    featurize(small_corpus, FeaturizeOptions(out=tmp_path / "features", jobs=1, shard_size=7))
    again = run(tmp_path / "features", tmp_path / "model", epochs=3)
    assert again.model_id == bundle.load(small_model).model_id
    first, second = (pl.read_parquet(folder / "predictions.parquet") for folder in (small_model, again.out))
    assert first.equals(second)


def test_another_seed_gives_another_model(small_features, small_model, tmp_path):
    other = run(small_features, tmp_path / "model", epochs=1, seed=1)
    assert other.model_id != bundle.load(small_model).model_id


def test_the_same_command_again_does_nothing(small_features, small_model):
    before = (small_model / "network.keras").stat().st_mtime_ns
    again = run(small_features, small_model, epochs=3)
    assert not again.is_new
    assert again.report is not None
    assert (small_model / "network.keras").stat().st_mtime_ns == before


def test_another_training_into_the_same_folder_is_refused(small_features, small_model):
    with pytest.raises(OutputError, match=r"epochs was 3 and is 4.*--overwrite"):
        run(small_features, small_model, epochs=4)


def test_a_folder_with_something_else_is_left_alone(small_features, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        run(small_features, tmp_path, epochs=1, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_overwrite_replaces_the_model_and_leaves_nothing_beside_it(small_features, small_model, tmp_path):
    out = shutil.copytree(small_model, tmp_path / "model")
    run(small_features, out, epochs=1, overwrite=True)
    assert json.loads((out / "bundle.json").read_text())["epochs"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_broken_training_leaves_nothing(small_features, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.train.writing.write_page", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run(small_features, tmp_path / "model", estimator="logistic")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("estimator", ["svm", "forest", "logistic"])
def test_classical_models_learn_and_come_back_without_pickle(small_features, tmp_path, estimator):
    summary = run(small_features, tmp_path / "model", estimator=estimator)
    assert summary.metrics["accuracy"] > 0.4
    loaded = bundle.load(tmp_path / "model")
    data = load_features([small_features])
    rows = pl.read_parquet(tmp_path / "model" / "predictions.parquet")
    place = [data.rows["path"].to_list().index(path) for path in rows["path"]]
    p = loaded.predictor()(data.mfcc[place], data.n_frames[place])
    np.testing.assert_allclose(p, rows.select(pl.col("^p_.*$")).to_numpy(), rtol=1e-12)


def test_speaker_split_holds_out_whole_speakers(small_features, tmp_path):
    summary = run(small_features, tmp_path / "model", estimator="logistic", split="speaker")
    assert summary.shared_speakers == 0
    assert "never heard" in summary.metrics["meaning"]
    assert pl.read_parquet(tmp_path / "model" / "predictions.parquet")["speaker"].n_unique() == 1


def test_folds_cover_every_row_and_the_final_model_is_trained_on_all(small_features, tmp_path):
    summary = run(small_features, tmp_path / "model", estimator="logistic", split="emobox")
    rows = pl.read_parquet(tmp_path / "model" / "predictions.parquet")
    assert len(rows) == rows["path"].n_unique() == 120
    assert rows["fold"].n_unique() == 4  # actors 1 to 4 stand in four of the six folds
    values = json.loads((tmp_path / "model" / "bundle.json").read_text())
    assert values["cross_validated"]
    assert values["training"]["n_rows"] == 120
    assert summary.n_test == 120


def test_split_none_trains_on_everything_and_claims_nothing(small_features, tmp_path):
    summary = run(small_features, tmp_path / "model", estimator="logistic", split="none")
    assert summary.report is None
    values = json.loads((tmp_path / "model" / "bundle.json").read_text())
    assert values["metrics"] == {}
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
    assert bundle.load(tmp_path / "model").labels == ("bored", "keen")


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
    assert bundle.load(out).model_id == bundle.load(small_model).model_id
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_damaged_model_names_the_way_out(small_features, small_model, tmp_path):
    out = shutil.copytree(small_model, tmp_path / "model")
    (out / "network.keras").write_bytes(b"")
    with pytest.raises(OutputError, match=r"altered.*--overwrite"):
        run(small_features, out, epochs=3)
