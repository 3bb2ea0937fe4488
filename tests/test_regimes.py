"""Held-out speech tried as it will be used: composed calls, what a model is told, figures, card and page."""

import json
from collections import Counter

import msgspec
import numpy as np
import polars as pl
import pytest
from model_json import schema
from sklearn.metrics import balanced_accuracy_score
from test_report import MODEL, model_page

from ser_batch.inspection import inspect
from ser_batch.network.heads import log_prior_of
from ser_batch.report.model_card import model_card
from ser_batch.report.regimes import regimes_metrics, regimes_table
from ser_batch.tables.parquet import write_frame
from ser_batch.tables.schemas import regimes_schema
from ser_batch.training.regimes import composed_calls, regime_predictions

LABELS = ["angry", "calm", "happy", "neutral", "sad"]
REGIMES = ["none", "alone", "balanced", "mostly_neutral"]


def features(*groups: tuple, variants=("clean", "g711")) -> pl.DataFrame:
    """Rows of a features table, of groups of corpus, speaker, emotion, how many, and perhaps vocal channel."""
    rows = []
    for corpus, speaker, emotion, n, *song in groups:
        for i in range(n):
            path = f"{corpus}-{speaker}-{emotion}-{song}-{i}.wav"
            rows += [(corpus, speaker, emotion, *(song or ["speech"]), path, variant) for variant in variants]
    schema = ["corpus", "speaker", "emotion", "vocal_channel", "path", "variant"]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(schema, pl.String), orient="row")
    return frame.with_columns(dataset=pl.lit("d"), channel=pl.lit(0), segment=pl.lit(0))


def everything(rows: pl.DataFrame) -> np.ndarray:
    return np.arange(len(rows))


@pytest.fixture(scope="module")
def rows():
    """Two corpora; of one speaker of the first little is neutral, one of the second is not known by name."""
    return features(
        ("one", "anna", "neutral", 40), ("one", "anna", "angry", 10), ("one", "anna", "sad", 3),
        ("one", "bert", "neutral", 3), ("one", "bert", "happy", 9), ("one", "bert", "angry", 2),
        ("one", "bert", "sad", 30, "song"), ("two", "carl", "calm", 9), ("two", "carl", "neutral", 4),
        ("two", "carl", "sad", 5), ("two", None, "neutral", 6), ("two", None, "sad", 2), ("two", "dora", "angry", 5),
    )  # fmt: skip


# --- composed calls -----------------------------------------------------------------------------------------------


def test_a_call_is_one_voice_four_fifths_of_it_neutral(rows):
    calls = composed_calls(rows, everything(rows))
    assert Counter(call.name for call in calls) == dict.fromkeys(
        ["anna-angry", "anna-sad", "bert-happy", "bert-angry", "carl-sad"], 2
    )
    found = {}
    for call in calls:
        own = rows[call.rows]
        assert len(set(call.rows)) == len(own)
        assert own["speaker"].n_unique() == own["variant"].n_unique() == 1
        assert set(own["vocal_channel"]) == {"speech"}
        found[call.name] = dict(Counter(own["emotion"]))
    assert found["anna-angry"] == {"neutral": 24, "angry": 6}
    assert found["anna-sad"] == {"neutral": 24, "sad": 3}, "there are no more"
    assert found["bert-happy"] == {"neutral": 3, "happy": 1}
    # calm speech is neutral: all 13 are taken
    assert found["carl-sad"] == {"calm": 9, "neutral": 4, "sad": 3}


def test_calls_are_the_same_in_every_condition_and_whatever_the_order(rows):
    def paths(table: pl.DataFrame, numbers: np.ndarray) -> dict:
        calls = composed_calls(table, numbers)
        return {(call.name, table["variant"][int(call.rows[0])]): set(table["path"][call.rows]) for call in calls}

    found = paths(rows, everything(rows))
    assert all(found[name, "clean"] == found[name, "g711"] for name, _ in found)
    assert found["anna-angry", "clean"] != found["anna-sad", "clean"]
    shuffled = rows.sample(fraction=1, shuffle=True, seed=3)
    assert paths(shuffled, everything(rows)) == found
    assert paths(rows, everything(rows)[::-1]) == found
    only_anna = np.flatnonzero((rows["speaker"] == "anna").to_numpy())
    assert paths(rows, only_anna) == {key: own for key, own in found.items() if key[0].startswith("anna")}


