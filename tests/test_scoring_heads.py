"""Scoring with heads on embeddings: the archive's reference, what is heard of channels, the prior."""

import json
import shutil
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner
from model_json import SAVED, schema, trained

from ser_batch.cli.commands import cli
from ser_batch.config.job import read_job
from ser_batch.config.option_values import parse_prior
from ser_batch.config.options import ScoreOptions
from ser_batch.corpus.manifest import Metadata, Recording
from ser_batch.encoder.model import load_encoder
from ser_batch.encoder.pooling import SegmentEncoder
from ser_batch.errors import InputError, JobError, ModelError, OutputError, UsageError
from ser_batch.model.folder import Model, load_model
from ser_batch.model.saving import save_model
from ser_batch.network.heads import ChannelMean, log_prior_of
from ser_batch.plot import look, plot
from ser_batch.scoring.archive import MAX_RECORDINGS, MAX_SEGMENTS, chosen_reference, evenly, sample
from ser_batch.scoring.run import score
from ser_batch.storage.installed import INSTALLED_ENCODERS

RATE = 16_000
KEY = ["path", "channel", "segment"]
LABELS = ("angry", "happy", "neutral")
MODEL_PRIOR = log_prior_of(LABELS, {"neutral": 0.5})
BALANCED = log_prior_of(LABELS, None)


def run(audio, out, model, **options):
    """Score windows of 1 s, side by side."""
    return score(audio, ScoreOptions(out=out, model=str(model), **({"jobs": 1, "window": 1.0, "hop": 1.0} | options)))


def rows_of(out):
    return pl.read_parquet(out).sort(KEY)


def probabilities_in(rows):
    return rows.select(f"p_{label}" for label in LABELS).to_numpy()


def reference_in(out):
    return json.loads(out.with_suffix(".reference.json").read_text())


def center_in(out):
    return np.asarray(reference_in(out)["embedding"], dtype=np.float32)


def embedded(*stretches):
    """What the encoder itself gives of samples at 16 kHz."""
    loaded = load_encoder(INSTALLED_ENCODERS["whisper-tiny.en"])
    values = []
    for samples in stretches:
        segment = loaded.segment()
        segment.feed(samples.astype(np.float32))
        values.append(segment.finish().values)
    return np.stack(values)


def windows_of(file, channel=0):
    samples = soundfile.read(file, dtype="float32", always_2d=True)[0][:, channel]
    return embedded(*np.split(samples, range(RATE, len(samples), RATE)))


@pytest.fixture(scope="module")
def voices(small_corpus):
    """Speech without the pauses around it."""
    parts = []
    for path in sorted(small_corpus.rglob("*.wav"))[::4]:
        samples = soundfile.read(path)[0]
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
        parts.append(samples[loud[0] : loud[-1]] * (0.5 / np.abs(samples).max()))
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, voices):
    """Ten recordings of 2 s, one of 3 s with two voices, and one that is none."""
    folder = tmp_path_factory.mktemp("archive")
    for number, samples in enumerate(np.split(voices[: 20 * RATE], 10)):
        soundfile.write(folder / f"call_{number}.wav", samples, RATE, subtype="PCM_16")
    sides = voices[20 * RATE : 26 * RATE].reshape(2, -1).T
    soundfile.write(folder / "stereo.wav", sides, RATE, subtype="PCM_16")
    (folder / "broken.wav").write_text("no recording")
    return folder


@pytest.fixture(scope="module")
def scored(archive, small_heads, tmp_path_factory):
    return run(archive, tmp_path_factory.mktemp("scored") / "preds.parquet", small_heads)


