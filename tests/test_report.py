"""Metrics that agree with scikit-learn and with counting, the tables people read, the page."""

import json
import math
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_json import MINIMAL, SAVED, schema
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, classification_report, f1_score

from ser_batch.config.features import FeatureSpec
from ser_batch.errors import UsageError
from ser_batch.report.calibration import coverage_table, expected_calibration_error, reliability_table
from ser_batch.report.evaluation import report_table, summary_table
from ser_batch.report.metrics import classification, confusion, headline, main_rows
from ser_batch.report.model_card import model_card
from ser_batch.report.model_page import PUBLISHED, verdict
from ser_batch.report.pages import write_page
from ser_batch.report.predictions import predictions_report
from ser_batch.tables.parquet import rows_table, write_frame, write_table
from ser_batch.tables.schemas import REJECTS, calls_schema, predictions_schema, quarters_schema

LABELS = ["angry", "calm", "happy", "sad"]
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=60)


def by_label(report: pl.DataFrame) -> dict[str, dict]:
    return {row["label"]: row for row in report.iter_rows(named=True)}


@pytest.fixture(scope="module")
def drawn():
    """Truth and predictions that agree more often than not, label counts uneven."""
    generator = np.random.default_rng(0)
    truth = generator.choice(LABELS, size=400, p=[0.5, 0.3, 0.15, 0.05])
    predicted = np.where(generator.random(400) < 0.6, truth, generator.choice(LABELS, size=400))
    return truth.tolist(), predicted.tolist()


# --- metrics ------------------------------------------------------------------------------------------------------


def test_the_classification_is_scikit_learns(drawn):
    truth, predicted = drawn
    report = classification(truth, predicted, LABELS)
    assert report["label"].to_list() == [*LABELS, "accuracy", "macro_avg", "weighted_avg"]
    assert report.columns == ["label", "precision", "recall", "f1", "support"]
    expected = classification_report(truth, predicted, labels=LABELS, output_dict=True)
    accuracy = expected.pop("accuracy")
    for label, values in expected.items():
        row = by_label(report)[label.replace(" ", "_")]
        assert row["precision"] == pytest.approx(values["precision"], abs=1e-12)
        assert row["recall"] == pytest.approx(values["recall"], abs=1e-12)
        assert row["f1"] == pytest.approx(values["f1-score"], abs=1e-12)
        assert row["support"] == values["support"]
    assert by_label(report)["accuracy"] == {
        "label": "accuracy", "precision": None, "recall": None, "f1": pytest.approx(accuracy), "support": 400,
    }  # fmt: skip


def test_the_headline_names_the_figures_of_the_field(drawn):
    truth, predicted = drawn
    expected = classification_report(truth, predicted, labels=LABELS, output_dict=True)
    assert headline(classification(truth, predicted, LABELS)) == pytest.approx(
        {
            "accuracy": expected["accuracy"],
            "uar": balanced_accuracy_score(truth, predicted),
            "macro_f1": expected["macro avg"]["f1-score"],
            "weighted_f1": expected["weighted avg"]["f1-score"],
        }
    )


@given(pairs)
@settings(max_examples=40, deadline=None)
def test_metrics_agree_with_counting_whatever_labels_are_missing(drawn):
    truth, predicted = (list(side) for side in zip(*drawn, strict=True))
    rows = by_label(classification(truth, predicted, LABELS))
    hits, said, there = Counter(t for t, p in drawn if t == p), Counter(predicted), Counter(truth)
    for label in LABELS:
        row = rows[label]
        assert row["support"] == there[label]
        assert row["precision"] == (pytest.approx(hits[label] / said[label]) if said[label] else None)
        assert row["recall"] == (pytest.approx(hits[label] / there[label]) if there[label] else None)
        either = said[label] + there[label]
        assert row["f1"] == (pytest.approx(2 * hits[label] / either) if either else None)
    recalls = [hits[label] / there[label] for label in there]
    assert rows["macro_avg"]["recall"] == pytest.approx(sum(recalls) / len(recalls))
    assert rows["accuracy"]["f1"] == hits.total() / len(drawn)
    assert rows["weighted_avg"]["recall"] == pytest.approx(rows["accuracy"]["f1"])
    assert all(rows[name]["support"] == len(drawn) for name in ("accuracy", "macro_avg", "weighted_avg"))


def test_a_label_that_never_occurs_does_not_enter_the_averages():
    report = by_label(classification(["sad", "sad", "happy"], ["sad", "happy", "happy"], LABELS))
    assert report["calm"] == {"label": "calm", "precision": None, "recall": None, "f1": None, "support": 0}
    assert report["macro_avg"]["recall"] == pytest.approx((0.5 + 1.0) / 2)
    assert report["macro_avg"]["precision"] == pytest.approx((1.0 + 0.5) / 2)


def test_a_label_that_is_never_predicted_counts_as_nothing_right():
    report = by_label(classification(["sad", "happy"], ["happy", "happy"], LABELS))
    assert (report["sad"]["recall"], report["sad"]["f1"]) == (0.0, 0.0)
    assert report["macro_avg"]["f1"] == pytest.approx((0.0 + 2 / 3) / 2)


@given(pairs)
@settings(max_examples=30, deadline=None)
def test_the_confusion_counts_every_row_once(drawn):
    truth, predicted = (list(side) for side in zip(*drawn, strict=True))
    counts = confusion(truth, predicted, LABELS)
    assert counts.select("emotion", "predicted").rows() == [(one, other) for one in LABELS for other in LABELS]
    found = {(row["emotion"], row["predicted"]): row["count"] for row in counts.iter_rows(named=True)}
    assert +Counter(found) == Counter(drawn)
    totals = dict(counts.group_by("emotion").agg(pl.col("rate").sum()).iter_rows())
    for label in LABELS:
        assert totals[label] == pytest.approx(1.0 if label in truth else 0.0)
    assert counts.schema == {"emotion": pl.String, "predicted": pl.String, "count": pl.Int64, "rate": pl.Float64}