# --- what a model is asked ----------------------------------------------------------------------------------------


class Asked:
    """A model that keeps what it is asked; every fourth row is sad to it, the others angry."""

    def __init__(self, p_others: float = 0.1) -> None:
        self.calls = []
        self.p_others = p_others

    def __call__(self, rows, *, archive, channel, log_prior):
        self.calls.append((rows, archive, channel, log_prior))
        p = np.full((len(rows), len(LABELS)), self.p_others)
        p[np.arange(len(rows)), np.where(rows % 8 < 2, LABELS.index("sad"), LABELS.index("angry"))] = 1.0
        return p / p.sum(axis=1, keepdims=True)


PRIOR = log_prior_of(LABELS, {"neutral": 0.5})
NOBODY = np.empty(0, dtype=np.int64)


def grouped(rows: pl.DataFrame, numbers, groups, *names: str) -> set:
    """What the rows of each group have in common; no two groups have the same."""
    found = []
    for group in np.unique(groups):
        (values,) = rows[numbers[groups == group]].select(names).unique().rows()
        found.append(values)
    assert len(set(found)) == len(found)
    return set(found)


def test_a_model_is_told_what_is_known_in_each_regime(rows):
    decide = Asked()
    spoken = np.flatnonzero((rows["vocal_channel"] == "speech").to_numpy())
    predictions = regime_predictions(rows, everything(rows), decide, LABELS, log_prior=PRIOR, calm=NOBODY)
    assert predictions["regime"].unique(maintain_order=True).to_list() == REGIMES
    (none, alone, balanced, composed) = decide.calls
    for asked in (none, alone, balanced):
        assert asked[0].tolist() == spoken.tolist()
        assert np.allclose(np.exp(asked[3]), 1 / len(LABELS))
    assert none[1] is none[2] is alone[2] is None
    archives = {(corpus, variant) for corpus in ("one", "two") for variant in ("clean", "g711")}
    for asked in (alone, balanced, composed):
        assert grouped(rows, asked[0], asked[1], "corpus", "variant") == archives
    known = (rows["speaker"][balanced[0]].is_not_null()).to_numpy()
    assert grouped(rows, balanced[0][known], balanced[2][known], "corpus", "variant", "speaker") == {
        (corpus, variant, speaker)
        for corpus, speaker in (("one", "anna"), ("one", "bert"), ("two", "carl"), ("two", "dora"))
        for variant in ("clean", "g711")
    }
    # who is not known is heard in one recording only
    assert set(Counter(balanced[2][~known].tolist()).values()) == {1}
    assert composed[3] is PRIOR
    calls = composed_calls(rows, everything(rows))
    assert [set(composed[0][composed[2] == i]) for i in range(len(calls))] == [set(call.rows) for call in calls]
    assert len(composed[0]) == sum(len(call.rows) for call in calls)


def test_every_judged_segment_has_a_row(rows):
    out_of_domain = everything(rows) % 3 == 0
    predictions = regime_predictions(
        rows, everything(rows), Asked(), LABELS, log_prior=PRIOR, calm=NOBODY, is_out_of_domain=out_of_domain
    )
    composed = predictions.filter(regime="mostly_neutral")
    calls = composed_calls(rows, everything(rows))
    assert composed["call"].to_list() == [call.name for call in calls for _ in call.rows]
    numbers = np.concatenate([call.rows for call in calls])
    assert composed["emotion"].to_list() == rows["emotion"][numbers].to_list()
    assert composed["condition"].to_list() == rows["variant"][numbers].to_list()
    assert composed["is_out_of_domain"].to_list() == out_of_domain[numbers].tolist()
    assert composed["predicted"].to_list() == np.where(numbers % 8 < 2, "sad", "angry").tolist()
    others = predictions.filter(pl.col("regime") != "mostly_neutral")
    assert others["call"].null_count() == len(others) == 3 * (len(rows) - 60)


