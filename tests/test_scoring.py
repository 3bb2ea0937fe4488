"""Scoring: rows for everything, right times, the network's own predictions again."""

import shutil

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import soundfile

from ser_batch.config.options import ScoreOptions
from ser_batch.errors import InputError, ModelError, OutputError, UsageError
from ser_batch.model.folder import load_model
from ser_batch.report.pages import write_page
from ser_batch.report.predictions import known_truth
from ser_batch.scoring.run import score
from ser_batch.storage.atomic import TEMPORARY_MARK
from ser_batch.storage.installed import INSTALLED_MODELS
from ser_batch.tables.schemas import calls_schema, predictions_schema


def run(audio, out, model, **options):
    return score(audio, ScoreOptions(out=out, model=str(model), **({"jobs": 1} | options)))


@pytest.fixture(scope="module")
def calls(tmp_path_factory, small_corpus):
    """Two calls: stereo with one silent channel, mono of 9.5 s; both at 8000 Hz."""
    folder = tmp_path_factory.mktemp("calls")
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:8]])[::2]
    soundfile.write(folder / "stereo.wav", np.stack((voice[: 8000 * 10], np.zeros(8000 * 10)), axis=1), 8000)
    soundfile.write(folder / "mono.wav", voice[: 8000 * 19 // 2], 8000, subtype="ULAW")
    return folder


@pytest.fixture(scope="module")
def scored(calls, small_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("scored") / "preds.parquet"
    return run(calls, out, small_model, channel_roles="0=agent,1=customer")


def test_clips_of_the_training_audio_give_the_networks_own_predictions(small_corpus, small_model, tmp_path):
    run(small_corpus, tmp_path / "preds.parquet", small_model, segments="clip")
    mine = pl.read_parquet(tmp_path / "preds.parquet")
    own = pl.read_parquet(small_model / "predictions.parquet")
    both = own.join(mine, on="path", suffix="_scored")
    assert len(both) == len(own)
    labels = load_model(small_model).labels
    np.testing.assert_allclose(
        both.select(f"p_{label}" for label in labels).to_numpy(),
        both.select(f"p_{label}_scored" for label in labels).to_numpy(),
        atol=1e-6,  # Keras there, NumPy here
    )


def test_windows_and_channels(scored):
    rows = pl.read_parquet(scored.out).sort("path", "channel", "segment")
    mono = rows.filter(path="mono.wav")
    assert mono["start_s"].to_list() == [0.0, 2.02, 4.04, 6.06]
    assert mono["end_s"].to_list() == pytest.approx([4.04, 6.06, 8.08, 9.5])
    assert mono["role"].to_list() == [None] * 4
    stereo = rows.filter(path="stereo.wav")
    assert stereo["channel"].to_list() == [0] * 4 + [1] * 4
    assert stereo["role"].to_list() == ["agent"] * 4 + ["customer"] * 4


def test_silent_segments_keep_their_row_without_a_prediction(scored):
    silent = pl.read_parquet(scored.out).filter(path="stereo.wav", channel=1)
    assert len(silent) == 4
    for column in ("rms_dbfs", "predicted", "confidence", "p_angry", "abstained"):
        assert silent[column].null_count() == 4
    call = pl.read_parquet(scored.out.with_suffix(".calls.parquet")).filter(path="stereo.wav", channel=1)
    assert call["status"].to_list() == ["no_speech"]
    assert call["n_segments"].to_list() == [4]


def test_columns_follow_from_the_probabilities(scored):
    rows = pl.read_parquet(scored.out).drop_nulls("predicted")
    p = rows.select(pl.col("^p_.*$")).to_numpy()
    ordered = -np.sort(-p, axis=1)
    np.testing.assert_allclose(rows["confidence"], ordered[:, 0])
    np.testing.assert_allclose(rows["margin"], ordered[:, 0] - ordered[:, 1])
    np.testing.assert_allclose(rows["entropy"], -(p * np.log(p)).sum(axis=1), rtol=1e-6)
    assert not rows["abstained"].any()


def test_calls_are_the_mean_of_their_segments_by_speech(scored):
    rows = pl.read_parquet(scored.out).filter(path="mono.wav")
    call = pl.read_parquet(scored.out.with_suffix(".calls.parquet")).filter(path="mono.wav")
    speech_s = ((rows["end_s"] - rows["start_s"]) * rows["speech_ratio"]).to_numpy()
    assert call["p_sad"].item() == pytest.approx(np.average(rows["p_sad"], weights=speech_s))
    assert call["share_sad"].item() == (rows["predicted"] == "sad").mean()
    assert call["duration_s"].item() == 9.5
    assert call["status"].item() == "low_sampling_rate"


def test_tables_have_their_schema_and_version(scored, small_model):
    labels = load_model(small_model).labels
    for suffix, schema in ((".parquet", predictions_schema(labels)), (".calls.parquet", calls_schema(labels))):
        found = pq.read_schema(scored.out.with_suffix(suffix))
        assert found.equals(schema)
        assert found.metadata[b"schema_version"] == b"1"
    assert pq.read_schema(scored.out.with_suffix(".rejects.parquet")).names == ["path", "stage", "error", "message"]


def test_a_silent_channel_and_low_rates_are_one_warning_each(scored):
    silent, low = scored.warnings
    assert silent.startswith("1 recordings have a channel with too little speech")
    assert "2 recordings have a sampling rate below the 16000 Hz" in low


def test_report_has_shares_by_role_and_no_metrics_without_truth(scored):
    report = pl.read_parquet(scored.out.with_suffix(".report.parquet"))
    assert report["role"].unique(maintain_order=True).to_list() == [None, "agent", "customer"]
    everything = report.filter(pl.col("role").is_null())
    assert everything["n_predicted"].sum() == 8
    assert everything["share"].sum() == pytest.approx(1)
    assert report["f1"].null_count() == len(report)
    assert not known_truth(report)


def test_report_has_metrics_where_names_say_the_truth(small_corpus, small_model, tmp_path):
    summary = run(small_corpus, tmp_path / "preds.parquet", small_model)
    calls = pl.read_parquet(tmp_path / "preds.calls.parquet")
    accuracy = (calls["predicted"] == calls["emotion"]).mean()
    assert known_truth(summary.labels)
    assert summary.labels.filter(label="accuracy")["f1"].item() == pytest.approx(accuracy)
    assert summary.labels.filter(label="happy")["support"].item() == 16


def test_two_jobs_give_the_very_same_tables(calls, scored, small_model, tmp_path):
    run(calls, tmp_path / "preds.parquet", small_model, jobs=2, shard_size=1, channel_roles="0=agent,1=customer")
    one, two = (
        pl.read_parquet(path).sort("path", "channel", "segment") for path in (scored.out, tmp_path / "preds.parquet")
    )
    assert one.equals(two)


def test_roles_score_only_their_channels(calls, small_model, tmp_path):
    summary = run(calls, tmp_path / "preds.parquet", small_model, channel_roles="0=agent,1=customer", only="agent")
    rows = pl.read_parquet(tmp_path / "preds.parquet")
    assert rows["role"].unique().to_list() == ["agent"]
    assert any(
        "1 recordings are not scored, because they have none of the requested channels or roles" in warning
        for warning in summary.warnings
    )


def test_a_second_run_scores_only_what_is_new(calls, small_model, tmp_path):
    audio = shutil.copytree(calls, tmp_path / "calls")
    out = tmp_path / "preds.parquet"
    run(audio, out, small_model)
    before = pl.read_parquet(out)
    shutil.copy(audio / "mono.wav", audio / "later.wav")
    again = run(audio, out, small_model)
    assert (again.n_done, again.n_up_to_date) == (1, 2)
    after = pl.read_parquet(out)
    key = ["path", "channel", "segment"]
    assert after.filter(pl.col("path") != "later.wav").sort(key).equals(before.sort(key))
    assert after["path"].n_unique() == 3
    assert len(pl.read_parquet(out.with_suffix(".calls.parquet"))) == 4


def test_a_folder_as_output_holds_parts_and_tables(calls, small_model, tmp_path):
    run(calls, tmp_path / "preds", small_model)
    assert len(pl.read_parquet(tmp_path / "preds" / "*.parquet")) == 12
    assert {path.name for path in (tmp_path / "preds" / "_tables").iterdir()} == {
        "report.html",
        "calls.parquet",
        "quarters.parquet",
        "report.parquet",
        "rejects.parquet",
    }


def test_leftovers_of_a_killed_run_are_removed_and_other_files_stay(calls, small_model, tmp_path):
    ends = (".parquet", ".calls.parquet", ".report.html")
    leftovers = [tmp_path / f".preds{end}{TEMPORARY_MARK}1-abcd" for end in ends]
    others = [tmp_path / f".preds2.parquet{TEMPORARY_MARK}1-abcd", tmp_path / ".preds.parquet.swp"]
    for path in [*leftovers, *others]:
        path.touch()
    run(calls, tmp_path / "preds.parquet", small_model)
    assert sorted(tmp_path.glob(".*")) == sorted(others)


def test_labels_with_times_are_scored_as_they_stand(calls, small_model, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,channel,start_s,end_s,emotion\nstereo.wav,0,1.0,3.5,angry\nstereo.wav,0,4,6,calm\n")
    summary = run(calls, tmp_path / "preds.parquet", small_model, segments="labels", labels=labels)
    rows = pl.read_parquet(tmp_path / "preds.parquet").sort("segment")
    assert rows.select("path", "channel", "start_s", "end_s", "emotion").rows() == [
        ("stereo.wav", 0, 1.0, 3.5, "angry"),
        ("stereo.wav", 0, 4.0, 6.0, "calm"),
    ]
    assert summary.labels.filter(label="accuracy")["support"].item() == 2


def test_changed_labels_change_the_truth(calls, small_model, tmp_path):
    labels = tmp_path / "labels.csv"
    for emotion in ("angry", "sad"):
        labels.write_text(f"path,emotion\nmono.wav,{emotion}\n")
        run(calls, tmp_path / "preds.parquet", small_model, labels=labels)
        rows = pl.read_parquet(tmp_path / "preds.parquet")
        assert rows.filter(path="mono.wav")["emotion"].unique().to_list() == [emotion]
        assert len(rows) == 12


def test_another_model_into_the_same_output_is_refused(calls, scored, small_features, small_model, tmp_path):
    from ser_batch.config.options import TrainOptions
    from ser_batch.training.run import train

    train([small_features], TrainOptions(out=tmp_path / "model", estimator="logistic"), say=lambda line: None)
    with pytest.raises(OutputError, match=r"model_id was .* --overwrite"):
        run(calls, scored.out, tmp_path / "model", channel_roles="0=agent,1=customer")


def test_an_altered_model_stops_the_run_and_rejects_nobody(calls, small_model, tmp_path):
    model = shutil.copytree(small_model, tmp_path / "model")
    text = (model / "model.json").read_text()
    (model / "model.json").write_text(text.replace('"temperature": 1.0', '"temperature": 2.0'))
    with pytest.raises(ModelError, match="saved together"):
        run(calls, tmp_path / "preds.parquet", model)
    assert not (tmp_path / "preds.parquet").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"window": 5.0}, UsageError, "choose --window 4.04"),
        ({"channels": "left"}, UsageError, "mix, split"),
        ({"channel_roles": "0=agent,boss"}, UsageError, "0=agent,1=customer"),
        ({"only": "customer"}, UsageError, "--channel-roles"),
        ({"segments": "labels"}, UsageError, "--labels"),
        ({"channels": "7"}, InputError, "nothing could be scored"),
    ],
)
def test_options_that_make_no_sense_are_refused(calls, small_model, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(calls, tmp_path / "preds.parquet", small_model, **options)
    assert not (tmp_path / "preds.parquet").exists()


def test_real_calls_have_rows_throughout(shared, tmp_path):
    """A telephone call, its sides merged to stereo, with the model of the package."""
    sides = [soundfile.read(shared / "calls" / f"call_40_{side}.wav", dtype="int16") for side in ("agent", "caller")]
    rate = sides[0][1]
    (tmp_path / "calls").mkdir()
    stereo = np.stack([samples[: rate * 60] for samples, _ in sides], axis=1)
    soundfile.write(tmp_path / "calls" / "call.wav", stereo, rate)
    run(tmp_path / "calls", tmp_path / "preds.parquet", "fast", channel_roles="0=agent,1=customer")
    rows = pl.read_parquet(tmp_path / "preds.parquet").sort("channel", "segment")
    for role in ("agent", "customer"):
        own = rows.filter(role=role)
        assert own["start_s"].to_list() == pytest.approx([2.02 * i for i in range(len(own))])
        assert own["end_s"][-1] == pytest.approx(60)
        assert own["predicted"].is_null().to_list() == (own["speech_ratio"] < 0.3).to_list()
        assert 0 < own["predicted"].null_count() < len(own)


def test_vanished_recordings_are_told_and_pruned(calls, small_model, tmp_path):
    audio = shutil.copytree(calls, tmp_path / "calls")
    run(audio, tmp_path / "preds.parquet", small_model)
    (audio / "mono.wav").unlink()
    assert run(audio, tmp_path / "preds.parquet", small_model).n_missing == 1
    assert pl.read_parquet(tmp_path / "preds.parquet")["path"].n_unique() == 2
    run(audio, tmp_path / "preds.parquet", small_model, prune=True)
    assert pl.read_parquet(tmp_path / "preds.parquet")["path"].unique().to_list() == ["stereo.wav"]
    assert pl.read_parquet(tmp_path / "preds.calls.parquet")["path"].unique().to_list() == ["stereo.wav"]


def test_a_network_that_fails_ends_the_run_and_blames_no_recording(calls, small_model, tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("out of workspace")

    monkeypatch.setattr("ser_batch.scoring.worker._model", lambda *_: (load_model(small_model), broken))
    with pytest.raises(ModelError, match=r"the network failed .*out of workspace"):
        run(calls, tmp_path / "preds.parquet", small_model)


def test_an_incomplete_model_folder_is_not_passed_over_for_the_shipped_one(calls, small_model, tmp_path, monkeypatch):
    shutil.copytree(small_model, tmp_path / "model")
    (tmp_path / "model" / "model.json").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"model: no model\.json"):
        score(calls, ScoreOptions(jobs=1))


def test_pages_of_a_folder_of_parts_and_of_the_shipped_model(calls, small_model, tmp_path):
    run(calls, tmp_path / "preds", small_model)
    write_page(tmp_path / "preds", tmp_path / "preds.html")
    assert "stereo.wav" in (tmp_path / "preds.html").read_text()
    write_page(INSTALLED_MODELS["research"], tmp_path / "model.html")
    assert "CC BY-NC-SA" in (tmp_path / "model.html").read_text()
    (tmp_path / "preds" / "_tables" / "report.parquet").unlink()
    with pytest.raises(UsageError, match=r"report\.parquet is missing"):
        write_page(tmp_path / "preds", tmp_path / "preds.html")


def test_unsure_segments_abstain_and_their_labels_are_not_counted(small_model, small_corpus, tmp_path):
    clips = small_corpus / "Actor_01"
    sure = run(clips, tmp_path / "sure.parquet", small_model)
    confidences = pl.read_parquet(tmp_path / "sure.parquet")["confidence"]
    threshold = float(np.median(confidences))
    unsure = run(clips, tmp_path / "unsure.parquet", small_model, min_confidence=threshold)
    rows = pl.read_parquet(tmp_path / "unsure.parquet")
    assert rows["abstained"].to_list() == [confidence < threshold for confidence in rows["confidence"]]
    assert 0 < rows["abstained"].sum() < len(rows)
    assert rows.drop("abstained").equals(pl.read_parquet(tmp_path / "sure.parquet").drop("abstained"))
    assert sure.labels["n_predicted"].sum() == len(rows)
    assert unsure.labels["n_predicted"].sum() == len(rows) - rows["abstained"].sum()
    calls = pl.read_parquet(tmp_path / "unsure.calls.parquet")
    shares = calls.select(pl.sum_horizontal(pl.col("^share_.*$"), ignore_nulls=False)).to_series()
    abstained = rows.group_by("path").agg(pl.col("abstained").all()).sort("path")["abstained"]
    assert shares.is_null().to_list() == abstained.to_list()
    np.testing.assert_allclose(shares.drop_nulls(), 1)


def test_another_threshold_into_the_same_output_is_refused(small_model, small_corpus, tmp_path):
    run(small_corpus / "Actor_01", tmp_path / "preds.parquet", small_model)
    with pytest.raises(OutputError, match=r"min_confidence was 0\.0 and is 0\.5"):
        run(small_corpus / "Actor_01", tmp_path / "preds.parquet", small_model, min_confidence=0.5)


# ---- speech ----


@pytest.fixture(scope="module")
def quiet_calls(tmp_path_factory, small_corpus):
    """A call with a pause of 8 s, one of a hissing line, one with the same voice on both channels; at 16000 Hz."""
    folder = tmp_path_factory.mktemp("quiet")
    rate = 16000
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))[:3]])[: rate * 4]
    hiss = 0.001 * np.random.default_rng(0).standard_normal(rate * 16)
    call = hiss.copy()
    call[: len(voice)] += voice
    call[12 * rate : 12 * rate + len(voice)] += voice
    soundfile.write(folder / "call.wav", call, rate)
    soundfile.write(folder / "hiss.wav", hiss, rate)
    soundfile.write(folder / "twice.wav", np.stack((call, call), axis=1), rate)
    return folder


