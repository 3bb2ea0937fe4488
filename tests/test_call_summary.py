"""The call table: sums over segments, against truths worked out by hand."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from ser_batch.config.options import ScoreOptions
from ser_batch.report.predictions import predictions_report
from ser_batch.scoring.call_summary import STATUSES, CallSums
from ser_batch.scoring.run import score
from ser_batch.tables.parquet import rows_table
from ser_batch.tables.schemas import calls_schema

LABELS = ("angry", "calm", "sad")
ROOT = Path(__file__).parent.parent


def summed(*segments, labels=LABELS, duration_s=40.0, is_low_rate=False, **known):
    """The row of a call; a segment is (start_s, end_s, probabilities or None, speech_ratio, ...)."""
    call = CallSums(labels, duration_s=duration_s, is_low_rate=is_low_rate)
    for start_s, end_s, p, *more in segments:
        ratio, abstained, truth = more + [None, False, None][len(more) :]
        call.add(
            start_s=start_s,
            end_s=end_s,
            speech_ratio=ratio,
            probabilities=None if p is None else np.array(p),
            predicted=None if p is None or abstained else labels[int(np.argmax(p))],
            truth=truth,
        )
    row = call.row(**known)
    (full,) = rows_table([row], calls_schema(labels)).to_pylist()
    assert not row.keys() - full.keys(), "a column that the table does not have"
    return full


def only(row, *names):
    return [row[name] for name in names]


ANGRY, CALM, SAD = (0.8, 0.1, 0.1), (0.0, 1.0, 0.0), (0.2, 0.2, 0.6)


def test_a_call_of_one_segment_is_that_segment():
    row = summed((0.0, 4.0, ANGRY), duration_s=4.0)
    assert only(row, "p_angry", "p_calm", "p_sad") == pytest.approx(ANGRY)
    assert only(row, *(f"p_angry_q{quarter}" for quarter in (1, 2, 3, 4))) == pytest.approx([0.8] * 4)
    assert only(row, "share_angry", "share_calm", "share_sad") == [1.0, 0.0, 0.0]
    assert only(row, "peak_s_angry", "peak_p_angry", "peak_s_sad", "peak_p_sad") == pytest.approx([2.0, 0.8, 2.0, 0.1])
    assert only(row, "longest_start_s_angry", "longest_s_angry") == [0.0, 4.0]
    assert only(row, "longest_start_s_sad", "longest_s_sad") == [None, None]
    assert row["change_angry"] == pytest.approx(0.0)
    # N is 0.9 throughout, and 4 of 10 seconds are heard
    assert row["priority"] == pytest.approx(0.9 * 0.4)
    assert only(row, "predicted", "n_segments", "duration_s", "status") == ["angry", 1, 4.0, "ok"]


def test_segments_weigh_by_their_speech_and_quarters_by_what_lies_in_them():
    # quarters of 10 s. 8..12 s: half speech, so 1 s in quarter 1 and 1 s in quarter 2; 10..14 s: all of it, 4 s
    row = summed((8.0, 12.0, ANGRY, 0.5), (10.0, 14.0, CALM, None), (32.0, 36.0, SAD, 0.25))
    assert row["p_angry"] == pytest.approx((2 * 0.8 + 4 * 0.0 + 1 * 0.2) / 7)
    assert row["p_calm"] == pytest.approx((2 * 0.1 + 4 * 1.0 + 1 * 0.2) / 7)
    assert row["predicted"] == "calm"
    assert row["p_angry_q1"] == pytest.approx(0.8)
    assert row["p_angry_q2"] == pytest.approx((1 * 0.8 + 4 * 0.0) / 5)
    assert only(row, "p_angry_q3", "p_calm_q3", "p_sad_q3") == [None] * 3
    assert row["p_angry_q4"] == pytest.approx(0.2)
    assert row["change_angry"] == pytest.approx(0.2 - 0.8)
    # N: angry and sad. mean (2*0.9 + 4*0 + 1*0.8) / 7, highest quarter the first, last one the fourth;
    # heard: 2 s, the 2 s from 12 to 14 that no earlier segment holds, 1 s
    unrest = 0.5 * (2 * 0.9 + 0.8) / 7 + 0.25 * 0.9 + 0.25 * 0.8
    assert row["priority"] == pytest.approx(unrest * 5 / 10)


def test_the_last_quarter_of_the_priority_is_the_last_one_with_speech():
    row = summed((0.0, 10.0, CALM), (10.0, 20.0, ANGRY))
    assert row["priority"] == pytest.approx(0.5 * 0.45 + 0.25 * 0.9 + 0.25 * 0.9)
    assert row["change_angry"] is None, "nothing is known of the end"


def test_change_is_null_where_the_beginning_is_silent():
    row = summed((20.0, 40.0, ANGRY), (0.0, 10.0, None))
    assert row["change_sad"] is None
    assert row["p_sad_q4"] == pytest.approx(0.1)


def test_without_speech_segments_weigh_by_length_and_the_priority_is_0():
    row = summed((0.0, 4.0, ANGRY, 0.0), (4.0, 6.0, CALM, 0.0))
    assert row["p_angry"] == pytest.approx((4 * 0.8) / 6)
    assert row["priority"] == 0.0


def test_sound_beyond_the_length_in_the_header_is_in_the_last_quarter():
    row = summed((0.0, 4.0, CALM), (4.0, 12.0, ANGRY), duration_s=4.0)
    assert row["p_angry_q4"] == pytest.approx(8 * 0.8 / 9)
    assert row["p_angry"] == pytest.approx(8 * 0.8 / 12)


def test_the_peak_is_the_middle_of_the_first_highest_segment():
    row = summed((0.0, 4.0, CALM), (4.0, 8.0, ANGRY), (8.0, 12.0, ANGRY), (12.0, 16.0, SAD, None, True))
    assert only(row, "peak_s_angry", "peak_p_angry") == pytest.approx([6.0, 0.8])
    assert only(row, "peak_s_sad", "peak_p_sad") == pytest.approx([14.0, 0.6]), "unsure, and sad all the same"
    assert only(row, "longest_start_s_sad", "share_sad") == [None, 0.0]


@pytest.mark.parametrize(
    "between",
    [
        (6.0, 10.0, None, 0.0),
        (6.0, 10.0, CALM),
        (6.0, 10.0, SAD),
        (6.0, 10.0, ANGRY, None, True),
    ],
    ids=["not speech", "calm", "another negative", "unsure"],
)
def test_the_longest_stretch_is_broken_by_anything_else(between):
    row = summed((0.0, 4.0, ANGRY), (2.0, 6.0, ANGRY), between, (10.0, 14.0, ANGRY), (12.0, 16.5, ANGRY))
    assert only(row, "longest_start_s_angry", "longest_s_angry") == [10.0, 6.5]


@pytest.mark.parametrize(("start_s", "expected"), [(8.0, (0.0, 12.0)), (8.1, (0.0, 4.0))])
def test_a_stretch_goes_on_over_four_seconds_that_no_segment_covers(start_s, expected):
    row = summed((0.0, 4.0, SAD), (start_s, 12.0, SAD))
    assert only(row, "longest_start_s_sad", "longest_s_sad") == pytest.approx(list(expected))


def test_a_stretch_reaches_over_labelled_stretches_that_lie_within_one_another():
    within = summed((0.0, 10.0, SAD), (2.0, 4.0, SAD), (9.0, 13.0, SAD))
    assert only(within, "longest_start_s_sad", "longest_s_sad") == [0.0, 13.0]
    around = summed((5.0, 6.0, SAD), (0.0, 7.0, SAD))
    assert only(around, "longest_start_s_sad", "longest_s_sad") == [0.0, 7.0]


def test_the_first_of_two_stretches_that_are_as_long():
    row = summed((0.0, 4.0, SAD), (4.0, 8.0, CALM), (8.0, 12.0, SAD))
    assert only(row, "longest_start_s_sad", "longest_s_sad") == [0.0, 4.0]


def test_a_model_with_other_labels_has_the_negative_ones_among_them():
    row = summed((0.0, 20.0, (0.7, 0.3)), labels=("bored", "sad"))
    assert row["priority"] == pytest.approx(0.3)
    assert {name for name in row if name.startswith("peak_s_")} == {"peak_s_sad"}
    assert row["change_bored"] is None
    none = summed((0.0, 20.0, (0.7, 0.3)), labels=("bored", "keen"))
    assert none["priority"] is None
    assert not [name for name in none if name.startswith(("peak_", "longest_"))]
    assert only(none, "p_bored", "share_bored", "p_keen_q2") == pytest.approx([0.7, 1.0, 0.3])


def test_nothing_scored_is_null_and_what_is_known_stands():
    row = summed((0.0, 4.0, None, 0.1), (2.0, 6.0, None, 0.0), speech_s=0.4, overlap_s=0.0)
    known = {"n_segments": 2, "duration_s": 40.0, "speech_s": 0.4, "overlap_s": 0.0, "status": "no_speech"}
    assert {name: value for name, value in row.items() if value is not None} == known


def test_the_emotion_is_that_of_all_segments():
    assert summed((0.0, 4.0, SAD, None, False, "sad"), (4.0, 8.0, None, 0.0, False, "sad"))["emotion"] == "sad"
    assert summed((0.0, 4.0, SAD, None, False, "sad"), (4.0, 8.0, SAD))["emotion"] is None


SOUND, NO_SPEECH = (0.0, 4.0, SAD), (0.0, 4.0, None, 0.0)


@pytest.mark.parametrize(
    ("segments", "known", "status"),
    [
        ([SOUND], {}, "ok"),
        ([SOUND, NO_SPEECH], {"is_low_rate": True}, "low_sampling_rate"),
        ([NO_SPEECH, NO_SPEECH], {"is_low_rate": True, "is_duplicate": True}, "duplicate_channel"),
        ([NO_SPEECH], {"is_low_rate": True}, "no_speech"),
        ([], {}, "no_speech"),
    ],
)
def test_the_status_is_the_first_that_applies(segments, known, status):
    assert summed(*segments, **known)["status"] == status
    assert status in STATUSES


def test_the_documents_list_every_status_in_its_order():
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    listed = re.search(r"^`status` is the first.*?\n\n((?:- .*\n)+)", text, flags=re.MULTILINE)
    assert listed
    assert dict(re.findall(r"^- `(\w+)`: (.*)$", listed[1], flags=re.MULTILINE)) == dict(STATUSES)
    assert re.findall(r"^- `(\w+)`", listed[1], flags=re.MULTILINE) == list(STATUSES)


def test_hours_need_no_more_memory_than_minutes():
    call = CallSums(LABELS, duration_s=1e6)

    def held():
        return {name: np.size(value) if isinstance(value, np.ndarray) else len(value) for name, value in sized()}

    def sized():
        return [(name, value) for name, value in vars(call).items() if hasattr(value, "__len__")]

    sizes = []
    for number in range(3000):
        p = (ANGRY, CALM, SAD)[number % 3]
        call.add(
            start_s=number * 2.0,
            end_s=number * 2.0 + 4,
            speech_ratio=1.0,
            probabilities=np.array(p),
            predicted=LABELS[int(np.argmax(p))],
            truth=None,
        )
        sizes.append(held())
    assert sizes[-1] == sizes[10]


# ---- in a run ----


@pytest.fixture(scope="module")
def scored(small_corpus, small_model, tmp_path_factory):
    """A call whose customer says something for the first 12 of 24 s and whose agent speaks throughout, and mono."""
    folder = tmp_path_factory.mktemp("calls")
    voice = np.concatenate([soundfile.read(path)[0] for path in sorted(small_corpus.rglob("*.wav"))])[: 16000 * 60]
    agent, customer = voice[: 16000 * 24], voice[16000 * 30 : 16000 * 54].copy()
    customer[16000 * 12 :] = 0
    soundfile.write(folder / "stereo.wav", np.stack((agent, customer), axis=1), 16000)
    soundfile.write(folder / "mono.wav", voice[: 16000 * 5], 16000)
    options = ScoreOptions(
        out=folder / "preds.parquet",
        model=str(small_model),
        jobs=1,
        channel_roles="0=agent,1=customer",
        min_confidence=0.2,
    )
    return score(folder, options)


def test_the_table_follows_from_the_segments(scored):
    segments = pl.read_parquet(scored.out)
    calls = pl.read_parquet(scored.out.with_suffix(".calls.parquet"))
    assert len(calls) == 3
    labels = [name.removeprefix("share_") for name in calls.columns if name.startswith("share_")]
    for row in calls.iter_rows(named=True):
        own = segments.filter(path=row["path"], channel=row["channel"]).sort("segment")
        heard = own.drop_nulls("predicted")
        length = (pl.col("end_s") - pl.col("start_s")) * pl.col("speech_ratio").fill_null(1.0)
        for label in labels:
            mean = heard.select((pl.col(f"p_{label}") * length).sum() / length.sum()).item()
            assert row[f"p_{label}"] == pytest.approx(mean)
            sure = heard.filter(~pl.col("abstained"))
            assert row[f"share_{label}"] == pytest.approx((sure["predicted"] == label).mean())
        peak = heard.sort("p_angry", descending=True, maintain_order=True).row(0, named=True)
        assert row["peak_p_angry"] == peak["p_angry"]
        assert row["peak_s_angry"] == pytest.approx((peak["start_s"] + peak["end_s"]) / 2)
        assert 0 <= row["priority"] <= 1
        for quarter in (1, 2, 3, 4):
            end_s = row["duration_s"] * quarter / 4
            has_any = (heard["start_s"] < end_s).any() and (heard["end_s"] > end_s - row["duration_s"] / 4).any()
            assert (row[f"p_sad_q{quarter}"] is not None) == has_any


def test_a_customer_who_falls_silent_has_no_last_quarter(scored):
    calls = pl.read_parquet(scored.out.with_suffix(".calls.parquet"))
    customer = calls.filter(role="customer").row(0, named=True)
    agent = calls.filter(role="agent").row(0, named=True)
    assert only(customer, "p_sad_q4", "change_sad", "status", "n_segments") == [None, None, "ok", agent["n_segments"]]
    assert agent["change_sad"] == pytest.approx(agent["p_sad_q4"] - agent["p_sad_q1"])
    assert customer["priority"] is not None


def test_the_report_adds_up_over_roles(scored):
    segments = pl.read_parquet(scored.out)
    report = pl.read_parquet(scored.out.with_suffix(".report.parquet")).drop_nulls("n_predicted")
    counted = segments.filter(pl.col("predicted").is_not_null() & ~pl.col("abstained"))
    of = {role: report.filter(pl.col("role").eq_missing(role)) for role in (None, "agent", "customer")}
    assert of[None]["n_predicted"].sum() == len(counted)
    mono = counted.filter(pl.col("role").is_null())
    for row in of[None].iter_rows(named=True):
        parts = [of[role].filter(label=row["label"])["n_predicted"].item() for role in ("agent", "customer")]
        assert row["n_predicted"] == sum(parts) + (mono["predicted"] == row["label"]).sum()
    for role, rows in of.items():
        own = counted if role is None else counted.filter(role=role)
        assert rows["share"].sum() == pytest.approx(1)
        for row in rows.iter_rows(named=True):
            confidences = own.filter(predicted=row["label"])["confidence"]
            assert row["mean_confidence"] == pytest.approx(confidences.mean())


def test_a_role_without_any_prediction_keeps_its_rows():
    segments = pl.DataFrame(
        {"predicted": ["sad", None], "confidence": [0.5, None], "role": ["agent", "customer"], "emotion": [None, None]},
        schema_overrides={"emotion": pl.String},
    )
    report = predictions_report(segments.head(1), segments, LABELS, timed=False)
    customer = report.filter(role="customer").drop_nulls("n_predicted")
    assert customer["label"].to_list() == list(LABELS)
    assert customer["n_predicted"].to_list() == [0, 0, 0]