def test_predictions_are_among_the_labels_that_rows_may_have():
    rows = features(("one", "anna", "neutral", 8), ("one", "anna", "happy", 4), ("two", "bert", "sad", 4))
    predictions = regime_predictions(
        rows, everything(rows), Asked(), LABELS, log_prior=PRIOR, calm=NOBODY, common=["happy", "neutral", "sad"],
        corpus_labels={"one": ["angry", "happy"]},
    )  # fmt: skip
    p = predictions.select("^p_.*$").to_numpy()
    assert np.allclose(p.sum(axis=1), 1)
    assert set(predictions["p_angry"]) == {0.0}
    # of corpus one happy, and neutral, which occurs; half each
    one = predictions.filter(pl.col("corpus") == "one", pl.col("regime") == "alone")
    assert set(one["p_happy"]) == set(one["p_neutral"]) == {0.5}
    two = predictions.filter(pl.col("corpus") == "two", pl.col("regime") == "alone")
    assert set(two["p_sad"]) == {1.0}, "a corpus of unknown labels is tried on those that occur"
    # in a call, calm is another word for neutral
    composed = predictions.filter(regime="mostly_neutral")
    assert set(composed["corpus"]) == {"one"}
    assert (composed["p_calm"] > 0).all()
    assert (composed["p_sad"] > 0).all(), "nobody knows which labels a call has"


@pytest.mark.parametrize(("label", "other"), [("neutral", "calm"), ("calm", "neutral")])
def test_calm_and_neutral_speech_are_one_to_a_model_that_has_one_of_them(label, other):
    rows = features(("one", "anna", label, 4), ("one", "anna", other, 8), ("one", "anna", "sad", 4))
    is_other = (rows["emotion"] == other).to_numpy()
    predictions = regime_predictions(
        rows, np.flatnonzero(~is_other), lambda rows, **_: np.tile([0.2, 0.5, 0.3], (len(rows), 1)),
        ["angry", label, "sad"], log_prior=PRIOR[:3], calm=np.flatnonzero(is_other),
    )  # fmt: skip
    assert set(predictions.filter(pl.col("regime") != "mostly_neutral")["emotion"]) == {label, "sad"}
    composed = regimes_table(predictions).filter(regime="mostly_neutral", condition="clean", corpus="all")
    (row,) = composed.iter_rows(named=True)
    assert (row["n"], row[f"recall_{label}"], row["recall_sad"], row["accuracy"]) == (15, 1.0, 0.0, 0.8)


def test_nothing_is_composed_for_a_model_that_takes_nothing_for_neutral():
    rows = features(("one", "anna", "neutral", 4), ("one", "anna", "sad", 4), ("one", "anna", "angry", 4))
    is_neutral = (rows["emotion"] == "neutral").to_numpy()
    test, calm = np.flatnonzero(~is_neutral), np.flatnonzero(is_neutral)
    given = {"log_prior": PRIOR[:3], "calm": calm}
    for labels, common in ((["angry", "happy", "sad"], None), (["angry", "neutral", "sad"], ["angry", "sad"])):
        predictions = regime_predictions(
            rows, test, lambda rows, **_: np.full((len(rows), 3), 1 / 3), labels, common=common, **given
        )
        assert predictions["regime"].unique(maintain_order=True).to_list() == REGIMES[:3]
        assert regimes_table(predictions)["recall_sad"].null_count() == 0


def test_without_speakers_or_speech_there_are_fewer_regimes():
    rows = features(("one", None, "neutral", 8), ("one", None, "sad", 4), ("one", "anna", "sad", 2, "song"))
    predictions = regime_predictions(rows, everything(rows), Asked(), LABELS, log_prior=PRIOR, calm=NOBODY)
    assert predictions["regime"].unique(maintain_order=True).to_list() == REGIMES[:3]
    song = np.flatnonzero((rows["vocal_channel"] == "song").to_numpy())
    nothing = regime_predictions(rows, song, Asked(), LABELS, log_prior=PRIOR, calm=NOBODY)
    assert nothing.schema == predictions.schema
    assert regimes_metrics(regimes_table(nothing)) == {}


# --- figures ------------------------------------------------------------------------------------------------------


def judged(
    regime: str, corpus: str, *pairs: tuple, condition="clean", confidence=0.6, out_of_domain=None
) -> pl.DataFrame:
    """Predictions: pairs of emotion and predicted label."""
    truth, predicted = (list(side) for side in zip(*pairs, strict=True))
    left = (1 - confidence) / (len(LABELS) - 1)
    return pl.DataFrame(
        {
            "corpus": corpus, "condition": condition, "regime": regime, "call": None,
            "emotion": truth, "predicted": predicted,
            **{f"p_{label}": [confidence if one == label else left for one in predicted] for label in LABELS},
            "is_out_of_domain": out_of_domain or [None] * len(truth),
        },
        schema_overrides={"call": pl.String, "is_out_of_domain": pl.Boolean},
    )  # fmt: skip