@pytest.fixture(scope="module")
def quietly_scored(quiet_calls, small_model, tmp_path_factory):
    return run(quiet_calls, tmp_path_factory.mktemp("scored") / "preds.parquet", small_model)


def test_windows_with_little_speech_keep_their_row_without_a_prediction(quietly_scored):
    rows = pl.read_parquet(quietly_scored.out).filter(path="call.wav").sort("segment")
    assert rows["speech_ratio"].is_between(0, 1).all()
    assert rows["speech_ratio"][0] > 0.8
    assert rows.filter(pl.col("start_s") > 4, pl.col("end_s") < 12)["speech_ratio"].to_numpy().max() < 0.05
    assert rows["predicted"].is_null().to_list() == (rows["speech_ratio"] < 0.3).to_list()
    assert rows["rms_dbfs"].null_count() == 0
    scored = rows.drop_nulls("predicted")
    call = pl.read_parquet(quietly_scored.out.with_suffix(".calls.parquet")).filter(path="call.wav")
    speech_s = (scored["end_s"] - scored["start_s"]) * scored["speech_ratio"]
    assert call["p_sad"].item() == pytest.approx(np.average(scored["p_sad"], weights=speech_s))
    assert call["n_segments"].item() == len(rows)
    assert call["speech_s"].item() == pytest.approx(8, abs=0.8)
    assert call["overlap_s"].item() is None


