"""Every file of jobs/ runs, shortened."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner
from dask_cluster import dask_cluster

from ser_batch.cli.commands import cli
from ser_batch.config.job import read_job

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.toml"))


@pytest.fixture
def folder(tmp_path, monkeypatch, small_corpus):
    """A working directory with what the jobs take as input."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_corpus, "audio")
    Path("calls").mkdir()
    generator = np.random.default_rng(0)
    for number in range(2):
        soundfile.write(f"calls/{number}.wav", generator.normal(0, 0.05, (8000 * 7, 2)), 8000, subtype="ULAW")
    return tmp_path


def run(job: Path, *overrides: str) -> str:
    arguments = ["run", str(job)]
    for override in overrides:
        arguments += ["--set", override]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_all_jobs_are_tested():
    assert {job.name for job in JOBS} == {
        "demo.toml", "ravdess-published.toml", "ravdess-robust.toml", "nightly-calls.toml", "three-corpora.toml",
        "open-model.toml", "fast-model.toml", "research-model.toml", "crema-d-speakers.toml", "ravdess-heads.toml",
        "dask-cluster.toml",
    }  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_a_job_opens_with_purpose_inputs_and_outputs(job):
    text = job.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert "# Inputs:" in text
    assert "# Outputs:" in text
    read_job(job)


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
def test_demo(folder, root):
    run(root / "jobs/demo.toml", "train.epochs=1", "featurize.jobs=1", "score.jobs=1")
    assert len(pl.read_parquet("demo/preds.parquet")) == 240
    assert Path("demo/model/report.html").is_file()
    # the second run is a new one, not a complaint about the first
    run(root / "jobs/demo.toml", "train.epochs=1", "featurize.jobs=1", "score.jobs=1")