def test_the_figures_of_an_example_by_hand():
    one = judged(
        "alone", "one", ("sad", "sad"), ("sad", "happy"), ("happy", "happy"), ("happy", "happy"), ("sad", "angry"),
        out_of_domain=[True, False, False, False, False],
    )  # fmt: skip
    two = judged("alone", "two", ("sad", "sad"), out_of_domain=[False])
    table = regimes_table(pl.concat([two, one]))
    assert table.columns == [field.name for field in regimes_schema(LABELS)]
    every, first, second = table.iter_rows(named=True)
    assert (every["corpus"], first["corpus"], second["corpus"]) == ("all", "one", "two")
    expected = {
        "n": 5, "accuracy": 3 / 5, "uar": (1 / 3 + 1) / 2,
        "ece": 0.0,  # three of five are right, and 0.6 is what it says of each
        "share_error": (2 / 5 + 1 / 5 + 1 / 5) / 3,  # sad 1 for 3, happy 3 for 2, angry 1 for 0
        "out_of_domain": 1 / 5, "recall_sad": 1 / 3, "recall_happy": 1.0,
    }  # fmt: skip
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    assert first["recall_angry"] is None
    assert (second["uar"], second["ece"], second["share_error"]) == pytest.approx((1.0, 0.4, 0.0))
    assert every["n"] == 6
    for name in ("uar", "accuracy", "ece", "share_error", "out_of_domain", "recall_sad"):
        assert every[name] == pytest.approx((first[name] + second[name]) / 2)
    assert every["recall_happy"] == 1.0, "of the corpora that have the label"


def test_calm_and_neutral_are_one_label_in_calls_only():
    pairs = [("neutral", "calm"), ("calm", "neutral"), ("neutral", "sad"), ("sad", "sad")]
    table = regimes_table(pl.concat([judged("balanced", "one", *pairs), judged("mostly_neutral", "one", *pairs)]))
    apart, together = table.filter(corpus="one").iter_rows(named=True)
    assert (apart["accuracy"], apart["recall_neutral"], apart["recall_calm"]) == (0.25, 0.0, 0.0)
    assert (together["accuracy"], together["recall_calm"]) == (0.75, None)
    assert together["recall_neutral"] == pytest.approx(2 / 3)
    assert together["uar"] == pytest.approx((2 / 3 + 1) / 2)
    assert together["share_error"] == pytest.approx(1 / 4)
    # what is said of calm is said of neutral: twice 0.7 and right; twice 0.6, once right
    assert together["ece"] == pytest.approx((2 * abs(1 - 0.7) + 2 * abs(0.5 - 0.6)) / 4)


def test_conditions_and_regimes_are_ordered_and_a_corpus_may_be_called_all():
    frames = [
        judged(regime, "all", ("sad", "sad"), condition=name) for regime in REGIMES[::-1] for name in ("g711", "clean")
    ]
    table = regimes_table(pl.concat(frames))
    assert table.select("regime", "condition").unique(maintain_order=True).rows() == [
        (regime, condition) for regime in REGIMES for condition in ("clean", "g711")
    ]
    assert table["corpus"].to_list() == ["all", "corpus-all"] * 8


def test_folds_are_counted_together():
    generator = np.random.default_rng(0)
    pairs = [tuple(generator.choice(["angry", "sad"], 2)) for _ in range(40)]
    folds = pl.concat([judged("none", "one", *pairs[:10]), judged("none", "one", *pairs[10:])])
    row = regimes_table(folds).row(0, named=True)
    assert (row["n"], row["uar"]) == (40, pytest.approx(balanced_accuracy_score(*zip(*pairs, strict=True))))


def builtins(table):
    return msgspec.to_builtins(regimes_metrics(table))


# --- what people see ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    frames = [
        judged(regime, corpus, ("sad", "sad"), ("sad", "neutral"), ("neutral", "neutral"), condition=condition)
        for regime in REGIMES
        for corpus in ("emodb", "nemo")
        for condition in ("clean", "g711")
    ]
    frames.append(judged("mostly_neutral", "nemo", ("angry", "sad"), out_of_domain=[True]))
    return regimes_table(pl.concat(frames))