def test_a_call_without_speech_says_so(quietly_scored):
    call = pl.read_parquet(quietly_scored.out.with_suffix(".calls.parquet")).filter(path="hiss.wav")
    assert call.select("status", "predicted", "speech_s").rows() == [("no_speech", None, 0.0)]
    assert any(warning.startswith("1 recordings have a channel with too little") for warning in quietly_scored.warnings)


def test_the_same_sound_on_two_channels_is_scored_once(quietly_scored):
    rows = pl.read_parquet(quietly_scored.out)
    assert rows.filter(path="twice.wav")["channel"].unique().to_list() == [0]
    calls = pl.read_parquet(quietly_scored.out.with_suffix(".calls.parquet")).sort("path", "channel")
    twice = calls.filter(path="twice.wav")
    assert twice["status"].to_list() == ["ok", "duplicate_channel"]
    assert twice["n_segments"].to_list() == [rows.filter(path="twice.wav").height, 0]
    assert twice["overlap_s"].to_list() == [0, 0]
    np.testing.assert_array_equal(twice["p_sad"][0], calls.filter(path="call.wav")["p_sad"].item())


@pytest.mark.parametrize("channels", ["1", "mix"])
def test_a_copy_that_is_all_there_is_wanted_of_is_scored(quiet_calls, small_model, tmp_path, channels):
    summary = run(quiet_calls / "twice.wav", tmp_path / "preds.parquet", small_model, channels=channels)
    calls = pl.read_parquet(summary.out.with_suffix(".calls.parquet"))
    assert calls["status"].to_list() == ["ok"]
    assert calls["overlap_s"].to_list() == ([0.0] if channels == "1" else [None])


