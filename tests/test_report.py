"""Metrics that agree with scikit-learn and with counting, the tables people read, the page."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, classification_report

from ser_batch.errors import UsageError
from ser_batch.report import PUBLISHED, classification, confusion, headline, predictions_report, table_text, write_page
from ser_batch.tables import REJECTS, calls_schema, rows_table, write_frame, write_table

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
    assert rows["accuracy"]["f1"] == rows["weighted_avg"]["recall"] == pytest.approx(hits.total() / len(drawn))
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


def test_the_text_is_the_table_people_know():
    report = classification(["sad", "sad", "happy"], ["sad", "happy", "happy"], ["calm", "happy", "sad"])
    assert table_text(report).split("\n") == [
        "              precision     recall         f1    support",
        "        calm                                           0",
        "       happy       0.50       1.00       0.67          1",
        "         sad       1.00       0.50       0.67          2",
        "",
        "    accuracy                             0.67          3",
        "   macro_avg       0.75       0.75       0.67          3",
        "weighted_avg       0.83       0.67       0.67          3",
    ]


@pytest.fixture
def preds(tmp_path):
    """The side tables of a scoring run over files with unpleasant names."""
    row = {"path": "<script>alert(1)</script>.wav", "channel": 0, "duration_s": 3600.0, "n_segments": 3}
    calls = rows_table(
        [
            {**row, "predicted": "sad", "share_sad": 0.75, "status": "ok"},
            {**row, "channel": 1, "status": "silent"},
        ],
        calls_schema(LABELS),
    )
    write_table(tmp_path / "p.calls.parquet", calls)
    segments = units(("sad", 0.5, None, None))
    write_frame(predictions_report(segments, segments, LABELS, timed=False), tmp_path / "p.report.parquet")
    rejects = [{"path": "b&b.wav", "stage": "decode", "error": "E", "message": "<b>not audio</b>"}]
    write_table(tmp_path / "p.rejects.parquet", rows_table(rejects, REJECTS))
    (tmp_path / "p.parquet").write_bytes(b"")
    return tmp_path / "p.parquet"


def test_the_page_shows_names_as_text_and_needs_no_network(preds, tmp_path):
    write_page(preds, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.wav" in page
    assert "b&amp;b.wav" in page
    assert "&lt;b&gt;not audio&lt;/b&gt;" in page
    assert "<script" not in page
    assert "src=" not in page
    assert "<link" not in page
    assert "1.00 h" in page  # two channels of one hour
    assert "75 %" in page


def test_a_page_of_something_else_is_wrong_usage(tmp_path):
    for source in (tmp_path, tmp_path / "missing.parquet"):
        with pytest.raises(UsageError, match=r"neither a model folder .* nor predictions"):
            write_page(source, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_metrics_are_numbers_or_null_never_nan(drawn):
    report = classification(*drawn, [*LABELS, "surprised"])
    for name in ("precision", "recall", "f1"):
        assert not any(value is not None and math.isnan(value) for value in report[name])
