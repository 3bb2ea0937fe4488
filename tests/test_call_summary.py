"""The call table: sums over segments, against truths worked out by hand."""

import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from ser_batch.config.options import ScoreOptions
from ser_batch.model.priority import Chance
from ser_batch.report.predictions import predictions_report
from ser_batch.scoring.call_summary import STATUSES, CallSums
from ser_batch.scoring.run import score
from ser_batch.tables.parquet import rows_table
from ser_batch.tables.schemas import calls_schema, quarters_schema

LABELS = ("angry", "calm", "sad")
PLAIN = Chance(intercept=0.0, slope=1.0)
ROOT = Path(__file__).parent.parent


def call_of(*segments, labels=LABELS, duration_s=40.0, prioritized=("angry",), is_low_rate=False):
    """A call; a segment is (start_s, end_s, probabilities or None, speech_ratio, is abstained, truth, OOD score)."""
    chances = {label: PLAIN for label in prioritized if label in labels}
    call = CallSums(labels, duration_s=duration_s, prioritized=chances, is_low_rate=is_low_rate)
    for start_s, end_s, p, *more in segments:
        ratio, abstained, truth, ood_score = more + [None, False, None, 0.0][len(more) :]
        call.add(
            start_s=start_s,
            end_s=end_s,
            speech_ratio=ratio,
            probabilities=None if p is None else np.array(p),
            predicted=None if p is None or abstained else labels[int(np.argmax(p))],
            truth=truth,
            ood_score=ood_score,
        )
    return call


def summed(*segments, speech_s=None, overlap_s=None, is_duplicate=False, **options):
    """The row of a call."""
    labels = options.get("labels", LABELS)
    row = call_of(*segments, **options).row(speech_s=speech_s, overlap_s=overlap_s, is_duplicate=is_duplicate)
    (full,) = rows_table([row], calls_schema(labels)).to_pylist()
    assert not row.keys() - full.keys(), "a column that the table does not have"
    return full


def of_quarters(*segments, **options):
    """The rows of the quarters of a call."""
    rows = list(call_of(*segments, **options).quarters())
    return rows_table(rows, quarters_schema(options.get("labels", LABELS))).to_pylist()


def only(row, *names):
    return [row[name] for name in names]


ANGRY, CALM, SAD = (0.8, 0.1, 0.1), (0.0, 1.0, 0.0), (0.2, 0.2, 0.6)


def test_a_call_of_one_segment_is_that_segment():
    row = summed((0.0, 4.0, ANGRY), duration_s=4.0)
    assert only(row, "p_angry", "p_calm", "p_sad") == pytest.approx(ANGRY)
    quarters = of_quarters((0.0, 4.0, ANGRY), duration_s=4.0)
    assert [only(quarter, "quarter", "start_s", "end_s", "speech_s", "p_angry") for quarter in quarters] == [
        [n + 1, n, n + 1, 1.0, pytest.approx(0.8)] for n in range(4)
    ]
    assert only(row, "share_angry", "share_calm", "share_sad") == [1.0, 0.0, 0.0]
    assert only(row, "peak_s_angry", "peak_p_angry", "peak_s_sad", "peak_p_sad") == pytest.approx([2.0, 0.8, 2.0, 0.1])
    assert only(row, "longest_start_s_angry", "longest_s_angry") == [0.0, 4.0]
    assert only(row, "longest_start_s_sad", "longest_s_sad") == [None, None]
    assert row["change_angry"] == pytest.approx(0.0)
    assert only(row, "predicted", "n_segments", "duration_s", "status") == ["angry", 1, 4.0, "ok"]