def test_a_label_is_of_the_channel_that_it_names_also_where_another_has_the_same_sound(
    quiet_calls, small_model, tmp_path
):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,channel,start_s,end_s,emotion\ntwice.wav,0,0,3,sad\ntwice.wav,1,0,4,calm\n")
    run(quiet_calls, tmp_path / "preds.parquet", small_model, segments="labels", labels=labels)
    rows = pl.read_parquet(tmp_path / "preds.parquet").drop_nulls("predicted").sort("channel")
    assert rows.select("channel", "end_s", "emotion").rows() == [(0, 3.0, "sad"), (1, 4.0, "calm")]


def test_min_speech_is_an_option_and_part_of_the_run(quiet_calls, small_model, tmp_path):
    hiss = quiet_calls / "hiss.wav"
    assert run(hiss, tmp_path / "preds.parquet", small_model, min_speech=0.0).n_segments > 0
    assert pl.read_parquet(tmp_path / "preds.parquet")["predicted"].null_count() == 0
    with pytest.raises(OutputError, match=r"min_speech was 0\.0 and is 0\.3"):
        run(hiss, tmp_path / "preds.parquet", small_model)
    with pytest.raises(UsageError, match=r"--min-speech 1\.5; expected a number from 0 to 1"):
        ScoreOptions(min_speech=1.5)