def test_the_published_figures_are_those_of_the_work():
    assert PUBLISHED["support"].sum() == 491
    assert PUBLISHED["f1"].mean() == pytest.approx(0.795, abs=0.005)
    assert (PUBLISHED["f1"] * PUBLISHED["support"]).sum() / 491 == pytest.approx(0.80, abs=0.005)


# --- the figures of a model ---------------------------------------------------------------------------------------


def evaluated(
    truth, predicted, *, confidence=0.7, variant="clean", seed=0, speaker=None, recording=None, **metadata
) -> pl.DataFrame:
    """Rows of predictions.parquet. What is not given: one speaker, a recording a row, nothing known about it."""
    n = len(truth)
    p = np.full((n, len(LABELS)), (1 - np.broadcast_to(confidence, n)[:, None]) / (len(LABELS) - 1))
    p[np.arange(n), [LABELS.index(label) for label in predicted]] = confidence
    return pl.DataFrame(
        {
            "dataset": ["d"] * n,
            "content_hash": recording or [f"{i:04}" for i in range(n)],
            "variant": [variant] * n,
            "speaker": speaker or ["r-01"] * n,
            "emotion": list(truth),
            "seed": [seed] * n,
            "predicted": list(predicted),
            **{f"p_{label}": p[:, i] for i, label in enumerate(LABELS)},
            **{name: metadata.get(name, [None] * n) for name in ("corpus", "vocal_channel", "sex", "intensity")},
        },
        schema_overrides=dict.fromkeys(("corpus", "speaker", "vocal_channel", "sex", "intensity"), pl.String),
    )


@pytest.fixture(scope="module")
def predictions():
    """Two seeds of a model, clean after noisy, 12 speakers, spoken and sung; nobody sings sadly."""
    generator = np.random.default_rng(5)
    n = 360
    number = np.arange(n) % 12
    song = generator.random(n) < 0.4
    truth = np.where(song, generator.choice(LABELS[:3], n), generator.choice(LABELS, n, p=[0.4, 0.3, 0.2, 0.1]))
    who = {
        "speaker": [f"r-{i:02}" for i in number],
        "sex": np.where(number % 2, "female", "male").tolist(),
        "vocal_channel": np.where(song, "song", "speech").tolist(),
        "intensity": ["normal"] * n,
    }
    frames = []
    for variant, skill in (("noise10", 0.3), ("clean", 0.6)):
        for seed in (3, 4):
            right = generator.random(n) < skill + 0.03 * (number - 6)
            predicted = np.where(right, truth, generator.choice(LABELS, n))
            confidence = generator.uniform(0.3, 1.0, n)
            frames.append(evaluated(truth, predicted, confidence=confidence, variant=variant, seed=seed, **who))
    return pl.concat(frames)


def pick(frame: pl.DataFrame, **wanted) -> pl.DataFrame:
    return frame.filter(**wanted)


def test_the_report_has_each_condition_and_subset_clean_first(predictions):
    report = report_table(predictions, LABELS, n_resamples=20)
    assert report.columns == [
        "condition", "subset", "label", "precision", "recall", "f1", "support",
        "resampled", "recall_low", "recall_high", "f1_low", "f1_high",
    ]  # fmt: skip
    subsets = ["all", "song", "speech", "female", "male"]  # intensity tells no rows apart
    groups = report.select("condition", "subset").unique(maintain_order=True).rows()
    assert groups == [(condition, subset) for condition in ("clean", "noise10") for subset in subsets]
    assert report["label"].to_list() == [*LABELS, "accuracy", "macro_avg", "weighted_avg"] * 10
    assert report["support"].dtype == pl.Int64
    for name in set(report.columns[3:]) - {"resampled"}:
        assert not report[name].cast(pl.Float64).is_nan().any()


def test_with_one_seed_the_report_is_the_classification(predictions):
    rows = pick(predictions, seed=3)
    report = report_table(rows, LABELS, n_resamples=20)
    spoken = pick(rows, variant="clean", vocal_channel="speech")
    expected = classification(spoken["emotion"].to_list(), spoken["predicted"].to_list(), LABELS)
    assert pick(report, condition="clean", subset="speech").select(expected.columns).equals(expected)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # nobody sings sadly
def test_the_figures_are_the_mean_over_seeds_of_scikit_learns(predictions):
    summary = summary_table(predictions, LABELS, estimator="network", n_resamples=20)
    report = report_table(predictions, LABELS, n_resamples=20)
    for row in summary.iter_rows(named=True):
        rows = pick(predictions, variant=row["condition"])
        if row["subset"] != "all":
            rows = rows.filter(pl.any_horizontal(pl.col("vocal_channel", "sex") == row["subset"]))
        seeds = [(own["emotion"].to_list(), own["predicted"].to_list()) for own in rows.partition_by("seed")]
        assert (row["estimator"], row["n"], row["n_speakers"]) == ("network", len(rows), rows["speaker"].n_unique())
        occurring = sorted(set(rows["emotion"]))
        figures = {
            "accuracy": [accuracy_score(*own) for own in seeds],
            "uar": [balanced_accuracy_score(*own) for own in seeds],
            "macro_f1": [f1_score(*own, labels=occurring, average="macro", zero_division=0.0) for own in seeds],
            "weighted_f1": [f1_score(*own, labels=occurring, average="weighted", zero_division=0.0) for own in seeds],
        }
        for name, values in figures.items():
            assert row[name] == pytest.approx(np.mean(values))
            if name != "weighted_f1":
                assert row[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1))
        own_report = pick(report, condition=row["condition"], subset=row["subset"])
        assert headline(own_report) == pytest.approx({name: row[name] for name in figures})
        assert by_label(own_report)["accuracy"]["support"] == len(rows)
        assert by_label(own_report)["macro_avg"]["recall_high"] == row["uar_high"]