def test_segments_weigh_by_their_speech_and_quarters_by_what_lies_in_them():
    # quarters of 10 s. 8..12 s: half speech, so 1 s in quarter 1 and 1 s in quarter 2; 10..14 s: all of it, 4 s
    segments = ((8.0, 12.0, ANGRY, 0.5), (10.0, 14.0, CALM, None), (32.0, 36.0, SAD, 0.25))
    row, quarters = summed(*segments), of_quarters(*segments)
    assert row["p_angry"] == pytest.approx((2 * 0.8 + 4 * 0.0 + 1 * 0.2) / 7)
    assert row["p_calm"] == pytest.approx((2 * 0.1 + 4 * 1.0 + 1 * 0.2) / 7)
    assert row["predicted"] == "calm"
    assert [quarter["p_angry"] for quarter in quarters] == [
        pytest.approx(0.8), pytest.approx((1 * 0.8 + 4 * 0.0) / 5), None, pytest.approx(0.2)
    ]  # fmt: skip
    assert only(quarters[2], "p_calm", "p_sad") == [None, None]
    # each second counts once, in the first segment that holds it
    assert [quarter["speech_s"] for quarter in quarters] == [1.0, 3.0, 0.0, 1.0]
    assert row["change_angry"] == pytest.approx(0.2 - 0.8)
    assert summed((0.0, 10.0, CALM), (10.0, 20.0, ANGRY))["change_angry"] is None, "nothing is known of the end"


def test_change_is_null_where_the_beginning_is_silent():
    row = summed((20.0, 40.0, ANGRY), (0.0, 10.0, None))
    assert row["change_sad"] is None


def test_without_speech_segments_weigh_by_length_and_there_is_no_priority():
    row = summed((0.0, 4.0, ANGRY, 0.0), (4.0, 6.0, CALM, 0.0))
    assert row["p_angry"] == pytest.approx((4 * 0.8) / 6)
    assert only(row, "priority", "listen_at_s", "listen_why") == [None, None, "0 s of speech"]


def test_sound_beyond_the_length_in_the_header_is_in_the_last_quarter():
    segments = ((0.0, 4.0, CALM), (4.0, 12.0, ANGRY))
    row = summed(*segments, duration_s=4.0)
    assert of_quarters(*segments, duration_s=4.0)[3]["p_angry"] == pytest.approx(8 * 0.8 / 9)
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


# ---- priority ----

LOUD, SOME = (0.9, 0.05, 0.05), (0.3, 0.6, 0.1)


def windows(*probabilities, start_s=0.0):
    """Overlapping windows, one after another."""
    return [(start_s + 2 * i, start_s + 2 * i + 4, p) for i, p in enumerate(probabilities)]


def test_the_priority_points_at_the_stretch_that_sounds_so():
    row = summed(*windows(*[CALM] * 10, *[LOUD] * 6, *[CALM] * 5))
    assert only(row, "listen_at_s", "listen_why") == [21.0, "angry for 13 s, 0.90"]
    log_odds = math.log(0.9 / 0.05)  # angry rather than calm
    assert row["priority"] == pytest.approx(1 / (1 + math.exp(-log_odds)))


def test_a_longer_stretch_weighs_more_than_a_short_one_and_one_window_little():
    found = [summed(*windows(*[CALM] * 8, *[LOUD] * n, *[CALM] * 8))["priority"] for n in range(6)]
    assert found == sorted(found)
    assert found[1] < 0.1
    assert found[-1] > 0.8


def test_what_sounds_so_nowhere_is_pointed_at_by_its_highest_window():
    row = summed(*windows(CALM, CALM, SOME, CALM, CALM, CALM, CALM))
    assert only(row, "listen_at_s", "listen_why") == [5.0, "angry at most 0.30"]
    assert row["priority"] < 0.1


def test_the_label_of_the_higher_chance_is_named():
    sad = (0.1, 0.1, 0.8)
    segments = windows(*[LOUD] * 3, *[CALM] * 6, *[sad] * 6)
    row = summed(*segments, prioritized=("angry", "sad"))
    assert only(row, "listen_at_s", "listen_why") == [19.0, "sad for 13 s, 0.80"]
    assert summed(*segments)["listen_why"] == "angry for 8 s, 0.90"


def test_a_stretch_goes_on_over_the_other_side_s_short_turns_and_ends_with_long_ones():
    first, second = windows(LOUD, LOUD), windows(LOUD, LOUD, start_s=14.0)
    assert summed(*first, *second)["listen_why"] == "angry for 20 s, 0.90"
    assert summed(*first, *windows(LOUD, LOUD, start_s=17.0))["listen_why"] == "angry for 6 s, 0.90"


