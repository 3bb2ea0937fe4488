"""Splits and development parts: sizes, determinism, and that nothing stands on two sides."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from ser_batch.errors import InputError, UsageError
from ser_batch.splits.development import development
from ser_batch.splits.folds import PUBLISHED_FOLDS, Fold, shared_speakers, split_rows

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = ("dogs are sitting by the door", "kids are talking by the door")


def table(records: list[dict]) -> pl.DataFrame:
    schema = {
        "dataset": pl.String,
        "path": pl.String,
        "content_hash": pl.String,
        "emotion": pl.String,
        "speaker": pl.String,
        "sex": pl.String,
        "corpus": pl.String,
        "actor": pl.Int16,
        "statement": pl.String,
    }
    return numbered(pl.DataFrame(records, schema=schema))


def numbered(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(performance=pl.col("content_hash").rank("dense").cast(pl.Int64))


def recording(number: int, actor: int, emotion: str, content: str | None = None) -> dict:
    return {
        "dataset": "ravdess",
        "path": f"Actor_{actor:02d}/{number}.wav",
        "content_hash": content or f"hash{number}",
        "emotion": emotion,
        "speaker": f"ravdess-{actor:02d}",
        "sex": "male" if actor % 2 else "female",
        "corpus": "ravdess",
        "actor": actor,
        "statement": STATEMENTS[number % 2],
    }


def ravdess(actors: int = 20, repeats: int = 1, windows: int = 2) -> pl.DataFrame:
    """Each actor says each emotion; a recording has several windows, which are spread over the table."""
    records = [
        recording(1000 * actor + 10 * repeat + number, actor, emotion)
        for actor in range(1, actors + 1)
        for number, emotion in enumerate(EMOTIONS)
        for repeat in range(repeats)
    ]
    return table(records * windows)


def only_fold(rows: pl.DataFrame, protocol: str, seed: int = 0) -> Fold:
    result = split_rows(rows, protocol, seed=seed)
    assert not result.is_cross_validation
    (fold,) = result.folds
    assert fold.name == protocol
    return fold


# --- what holds for all of them -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(["stratified", "speaker", "speaker:3", "emobox", "luna", "text"]))
@settings(max_examples=60, deadline=None)
def test_a_fold_takes_every_row_once_and_no_recording_twice(seed, protocol):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(12, 50))
    # few contents, so that many recordings are copies, also under other speakers' names and labels
    contents = generator.integers(0, generator.integers(6, 2 * n), n)
    records = [
        recording(i, int(generator.integers(1, 25)), str(generator.choice(EMOTIONS[:2])), f"hash{contents[i]}")
        for i in range(n)
    ]
    rows = table([record for record in records for _ in range(generator.integers(1, 4))]).sample(
        fraction=1, shuffle=True, seed=seed
    )
    try:
        result = split_rows(rows, protocol, seed=seed)
    except InputError:
        return  # refused: too few of something
    tested: Counter[int] = Counter()
    for fold in result.folds:
        assert len(fold.train) > 0
        assert len(fold.test) > 0
        assert sorted([*fold.train, *fold.test]) == list(range(len(rows)))
        assert not set(rows["content_hash"][fold.train]) & set(rows["content_hash"][fold.test])
        tested.update(fold.test.tolist())
    if result.is_cross_validation:
        assert tested == Counter(range(len(rows)))


@pytest.mark.parametrize("protocol", ["stratified", "speaker"])
def test_the_seed_alone_decides(protocol):
    rows = ravdess()
    folds = {seed: only_fold(rows, protocol, seed) for seed in range(4)}
    for seed, fold in folds.items():
        np.testing.assert_array_equal(only_fold(rows, protocol, seed).test, fold.test)
    assert len({tuple(fold.test) for fold in folds.values()}) > 1


@pytest.mark.parametrize("protocol", ["speaker", "speaker:5", "emobox", "luna"])
def test_no_speaker_stands_on_both_sides(protocol):
    rows = ravdess(24)
    for fold in split_rows(rows, protocol, seed=3).folds:
        assert shared_speakers(rows, fold) == 0


def test_an_unknown_protocol_is_wrong_usage():
    names = "stratified, speaker, emobox, luna, text, corpus, none, speaker:K .*, or a file"
    with pytest.raises(UsageError, match=f"--split 'random'; expected {names}"):
        split_rows(ravdess(), "random", seed=0)


def with_other(**values) -> pl.DataFrame:
    """RAVDESS and one recording more."""
    return pl.concat([ravdess(), table([{**recording(7, 3, "sad"), "path": "call.wav", **values}])])


@pytest.mark.parametrize(
    ("protocol", "rows", "expected"),
    [
        (
            "stratified",  # however many windows it has
            table([recording(i, 1, "calm") for i in range(9)] + [recording(9, 1, "sad")] * 5),
            "label 'sad' has 1 recording.*--split none",
        ),
        ("stratified", table([recording(0, 1, EMOTIONS[j % 2]) for j in range(6)]), "1 recording.*--split none"),
        ("stratified", table([recording(i, 1, EMOTIONS[i % 4]) for i in range(12)]), "12 recordings with 4 labels"),
        ("speaker", ravdess().with_columns(speaker=pl.lit("anna")), "1 speakers are known"),
        ("speaker", ravdess().with_columns(speaker=pl.lit(None, pl.String)), "0 speakers are known"),
        (
            "speaker",
            ravdess().with_columns(speaker=pl.when(pl.col("emotion") != "sad").then(pl.col("speaker"))),
            "40 rows have no speaker",
        ),
        ("speaker:4", ravdess(3), r"--split speaker:4 needs 4 speakers or more; there are 3 speakers"),
        ("corpus", ravdess(), r"all rows are of ravdess\. Train on the features of several"),
        ("text", with_other(statement=None), r"1 rows have none, such as call\.wav.*--split speaker"),
        *(
            ("emobox", with_other(corpus=corpus, actor=actor), r"1 rows are of other recordings, such as call\.wav")
            for corpus in (None, "crema-d", "emodb", "ravdess")
            for actor in (None, 1001)
        ),
    ],
)
def test_a_table_that_a_protocol_cannot_split_is_refused(protocol, rows, expected):
    with pytest.raises(InputError, match=expected):
        split_rows(rows, protocol, seed=0)


def test_none_holds_nothing_out():
    result = split_rows(ravdess(), "none", seed=0)
    assert result.folds == ()


# --- stratified ---------------------------------------------------------------------------------------------------


def test_a_fifth_of_each_label_is_held_out_as_scikit_learn_does():
    counts = dict(zip(EMOTIONS, (188, 376, 376, 376, 376, 376, 192, 192), strict=True))  # RAVDESS, speech and song
    labels = [label for label, count in counts.items() for _ in range(count)]
    rows = table([recording(i, 1 + i % 24, label) for i, label in enumerate(labels)])
    fold = only_fold(rows, "stratified")
    supports = Counter(rows["emotion"][fold.test])
    assert len(fold.test) == 491
    assert supports == Counter(train_test_split(labels, test_size=0.2, stratify=labels, random_state=1)[1])
    assert supports == {
        "neutral": 38, "calm": 75, "happy": 75, "sad": 75, "angry": 75, "fearful": 75, "disgust": 39, "surprised": 39,
    }  # fmt: skip


def test_a_stratified_split_counts_recordings_and_not_their_windows():
    long = [recording(0, 1, "sad")] * 100
    rows = table(long + [recording(i, 2, "sad" if i % 2 else "calm") for i in range(1, 20)])
    fold = only_fold(rows, "stratified")
    assert rows["content_hash"][fold.test].n_unique() == 4


def test_a_stratified_split_shares_speakers_and_says_how_many():
    rows = ravdess(actors=4, repeats=5)
    assert shared_speakers(rows, only_fold(rows, "stratified")) == 4


def test_speakers_that_are_not_known_are_not_counted_as_shared():
    rows = ravdess(actors=4, repeats=5).with_columns(speaker=pl.lit(None, pl.String))
    assert shared_speakers(rows, only_fold(rows, "stratified")) == 0


def test_calls_with_several_labels_are_held_out_whole():
    rows = table([recording(i, 1, EMOTIONS[j % 2]) for i in range(10) for j in range(6)])
    (fold,) = split_rows(rows, "stratified", seed=0).folds
    assert rows["content_hash"][fold.test].n_unique() == 2
    assert not set(rows["content_hash"][fold.test]) & set(rows["content_hash"][fold.train])
    assert rows["emotion"][fold.test].value_counts()["count"].to_list() == [6, 6]


# --- speakers -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_of_twenty_speakers_two_women_and_two_men_are_held_out(seed):
    rows = ravdess(windows=1)
    held_out = rows[only_fold(rows, "speaker", seed).test].select("speaker", "sex").unique()
    assert Counter(held_out["sex"]) == {"male": 2, "female": 2}


@pytest.mark.parametrize(("actors", "held_out"), [(2, 1), (4, 1), (10, 2), (24, 5)])
@pytest.mark.parametrize("sex", [pl.col("sex"), pl.lit(None, pl.String)], ids=["known", "unknown"])
def test_a_fifth_of_the_speakers_is_held_out_and_one_at_least(actors, held_out, sex):
    rows = ravdess(actors).with_columns(sex=sex)
    fold = only_fold(rows, "speaker")
    assert rows["speaker"][fold.test].n_unique() == held_out
    assert rows["speaker"][fold.train].n_unique() == actors - held_out


def test_the_order_of_the_rows_does_not_change_who_is_held_out():
    rows = ravdess(10).with_columns(
        sex=pl.when(pl.col("emotion") == "sad").then(None).otherwise(pl.col("sex"))  # said by some rows only
    )
    held_out = {
        tuple(sorted(set(order["speaker"][only_fold(order, "speaker", 5).test])))
        for order in (rows, rows.reverse(), rows.sample(fraction=1, shuffle=True, seed=1))
    }
    assert len(held_out) == 1


def test_speakers_who_have_the_same_recordings_cannot_be_held_out():
    rows = table([recording(i, actor, "sad", f"hash{i}") for i in range(5) for actor in (1, 2)])
    for seed in range(4):
        with pytest.raises(InputError, match="copies of each other"):
            split_rows(rows, "speaker", seed=seed)


# --- calls, in which several speak ---------------------------------------------------------------------------------


def calls(*speakers_of: str) -> pl.DataFrame:
    """A call for each string, whose letters are its speakers; each of them is angry and calm in it."""
    records = [
        {**recording(i, 1, emotion), "path": f"call_{i}.wav", "speaker": speaker, "corpus": None, "actor": None}
        for i, speakers in enumerate(speakers_of)
        for speaker in speakers
        for emotion in ("angry", "calm")
    ]
    return table(records).with_columns(sex=pl.lit(None, pl.String))


def held_out(rows: pl.DataFrame, seed: int) -> str:
    fold = only_fold(rows, "speaker", seed)
    assert shared_speakers(rows, fold) == 0
    assert not set(rows["path"][fold.train]) & set(rows["path"][fold.test])
    return "".join(sorted(set(rows["speaker"][fold.test])))


@pytest.mark.parametrize(("callers", "n"), [("ab", 1), ("abc", 1), ("abcdefghij", 2)])
def test_of_two_three_or_ten_callers_a_fifth_is_held_out_and_one_at_least(callers, n):
    rows = calls(*callers * 3)
    found = {held_out(rows, seed) for seed in range(20)}
    assert {len(speakers) for speakers in found} == {n}
    assert len(found) > 1


def test_all_who_share_calls_are_on_one_side():
    # x speaks with a and b, c with y; d to k are alone: of 13 speakers 3 are held out
    rows = calls("xa", "bx", "yc", *"defghijk")
    found = {held_out(rows, seed) for seed in range(200)}
    for speakers in found:
        assert len(speakers) == 3
        for together in ("abx", "cy"):
            assert set(together) <= set(speakers) or not set(together) & set(speakers)
    assert "abx" in found
    assert any(set("cy") < set(speakers) for speakers in found)


def test_where_no_group_fits_into_a_fifth_the_smallest_is_held_out():
    rows = calls("xa", "xb", "yc", "yd", "ye")
    assert {held_out(rows, seed) for seed in range(10)} == {"abx"}


def test_speakers_connected_by_copies_of_a_recording_are_held_out_together():
    # what a and b say is one recording
    rows = numbered(calls("a", "b", "c", "d").with_columns(pl.col("content_hash").replace({"hash1": "hash0"})))
    assert {held_out(rows, seed) for seed in range(20)} == {"c", "d"}


def test_an_agent_in_all_calls_leaves_nobody_to_hold_out_and_is_named():
    rows = calls("xa", "xb", "xc", "d").filter(pl.col("speaker") != "d")
    with pytest.raises(InputError, match=r"connect all 4 speakers \(x alone is in 3 of 3\).*--split stratified"):
        split_rows(rows, "speaker", seed=0)
    held_out(rows.filter(pl.col("speaker") != "x"), 0)  # as the message says


def test_folds_from_a_file_keep_a_call_together_and_count_shared_speakers(tmp_path):
    rows = calls("xa", "b", "a")
    file = tmp_path / "folds.csv"
    file.write_text("speaker,fold\nx,1\na,2\nb,2\n")
    first, second = split_rows(rows, str(file), seed=0).folds
    assert set(rows["path"][first.test]) == {"call_0.wav"}
    assert set(rows["path"][second.test]) == {"call_1.wav", "call_2.wav"}
    assert shared_speakers(rows, first) == 1


# --- K folds of speakers, and several corpora ---------------------------------------------------------------------


def several(**actors: int) -> pl.DataFrame:
    """Corpora with some speakers each, women and men in turn."""
    tables = [
        ravdess(n, windows=1).with_columns(
            pl.lit(name).alias("dataset"),
            pl.lit(name).alias("corpus"),
            pl.concat_str(pl.lit(name), "content_hash").alias("content_hash"),
            pl.concat_str(pl.lit(name), "speaker").alias("speaker"),
        )
        for name, n in actors.items()
    ]
    return numbered(pl.concat(tables))


def counts_of(rows: pl.DataFrame, *columns: str) -> Counter:
    return Counter(rows.select("speaker", *columns).unique().select(columns).rows())


def test_five_folds_hold_out_every_speaker_balanced_by_sex_and_corpus():
    rows = several(a=24, b=7, c=12)
    for seed in range(3):
        result = split_rows(rows, "speaker:5", seed=seed)
        assert result.is_cross_validation
        assert [fold.name for fold in result.folds] == [f"speaker-{i}" for i in range(1, 6)]
        found = [counts_of(rows[fold.test], "corpus", "sex") for fold in result.folds]
        for (corpus, sex), n in counts_of(rows, "corpus", "sex").items():
            of_fold = [counts[corpus, sex] for counts in found]
            assert sum(of_fold) == n
            assert max(of_fold) - min(of_fold) <= 1
        sizes = [counts.total() for counts in found]
        assert max(sizes) - min(sizes) <= 2
    other = split_rows(rows, "speaker:5", seed=9).folds[0]
    assert set(rows["speaker"][other.test]) != set(rows["speaker"][result.folds[0].test])


def test_folds_of_speakers_keep_those_together_who_share_a_call():
    rows = calls("xa", "bx", "yc", *"defghijk")
    folds = split_rows(rows, "speaker:3", seed=0).folds
    held = [set(rows["speaker"][fold.test]) for fold in folds]
    assert sorted(len(speakers) for speakers in held) == [4, 4, 5]
    for together in ("abx", "cy"):
        assert sum(bool(set(together) & speakers) for speakers in held) == 1
    with pytest.raises(
        InputError, match=r"--split speaker:11 needs 11 .* there are 10 groups that share no recording, 13 speakers"
    ):
        split_rows(rows, "speaker:11", seed=0)


@pytest.mark.parametrize(
    "protocol", ["speaker:1", "speaker:0", "speaker:", "speaker:x", "speaker:-2", "luna:5", "corpus:"]
)
def test_other_numbers_of_folds_are_wrong_usage(protocol):
    with pytest.raises(UsageError, match=r"expected stratified.* speaker:K \(2 folds or more, such as speaker:5\)"):
        split_rows(ravdess(), protocol, seed=0)


def test_a_fifth_of_the_speakers_is_a_fifth_of_each_corpus_and_sex():
    rows = several(a=60, b=10, c=20)
    for seed in range(3):
        fold = only_fold(rows, "speaker", seed)
        counts = counts_of(rows[fold.test], "corpus", "sex")
        of_corpus = [sum(counts[corpus, sex] for sex in ("female", "male")) for corpus in "abc"]
        assert of_corpus == [12, 2, 4]
        assert all(counts[corpus, "female"] == counts[corpus, "male"] for corpus in "abc")
        (apart,) = development(rows, fold.train, by_speaker=True, seed=seed)
        assert counts_of(rows[apart], "corpus")[("a",)] in (2, 3)
        assert counts_of(rows[apart], "corpus").total() == 4


def test_each_corpus_is_held_out_in_turn_and_a_copy_goes_with_the_first():
    rows = several(a=3, b=2, c=2).with_columns(
        corpus=pl.when(pl.col("dataset") == "c").then(None).otherwise("corpus"),
        content_hash=pl.col("content_hash").replace({"bhash1001": "ahash1001"}),
    )
    rows = numbered(rows)
    copied = rows["content_hash"].is_duplicated()
    assert copied.sum() == 2
    result = split_rows(rows, "corpus", seed=0)
    assert result.is_cross_validation
    assert [fold.name for fold in result.folds] == ["corpus-a", "corpus-b", "corpus-c"]
    for fold, name in zip(result.folds, "abc", strict=True):
        wanted = (rows["dataset"] == name) & ~copied | (copied if name == "a" else False)
        assert fold.test.tolist() == wanted.arg_true().to_list()


def test_copies_of_a_corpus_that_is_held_out_by_name_are_not_trained_on():
    rows = numbered(several(a=3, b=2).with_columns(pl.col("content_hash").replace({"bhash1001": "ahash1001"})))
    (fold,) = split_rows(rows, "corpus:a", seed=0).folds
    assert fold.test.tolist() == (rows["dataset"] == "a").arg_true().to_list()
    is_copied = rows["content_hash"].is_duplicated()
    assert fold.train.tolist() == ((rows["dataset"] == "b") & ~is_copied).arg_true().to_list()


# --- published folds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "published"), PUBLISHED_FOLDS.items())
@pytest.mark.parametrize("actors", [20, 24])
def test_published_folds_hold_out_the_published_actors(protocol, published, actors):
    assert sorted(actor for fold in published for actor in fold) == list(range(1, 25))
    rows = ravdess(actors)
    result = split_rows(rows, protocol, seed=0)
    assert result.is_cross_validation
    assert [fold.name for fold in result.folds] == [f"{protocol}-{i}" for i in range(1, len(published) + 1)]
    for fold, held_out in zip(result.folds, published, strict=True):
        assert set(rows["actor"][fold.test]) == {actor for actor in held_out if actor <= actors}
    assert sorted(row for fold in result.folds for row in fold.test) == list(range(len(rows)))


def test_published_folds_without_any_of_their_actors_are_left_out():
    rows = ravdess().filter(pl.col("actor").is_in([1, 4, 8]))
    assert [fold.name for fold in split_rows(rows, "emobox", seed=0).folds] == ["emobox-1", "emobox-2", "emobox-3"]
    with pytest.raises(InputError, match="all rows fall into the fold luna-1"):
        split_rows(ravdess().filter(pl.col("actor").is_in([2, 5])), "luna", seed=0)


# --- statements ---------------------------------------------------------------------------------------------------


def test_each_statement_is_held_out_once():
    rows = ravdess(actors=3)
    result = split_rows(rows, "text", seed=0)
    assert result.is_cross_validation
    assert [fold.name for fold in result.folds] == [f"text-{statement}" for statement in STATEMENTS]
    for fold, statement in zip(result.folds, STATEMENTS, strict=True):
        assert set(rows["statement"][fold.test]) == {statement}
        assert set(rows["statement"][fold.train]) == set(STATEMENTS) - {statement}


# --- folds from a file --------------------------------------------------------------------------------------------


@pytest.fixture
def rows() -> pl.DataFrame:
    return ravdess(actors=3)


def test_a_file_gives_folds_by_path(tmp_path, rows):
    paths = rows["path"].unique(maintain_order=True)
    file = tmp_path / "folds.csv"
    file.write_text("\ufeffpath,fold\n" + "".join(f"{path},{i % 2}\n" for i, path in enumerate(paths)) + "gone.wav,9\n")
    result = split_rows(rows, str(file), seed=0)
    assert result.is_cross_validation
    assert [fold.name for fold in result.folds] == ["0", "1"]
    for number, fold in enumerate(result.folds):
        assert set(rows["path"][fold.test]) == {path for i, path in enumerate(paths) if i % 2 == number}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_a_file_gives_folds_by_speaker_in_any_format(tmp_path, rows, suffix):
    file = tmp_path / f"folds{suffix}"
    frame = pl.DataFrame(
        {"fold": [2, 1, 2], "speaker": ["ravdess-01", "ravdess-02", "ravdess-03"], "note": ["", "", ""]}
    )
    frame.write_parquet(file) if suffix == ".parquet" else frame.write_csv(file)
    folds = split_rows(rows, str(file), seed=0).folds
    assert [(fold.name, set(rows["actor"][fold.test])) for fold in folds] == [("1", {2}), ("2", {1, 3})]


def test_a_file_of_folds_is_read_as_a_labels_file_is(tmp_path):
    rows = table([recording(i, i, "sad") for i in (1, 2, 3)]).with_columns(speaker=pl.Series(["1", "2", "3"]))
    (tmp_path / "folds.csv").write_text("sep=;\n;speaker;fold\n0;1.0;1.0\n1;2.0;2.0\n\n2;3.0;1.0\n;;\n")
    frame = pl.DataFrame({"speaker": [1.0, 2.0, 3.0], "fold": [1.0, 2.0, 1.0]})
    frame.write_parquet(tmp_path / "folds.parquet")
    for name in ("folds.csv", "folds.parquet"):
        folds = split_rows(rows, str(tmp_path / name), seed=0).folds
        assert [(fold.name, fold.test.tolist()) for fold in folds] == [("1", [0, 2]), ("2", [1])]


def test_copies_follow_the_fold_of_the_first(tmp_path):
    rows = table([recording(0, 1, "sad", "same"), recording(1, 2, "sad"), recording(2, 2, "sad", "same")])
    file = tmp_path / "folds.csv"
    file.write_text("speaker,fold\nravdess-01,a\nravdess-02,b\n")
    assert [fold.test.tolist() for fold in split_rows(rows, str(file), seed=0).folds] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("speaker,fold\nravdess-01,1\nravdess-02,2\n", "gives no fold for speaker ravdess-03"),
        ("speaker,fold\nravdess-01,1\nravdess-02,2\nravdess-03,\n", "row 4: fold is empty or missing"),
        ("speaker,fold\nravdess-01,1\nravdess-02,2\nravdess-03,1\n\nravdess-04,nan\n", "row 6: fold is empty"),
        ("speaker,fold\nravdess-01,1\n,2\n", "row 3: speaker is empty or missing"),
        ("speaker,fold,fold\nravdess-01,1,1\nravdess-02,2,1\nravdess-03,3,2\n", "it has two columns fold"),
        ("speaker,fold\nravdess-01,1\nravdess-02,2\nravdess-03,1\nravdess-02,1\n", "ravdess-02 stands there twice"),
        ("speaker,fold\nravdess-01,1\nravdess-02,1\nravdess-03,1\n", "all rows fall into the fold 1"),
        ("file,fold\na.wav,1\n", "has file, fold; expected the columns fold and path or speaker"),
        ("path,part\na.wav,1\n", "has path, part; expected"),
        ("", "it is empty"),
    ],
)
def test_a_file_that_does_not_give_every_row_one_fold_is_refused(tmp_path, rows, text, expected):
    file = tmp_path / "folds.csv"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        split_rows(rows, str(file), seed=0)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["no.csv", "no.parquet"])
def test_a_file_of_folds_that_is_not_there_is_refused_by_name(tmp_path, rows, name):
    with pytest.raises(InputError, match=name):
        split_rows(rows, str(tmp_path / name), seed=0)


# --- what is set apart of a training part -------------------------------------------------------------------------


def everything(rows: pl.DataFrame) -> np.ndarray:
    return np.arange(len(rows))


@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_development_parts_share_no_recording_or_speaker(seed, by_speaker, n_parts):
    generator = np.random.default_rng(seed)
    # a recording has several rows, its windows and variants, and may have a copy; in any order
    records = []
    for i in range(300):
        actor, emotion = int(generator.integers(1, 25)), EMOTIONS[generator.integers(2)]
        records.append(recording(i, actor, emotion, f"hash{actor}-{emotion}-{generator.integers(40)}"))
    rows = table(records * 3).sample(fraction=1, shuffle=True, seed=seed)
    (fold,) = split_rows(rows, "speaker" if by_speaker else "stratified", seed=seed).folds
    parts = development(rows, fold.train, by_speaker=by_speaker, seed=seed, n_parts=n_parts)
    assert len(parts) == n_parts
    assert all(len(part) for part in parts)
    column = "speaker" if by_speaker else "content_hash"
    for number, part in enumerate(parts):
        assert not set(part) - set(fold.train)
        left = np.setdiff1d(fold.train, part)
        assert set(rows["emotion"][left]) == set(EMOTIONS[:2])
        # whole recordings: their windows, variants and copies
        for others in (left, fold.test):
            assert not set(rows["content_hash"][part]) & set(rows["content_hash"][others])
        for others in (left, *parts[:number]):
            assert not set(rows[column][part]) & set(rows[column][others])


@pytest.mark.parametrize(("n_parts", "women_and_men"), [(1, [(1, 1)]), (2, [(1, 1), (1, 1)])])
def test_of_24_speakers_a_woman_and_a_man_are_set_apart_for_each_part(n_parts, women_and_men):
    rows = ravdess(24)
    for seed in range(5):
        parts = development(rows, everything(rows), by_speaker=True, seed=seed, n_parts=n_parts)
        found = [Counter(rows[part].select("speaker", "sex").unique()["sex"]) for part in parts]
        assert [(sexes["female"], sexes["male"]) for sexes in found] == women_and_men


def test_a_sixteenth_of_the_recordings_of_each_label_is_set_apart():
    rows = ravdess(actors=4, repeats=8, windows=3)
    parts = development(rows, everything(rows), by_speaker=False, seed=0, n_parts=2)
    assert [Counter(rows["emotion"][part]) for part in parts] == [dict.fromkeys(EMOTIONS, 2 * 3)] * 2


@pytest.mark.parametrize("by_speaker", [True, False])
def test_the_seed_alone_decides_who_is_set_apart(by_speaker):
    rows = ravdess(repeats=2)
    drawn = []
    for seed in range(4):
        one, again = (development(rows, everything(rows), by_speaker=by_speaker, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(one[0], again[0])
        drawn.append(tuple(one[0]))
    assert len(set(drawn)) > 1


def test_a_copy_goes_with_a_speaker_who_is_set_apart():
    # recordings 0 and 15 are of the speakers 1 and 8, and the same
    rows = table([recording(i, 1 + i % 8, EMOTIONS[i // 8 % 2], f"hash{i % 15}") for i in range(64)])
    together = set()
    for seed in range(20):
        (part,) = development(rows, everything(rows), by_speaker=True, seed=seed)
        together.add((0 in part, 15 in part))
    assert together == {(False, False), (True, True)}


@pytest.mark.parametrize(
    ("rows", "by_speaker", "n_parts"),
    [
        pytest.param(ravdess(3), True, 1, id="three speakers"),
        pytest.param(ravdess(4), True, 4, id="as many speakers as parts"),
        pytest.param(ravdess(16).with_columns(speaker=pl.lit(None, pl.String)), True, 1, id="nobody known"),
        pytest.param(
            ravdess(16).with_columns(speaker=pl.when(pl.col("actor") > 1).then("speaker")), True, 1, id="one not known"
        ),
        pytest.param(ravdess(actors=15), False, 1, id="fifteen recordings of a label"),
    ],
)
def test_nothing_is_set_apart_where_too_little_would_be_left(rows, by_speaker, n_parts):
    parts = development(rows, everything(rows), by_speaker=by_speaker, seed=0, n_parts=n_parts)
    assert [len(part) for part in parts] == [0] * n_parts


def test_a_speaker_who_alone_has_a_label_is_not_set_apart():
    rows = ravdess(8).with_columns(emotion=pl.when(pl.col("actor") == 3).then(pl.lit("bored")).otherwise("emotion"))
    parts = [development(rows, everything(rows), by_speaker=True, seed=seed)[0] for seed in range(12)]
    assert {len(part) for part in parts} == {0, 16}, "the speaker was never drawn, or always"
    assert not any((rows["emotion"][part] == "bored").any() for part in parts)
