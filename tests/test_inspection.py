"""What inspect says of folders and tables, ours and others."""

import json
import shutil
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ser_batch.cli.commands import cli
from ser_batch.config.features import PRESETS
from ser_batch.config.options import ScoreOptions
from ser_batch.errors import InputError, ModelError, UsageError
from ser_batch.inspection import inspect
from ser_batch.scoring.run import score
from ser_batch.tables.parquet import rows_table, write_table
from ser_batch.tables.schemas import REJECTS, features_schema


@pytest.fixture(scope="module")
def scored(small_corpus, small_model, tmp_path_factory):
    """Predictions of 31 recordings, one of them broken, as a file and as a folder."""
    folder = tmp_path_factory.mktemp("scored")
    shutil.copytree(small_corpus / "Actor_01", folder / "calls")
    (folder / "calls" / "broken.wav").write_bytes(b"no sound")
    for out in ("preds.parquet", "predictions"):
        score(folder / "calls", ScoreOptions(out=folder / out, model=str(small_model), jobs=1))
    return folder


def test_features(small_features):
    found = inspect(small_features, n_first=2)
    assert (found.kind, found.schema_version, found.n_rows) == ("features", "1", 120)
    assert found.n_files == len(list(small_features.glob("*.parquet")))
    assert dict(found.columns.iter_rows())["mfcc"] == "fixed_size_list<fixed_size_list<float>[40]>[174]"
    assert found.spec["feature_spec"]["sampling_rate"] == 22050
    assert found.figures["n_recordings"] == 120
    assert found.figures["n_speakers"] == 4
    assert found.figures["n_rejected"] == 0
    table = pl.read_parquet(small_features / "*.parquet", columns=["emotion", "duration_s", "path"])
    assert found.figures["audio_s"] == pytest.approx(table["duration_s"].sum())
    assert found.figures["longest_duration_s"] == table["duration_s"].max()
    assert found.counts["emotion"] == dict(table["emotion"].value_counts().iter_rows())
    assert found.counts["speaker"] == {f"ravdess-0{actor}": 30 for actor in (1, 2, 3, 4)}
    assert found.first["path"].to_list() == table["path"].head(2).to_list()
    assert "mfcc" not in found.first.columns
    assert any("clean rows only" in note for note in found.notes)


def test_arrays_are_never_read(small_features, tmp_path):
    shutil.copytree(small_features, tmp_path / "features")
    for part in (tmp_path / "features").glob("*.parquet"):
        metadata = pq.read_metadata(part)
        contents = bytearray(part.read_bytes())
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                if column.path_in_schema.startswith("mfcc"):
                    start = column.dictionary_page_offset or column.data_page_offset
                    contents[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
        part.write_bytes(contents)
    with pytest.raises(pl.exceptions.PolarsError):
        pl.read_parquet(tmp_path / "features" / "*.parquet")
    assert inspect(tmp_path / "features").figures == inspect(small_features).figures


def test_speakers_and_emotions_that_are_not_known_are_counted_whatever_else_there_is(tmp_path):
    rows = [{"path": f"{i}.wav", "emotion": f"e{i}", "speaker": f"s{i % 3}"} for i in range(101)]
    schema = features_schema(PRESETS["telephone"])
    write_table(tmp_path / "part-000001.parquet", rows_table([*rows, {"path": "nobody.wav"}], schema))
    found = inspect(tmp_path)
    assert (found.figures["n_speakers"], found.figures["n_rows_without_speaker"]) == (3, 1)
    assert found.figures["n_rows_without_emotion"] == 1
    assert found.notes[1] == "1 rows have no emotion and are not trained on"


def test_a_part_by_itself(small_features):
    part = min(small_features.glob("*.parquet"))
    found = inspect(part)
    assert found.kind == "features"
    assert found.n_files == 1
    assert found.spec["dataset"] == "audio", "spec.json lies beside it"


@pytest.mark.parametrize("name", ["preds.parquet", "predictions"])
def test_predictions(scored, name):
    found = inspect(scored / name)
    assert (found.kind, found.n_rows) == ("predictions", 30)
    assert found.figures["n_rejected"] == 1
    assert found.figures["n_calls"] == 30
    assert found.figures["n_recordings"] == 30
    assert found.counts["rejected at"] == {"open": 1}
    assert sum(found.counts["status"].values()) == 30
    assert sum(found.counts["predicted"].values()) == 30
    assert found.spec["segmentation"]["mode"] == "windows"
    assert found.notes == ("1 recordings were rejected; the reasons are in the table of rejects",)


def test_predictions_without_their_side_tables(scored, tmp_path):
    shutil.copy(scored / "preds.parquet", tmp_path)
    found = inspect(tmp_path / "preds.parquet")
    assert found.spec == {}
    assert "n_rejected" not in found.figures
    assert found.notes[0].startswith(
        "without preds.calls.parquet, preds.quarters.parquet, preds.report.parquet, preds.rejects.parquet: "
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("preds.calls.parquet", "calls"), ("preds.report.parquet", "labels"), ("preds.rejects.parquet", "rejects")],
)
def test_side_tables(scored, name, kind):
    found = inspect(scored / name)
    assert found.kind == kind
    assert found.n_rows == len(pl.read_parquet(scored / name))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("predictions", "model predictions"),
        ("report", "model report"),
        ("summary", "models"),
        ("confusion", "confusion"),
        ("history", "history"),
        ("reliability", "reliability"),
        ("coverage", "coverage"),
        ("regimes", "regimes"),
    ],
)
def test_tables_of_a_model(small_model, name, kind):
    assert inspect(small_model / f"{name}.parquet").kind == kind