def test_a_call_that_begins_with_a_pause_or_little_speech_is_not_urgent_by_that():
    quiet = summed(*windows(*[SOME] * 6))["priority"]
    assert summed((0.0, 2.0, SOME), *windows(*[SOME] * 6, start_s=20.0))["priority"] == pytest.approx(quiet)


@pytest.mark.parametrize(
    ("segments", "why"),
    [
        ([(0.0, 3.9, LOUD)], "3 s of speech"),
        ([(0.0, 40.0, LOUD, 0.05)], "2 s of speech"),
        ([(0.0, 40.0, None, 0.0)], "no speech"),
        ([(0.0, 40.0, LOUD, 1.0, True, None, 1.5)], "music, noise or unfamiliar sound"),
        # on hold: the channel is in domain as a whole, what is not is no evidence
        ([(0.0, 3.0, CALM), (10.0, 20.0, LOUD, 1.0, True, None, 1.5)], "3 s of speech"),
    ],
)
def test_what_has_no_priority_says_why(segments, why):
    row = summed(*segments)
    assert only(row, "priority", "listen_at_s", "listen_why") == [None, None, why]


def test_own_labels_without_the_one_that_is_looked_for_have_no_priority():
    none = summed((0.0, 20.0, (0.7, 0.3)), labels=("bored", "keen"))
    assert only(none, "priority", "listen_why") == [None, "no label of the model is looked for"]
    assert only(none, "p_bored", "share_bored", "peak_p_keen") == pytest.approx([0.7, 1.0, 0.3])


def test_music_in_a_call_is_no_evidence():
    segments = [*windows(*[CALM] * 8), *[(s, e, LOUD, 1.0, True, None, 1.5) for s, e, _ in windows(*[LOUD] * 6)]]
    calm = [*windows(*[CALM] * 8)]
    assert summed(*segments)["priority"] == summed(*calm)["priority"]


def test_nothing_scored_is_null_and_what_is_known_stands():
    row = summed((0.0, 4.0, None, 0.1), (2.0, 6.0, None, 0.0), speech_s=0.4, overlap_s=0.0)
    known: dict[str, object] = {"n_segments": 2, "duration_s": 40.0, "speech_s": 0.4, "overlap_s": 0.0}
    known |= {"status": "no_speech", "listen_why": "no speech"}
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
    call = CallSums(LABELS, duration_s=1e6, prioritized={"angry": PLAIN})

    def held():
        return {name: np.size(value) if isinstance(value, np.ndarray) else len(value) for name, value in sized()}

    def sized():
        finder = vars(call._finders["angry"])
        return [(name, value) for name, value in (vars(call) | finder).items() if hasattr(value, "__len__")]

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
        quarters = pl.read_parquet(scored.out.with_suffix(".quarters.parquet"))
        own_quarters = quarters.filter(path=row["path"], channel=row["channel"])
        assert own_quarters["quarter"].to_list() == [1, 2, 3, 4]
        for quarter in own_quarters.iter_rows(named=True):
            has_any = (heard["start_s"] < quarter["end_s"]).any() and (heard["end_s"] > quarter["start_s"]).any()
            assert (quarter["p_sad"] is not None) == has_any
            assert quarter["role"] == row["role"]


def test_a_customer_who_falls_silent_has_no_last_quarter(scored):
    calls = pl.read_parquet(scored.out.with_suffix(".calls.parquet"))
    customer = calls.filter(role="customer").row(0, named=True)
    agent = calls.filter(role="agent").row(0, named=True)
    assert only(customer, "change_sad", "status", "n_segments") == [None, "ok", agent["n_segments"]]
    quarters = pl.read_parquet(scored.out.with_suffix(".quarters.parquet"))
    assert quarters.filter(role="customer")["p_sad"][-1] is None
    own = quarters.filter(role="agent")["p_sad"]
    assert agent["change_sad"] == pytest.approx(own[-1] - own[0])
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