@pytest.mark.usefixtures("small_networks")
def test_ravdess_published(folder, root):
    output = run(root / "jobs/ravdess-published.toml", "train.epochs=1", "featurize.jobs=1")
    assert "weighted_avg" in output
    assert pl.read_parquet("features/*.parquet")["dataset"].unique().to_list() == ["ravdess"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
def test_ravdess_robust(folder, root):
    for recording in Path("audio").rglob("*.wav"):
        if recording.stem.split("-")[2] not in ("03", "05"):  # two emotions are enough to train on
            recording.unlink()
    run(root / "jobs/ravdess-robust.toml", "train.epochs=1", "featurize.jobs=1", "train.conditions=clean,g711")
    summary = pl.read_parquet("model-robust/summary.parquet")
    assert set(summary["estimator"]) == {"robust", "majority", "logistic", "forest", "svm", "published"}
    assert set(summary["condition"]) == {"clean", "g711"}
    assert summary.filter(subset="all")["n"].n_unique() == 1


SHORT = (
    "train.epochs=1", "featurize.jobs=1", "featurize.variants=clean", "train.conditions=clean",
    "train.train_variants=clean",
)  # fmt: skip


def as_other_corpora():
    """Give what is angry, happy and sad in audio/ the names of CREMA-D, EmoDB and nEMO too, a few of each."""
    codes = {"03": ("HAP", "F", "happiness"), "04": ("SAD", "T", "sadness"), "05": ("ANG", "W", "anger")}
    for recording in sorted(Path("audio").rglob("*.wav")):
        _, _, emotion, intensity, statement, _, actor = recording.stem.split("-")
        if emotion not in codes:
            recording.unlink()
            continue
        english, german, polish = codes[emotion]
        sentence = {"01": "IEO", "02": "TIE"}[statement]
        speaker, version = ("03", "08", "09", "10")[int(actor) % 4], "ab"[int(intensity) - 1]
        samples, rate = soundfile.read(recording)
        # with 0.2 s more or less of the beginning, so that they are no copies
        for name, n in (
            (f"crema-d/{1000 + int(actor)}_{sentence}_{english}_XX.wav", rate // 5),
            (f"emodb/{speaker}a{statement}{german}{version}.wav", rate * 2 // 5),
            (f"nemo/{('EB0', 'SM0')[int(actor) % 2]}_{polish}_{statement.lstrip('0')}.wav", rate * 3 // 5),
        ):
            Path(name).parent.mkdir(exist_ok=True)
            soundfile.write(name, samples[n:], rate)


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(("name", "recipe"), [pytest.param("open", "head", marks=pytest.mark.slow), ("fast", "robust")])
def test_models_that_may_be_used_are_tried_on_corpora_they_never_heard(name, recipe, folder, root):
    as_other_corpora()
    run(root / f"jobs/{name}-model.toml", *SHORT)
    model = json.loads(Path(f"model-{name}/model.json").read_text())
    assert model["recipe"] == recipe
    assert set(model["metrics"]["held_out_corpora"]) == {"ravdess", "nemo"}
    assert "commercial use allowed" in model["license"]
    assert "RAVDESS" not in model["license"]
    assert model["training"]["datasets"] == ["crema-d", "emodb"]
    assert "| ravdess |" in Path(f"model-{name}/MODEL_CARD.md").read_text()


@pytest.mark.slow  # as the models above, with more corpora
@pytest.mark.usefixtures("small_networks")
def test_each_corpus_is_held_out(folder, root):
    as_other_corpora()
    output = run(root / "jobs/research-model.toml", *SHORT)
    assert "corpora never heard" in output
    model = json.loads(Path("model-research/model.json").read_text())
    assert set(model["metrics"]["held_out_corpora"]) == {"ravdess", "crema-d", "emodb", "nemo"}
    assert "not for commercial use" in model["license"]
    run(root / "jobs/three-corpora.toml", *SHORT)  # with the same features
    three = json.loads(Path("model-three/model.json").read_text())
    assert set(three["metrics"]["held_out_corpora"]) == {"ravdess", "crema-d", "emodb"}


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
def test_ravdess_heads(folder, root):
    as_other_corpora()
    run(root / "jobs/ravdess-heads.toml", *SHORT, "train.split=speaker:2")
    regimes = pl.read_parquet("model-ravdess/regimes.parquet")
    assert set(regimes["regime"]) >= {"none", "alone", "balanced"}


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
def test_crema_d_speakers(folder, root):
    as_other_corpora()
    run(root / "jobs/crema-d-speakers.toml", *SHORT, "train.split=speaker:2")
    predictions = pl.read_parquet("model-crema-d/predictions.parquet")
    assert predictions["fold"].n_unique() == 2
    assert predictions["speaker"].n_unique() == 4


def test_nightly_calls(folder, root):
    run(root / "jobs/nightly-calls.toml", "score.jobs=1")
    rows = pl.read_parquet("preds.parquet")
    assert rows["role"].unique().to_list() == ["customer"]
    assert rows["channel"].unique().to_list() == [1]
    soundfile.write("calls/new.wav", np.random.default_rng(1).normal(0, 0.05, (8000 * 7, 2)), 8000)
    output = run(root / "jobs/nightly-calls.toml", "score.jobs=1")
    assert "done: 1 recording in" in output
    assert "2 already up to date" in output
    assert pl.read_parquet("preds.parquet")["path"].n_unique() == 3


def test_dask_cluster(folder, root, tmp_path_factory):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with dask_cluster(tmp_path_factory.mktemp("dask"), n_workers=1) as cluster:
        output = run(root / "jobs/dask-cluster.toml", f"score.scheduler={cluster.address}")
    assert "done: 2 recordings" in output
    rows = pl.read_parquet("scored/*.parquet")
    assert rows["channel"].unique().to_list() == [1]
    assert set(pl.read_parquet("scored/_tables/calls.parquet")["path"]) == {"0.wav", "1.wav"}


def test_set_overrides_a_key_and_refuses_an_unknown_one(folder, root):
    result = CliRunner().invoke(cli, ["run", str(root / "jobs/demo.toml"), "--set", "train.epoch=1"])
    assert result.exit_code == 2
    assert "did you mean epochs?" in result.output


def test_a_job_does_not_write_over_recordings_unless_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording = Path("audio/Actor_01/03-01-01-01-01-01-01.wav")
    recording.parent.mkdir(parents=True)
    recording.write_bytes(b"real")
    Path("job.toml").write_text('[synth]\nfolder = "audio"\nactors = 1\n')
    result = CliRunner().invoke(cli, ["run", "job.toml"])
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert recording.read_bytes() == b"real"