def test_a_model(small_model, tmp_path):
    found = inspect(small_model)
    values = json.loads((small_model / "model.json").read_text(encoding="utf-8"))
    assert (found.kind, found.n_rows, found.schema_version) == ("model", None, None)
    assert found.spec["model_id"] == values["model_id"]
    assert found.spec["labels"] == values["labels"]
    assert found.figures["uar"] == values["metrics"]["uar"]
    assert sum(found.counts["emotion"].values()) == found.figures["training_n_rows"]
    assert found.notes == (values["metrics"]["description"],)
    shutil.copytree(small_model, tmp_path / "model")
    (tmp_path / "model" / "network.keras").write_bytes(b"another")
    with pytest.raises(ModelError, match="altered"):
        inspect(tmp_path / "model")


def test_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = inspect(Path("open"))
    assert found.figures["uar_on_ravdess"] == pytest.approx(0.74, abs=0.02)
    with pytest.raises(UsageError, match="did you mean open"):
        inspect(Path("opne"))


def test_what_is_not_ours_is_named(small_corpus, tmp_path):
    with pytest.raises(UsageError, match=r"Of recordings, `ser-batch featurize` makes features"):
        inspect(small_corpus)
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet: a Parquet file without schema_version"):
        inspect(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(InputError, match=r"y\.parquet: cannot be read as Parquet"):
        inspect(tmp_path / "y.parquet")
    with pytest.raises(UsageError, match="--rows -1"):
        inspect(tmp_path / "x.parquet", n_first=-1)


def test_a_broken_part_is_named(small_features, tmp_path):
    shutil.copytree(small_features, tmp_path / "features")
    part = max((tmp_path / "features").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(InputError, match=part.name):
        inspect(tmp_path / "features")
    part.unlink()
    (tmp_path / "features" / "spec.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"spec\.json: cannot be read as JSON"):
        inspect(tmp_path / "features")


def test_names_that_are_not_utf8_are_refused(small_features, tmp_path):
    from ser_batch.config.options import TrainOptions
    from ser_batch.report.pages import write_page
    from ser_batch.training.run import train

    bad = tmp_path / "features\udce4"
    shutil.copytree(small_features, bad)
    part = min(bad.glob("*.parquet")).rename(tmp_path / "part\udce4.parquet")
    for call in (
        lambda: inspect(bad),
        lambda: inspect(part),
        lambda: write_page(part, tmp_path / "page.html"),
        lambda: train([bad], TrainOptions(out=tmp_path / "model")),
        lambda: train([small_features], TrainOptions(out=tmp_path / "model\udce4", estimator="logistic")),
    ):
        with pytest.raises(UsageError, match=r"udce4(\.parquet)?: the name is not UTF-8, which Parquet needs; "):
            call()


def test_an_empty_table(tmp_path):
    file = tmp_path / "none.parquet"
    write_table(file, rows_table([], REJECTS))
    found = inspect(file)
    assert (found.kind, found.n_rows, found.notes) == ("rejects", 0, ("it has no rows",))
    shown = CliRunner().invoke(cli, ["inspect", str(file)], catch_exceptions=False).stdout
    size = f"{file.stat().st_size / 1000:.1f} kB"
    assert shown.startswith(f"{file}: rejects, 0 rows in 1 file, {size}, schema version 1\n")


def test_hostile_names_are_shown_escaped(tmp_path):
    rows = [{"path": "a\x1b[31m\n|[red].wav", "stage": "open", "error": "E\x9b", "message": "m"}]
    file = tmp_path / "re\x1bject[s]*.parquet"
    write_table(file, rows_table(rows, REJECTS))
    shown = CliRunner().invoke(cli, ["inspect", str(file)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.output.replace("\n", "").isprintable()
    assert r"a\x1b[31m\n|[red].wav" in shown.output
    told = CliRunner().invoke(cli, ["inspect", str(file), "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["first"] == rows
    assert json.loads(told.stdout)["counts"]["error"] == {"E\x9b": 1}
    assert told.stdout.isascii()