def test_one_seed_has_no_deviation(predictions):
    summary = summary_table(pick(predictions, seed=3), LABELS, estimator="network", n_resamples=20)
    assert all(summary[f"{name}_sd"].null_count() == len(summary) for name in ("uar", "accuracy", "macro_f1"))


def test_the_order_of_the_rows_does_not_matter(predictions):
    clean = pick(predictions, variant="clean")
    shuffled = clean.sample(fraction=1, shuffle=True, seed=1)
    assert report_table(clean, LABELS).equals(report_table(shuffled, LABELS))


def test_the_intervals_are_those_of_drawing_whole_speakers(predictions):
    clean = pick(predictions, variant="clean")
    rows = by_label(report_table(clean, LABELS).filter(subset="all"))
    speakers = [own.partition_by("seed") for own in clean.partition_by("speaker", maintain_order=True)]
    generator = np.random.default_rng(1)
    drawn = []
    for _ in range(300):
        chosen = [speakers[i] for i in generator.integers(len(speakers), size=len(speakers))]
        seeds = [pl.concat(own) for own in zip(*chosen, strict=True)]
        drawn.append(
            (
                np.mean([balanced_accuracy_score(own["emotion"], own["predicted"]) for own in seeds]),
                np.mean([(own["emotion"] == own["predicted"]).mean() for own in seeds]),
            )
        )
    expected = np.percentile(drawn, (2.5, 97.5), axis=0)
    found = np.array(
        [
            (rows["macro_avg"]["recall_low"], rows["accuracy"]["f1_low"]),
            (rows["macro_avg"]["recall_high"], rows["accuracy"]["f1_high"]),
        ]
    )
    np.testing.assert_allclose(found, expected, atol=0.02)  # the width is 0.14: within what 300 draws leave open
    assert (found[1] - found[0] > 0.08).all()


def test_the_interval_of_recordings_is_the_binomial_one():
    truth, predicted = ["sad"] * 1000, ["sad"] * 200 + ["calm"] * 800
    half = 1.96 * math.sqrt(0.2 * 0.8 / 1000)
    for speakers in ([None] * 1000, ["anna"] * 1000):  # too few speakers to draw from
        row = by_label(report_table(evaluated(truth, predicted, speaker=speakers), LABELS, n_resamples=20_000))
        found = (row["accuracy"]["f1_low"], row["accuracy"]["f1_high"])
        assert found == pytest.approx((0.2 - half, 0.2 + half), abs=0.0015)


@pytest.mark.parametrize(("n", "resampled"), [(2, "recording"), (7, "recording"), (8, "speaker")])
def test_with_fewer_than_eight_speakers_recordings_are_drawn_and_named(n, resampled):
    # every other speaker is always understood, the others never
    speakers = [f"s{i % n}" for i in range(56 * 3)]
    predicted = ["sad" if int(speaker[1:]) % 2 else "calm" for speaker in speakers]
    rows = evaluated(["sad"] * len(speakers), predicted, speaker=speakers)
    report = report_table(rows, LABELS)
    assert report["resampled"].unique().to_list() == [resampled]
    (summary,) = summary_table(rows, LABELS, estimator="network").to_dicts()
    assert summary["resampled"] == resampled
    width = summary["accuracy_high"] - summary["accuracy_low"]
    assert width == pytest.approx(4 * math.sqrt(0.25 / (n if resampled == "speaker" else len(speakers))), rel=0.1)


def test_a_recording_of_nobody_known_is_drawn_like_a_speaker():
    truth, predicted = ["sad"] * 90, ["sad"] * 40 + ["calm"] * 50
    known = [f"s{i // 10}" for i in range(80)]
    rows = evaluated(truth, predicted, speaker=[*known, *[None] * 10], recording=["one"] * 90)
    nine = evaluated(truth, predicted, speaker=[*known, *["s9"] * 10])
    assert report_table(rows, LABELS).equals(report_table(nine, LABELS))
    assert report_table(rows, LABELS)["resampled"][0] == "speaker"


def test_rows_of_a_recording_are_resampled_together_and_few_have_no_interval():
    truth, predicted = ["sad", "happy"] * 40, ["sad"] * 80
    together = evaluated(truth, predicted, recording=[f"r{i // 10}" for i in range(80)])
    row = by_label(report_table(together, LABELS))["accuracy"]
    assert (row["f1"], row["f1_low"], row["f1_high"]) == (0.5, 0.5, 0.5)
    few = evaluated(truth, predicted, recording=[f"r{i % 7}" for i in range(80)])
    row = by_label(report_table(few, LABELS))["accuracy"]
    assert (row["f1_low"], row["f1_high"], row["resampled"]) == (None, None, None)
    summary = summary_table(few, LABELS, estimator="network")
    assert summary.select("uar_low", "uar_high", "resampled").rows() == [(None, None, None)]