def test_what_the_user_chose_is_scored_whatever_its_speech(quiet_calls, small_model, tmp_path):
    run(quiet_calls / "hiss.wav", tmp_path / "preds.parquet", small_model, segments="clip")
    rows = pl.read_parquet(tmp_path / "preds.parquet")
    assert rows["speech_ratio"].to_list() == [0.0]
    assert rows["predicted"].null_count() == 0


def test_turns_are_scored_and_calls_without_any_are_counted(quiet_calls, small_model, tmp_path):
    summary = run(quiet_calls, tmp_path / "preds.parquet", small_model, segments="turns")
    assert summary.n_recordings == 3
    assert summary.audio_s == pytest.approx(3 * 16, abs=0.5)  # the last turn may end before the call
    rows = pl.read_parquet(summary.out).filter(path="call.wav").sort("segment")
    assert rows["segment"].to_list() == list(range(len(rows)))
    assert (rows["end_s"] - rows["start_s"]).to_numpy().max() <= 4.04
    assert rows["speech_ratio"].to_numpy().min() > 0.6
    assert rows["predicted"].null_count() == 0
    assert not rows.filter(pl.col("start_s") > 4.5, pl.col("end_s") < 11.5).height
    calls = pl.read_parquet(summary.out.with_suffix(".calls.parquet"))
    assert calls.filter(path="hiss.wav").select("status", "n_segments").rows() == [("no_speech", 0)]
    assert not any("asked for" in warning for warning in summary.warnings)


def test_a_folder_without_any_turn_is_a_result_too(quiet_calls, small_model, tmp_path):
    for out in ("preds.parquet", "preds"):
        summary = run(quiet_calls / "hiss.wav", tmp_path / out, small_model, segments="turns")
        assert (summary.n_segments, summary.n_calls, summary.audio_s) == (0, 1, 16.0)
    assert pl.read_parquet(tmp_path / "preds.parquet").is_empty()
