"""Settings that are checked when they are made, hashes that last, jobs that are refused before anything runs."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_batch.config.features import PRESETS, FeatureSpec, canonical_json
from ser_batch.config.job import Job, read_job
from ser_batch.config.options import FeaturizeOptions, ScoreOptions, SynthOptions, TrainOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.errors import JobError, UsageError

FIELDS = list(FeatureSpec.__struct_fields__)
NUMBERS = [name for name in FIELDS if name != "level"]

specs = st.builds(
    FeatureSpec,
    sampling_rate=st.integers(4000, 96000),
    n_mfcc=st.integers(1, 40),
    n_fft=st.integers(1024, 4096),
    win_length=st.integers(64, 1024),
    hop_length=st.integers(64, 1024),
    n_mels=st.integers(40, 256),
    top_db=st.floats(1, 200),
    n_frames=st.integers(10, 500),
    level=st.sampled_from(["absolute", "peak"]),
)


# --- the feature spec ---------------------------------------------------------------------------------------------


def test_the_presets_are_the_documented_numbers():
    ravdess, telephone = PRESETS["wideband"], PRESETS["telephone"]
    assert ravdess == FeatureSpec()
    assert ravdess.to_dict() == {
        "sampling_rate": 22050,
        "n_mfcc": 40,
        "n_fft": 2048,
        "win_length": 2048,
        "hop_length": 512,
        "n_mels": 128,
        "top_db": 80.0,
        "n_frames": 174,
        "level": "absolute",
    }
    assert (telephone.sampling_rate, telephone.n_fft, telephone.win_length, telephone.hop_length) == (
        8000, 1024, 743, 186,
    )  # fmt: skip
    assert (telephone.n_mfcc, telephone.n_mels, telephone.n_frames) == (40, 64, 174)
    assert telephone.level == "peak"  # calls come at any level
    for spec in PRESETS.values():  # the same stretch of time in each
        assert math.floor(spec.max_window_s * 100) / 100 == 4.04
        assert spec.win_length / spec.sampling_rate == pytest.approx(2048 / 22050, rel=1e-3)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "40", None, True])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_spec_refuses_what_is_no_positive_number_by_name(name, value):
    with pytest.raises(UsageError, match=f"feature spec: {name} is {value!r}"):
        FeatureSpec(**{name: value})


@pytest.mark.parametrize("value", ["loud", "", None, 0, "Peak"])
def test_a_spec_refuses_a_level_that_is_not_known(value):
    with pytest.raises(UsageError, match=f"level is {value!r}; expected one of absolute, peak"):
        FeatureSpec(level=value)


@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "top_db"])
def test_a_spec_refuses_half_a_sample_a_band_or_a_frame(name):
    with pytest.raises(UsageError, match=name):
        FeatureSpec(**{name: getattr(FeatureSpec(), name) - 0.5})


def test_a_spec_refuses_numbers_that_do_not_go_together():
    with pytest.raises(UsageError, match="win_length 2048 is larger than n_fft 1024"):
        FeatureSpec(n_fft=1024)
    with pytest.raises(UsageError, match="n_mfcc 40 is larger than n_mels 32"):
        FeatureSpec(n_mels=32)


def test_the_digest_leaves_defaults_out_so_that_later_fields_leave_it_as_it_is():
    assert FeatureSpec().digest() == hashlib.sha256(b"{}").hexdigest()
    assert FeatureSpec(n_mels=64, hop_length=256).digest() == (
        hashlib.sha256(b'{"hop_length":256,"n_mels":64}').hexdigest()
    )


def test_equal_specs_have_equal_digests():
    assert FeatureSpec(top_db=60) == FeatureSpec(top_db=60.0)
    assert FeatureSpec(top_db=60).digest() == FeatureSpec(top_db=60.0).digest()


@given(specs, specs)
@settings(max_examples=50, deadline=None)
def test_digests_differ_exactly_where_specs_do_and_a_spec_survives_json(one, other):
    assert (one.digest() == other.digest()) == (one == other)
    again = FeatureSpec.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    assert again.digest() == one.digest()


@pytest.mark.parametrize("name", FIELDS)
def test_the_digest_changes_with_every_field(name):
    spec = FeatureSpec(n_fft=4096)
    value = "peak" if name == "level" else getattr(spec, name) - 1
    changed = msgspec.structs.replace(spec, **{name: value})
    assert changed.digest() not in {spec.digest(), FeatureSpec().digest()}


@pytest.mark.parametrize("kind", [FeatureSpec, Segmentation])
def test_unknown_fields_are_refused_by_name_and_missing_ones_take_their_default(kind):
    with pytest.raises(UsageError, match="unknown field 'pitch'"):
        kind.from_dict({**kind().to_dict(), "pitch": 1})
    assert kind.from_dict({}) == kind()


def test_equal_values_are_the_same_json():
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


# --- segmentation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "channels"), [("clip", "mix"), ("windows", "split"), ("labels", "split")])
def test_a_clip_is_mixed_unless_told_otherwise_and_the_others_are_split(mode, channels):
    assert Segmentation(mode=mode).channels == channels
    assert Segmentation(mode=mode, channels="1").channels == "1"
    assert Segmentation.from_dict(Segmentation(mode=mode).to_dict()) == Segmentation(mode=mode)


@pytest.mark.parametrize(
    ("channels", "mono", "stereo", "four"),
    [
        ("mix", (0,), (-1,), (-1,)),
        ("split", (0,), (0, 1), (0, 1, 2, 3)),
        ("0,1", (0,), (0, 1), (0, 1)),
        ("1", (), (1,), (1,)),
        ("3, 0", (0,), (0,), (3, 0)),
    ],
)
def test_channel_numbers_are_the_tables(channels, mono, stereo, four):
    segmentation = Segmentation(channels=channels)
    assert [segmentation.channel_numbers(n) for n in (1, 2, 4)] == [mono, stereo, four]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mode": "clips"}, 'mode is "clips"; expected one of clip, windows, turns, labels; did you mean clip?'),
        ({"window_s": 0.0}, "window_s is 0.0; expected a number >= 0.01"),
        ({"window_s": float("nan")}, "window_s is NaN"),
        ({"hop_s": -2.0}, "hop_s is -2.0"),
        ({"hop_s": float("inf")}, "hop_s is Infinity"),
        ({"channels": "left"}, "channels 'left'; expected mix, split, or numbers"),
        ({"channels": ""}, "channels ''"),
        ({"channels": "-1"}, "channels '-1'"),
        ({"channels": "0,"}, "channels '0,'"),
        ({"channels": "0,0"}, "channels '0,0'"),
        ({"channels": "0,00"}, "channels '0,00'"),
        ({"channels": "²"}, "channels '²'"),
        # as a damaged spec.json or model.json may have them
        ({"window_s": "4"}, 'window_s is "4"; expected a number, got text'),
        ({"channels": 3}, "channels is 3; expected text or null, got a whole number"),
    ],
)
def test_segmentation_refuses_what_cannot_be(values, told):
    with pytest.raises(UsageError) as caught:
        Segmentation.from_dict(values)
    assert told in str(caught.value)


def test_a_window_must_fit_the_frames_of_a_segment():
    Segmentation(mode="windows").check_window(PRESETS["wideband"])
    Segmentation(mode="clip", window_s=60.0).check_window(PRESETS["wideband"])  # not used there
    with pytest.raises(UsageError, match=r"4\.05 s does not fit the 174 frames.*--window 4\.04 or less"):
        Segmentation(mode="windows", window_s=4.05).check_window(PRESETS["wideband"])


@given(specs)
@settings(max_examples=50, deadline=None)
def test_the_window_that_is_suggested_is_accepted_and_fits_the_frames(spec):
    with pytest.raises(UsageError) as caught:
        Segmentation(mode="windows", window_s=spec.max_window_s + 0.02).check_window(spec)
    suggested = float(str(caught.value).split("--window ")[1].split(" ")[0])
    assert round(suggested * spec.sampling_rate) // spec.hop_length + 1 <= spec.n_frames
    if suggested:
        Segmentation(mode="windows", window_s=suggested).check_window(spec)


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (FeaturizeOptions, {"jobs": 0}, "--jobs 0"),
        (ScoreOptions, {"jobs": -1}, "--jobs -1"),
        (ScoreOptions, {"shard_size": 0}, "--shard-size 0"),
        (FeaturizeOptions, {"verify": -1}, "--verify -1"),
        (FeaturizeOptions, {"preset": "radio"}, "--preset 'radio'; expected one of wideband, telephone"),
        (FeaturizeOptions, {"segments": "windows", "window": 5.0}, "does not fit"),
        (FeaturizeOptions, {"segments": "clips"}, "--segments 'clips'; expected one of clip"),
        (FeaturizeOptions, {"channels": "left"}, "channels 'left'"),
        (ScoreOptions, {"segments": "clips"}, "--segments 'clips'; expected one of clip"),
        (ScoreOptions, {"hop": 0.0}, "--hop 0.0"),
        (ScoreOptions, {"channels": "left"}, "channels 'left'"),
        (TrainOptions, {"estimator": "gbm"}, "--estimator 'gbm'; expected one of network, svm"),
        (TrainOptions, {"recipe": "none"}, "recipe 'none'"),
        (TrainOptions, {"epochs": 0}, "--epochs 0"),
        (TrainOptions, {"seed": -1}, "--seed -1"),
        (TrainOptions, {"seed": 2**32}, "--seed 4294967296"),
        (TrainOptions, {"seeds": 0}, "--seeds 0; expected a whole number, 1 or more"),
        (
            TrainOptions,
            {"seed": 2**32 - 2, "seeds": 3},
            "--seed 4294967294 with --seeds 3; expected seeds up to 4294967295",
        ),
        (TrainOptions, {"epochs": 2**31}, "--epochs 2147483648; expected a whole number from 1 to 2147483647"),
        (TrainOptions, {"epochs": "3"}, "--epochs '3'; expected a whole number"),
        (TrainOptions, {"out": "s3://bucket/model"}, "--out s3://bucket/model; expected a path on this machine"),
        (FeaturizeOptions, {"window": float("nan")}, "--window nan; expected a number from 0.01 to 86400"),
        (FeaturizeOptions, {"timeout": float("inf")}, "--timeout inf; expected a number above 0, up to 1000000000"),
        (FeaturizeOptions, {"max_duration": 0}, "--max-duration 0; expected a number above 0"),
        (ScoreOptions, {"min_speech": 1.5}, "--min-speech 1.5; expected a number from 0 to 1"),
        (SynthOptions, {"actors": 25}, "--actors 25; expected a whole number from 1 to 24"),
        (TrainOptions, {"split": "words"}, "--split 'words'; expected stratified"),
        (TrainOptions, {"split": "speaker:1"}, "speaker:K (2 folds or more, such as speaker:5)"),
        (TrainOptions, {"soft_labels": True, "estimator": "forest"}, "--soft-labels with --estimator forest"),
        (TrainOptions, {"vocal_channel": "shouts"}, "--vocal-channel 'shouts'; expected one of both, speech, song"),
        (TrainOptions, {"test_vocal_channel": "shouts"}, "--test-vocal-channel 'shouts'"),
        (TrainOptions, {"conditions": "clean,hum"}, "variant 'hum' is not known"),
        (TrainOptions, {"train_variants": "noise"}, "variant 'noise' is not known"),
        (TrainOptions, {"baselines": "svm,gbm"}, "--baselines 'gbm'; expected some of majority, logistic"),
        (TrainOptions, {"baselines": "svm,"}, "--baselines ''"),
    ],
)
def test_options_are_refused_when_they_are_made(kind, values, told):
    with pytest.raises(UsageError) as caught:
        kind(**values)
    assert told in str(caught.value)


def test_the_default_output_of_a_command_is_the_default_input_of_the_next():
    assert FeaturizeOptions().out == Path("features")
    assert TrainOptions().out == Path("model")
    assert ScoreOptions().out == Path("preds.parquet")
    assert FeaturizeOptions().segmentation == Segmentation()
    assert ScoreOptions().segmentation == Segmentation(mode="windows", window_s=4.04, hop_s=2.02, channels="split")


def test_a_network_trains_on_all_variants_if_its_recipe_is_robust_and_whatever_is_named_otherwise():
    assert TrainOptions().kind == "robust"
    assert TrainOptions(estimator="svm").kind == "svm"
    assert TrainOptions().train_variant_names is None
    kinds: tuple[dict[str, Any], ...] = ({"recipe": "published"}, {"estimator": "logistic"})
    for options in kinds:
        assert TrainOptions(**options).train_variant_names == ("clean",)
        assert TrainOptions(**options, train_variants="all").train_variant_names is None
    assert TrainOptions(train_variants="g711, clean").train_variant_names == ("g711", "clean")


def test_conditions_and_baselines_are_lists_without_doubles_and_sets_are_written_out():
    options = TrainOptions(conditions="noise10, clean,noise10", baselines="svm, majority,svm")
    assert options.condition_names == ("noise10", "clean")
    assert options.baseline_names == ("svm", "majority")
    assert TrainOptions().condition_names == ("clean",)
    assert TrainOptions().baseline_names == ()
    assert TrainOptions(conditions="robust").condition_names == FeaturizeOptions(variants="robust").variant_set.names


def test_roles_are_read_and_the_wanted_ones_must_be_among_them():
    options = ScoreOptions(channel_roles=" 0 = agent, 1=customer", only="customer")
    assert options.role_of_channel == {0: "agent", 1: "customer"}
    assert ScoreOptions(channel_roles="agent, customer").role_of_channel == {0: "agent", 1: "customer"}
    assert ScoreOptions(channel_roles="agent").role_of_channel == {0: "agent"}
    assert options.scored_roles == {"customer"}
    assert ScoreOptions(channel_roles="0=a,1=b").scored_roles == frozenset()
    assert ScoreOptions().role_of_channel == {}
    with pytest.raises(UsageError, match="--only names boss"):
        ScoreOptions(channel_roles="0=agent,1=customer", only="customer,boss")
    with pytest.raises(UsageError, match="--only names customer"):
        ScoreOptions(only="customer")


@pytest.mark.parametrize(
    "roles",
    ["agent,", "0", "0=", "=agent", "a=agent", "-1=agent", "0=agent,", "0=agent,0=boss", "0=agent,boss", "agent,1"],
)
def test_roles_that_are_not_one_a_channel_are_refused(roles):
    with pytest.raises(UsageError, match="--channel-roles"):
        ScoreOptions(channel_roles=roles)


# --- jobs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def read(tmp_path):
    """Reads a job of the given text."""

    def read(text, *overrides):
        file = tmp_path / "job.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_job(file, overrides)

    return read


FULL = """
[score]
audio = "calls"
model = "model"
out = "out/preds.parquet"
segments = "windows"
window = 3
hop = 1.5
channels = "split"
channel_roles = "0=agent,1=customer"
only = "customer"
jobs = 2
strict = true
[train]
features = ["f1", "f2"]
epochs = 7
split = "speaker"
[[featurize]]
audio = "one"
out = "f1"
labels = "labels.csv"
[[featurize]]
audio = "two"
out = "f2"
name = "second"
overwrite = true
[synth]
folder = "demo"
seed = 3
"""


def test_a_job_is_its_stages_in_the_order_of_the_flow(read):
    job = read(FULL)
    assert job == Job(
        (
            (Path("demo"), SynthOptions(seed=3)),
            (Path("one"), FeaturizeOptions(out=Path("f1"), labels=Path("labels.csv"))),
            (Path("two"), FeaturizeOptions(out=Path("f2"), name="second", overwrite=True)),
            ((Path("f1"), Path("f2")), TrainOptions(epochs=7, split="speaker")),
            (
                Path("calls"),
                ScoreOptions(
                    out=Path("out/preds.parquet"),
                    model="model",
                    window=3.0,
                    hop=1.5,
                    channels="split",
                    channel_roles="0=agent,1=customer",
                    only="customer",
                    jobs=2,
                    strict=True,
                ),
            ),
        ),
    )
    assert isinstance(job.steps[4][1].window, float)


def test_a_job_may_limit_the_time_of_a_recording(read):
    job = read('[score]\naudio = "a"\njobs = 1\nisolate = true\ntimeout = 600\n')
    assert job == Job(((Path("a"), ScoreOptions(jobs=1, isolate=True, timeout=600.0)),))
    with pytest.raises(UsageError, match=r"--timeout 600 with --jobs 1"):
        read('[score]\naudio = "a"\njobs = 1\ntimeout = 600\n')


def test_one_featurize_table_and_one_features_folder_are_fine_too(read):
    job = read('[featurize]\naudio = "a"\n[train]\nfeatures = "f"\n')
    assert job == Job(((Path("a"), FeaturizeOptions()), ((Path("f"),), TrainOptions())))
    assert read("[train]\n").steps == (((), TrainOptions()),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[featurise]\naudio = "a"\n', "unknown table 'featurise'; did you mean featurize?"),
        ("[zzz]\n", "unknown table 'zzz'; expected one of synth, featurize, train, score"),
        ("[train]\nepoch = 2\n", "[train]: unknown key 'epoch'; did you mean epochs?"),
        ('[score]\naudio = "a"\nchannel-roles = "0=a"\n', "'channel-roles'; did you mean channel_roles?"),
        ('[train]\n[synth]\nfolder = "d"\nfolders = "d"\n', "[synth]: unknown key 'folders'; did you mean folder?"),
        ("[train]\n[synth]\n", "[synth]: expected folder"),
        ("[train]\nepochs = true\n", "--epochs True; expected a whole number"),
        ("[train]\nepochs = 2.0\n", "--epochs 2.0; expected a whole number"),
        ('[train]\nepochs = "2"\n', "--epochs '2'; expected a whole number"),
        ("[train]\nsplit = 5\n", "--split 5; expected text"),
        ("[train]\nout = 5\n", "--out 5; expected a path"),
        ("[train]\noverwrite = 1\n", "--overwrite 1; expected true or false"),
        ('[train]\noverwrite = "true"\n', "--overwrite 'true'; expected true or false"),
        ('[train]\nestimator = "gbm"\n', "--estimator 'gbm'; expected one of network, svm"),
        ("[train]\nfeatures = 1\n", "features is 1"),
        ('[train]\nfeatures = ["f", 1]\n', "features is ['f', 1]"),
        ('[score]\naudio = "a"\nwindow = "4"\n', "--window '4'; expected a number"),
        ('[score]\naudio = "a"\nwindow = true\n', "--window True; expected a number"),
        ('[score]\naudio = "a"\njobs = true\n', "--jobs True; expected a whole number"),
        ('[score]\naudio = "a"\nchannels = 0\n', "--channels 0; expected text"),
        ('[score]\naudio = "a"\nsegments = ["clip"]\n', "--segments ['clip']; expected one of clip, windows"),
        ('[score]\nout = "p.parquet"\n', '[score]: expected audio = "folder"'),
        ("[score]\naudio = 3\n", '[score]: expected audio = "folder"'),
        ("train = 3\n", "train is 3; expected a table, [train]"),
        ("featurize = [1]\n", "featurize is 1; expected a table"),
        ("", "nothing to run"),
        ("[train\n", "cannot be read as TOML"),
        (b'[train]\nsplit = "\xff"\n', "cannot be read as TOML"),
    ],
)
def test_a_job_that_is_wrong_is_refused_by_file_and_key_before_anything_runs(read, text, told):
    with pytest.raises(JobError) as caught:
        read(text)
    assert "job.toml" in str(caught.value)
    assert told in str(caught.value)


def test_a_value_that_the_command_would_refuse_is_refused_in_a_job_too(read):
    with pytest.raises(UsageError, match="--epochs 0"):
        read("[train]\nepochs = 0\n")
    with pytest.raises(UsageError, match="channels 'left'"):
        read('[train]\n[score]\naudio = "a"\nchannels = "left"\n')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = " + "[" * 5000, "cannot be read as TOML"),
        ("x = " + "1" * 5000, "cannot be read as TOML"),
        ('[score]\naudio = "a"\nlimit = 0x' + "f" * 5000, "--limit int with a number of thousands of digits"),
        ('[score]\naudio = "a"\nwindow = 0x' + "f" * 5000, "--window int with a number of thousands of digits"),
        ("score = 0x" + "f" * 5000, "score is int with a number of thousands of digits"),
        ('[score]\naudio = "a"\nraw_format = "mulaw:' + "1" * 5000 + ':1"', "raw-format"),
        ('[score]\naudio = "a"\nchannels = "' + "1" * 5000 + '"', "channels"),
        ('[score]\naudio = "a"\nchannel_roles = "' + "1" * 5000 + '=a"', "channel-roles"),
        ('[score]\naudio = "a"\nchannel_roles = "0=mulaw:' + "1" * 5000 + ',1"', "channel-roles"),
        ('[train]\nsplit = "speaker:' + "1" * 5000 + '"', "--split"),
        ('[score]\naudio = "a"\nout = "a\\u0000b"', "--out 'a"),
        ('[score]\naudio = "a"\njobs = 0', "--jobs 0"),
    ],
)
def test_a_job_made_to_do_harm_is_refused_by_file_and_key(read, text, told):
    with pytest.raises(JobError, match=rf"\.toml: .*{told}") as caught:
        read(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 2000  # however long what it quotes


def test_a_job_with_the_mark_of_windows_editors_is_read(read):
    assert read(b"\xef\xbb\xbf" + FULL.encode()) == read(FULL)


def test_a_job_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(JobError, match=r"no\.toml"):
        read_job(tmp_path / "no.toml")


def test_set_overrides_a_key_in_every_table_of_that_name(read):
    job = read(
        FULL,
        "train.epochs=2",
        "featurize.out=elsewhere",
        "featurize.jobs = 1",
        'score.model="a=b"',
        "score.strict=false",
        "score.hop=2",
        "synth.folder=there",
        "train.features=['x']",
    )
    _, first, second, train, score = (options for _, options in job.steps)
    assert job.steps[0][0] == Path("there")
    assert first.out == second.out == Path("elsewhere")
    assert first.jobs == second.jobs == 1
    assert (first.name, second.name) == (None, "second")
    assert train.epochs == 2
    assert job.steps[3][0] == (Path("x"),)
    assert (score.model, score.strict, score.hop) == ("a=b", False, 2.0)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs=2", "expected table.key=value"),
        ("train.epochs", "expected table.key=value"),
        ("train.=2", "expected table.key=value"),
        ("=2", "expected table.key=value"),
        ("", "expected table.key=value"),
        ("score.strict=true", "the job has no table [score]; it has train"),
        ("train.epoch=2", "unknown key 'epoch'; did you mean epochs?"),
        ("train.epochs=true", "--epochs True; expected a whole number"),
        ("train.epochs=two", "--epochs 'two'; expected a whole number"),
        ("train.epochs=", "--epochs ''; expected a whole number"),
    ],
)
def test_an_override_that_is_wrong_is_refused(read, override, told):
    with pytest.raises(JobError) as caught:
        read("[train]\nepochs = 3\n", override)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["train = 3\n", "train = [3]\n"])
def test_an_override_of_what_is_no_table_is_refused(read, text):
    with pytest.raises(JobError, match="train"):
        read(text, "train.epochs=2")