def test_a_label_that_a_resample_lacks_does_not_enter_its_averages():
    # one of eight is happy, who is not in each third resample
    speakers = [f"s{i}" for i in range(8)]
    rows = evaluated(["happy"] + ["sad"] * 7, ["sad"] * 8, speaker=speakers)
    report = by_label(report_table(rows, LABELS))
    assert report["macro_avg"]["recall"] == 0.5
    assert report["macro_avg"]["recall_high"] == 1.0  # only sad, and all of it is right
    assert (report["sad"]["recall_low"], report["sad"]["recall_high"]) == (1.0, 1.0)
    assert (report["calm"]["recall"], report["calm"]["recall_low"], report["calm"]["f1_high"]) == (None, None, None)


def test_the_main_rows_are_those_of_everything_clean(predictions):
    report = report_table(predictions, LABELS, n_resamples=20)
    assert main_rows(report).equals(pick(report, condition="clean", subset="all"))
    today = classification(["sad"], ["sad"], LABELS).insert_column(0, pl.lit("all").alias("subset"))
    assert main_rows(today).equals(today)


# --- confidence ---------------------------------------------------------------------------------------------------


def test_the_calibration_error_of_an_example_by_hand():
    confidence = np.array([0.15, 0.2, 0.65, 0.75, 0.75, 1.0])
    is_right = np.array([False, True, True, True, False, True])
    # five bins, each with its upper end: 0.15 and 0.2 | none | none | 0.65, 0.75, 0.75 | 1.0
    expected = (abs(1 - 0.35) + abs(2 - 2.15) + abs(1 - 1.0)) / 6
    assert expected_calibration_error(confidence, is_right, n_bins=5) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_more_bins_never_hide_an_error_that_one_bin_shows(rows, n_bins):
    confidence, is_right = (np.array(side) for side in zip(*rows, strict=True))
    overall = abs(confidence.mean() - is_right.mean())
    assert expected_calibration_error(confidence, is_right, 1) == pytest.approx(overall)
    assert overall - 1e-9 <= expected_calibration_error(confidence, is_right, n_bins) <= 1 + 1e-9


def test_the_reliability_is_scikit_learns(predictions):
    table = reliability_table(predictions, LABELS, n_bins=10)
    assert table.columns == ["condition", "bin_low", "bin_high", "n", "mean_confidence", "accuracy"]
    assert table["condition"].to_list() == ["clean"] * 10 + ["noise10"] * 10
    clean = pick(predictions, variant="clean")
    confidence = clean.select(pl.max_horizontal("^p_.*$")).to_series()
    accuracy, mean = calibration_curve(clean["emotion"] == clean["predicted"], confidence, n_bins=10)
    known = pick(table, condition="clean").drop_nulls()
    np.testing.assert_allclose(known["accuracy"], accuracy)
    np.testing.assert_allclose(known["mean_confidence"], mean)
    empty = pick(table, condition="clean").filter(pl.col("bin_high") < 0.29)
    assert empty["n"].to_list() == [0, 0]
    assert empty["mean_confidence"].null_count() == empty["accuracy"].null_count() == 2
    assert pick(table, condition="clean")["n"].sum() == len(clean)
    assert pick(table, condition="clean")["bin_low"][0] == 0.0
    assert pick(table, condition="clean")["bin_high"][-1] == 1.0


def test_a_probability_above_1_by_rounding_stands_in_the_last_bin():
    table = reliability_table(evaluated(["sad"], ["sad"], confidence=1 + 1e-9), LABELS)
    assert table["n"].to_list() == [0] * 14 + [1]


def test_the_calibration_error_of_a_model_is_the_mean_over_its_seeds():
    # overconfident once, underconfident once: together they would look calibrated
    truth = ["sad"] * 10
    over = evaluated(truth, ["sad"] * 4 + ["calm"] * 6, confidence=0.7, seed=0)
    under = evaluated(truth, ["sad"] * 10, confidence=0.7, seed=1)
    summary = summary_table(pl.concat([over, under]), LABELS, estimator="network", n_resamples=20)
    assert summary["ece"].item() == pytest.approx((0.3 + 0.3) / 2)


def test_the_coverage_of_an_example_by_hand():
    truth = ["sad", "happy", "sad", "happy", "sad"]
    rows = evaluated(truth, ["sad", "sad", "sad", "happy", "calm"], confidence=np.array([0.9, 0.6, 0.8, 0.6, 0.5]))
    table = coverage_table(rows, LABELS)
    assert table.columns == ["condition", "coverage", "confidence", "n", "accuracy", "uar"]
    assert table["coverage"].to_list() == [percent / 100 for percent in range(5, 101, 5)]
    # of the two rows with 0.6 the earlier one, which is wrong, is kept first
    steps = {0.2: (0.9, 1, 1.0, 1.0), 0.4: (0.8, 2, 1.0, 1.0), 0.6: (0.6, 3, 2 / 3, 0.5), 0.8: (0.6, 4, 0.75, 0.75),
             1.0: (0.5, 5, 0.6, (2 / 3 + 1 / 2) / 2)}  # fmt: skip
    for row in table.iter_rows(named=True):
        # the share is rounded up to whole rows
        step = min(share for share in steps if share >= row["coverage"])
        assert (row["confidence"], row["n"], row["accuracy"], row["uar"]) == pytest.approx(steps[step])