@pytest.fixture(scope="module")
def few(archive, tmp_path_factory):
    """Two of the recordings."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("call_0.wav", "stereo.wav"):
        shutil.copy(archive / name, folder / name)
    return folder


# ---- the archive's reference ----


def test_the_reference_is_the_mean_over_the_recordings(archive, scored):
    own = reference_in(scored.out)
    spoken = rows_of(scored.out).drop_nulls("predicted")
    files = {name: archive / name for name in spoken["path"].unique()}
    values = [windows_of(files[name], channel)[segment] for name, channel, segment in spoken.select(KEY).iter_rows()]
    assert (own["kind"], own["n_recordings"], own["n_sampled"]) == ("archive", 11, 12)
    assert own["n_segments"] == len(spoken) >= 20
    np.testing.assert_allclose(own["embedding"], np.mean(values, axis=0), rtol=1e-5, atol=1e-5)
    assert own["encoder"] == load_model(scored.model.path).feature_spec.digest()
    assert own["segments"] == "windows"
    assert not (scored.out.with_suffix(".parts") / "_meta" / "reference").exists()
    assert [reject.path for reject in scored.rejected] == ["broken.wav"]


def test_windows_are_scored_by_archive_channel_and_the_models_prior(archive, scored, small_heads):
    model = load_model(small_heads).head_model()
    rows = rows_of(scored.out).filter(path="stereo.wav")
    for channel in (0, 1):
        own = rows.filter(channel=channel)
        assert own["predicted"].null_count() == 0
        embedding = windows_of(archive / "stereo.wav", channel)
        heard = ChannelMean(np.tile(embedding.mean(axis=0), (3, 1)), np.full(3, 3))
        expected = model.probabilities(embedding, archive=center_in(scored.out), channel=heard, log_prior=MODEL_PRIOR)
        np.testing.assert_allclose(probabilities_in(own), expected, atol=1e-4)
        np.testing.assert_allclose(probabilities_in(own).sum(axis=1), 1)
        highest = [LABELS[place] for place in probabilities_in(own).argmax(axis=1)]
        assert own["predicted"].to_list() == highest


def test_jobs_shards_and_order_change_no_bit(archive, scored, small_heads, tmp_path):
    other = tmp_path / "archive"  # the same recordings, found in another order by other workers
    other.mkdir()
    for path in sorted(archive.iterdir(), reverse=True):
        shutil.copy(path, other / path.name)
    again = run(other, tmp_path / "preds.parquet", small_heads, jobs=2, shard_size=1)
    assert reference_in(again.out)["embedding"] == reference_in(scored.out)["embedding"]
    assert rows_of(again.out).equals(rows_of(scored.out))
    calls = [
        pl.read_parquet(done.out.with_suffix(".calls.parquet")).sort("path", "channel") for done in (again, scored)
    ]
    assert calls[0].equals(calls[1])


def test_what_the_reference_is_made_of_is_encoded_once(archive, scored, small_heads, tmp_path, monkeypatch):
    n_encoded = 0
    finish = SegmentEncoder.finish

    def counted(segment):
        nonlocal n_encoded
        n_encoded += 1
        return finish(segment)

    monkeypatch.setattr(SegmentEncoder, "finish", counted)
    sampled = run(archive, tmp_path / "sampled.parquet", small_heads)
    n_scored = rows_of(sampled.out)["predicted"].count()
    assert n_encoded == n_scored == reference_in(sampled.out)["n_segments"]
    # all of it is encoded where the reference comes from elsewhere, and nothing is another number
    given = run(archive, tmp_path / "given.parquet", small_heads, reference=str(sampled.reference.file))
    assert n_encoded == 2 * n_scored
    assert rows_of(given.out).equals(rows_of(sampled.out))
    assert not list((sampled.out.with_suffix(".parts") / "_meta").glob("sample*"))
    # other windows of the same recordings are other segments
    other = {"window": 0.5, "hop": 0.5, "overwrite": True}
    again = run(archive, sampled.out, small_heads, **other)
    given = run(archive, given.out, small_heads, reference=str(again.reference.file), **other)
    assert rows_of(given.out).equals(rows_of(again.out))


def test_a_recording_that_changed_after_the_sample_is_encoded_anew(archive, small_heads, tmp_path, monkeypatch):
    audio = shutil.copytree(archive, tmp_path / "audio")
    made = chosen_reference

    def changed_then(*arguments, **named):
        found = made(*arguments, **named)
        samples, rate = soundfile.read(audio / "call_0.wav")
        soundfile.write(audio / "call_0.wav", samples[::-1], rate, subtype="PCM_16")
        return found

    monkeypatch.setattr("ser_batch.scoring.run.chosen_reference", changed_then)
    first = run(audio, tmp_path / "first.parquet", small_heads)
    monkeypatch.undo()
    again = run(audio, tmp_path / "again.parquet", small_heads, reference=str(first.reference.file))
    assert rows_of(first.out).equals(rows_of(again.out))


def test_the_sample_is_of_the_paths_and_of_the_whole_recording():
    def named_as(path):
        return Recording(path=path, file=path.encode(), size=1, mtime_ns=1, metadata=Metadata())

    named = [named_as(f"a/{number}.wav") for number in range(500)]
    chosen = [recording.path for recording in sample(named)]
    assert len(chosen) == MAX_RECORDINGS
    assert chosen == [recording.path for recording in sample(named[::-1])]
    # what comes to an archive takes the place of few
    assert len({*chosen} & {recording.path for recording in sample([*named, named_as("b.wav")])}) >= 199
    keys = [(0, number) for number in range(1000)]
    assert [number for _, number in evenly(keys, 10)] == list(range(50, 1000, 100))
    assert evenly(keys[:3], 10) == keys[:3]
    assert evenly([], 10) == []


def test_a_long_recording_has_no_more_than_ten_segments_of_the_reference(archive, voices, small_heads, tmp_path):
    audio = shutil.copytree(archive, tmp_path / "archive")
    soundfile.write(audio / "long.wav", voices[: 14 * RATE], RATE, subtype="PCM_16")
    before = rows_of(run(audio, tmp_path / "preds.parquet", small_heads).out).drop_nulls("predicted")
    n = before.group_by("path").len()["len"]
    assert n.max() > MAX_SEGMENTS
    own = reference_in(tmp_path / "preds.parquet")
    assert own["n_segments"] == n.clip(upper_bound=MAX_SEGMENTS).sum()


def test_later_recordings_are_scored_by_the_reference_that_is_there(archive, scored, small_heads, tmp_path):
    audio = shutil.copytree(archive, tmp_path / "archive")
    run(audio, tmp_path / "preds.parquet", small_heads)
    before = (tmp_path / "preds.reference.json").read_bytes(), rows_of(tmp_path / "preds.parquet")
    for number in range(3):
        shutil.copy(audio / "stereo.wav", audio / f"later_{number}.wav")
    again = run(audio, tmp_path / "preds.parquet", small_heads)
    assert (again.n_done, again.reference.is_stored) == (3, True)
    assert (tmp_path / "preds.reference.json").read_bytes() == before[0]
    rows = rows_of(again.out)
    assert rows.filter(~pl.col("path").str.starts_with("later")).equals(before[1])
    later, first = (rows.filter(path=name) for name in ("later_0.wav", "stereo.wav"))
    assert probabilities_in(later).tolist() == probabilities_in(first).tolist()
    renewed = run(audio, tmp_path / "preds.parquet", small_heads, overwrite=True)
    assert (renewed.reference.is_stored, renewed.reference.n_recordings) == (False, 14)


def test_a_reference_that_was_lost_is_made_again_where_it_is_the_same(archive, small_heads, tmp_path):
    audio = shutil.copytree(archive, tmp_path / "archive")
    out = tmp_path / "preds.parquet"
    run(audio, out, small_heads)
    before = reference_in(out)
    out.with_suffix(".reference.json").unlink()
    run(audio, out, small_heads)
    assert reference_in(out)["embedding"] == before["embedding"]
    out.with_suffix(".reference.json").unlink()
    shutil.copy(audio / "stereo.wav", audio / "later.wav")
    with pytest.raises(OutputError, match=r"reference\.digest was"):
        run(audio, out, small_heads)


def test_few_recordings_are_scored_without_a_reference(few, archive, small_heads, tmp_path):
    audio, out = shutil.copytree(few, tmp_path / "few"), tmp_path / "preds.parquet"
    first = run(audio, out, small_heads)
    assert (first.reference.kind, reference_in(out)["embedding"]) == ("none", None)
    assert not any("reference" in warning for warning in first.warnings)
    model = load_model(small_heads).head_model()
    embedding = windows_of(audio / "call_0.wav")
    heard = ChannelMean(np.tile(embedding.mean(axis=0), (2, 1)), np.full(2, 2))
    expected = model.probabilities(embedding, archive=None, channel=heard, log_prior=MODEL_PRIOR)
    found = rows_of(out).filter(path="call_0.wav")
    assert found["predicted"].null_count() == 0
    np.testing.assert_allclose(probabilities_in(found), expected, atol=1e-4)
    for path in archive.glob("call_*.wav"):
        shutil.copy(path, audio / path.name)
    grown = run(audio, out, small_heads)
    assert grown.reference.kind == "none"
    assert any("11 recordings are enough for one. Add --overwrite" in warning for warning in grown.warnings)
    assert rows_of(out).filter(path="call_0.wav").equals(found)
    renewed = run(audio, out, small_heads, overwrite=True)
    assert renewed.reference.kind == "archive"
    assert not any("reference" in warning for warning in renewed.warnings)


def test_recordings_without_speech_make_no_reference(few, small_heads, tmp_path):
    audio = shutil.copytree(few, tmp_path / "few")
    hiss = 1e-3 * np.random.default_rng(0).standard_normal(2 * RATE)
    for number in range(10):
        soundfile.write(audio / f"hiss_{number}.wav", hiss, RATE)
    own = run(audio, tmp_path / "preds.parquet", small_heads).reference
    assert (own.kind, own.n_sampled) == ("none", 12)
    again = run(audio, tmp_path / "preds.parquet", small_heads)  # nothing has come, so there is nothing to tell
    assert not any("reference" in warning for warning in again.warnings)


# ---- --reference ----


def test_the_reference_of_another_run_is_used_and_kept(few, archive, scored, small_heads, tmp_path):
    out, file = tmp_path / "preds.parquet", scored.out.with_suffix(".reference.json")
    run(few, out, small_heads, reference=str(file))
    assert reference_in(out) == json.loads(file.read_text())
    assert rows_of(out).equals(rows_of(scored.out).filter(pl.col("path").is_in(["call_0.wav", "stereo.wav"])))
    assert run(few, out, small_heads).n_done == 0  # it is stored by now
    with pytest.raises(OutputError, match=r"reference\.kind was 'archive' and is 'none'.*--overwrite"):
        run(few, out, small_heads, reference="none")
    assert reference_in(out) == json.loads(file.read_text())
    other = json.loads(file.read_text())
    other["embedding"][0] += 1.0
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(OutputError, match=r"reference\.digest was"):
        run(few, out, small_heads, reference=str(tmp_path / "other.json"))


def test_none_is_no_reference_however_many_recordings(archive, few, small_heads, tmp_path):
    own = run(archive, tmp_path / "all.parquet", small_heads, reference="none")
    assert (own.reference.kind, own.reference.n_sampled) == ("none", 0)
    run(few, tmp_path / "few.parquet", small_heads)
    found = rows_of(tmp_path / "all.parquet").filter(pl.col("path").is_in(["call_0.wav", "stereo.wav"]))
    assert found.equals(rows_of(tmp_path / "few.parquet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: "{", "cannot be read as the reference"),
        (lambda values: json.dumps({"mean": [0.0]}), "cannot be read as the reference"),
        (lambda values: json.dumps(values | {"more": 1}), "more"),
        (lambda values: json.dumps(values | {"embedding": None}), "do not go together"),
        (lambda values: json.dumps(values | {"embedding": [0.0]}), "1 numbers, expected 2304"),
        (lambda values: json.dumps(values | {"encoder": "0" * 64}), "encoder 0000000000000000, the model needs"),
        (lambda values: json.dumps(values).replace("[", "[NaN, ", 1), "cannot be read as the reference"),
    ],
)
def test_a_file_that_is_no_reference_of_this_model_is_refused(few, scored, small_heads, tmp_path, change, message):
    values = reference_in(scored.out)
    (tmp_path / "given.json").write_text(change(values))
    with pytest.raises(InputError, match=message):
        run(few, tmp_path / "preds.parquet", small_heads, reference=str(tmp_path / "given.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["given.json"]


def test_references_that_cannot_be_are_refused(few, scored, small_heads, small_model, tmp_path):
    with pytest.raises(UsageError, match=r"--reference nothing\.json: no such file; expected"):
        run(few, tmp_path / "preds.parquet", small_heads, reference="nothing.json")
    file = scored.out.with_suffix(".reference.json")
    with pytest.raises(UsageError, match="takes no reference, only heads"):
        run(few, tmp_path / "preds.parquet", small_model, reference=str(file))
    assert run(few, tmp_path / "preds.parquet", small_model, reference="none").reference is None
    assert not (tmp_path / "preds.reference.json").exists()


# ---- the prior ----


def test_clips_and_labels_are_scored_with_a_balanced_prior(archive, scored, small_heads, tmp_path):
    model, file = load_model(small_heads).head_model(), scored.out.with_suffix(".reference.json")
    summary = run(archive / "stereo.wav", tmp_path / "clip.parquet", small_heads, segments="clip", reference=str(file))
    assert list(summary.prior.values()) == pytest.approx([1 / 3] * 3)
    sound = soundfile.read(archive / "stereo.wav", dtype="float32")[0]
    # nothing else is known of the channel of a lone clip
    expected = model.probabilities(
        embedded(sound.mean(axis=1)), archive=center_in(scored.out), channel=None, log_prior=BALANCED
    )
    np.testing.assert_allclose(probabilities_in(rows_of(summary.out)), expected, atol=1e-4)

    labels = tmp_path / "labels.csv"
    labels.write_text("path,channel,start_s,end_s,emotion\nstereo.wav,1,0,1,happy\nstereo.wav,1,1,3,angry\n")
    run(
        archive / "stereo.wav", tmp_path / "labels.parquet", small_heads, segments="labels", labels=labels,
        reference=str(file),
    )  # fmt: skip
    embedding = embedded(sound[:RATE, 1], sound[RATE:, 1])
    heard = ChannelMean(np.tile(embedding.mean(axis=0), (2, 1)), np.full(2, 2))
    expected = model.probabilities(embedding, archive=center_in(scored.out), channel=heard, log_prior=BALANCED)
    np.testing.assert_allclose(probabilities_in(rows_of(tmp_path / "labels.parquet")), expected, atol=1e-4)


def test_turns_have_the_models_prior(few, small_heads, tmp_path):
    turns = run(few, tmp_path / "turns.parquet", small_heads, segments="turns")
    assert turns.prior == pytest.approx({"angry": 0.25, "happy": 0.25, "neutral": 0.5})
    assert rows_of(turns.out)["predicted"].null_count() == 0


def test_another_prior_moves_probabilities_and_is_another_run(few, small_heads, tmp_path):
    out = tmp_path / "preds.parquet"
    run(few, out, small_heads, reference="none", prior="balanced")
    balanced = rows_of(out)
    with pytest.raises(OutputError, match=r"prior was 'balanced' and is 'happy=0\.4'"):
        run(few, out, small_heads, reference="none", prior="happy=0.4")
    run(few, out, small_heads, reference="none", prior="happy=0.98", overwrite=True)
    rows = rows_of(out)
    assert rows["predicted"].unique().to_list() == ["happy"]
    weighted = probabilities_in(balanced) * [0.01, 0.98, 0.01]
    np.testing.assert_allclose(probabilities_in(rows), weighted / weighted.sum(axis=1, keepdims=True), rtol=1e-6)


def test_networks_on_mfccs_take_a_prior_too(few, small_model, tmp_path):
    run(few, tmp_path / "balanced.parquet", small_model, prior="balanced")
    run(few, tmp_path / "sad.parquet", small_model, prior="sad=0.65")
    balanced, sad = (
        rows_of(tmp_path / name).drop_nulls("predicted").select("^p_.*$")
        for name in ("balanced.parquet", "sad.parquet")
    )
    shares = [0.65 if name == "p_sad" else 0.05 for name in balanced.columns]
    weighted = balanced.to_numpy() * shares
    np.testing.assert_allclose(sad.to_numpy(), weighted / weighted.sum(axis=1, keepdims=True), rtol=1e-6)
    assert len(sad)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("neutral", "expected balanced, or LABEL=SHARE"),
        ("neutral=", "expected balanced, or LABEL=SHARE"),
        ("", "expected balanced, or LABEL=SHARE"),
        ("neutral=often", "the share of neutral is 'often', expected a number"),
        ("neutral=0", "more than 0 and less than 1"),
        ("neutral=1", "more than 0 and less than 1"),
        ("neutral=nan", "more than 0 and less than 1"),
        ("neutral=0.2,neutral=0.3", "names neutral twice"),
        ("neutral=0.7,angry=0.7", "the shares add up to 1.4, expected less than 1"),
    ],
)
def test_a_prior_that_is_none_is_refused(prior, message):
    with pytest.raises(UsageError, match=message):
        ScoreOptions(prior=prior)


def test_a_prior_has_to_fit_the_model(few, small_heads, tmp_path):
    for prior, message in (
        ("neutrall=0.5", "no label neutrall.*did you mean neutral?"),
        ("neutral=0.5,angry=0.5", "the shares add up to 1; expected less than 1"),
        ("neutral=0.5,angry=0.2,happy=0.2", "the shares add up to 0.9; expected 1"),
    ):
        with pytest.raises(UsageError, match=message):
            run(few, tmp_path / "preds.parquet", small_heads, prior=prior)
    assert parse_prior("neutral=0.5, angry=0.3,happy=0.2") == {"neutral": 0.5, "angry": 0.3, "happy": 0.2}
    run(few, tmp_path / "preds.parquet", small_heads, prior="neutral=0.5,angry=0.3,happy=0.2")


def test_job_files_have_prior_and_reference(tmp_path):
    job = tmp_path / "job.toml"
    job.write_text('[score]\naudio = "calls"\nprior = "neutral=0.35"\nreference = "none"\n')
    ((_, options),) = read_job(job).steps
    assert isinstance(options, ScoreOptions)
    assert (options.prior_shares, options.reference) == ({"neutral": 0.35}, "none")
    job.write_text('[score]\naudio = "calls"\nprior = "neutral"\n')
    with pytest.raises(JobError, match="LABEL=SHARE"):
        read_job(job)


@pytest.mark.parametrize(
    "prior", [{"neutral": 1.0}, {"sad": 0.5}, {"neutral": 0.6, "angry": 0.6}, [0.5], {"angry": "x"}]
)
def test_a_model_whose_prior_is_none_is_refused(small_heads, tmp_path, prior):
    model = shutil.copytree(small_heads, tmp_path / "model")
    values = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(values | {"prior": prior}))
    with pytest.raises(ModelError, match=r"model\.json: prior\b.* expected"):
        load_model(model)


# ---- out of domain, other models, what is told ----


def test_what_is_out_of_domain_is_no_part_of_a_reference(archive, scored, small_heads, tmp_path, monkeypatch):
    strange = windows_of(archive / "stereo.wav", 1)[1]

    class Far:
        def ood_score(self, embedding):
            return np.where(np.abs(embedding - strange).max(axis=1) < 0.01, 2.0, 0.5)

    monkeypatch.setattr(Model, "domain", Far())
    out = run(archive, tmp_path / "preds.parquet", small_heads).out
    assert reference_in(out)["n_segments"] == reference_in(scored.out)["n_segments"] - 1
    rows = rows_of(out)
    assert rows.filter("abstained").select(KEY).rows() == [("stereo.wav", 1, 1)]
    embedding = windows_of(archive / "stereo.wav", 1)
    heard = ChannelMean(np.tile(embedding[[0, 2]].mean(axis=0), (3, 1)), np.full(3, 2))
    model = load_model(small_heads).head_model()
    expected = model.probabilities(embedding, archive=center_in(out), channel=heard, log_prior=MODEL_PRIOR)
    np.testing.assert_allclose(probabilities_in(rows.filter(path="stereo.wav", channel=1)), expected, atol=1e-4)


def test_classical_models_on_embeddings_are_scored_without_a_reference(few, small_heads, tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embedding = np.concatenate([windows_of(few / "stereo.wav", channel) for channel in (0, 1)])
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(embedding, ["angry", "happy", "neutral"] * 2)
    values = json.loads((small_heads / "model.json").read_text()) | {"estimator": "logistic", "recipe": None}
    values |= {"scaler": None, "temperature": 1.0}
    (tmp_path / "model").mkdir()
    for name in SAVED:
        del values[name]
    save_model(tmp_path / "model", trained(values), estimator, "")
    summary = run(few, tmp_path / "preds.parquet", tmp_path / "model", prior="balanced")
    assert summary.reference is None
    found = rows_of(summary.out).filter(path="stereo.wav")
    np.testing.assert_allclose(probabilities_in(found), estimator.predict_proba(embedding), atol=1e-4)


def test_a_folder_of_parts_keeps_the_reference_among_its_tables(few, small_heads, tmp_path):
    run(few, tmp_path / "preds", small_heads)
    assert json.loads((tmp_path / "preds" / "_tables" / "reference.json").read_text())["kind"] == "none"
    assert run(few, tmp_path / "preds", small_heads).reference.is_stored
    assert len(pl.read_parquet(tmp_path / "preds" / "part-*.parquet")) == 8


def test_the_summary_tells_reference_and_prior(few, archive, scored, small_heads, tmp_path):
    def told(audio, *more):
        command = ["score", str(audio), "--model", str(small_heads), "--out", str(tmp_path / "preds.parquet"), *more]
        done = CliRunner().invoke(cli, [*command, "--jobs", "1", "--window", "1", "--overwrite"])
        assert done.exit_code == 0, done.output
        return done.stdout

    text = told(few)
    assert "each channel by itself, because fewer than 10 recordings have speech" in text
    assert "prior: angry 0.25, happy 0.25, neutral 0.50" in text
    file = scored.out.with_suffix(".reference.json")
    text = told(few, "--reference", str(file), "--prior", "balanced")
    assert f"reference: {file} (11 recordings" in text
    assert "prior: balanced" in text
    values = json.loads(told(few, "--reference", "none", "--json"))
    assert values["reference"]["kind"] == "none"
    assert values["prior"] == pytest.approx({"angry": 0.25, "happy": 0.25, "neutral": 0.5})
    assert "each channel by itself (--reference none)" in told(few, "--reference", "none")


def test_figures_on_unseen_recordings_like_calls_come_first(small_heads, few, tmp_path):
    model = shutil.copytree(small_heads, tmp_path / "model")
    figures: dict[str, Any] = {"n": 10, "uar": 0.61, "accuracy": 0.82, "ece": 0.1, "share_error": 0.05}
    figures |= {"out_of_domain": None, "recalls": {"angry": 0.5}, "corpora": {"emodb": 0.61}}
    values = json.loads((model / "model.json").read_text())
    own = {"accuracy": 0.9, "uar": 0.9, "macro_f1": 0.9, "weighted_f1": 0.9, "description": "Of nobody."}
    values["metrics"] = own | {"regimes": {"mostly_neutral": {"g711": figures | {"uar": 0.2}, "clean": figures}}}
    heads = load_model(small_heads)
    assert heads.regimes == {}
    assert Model(model, schema(values)).regimes == {"mostly_neutral": {"uar": 0.61, "accuracy": 0.82, "n_labels": 1}}


def test_a_picture_has_bars_of_heads_too(few, small_heads, tmp_path):
    plot(few / "call_0.wav", tmp_path / "call.svg", model=str(small_heads))
    assert (tmp_path / "call.svg").stat().st_size > 1000
    seen = look(few / "call_0.wav", model=str(small_heads))
    assert set(seen.predictions["label"]) == set(LABELS)
    assert seen.mfcc["value"]