def test_the_metrics_are_those_of_all_corpora(table):
    metrics = builtins(table)
    assert list(metrics) == REGIMES
    row = table.filter(regime="mostly_neutral", condition="clean", corpus="all").row(0, named=True)
    assert metrics["mostly_neutral"]["clean"] == {
        **{name: row[name] for name in ("n", "uar", "accuracy", "ece", "share_error", "out_of_domain")},
        "recalls": {"angry": 0.0, "neutral": 1.0, "sad": 0.5},
        "corpora": {"emodb": 0.75, "nemo": 0.5},
    }
    assert row["out_of_domain"] == 1.0
    assert metrics["none"]["g711"]["out_of_domain"] is None


@pytest.mark.parametrize(
    "change", [{"uar": None}, {"ece": "0.1"}, {"n": 1.5}, {"recalls": {"sad": 2}}, {"corpora": ["x"]}]
)
def test_a_model_folder_with_broken_regimes_is_refused(table, change):
    regimes = builtins(table)
    values = {**MODEL, "metrics": {**MODEL["metrics"], "regimes": regimes}}
    schema(values)
    values["metrics"]["regimes"]["alone"]["clean"] |= change
    with pytest.raises(ValueError, match=rf"metrics\.regimes\[\.\.\.\]\[\.\.\.\]\.{next(iter(change))}.*: expected"):
        schema(values)


def test_the_card_has_the_regimes(table):
    card = model_card(schema({**MODEL, "metrics": {**MODEL["metrics"], "regimes": builtins(table)}}))
    for passage in (
        "\n\n## Accuracy in use\n",
        "\n- none: A single clip. No other speech is known.\n- alone: ",
        "\n\n| regime | condition | segments | UAR | accuracy | calibration error | share error | out of domain |\n"
        "|---|---|---|---|---|---|---|---|\n| none | clean | 6 | 0.750 | 0.667 | 0.067 | 0.333 |  |\n| none | g711 |",
        "| corpus | none | alone | balanced | mostly_neutral |\n|---|---|---|---|---|\n"
        "| emodb | 0.750 | 0.750 | 0.750 | 0.750 |\n| nemo | 0.750 | 0.750 | 0.750 | 0.500 |\n",
        "| condition | angry | neutral | sad |\n|---|---|---|---|\n| clean | 0.000 | 1.000 | 0.500 |\n"
        "| g711 |  | 1.000 | 0.500 |\n\n## License",
    ):
        assert passage in card
    assert "Accuracy in use" not in model_card(schema(MODEL))


def test_the_page_has_the_regimes(table, tmp_path):
    _, text = model_page(tmp_path)
    assert "Accuracy in use" not in text.headings
    page, text = model_page(tmp_path, {**MODEL["metrics"], "regimes": builtins(table)}, regimes=table)
    assert text.headings[0] == "Accuracy in use"
    assert "Calls are not." in page
    assert ["none", "clean", "6", "0.750", "0.667", "0.067", "0.333", ""] in text.rows
    assert ["nemo", "0.750", "0.750", "0.750", "0.500"] in text.rows
    assert ["clean", "0.000", "1.000", "0.500"] in text.rows
    assert ["nemo", "clean", "4", "0.500", "0.000", "1.000", "0.500"] in text.rows
    assert [row[0] for row in text.rows if row[1:2] == ["g711"] and row[0] in REGIMES] == REGIMES
    # a model in the package comes without tables
    (tmp_path / "regimes.parquet").unlink()
    by_the_alphabet = json.loads(json.dumps(builtins(table), sort_keys=True))
    _, text = model_page(tmp_path, {**MODEL["metrics"], "regimes": by_the_alphabet})
    assert [row[0] for row in text.rows if row[1:2] == ["g711"]] == REGIMES
    assert ["nemo", "0.750", "0.750", "0.750", "0.500"] in text.rows


def test_the_table_is_told_from_others(table, tmp_path):
    write_frame(table, tmp_path / "regimes.parquet", regimes_schema(LABELS))
    found = inspect(tmp_path / "regimes.parquet")
    assert (found.kind, found.n_rows) == ("regimes", 24)