def test_the_coverage_agrees_with_the_summary_and_with_sorting(predictions):
    table = coverage_table(predictions, LABELS)
    summary = summary_table(predictions, LABELS, estimator="network", n_resamples=20)
    for condition in ("clean", "noise10"):
        own = {row["coverage"]: row for row in pick(table, condition=condition).iter_rows(named=True)}
        row = pick(summary, condition=condition, subset="all").row(0, named=True)
        assert (own[1.0]["accuracy"], own[1.0]["uar"]) == pytest.approx((row["accuracy"], row["uar"]))
        for percent in (50, 70, 90):
            assert own[percent / 100]["accuracy"] == row[f"accuracy_at_{percent}"]
        rows = pick(predictions, variant=condition).with_columns(top=pl.max_horizontal("^p_.*$"))
        kept = [seed.sort("top", descending=True).head(180) for seed in rows.partition_by("seed")]
        assert own[0.5]["n"] == 360
        assert own[0.5]["uar"] == pytest.approx(
            np.mean([balanced_accuracy_score(seed["emotion"], seed["predicted"]) for seed in kept])
        )
        assert own[0.5]["confidence"] == pytest.approx(np.mean([seed["top"].min() for seed in kept]))


# --- the report of predictions ------------------------------------------------------------------------------------

REPORT_SCHEMA = {
    "role": pl.String,
    "label": pl.String,
    "n_predicted": pl.Int64,
    "share": pl.Float64,
    "mean_confidence": pl.Float64,
    "precision": pl.Float64,
    "recall": pl.Float64,
    "f1": pl.Float64,
    "support": pl.Int64,
}
SUMMARY = ["accuracy", "macro_avg", "weighted_avg"]


def units(*rows: tuple) -> pl.DataFrame:
    """Segments or calls: predicted, confidence, role, emotion."""
    schema = {"predicted": pl.String, "confidence": pl.Float64, "role": pl.String, "emotion": pl.String}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def test_without_truth_there_are_shares_and_no_metrics():
    segments = units(
        ("sad", 0.5, None, None), ("sad", 0.7, None, None), ("happy", 0.9, None, None), (None, None, None, None)
    )
    report = predictions_report(segments, units(("sad", 0.6, None, None)), LABELS, timed=False)
    assert report.schema == REPORT_SCHEMA
    assert report["label"].to_list() == [*LABELS, *SUMMARY]
    assert report["role"].null_count() == len(report)
    assert report["n_predicted"].to_list() == [0, 0, 1, 2, None, None, None]  # silence is predicted nothing
    assert report["share"].to_list() == pytest.approx([0, 0, 1 / 3, 2 / 3, None, None, None])
    assert by_label(report)["sad"]["mean_confidence"] == pytest.approx(0.6)
    for name in ("precision", "recall", "f1", "support"):
        assert report[name].null_count() == len(report)


def test_nothing_predicted_at_all_is_still_a_report():
    report = predictions_report(units((None, None, None, None)), units((None, None, None, "sad")), LABELS, timed=False)
    assert report.schema == REPORT_SCHEMA
    assert report["n_predicted"].to_list() == [0, 0, 0, 0, None, None, None]
    assert report["support"].null_count() == len(report)


def test_truth_without_times_counts_recordings_and_with_times_segments():
    segments = units(*[("sad", 0.5, None, "sad")] * 3, ("calm", 0.5, None, "sad"), ("happy", 0.5, None, "happy"))
    calls = units(("sad", 0.5, None, "sad"), ("happy", 0.5, None, "happy"), ("sad", 0.5, None, None))
    by_call = by_label(predictions_report(segments, calls, LABELS, timed=False))
    by_segment = by_label(predictions_report(segments, calls, LABELS, timed=True))
    assert (by_call["accuracy"]["support"], by_call["accuracy"]["f1"]) == (2, 1.0)
    assert (by_segment["accuracy"]["support"], by_segment["accuracy"]["f1"]) == (5, 0.8)
    assert by_segment["sad"]["recall"] == pytest.approx(0.75)
    assert by_call["sad"]["n_predicted"] == by_segment["sad"]["n_predicted"] == 3
    assert by_segment["sad"]["share"] == pytest.approx(0.6)


def test_each_role_has_its_rows_after_those_of_all_together():
    segments = units(("sad", 0.5, "customer", None), ("calm", 0.5, "agent", None), ("calm", 0.5, None, None))
    calls = units(("sad", 0.5, "customer", "sad"), ("calm", 0.5, "agent", "happy"), ("calm", 0.5, None, None))
    report = predictions_report(segments, calls, LABELS, timed=False)
    assert report.schema == REPORT_SCHEMA
    labels = [*LABELS, *SUMMARY]
    assert report["role"].to_list() == [None] * 7 + ["agent"] * 7 + ["customer"] * 7
    assert report["label"].to_list() == labels * 3
    accuracy = report.filter(pl.col("label") == "accuracy")
    assert accuracy.select("f1", "support").rows() == [(0.5, 2), (0.0, 1), (1.0, 1)]
    assert report.filter(pl.col("label") == "calm")["n_predicted"].to_list() == [2, 1, 0]
    assert report.filter(pl.col("label") == "calm")["share"].to_list() == pytest.approx([2 / 3, 1.0, 0.0])


def test_a_label_that_the_model_does_not_know_counts_as_missed():
    calls = units(("sad", 0.5, None, "bored"), ("sad", 0.5, None, "sad"))
    report = predictions_report(calls, calls, LABELS, timed=False)
    assert report["label"].to_list() == [*LABELS, "bored", *SUMMARY]
    bored = by_label(report)["bored"]
    assert (bored["n_predicted"], bored["recall"], bored["support"]) == (0, 0.0, 1)
    assert by_label(report)["accuracy"]["f1"] == 0.5


# --- for people ---------------------------------------------------------------------------------------------------


@pytest.fixture
def preds(tmp_path):
    """The side tables of a scoring run over files with unpleasant names."""
    row = {"path": "<script>alert(1)</script>.wav", "channel": 0, "duration_s": 3600.0, "n_segments": 3}
    calls = rows_table(
        [
            {**row, "predicted": "sad", "share_sad": 0.75, "status": "ok"},
            {**row, "channel": 1, "status": "no_speech"},
        ],
        calls_schema(LABELS),
    )
    write_table(tmp_path / "p.calls.parquet", calls)
    write_table(tmp_path / "p.quarters.parquet", quarters_schema(LABELS).empty_table())
    write_table(tmp_path / "p.parquet", predictions_schema(LABELS).empty_table())
    segments = units(("sad", 0.5, None, None))
    write_frame(predictions_report(segments, segments, LABELS, timed=False), tmp_path / "p.report.parquet")
    rejects = [{"path": "b&b.wav", "stage": "decode", "error": "E", "message": "<b>not audio</b>"}]
    write_table(tmp_path / "p.rejects.parquet", rows_table(rejects, REJECTS))
    return tmp_path / "p.parquet"


def page_data(page: str) -> dict:
    """What the page's script draws."""
    (data,) = re.findall(r'id="page-data">(.*?)</script>', page)
    return json.loads(data)


def drawn_values(page: str, chart: str) -> list[dict]:
    """The rows of data of a chart."""
    return [row for rows in page_data(page)["charts"][chart]["datasets"].values() for row in rows]


def test_the_page_shows_names_as_text_and_needs_no_network(preds, tmp_path):
    write_page(preds, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.wav" in page
    assert "b&amp;b.wav" in page
    assert "&lt;b&gt;not audio&lt;/b&gt;" in page
    assert page.count("<script") == 2  # the page's own: data, and what lists and plays
    assert " src=" not in page
    assert "<link" not in page
    assert "1.00 h" in page  # two channels of one hour
    assert "sad 75 %" in page
    assert "(.parts) is not beside the table" in page  # so nothing can be played


def test_calls_without_a_priority_come_last(preds, tmp_path):
    row = {"channel": 0, "duration_s": 9.0, "n_segments": 1, "status": "ok"}
    rows = [{**row, "path": path, "priority": priority} for path, priority in (("a", None), ("b", 0.1), ("c", 0.2))]
    write_table(preds.with_suffix(".calls.parquet"), rows_table(rows, calls_schema(LABELS)))
    write_page(preds, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page_data(page)["paths"] == ["c", "b", "a"]


MODEL = MINIMAL | SAVED | {
    "labels": sorted(LABELS),
    "epochs": 3,
    "seed": 3,
    "feature_spec": FeatureSpec().to_dict(),
    "feature_spec_hash": FeatureSpec().digest(),
    "scaler": {"mean": [0.0] * 40, "scale": [1.0] * 40},
    "training": MINIMAL["training"] | {"rows_by_emotion": dict.fromkeys(LABELS, 2)},
    "metrics": {
        "accuracy": 0.61, "uar": 0.62, "macro_f1": 0.63, "weighted_f1": 0.64, "n": 720,
        "description": "Measured on a hold-out.",
    },
}  # fmt: skip
RICH_METRICS = {
    **MODEL["metrics"],
    "intervals": {"uar": [0.581, 0.662], "accuracy": [0.571, 0.652], "macro_f1": [None, None]},
    "resampled": "recording",
    "ece": 0.042,
    "speech": {"accuracy": 0.51, "uar": 0.52, "macro_f1": 0.53},
    "song": {"accuracy": 0.71, "uar": 0.72, "macro_f1": 0.73},
    "conditions": {
        "clean": {"accuracy": 0.61, "uar": 0.62, "speech_uar": 0.52},
        "g711": {"accuracy": 0.41, "uar": 0.42},
    },
    "seeds": [3, 4],
}


class _Text(HTMLParser):
    """The rows of tables and the headings of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.tags: Counter[str] = Counter()
        self._into: list[str] | None = None

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._into = self.rows[-1]
        elif tag == "h2":
            self.headings.append("")
            self._into = self.headings

    def handle_endtag(self, tag):
        self._into = None if tag in ("td", "th", "h2") else self._into

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data


def model_page(folder, metrics=MODEL["metrics"], **tables) -> tuple[str, _Text]:
    """Write a model folder with these tables and its page; return the page, as it is and taken apart."""
    (folder / "model.json").write_text(json.dumps({**MODEL, "metrics": metrics}))
    for name, table in tables.items():
        write_frame(table, folder / f"{name}.parquet")
    write_page(folder, folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    text = _Text()
    text.feed(page)
    return page, text


def test_a_model_without_any_table_has_its_figures_on_the_page(tmp_path):
    page, text = model_page(tmp_path)
    assert text.headings == ["Data and settings", "Limits and license"]
    assert "0.620" in page
    assert not page_data(page)["charts"]
    assert len(page) < 40_000  # without a chart, no library for charts
    assert not text.rows


def test_a_model_that_was_tried_on_nothing_has_a_page(tmp_path):
    _, text = model_page(tmp_path, metrics=None)
    assert text.headings == ["Data and settings", "Limits and license"]


def test_the_page_shows_the_report_and_curves_of_a_model(tmp_path):
    truth, predicted = ["sad", "sad", "happy"], ["sad", "happy", "happy"]
    report = classification(truth, predicted, LABELS).insert_column(0, pl.lit("all").alias("subset"))
    values = {"fold": ["1"] * 2, "seed": [0] * 2, "epoch": [1, 2], "loss": [2.0, 1.0], "accuracy": [0.5, 0.7]}
    history = pl.DataFrame({**values, "dev_loss": [2.5, 1.5], "dev_accuracy": [0.4, 0.6]})
    page, text = model_page(
        tmp_path, report=report, confusion=confusion(truth, predicted, LABELS), history=history
    )  # fmt: skip
    assert text.headings == [
        "By emotion", "Confusion", "Learning curves", "Data and settings", "Limits and license",
    ]  # fmt: skip
    assert ["happy", "0.50", "1.00", "0.67", "1"] in text.rows
    assert ["calm", "", "", "", "0"] in text.rows
    shown = [(row["series"], row["epoch"], row["mean"]) for row in drawn_values(page, "accuracy_curve")]
    assert sorted(shown) == [
        ("development", 1, 0.4),
        ("development", 2, 0.6),
        ("training", 1, 0.5),
        ("training", 2, 0.7),
    ]


def test_the_curves_are_of_whatever_rows_were_watched(tmp_path):
    values = {"fold": ["1"] * 2, "seed": [0] * 2, "epoch": [1, 2], "loss": [2.0, 1.0], "accuracy": [0.5, 0.7]}
    history = pl.DataFrame({**values, "dev_loss": [4.0, 3.0], "dev_accuracy": [0.3, 0.4]})
    page, _ = model_page(tmp_path, history=pl.concat([history, history.with_columns(fold=pl.lit("2"), loss=3.0)]))
    assert {row["series"] for row in drawn_values(page, "accuracy_curve")} == {"training", "development"}
    losses = {(row["series"], row["epoch"]): row for row in drawn_values(page, "loss_curve")}
    assert losses["development", 2]["mean"] == 3.0
    first = losses["training", 1]
    assert (first["low"], first["mean"], first["high"]) == (2.0, 2.5, 3.0)  # of two folds


def full_tables(predictions):
    """All tables of a model folder, the majority class beside the model."""
    clean = pick(predictions, variant="clean")
    majority = pick(clean, seed=3).with_columns(predicted=pl.lit("angry"))
    return {
        "report": report_table(predictions, LABELS, n_resamples=50),
        "confusion": confusion(clean["emotion"].to_list(), clean["predicted"].to_list(), LABELS),
        "summary": pl.concat(
            summary_table(rows, LABELS, estimator=name, n_resamples=50)
            for name, rows in (("robust <b>CNN</b>", predictions), ("majority class", majority))
        ),
        "reliability": reliability_table(predictions, LABELS),
        "coverage": coverage_table(predictions, LABELS),
    }


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("emobox", "Right for 6 of 10 clips of speakers it has not met; a guess is right for 1 of 4."),
        ("speaker:5", "Right for 6 of 10 clips of speakers it has not met; a guess is right for 1 of 4."),
        ("corpus:emodb", "Right for 6 of 10 clips of corpora it has not met; a guess is right for 1 of 4."),
        ("folds.csv", "Right for 6 of 10 clips that were held out; a guess is right for 1 of 4."),
        (
            "stratified",
            "Right for 6 of 10 clips of speakers it was trained on; a guess is right for 1 of 4. Expect less for other "
            "speakers.",
        ),
    ],
)
def test_the_verdict_says_how_often_for_whom_and_what_a_guess_is(split, said):
    assert verdict(schema({**MODEL, "split": split})) == said


def test_without_figures_the_verdict_is_that_nothing_is_known():
    assert "unknown, because nothing was held out" in verdict(schema({**MODEL, "metrics": None}))


def test_the_page_shows_every_table_that_is_there(predictions, tmp_path):
    tables = full_tables(predictions)
    page, text = model_page(tmp_path, metrics=RICH_METRICS, **tables)
    assert text.headings == [
        "By emotion",
        "Confusion",
        "By speech and song, sex, intensity",
        "Conditions",
        "Models side by side, same folds",
        "How far the probabilities can be believed",
        "When only the most confident are kept",
        "Data and settings",
        "Limits and license",
    ]
    assert "[0.581, 0.662]" in page
    assert "from drawing recordings anew, because fewer than 8 speakers are known." in page
    assert "Means over the seeds 3, 4" in page
    assert "Expected calibration error 0.042" in page
    report, summary = by_label(main_rows(tables["report"])), main_rows(tables["summary"]).row(0, named=True)
    sad = report["sad"]
    assert [
        "sad", f"{sad['precision']:.2f}", f"{sad['recall']:.2f} [{sad['recall_low']:.2f}, {sad['recall_high']:.2f}]",
        f"{sad['f1']:.2f} [{sad['f1_low']:.2f}, {sad['f1_high']:.2f}]", str(sad["support"]),
    ] in text.rows  # fmt: skip
    firsts = [row[0] for row in text.rows]
    assert firsts.count("song") == 1
    assert firsts.count("noise10") == 1
    models = [row for row in text.rows if row[0] in ("robust <b>CNN</b>", "majority class")]
    assert [row[1] for row in models] == ["all", "all", "speech", "speech"]
    uar = f"{summary['uar']:.3f} [{summary['uar_low']:.3f}, {summary['uar_high']:.3f}]"
    assert (models[0][3], models[0][5]) == (uar, f"{summary['uar_sd']:.3f}")
    assert models[1][5] == ""  # one seed
    for percent in (50, 70, 90):
        assert f"{percent} %: {summary[f'accuracy_at_{percent}']:.3f}" in page
    assert page_data(page)["charts"].keys() == {
        "labels", "confusion", "subsets", "conditions", "models", "reliability", "coverage",
    }  # fmt: skip
    cells = {(cell["emotion"], cell["predicted"]): cell["count"] for cell in drawn_values(page, "confusion")}
    assert cells == {(row[0], row[1]): row[2] for row in tables["confusion"].iter_rows()}


def test_the_page_takes_intervals_from_the_report_where_the_model_has_none(predictions, tmp_path):
    report = report_table(predictions, LABELS, n_resamples=50)
    page, _ = model_page(tmp_path, report=report)
    row = by_label(main_rows(report))["macro_avg"]
    shown = f'unweighted average recall (UAR)</span> <span class="interval">[{row["recall_low"]:.3f}, '
    assert shown in page
    unit = report["resampled"][0]
    assert f"In brackets: 95 % intervals, from drawing {unit}s anew" in page


def test_one_condition_and_one_model_are_compared_with_nothing(predictions, tmp_path):
    rows = pick(predictions, variant="clean").with_columns(sex=pl.lit("female"), vocal_channel=pl.lit("speech"))
    _, text = model_page(tmp_path, summary=summary_table(rows, LABELS, estimator="network", n_resamples=20))
    assert text.headings == ["Data and settings", "Limits and license"]


def test_names_in_a_model_folder_stay_text(predictions, tmp_path):
    hostile = '"><script>alert(1)</script>'
    tables = full_tables(predictions)
    tables = {
        name: table.with_columns(pl.selectors.string().replace({"clean": hostile, "song": hostile, "sad": hostile}))
        for name, table in tables.items()
    }
    tables["confusion"] = full_tables(predictions)["confusion"]  # labels of a model are checked
    model = {**MODEL, "description": hostile, "training": MODEL["training"] | {"datasets": [hostile]}}
    (tmp_path / "model.json").write_text(json.dumps(model))
    for name, table in tables.items():
        write_frame(table, tmp_path / f"{name}.parquet")
    write_page(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = _Text()
    text.feed(page)
    assert text.tags["script"] == 3  # the page's own
    assert text.tags["b"] == 4  # those of the headline figures
    firsts = [row[0] for row in text.rows]
    assert firsts.count(hostile) == 3  # a label, a subset, a condition
    assert "robust <b>CNN</b>" in firsts


def test_the_published_figures_stand_beside_the_same_emotions_only(tmp_path):
    _, text = model_page(tmp_path)
    assert "The published result, for comparison" not in text.headings
    (tmp_path / "model.json").write_text(json.dumps({**MODEL, "labels": sorted(PUBLISHED["label"])}))
    write_page(tmp_path, tmp_path / "report.html")
    assert "The published result, for comparison" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_card_has_the_four_headline_figures():
    card = model_card(schema(MODEL))
    assert (
        "## Figures\nAccuracy (WAR) 0.610, unweighted average recall (UAR) 0.620, macro F1 0.630, weighted F1 0.640, "
        "on 720 segments.\nMeasured on a hold-out.\n\n## License"
    ) in card
    assert "## Figures\nNone: nothing was held out.\n\n## License" in model_card(schema({**MODEL, "metrics": None}))


def test_the_card_says_what_else_is_known():
    card = model_card(schema({**MODEL, "metrics": RICH_METRICS}))
    for sentence in (
        "Accuracy (WAR) 0.610 [0.571, 0.652], unweighted average recall (UAR) 0.620 [0.581, 0.662], macro F1 0.630, ",
        "\nIn brackets: 95 % intervals, from drawing recordings anew, because fewer than 8 speakers are known. They do "
        "not tell how much other speakers differ.\n",
        "Means over the seeds 3, 4.",
        "Expected calibration error 0.042",
        "\n\n| | accuracy | UAR | macro F1 |\n|---|---|---|---|\n| speech | 0.510 | 0.520 | 0.530 |\n"
        "| song | 0.710 | 0.720 | 0.730 |\n\n",
        "\n\n| condition | accuracy | UAR | UAR, speech |\n|---|---|---|---|\n| clean | 0.610 | 0.620 | 0.520 |\n"
        "| g711 | 0.410 | 0.420 |  |\n\n## License",
    ):
        assert sentence in card


@pytest.mark.parametrize("name", ["report", "summary", "reliability", "coverage"])
def test_the_documents_list_every_column_of_a_model_folder(name, predictions, root):
    text = (root / "docs" / "tables.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {name}.parquet\n(.*?)(?=^##|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert section is not None
    documented = [
        (column, dtype)
        for names, dtype in re.findall(r"^\| (`.*?`) \| (\S+) \|", section[1], flags=re.MULTILINE)
        for column in re.findall(r"`(\S+)`", names)
    ]
    dtypes = {pl.String: "string", pl.Int64: "int64", pl.Float64: "double"}
    found = full_tables(predictions)[name].schema
    assert documented == [(column, dtypes[type(dtype)]) for column, dtype in found.items()]


def test_a_page_of_something_else_is_wrong_usage(tmp_path):
    for source in (tmp_path, tmp_path / "missing.parquet"):
        with pytest.raises(UsageError, match=r"neither a model folder .* nor predictions"):
            write_page(source, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_metrics_are_numbers_or_null_never_nan(drawn):
    truth, predicted = drawn
    report = classification(truth, predicted, [*LABELS, "surprised"])
    for name in ("precision", "recall", "f1"):
        assert not any(value is not None and math.isnan(value) for value in report[name])


def test_texts_of_a_model_are_escaped_in_its_card():
    hostile = "<script>alert(1)</script>\n# Figures\x1b[31m"
    training = {**MODEL["training"], "datasets": [hostile], "sources": [hostile]}
    card = model_card(schema({**MODEL, "description": hostile, "license": hostile, "training": training}))
    assert "<script" not in card
    assert card.count("&lt;script>alert(1)&lt;/script>\\n# Figures\\x1b[31m") == 4
