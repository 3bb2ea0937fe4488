"""The walk, what file names say, what a labels file adds."""

import itertools
import os
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from helpers import touch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ser_batch.corpus.known_corpora import parse_name
from ser_batch.corpus.labels import join_labels
from ser_batch.corpus.manifest import LabelRow, Metadata
from ser_batch.corpus.walk import AUDIO_SUFFIXES, walk
from ser_batch.errors import InputError, UsageError

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def paths(manifest) -> list[str]:
    return [recording.path for recording in manifest.recordings]


def opened(recording) -> bytes:
    with open(recording.file, "rb") as stream:  # noqa: PTH123 - by its bytes, as the decoder does
        return stream.read()


# --- walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, -1])
def test_recordings_of_any_depth_come_in_the_order_of_their_bytes(tmp_path, order):
    expected = ["B.wav", "a.wav", "é.wav", "A/z.wav", "a/b/c/d/deep.wav", "a/b c/x.wav", "z/0.wav"]
    touch(tmp_path, *expected[::order])
    assert paths(walk(tmp_path)) == expected


def test_every_suffix_counts_in_any_case_and_the_others_are_counted(tmp_path):
    names = [f"x{case(suffix)}" for suffix in AUDIO_SUFFIXES for case in (str.lower, str.upper, str.title)]
    touch(tmp_path, *(f"{i}{name}" for i, name in enumerate(names)))
    touch(tmp_path, "a.TXT", "b/b.txt", "README", "b/c.wav.part", ".wav")
    manifest = walk(tmp_path)
    assert len(manifest.recordings) == 3 * len(AUDIO_SUFFIXES)
    assert manifest.skipped_files == {".txt": 2, "no suffix": 2, ".part": 1}
    assert {".wav", ".flac", ".mp3", ".ogg"} <= AUDIO_SUFFIXES


def test_the_manifest_knows_size_and_time_of_each_file(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"12345")
    os.utime(tmp_path / "a.wav", ns=(0, 1_234_567_890_123_456_789))
    (recording,) = walk(tmp_path).recordings
    assert (recording.size, recording.mtime_ns) == (5, 1_234_567_890_123_456_789)


def test_a_circle_of_links_ends(tmp_path):
    touch(tmp_path, "b/x.wav", "b/c/y.wav")
    (tmp_path / "b/c/up").symlink_to(tmp_path)
    (tmp_path / "b/self").symlink_to(tmp_path / "b/self")
    manifest = walk(tmp_path)
    assert paths(manifest) == ["b/x.wav", "b/c/y.wav"]
    assert manifest.rejects == ()


def test_a_link_gives_way_to_the_real_folder_although_it_sorts_first(tmp_path):
    touch(tmp_path, "b/x.wav")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert paths(walk(tmp_path)) == ["b/x.wav"]


def test_a_folder_outside_that_two_links_lead_to_is_included_once(tmp_path):
    outside = touch(tmp_path / "outside", "x.wav", "deep/y.wav")
    root = touch(tmp_path / "root", "z.wav")
    (root / "link1").symlink_to(outside)
    (root / "link2").symlink_to(outside)
    manifest = walk(root)
    assert paths(manifest) == ["z.wav", "link1/x.wav", "link1/deep/y.wav"]
    assert all(Path(os.fsdecode(recording.file)).is_file() for recording in manifest.recordings)


def test_broken_links_become_rejects_if_they_look_like_recordings(tmp_path):
    touch(tmp_path, "a.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    manifest = walk(tmp_path)
    assert paths(manifest) == ["a.wav"]
    assert [(reject.path, reject.stage) for reject in manifest.rejects] == [("gone.wav", "walk"), ("self.wav", "walk")]
    assert manifest.rejects[0].error == "FileNotFoundError"
    assert "gone.wav" in manifest.rejects[0].message
    assert manifest.skipped_files == {".txt": 1}


def test_what_macos_notes_of_files_is_skipped_and_counted_like_other_files(tmp_path):
    touch(tmp_path, "a.wav", "._a.wav", "__MACOSX/b/._b.wav", ".DS_Store", "._alone.wav", "._own.wav")
    (tmp_path / "._alone.wav").write_bytes(b"\x00\x05\x16\x07" + bytes(200))
    manifest = walk(tmp_path)
    assert paths(manifest) == ["._own.wav", "a.wav"]
    assert manifest.skipped_files == {"._ of macOS": 3, "no suffix": 1}


def test_what_is_named_like_a_recording_but_is_no_file_is_skipped(tmp_path):
    touch(tmp_path, "a.wav", "folder.wav/b.wav")
    os.mkfifo(tmp_path / "pipe.wav")  # opening it would wait for ever
    manifest = walk(tmp_path)
    assert paths(manifest) == ["a.wav", "folder.wav/b.wav"]
    assert manifest.skipped_files == {"not a regular file": 1}


def test_one_file_is_a_corpus_of_one(tmp_path):
    touch(tmp_path, "03-01-05-01-01-01-02.wav", "other.wav")
    manifest = walk(tmp_path / "03-01-05-01-01-01-02.wav")
    assert paths(manifest) == ["03-01-05-01-01-01-02.wav"]
    assert manifest.root == tmp_path.resolve()
    assert manifest.recordings[0].metadata.emotion == "angry"


@pytest.mark.parametrize("names", [(), ("a.txt", "b/c.txt")])
def test_a_folder_without_recordings_is_an_input_error(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=r"no recordings found.*\.wav") as caught:
        walk(tmp_path)
    assert caught.value.exit_code == 1
    assert ("it holds 2 other files" in str(caught.value)) == bool(names)


@pytest.mark.parametrize("name", ["missing", "missing/a.wav", "x" * 300])
def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path, name):
    with pytest.raises(UsageError, match="no such folder or file") as caught:
        walk(tmp_path / name)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_becomes_a_reject(tmp_path):
    touch(tmp_path, "a.wav", "closed/b.wav")
    (tmp_path / "closed").chmod(0)
    try:
        manifest = walk(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert paths(manifest) == ["a.wav"]
    assert [(reject.path, reject.error) for reject in manifest.rejects] == [("closed", "PermissionError")]


def test_names_stand_in_the_table_as_they_are(tmp_path):
    names = [" lead.wav", "q\"uo'te.wav", "comma, semi;.wav", "line\nbreak.wav", "tab\t.wav", "日本/é ü.wav", "-x.wav"]
    touch(tmp_path, *names)
    assert sorted(paths(walk(tmp_path))) == sorted(names)


def test_an_undecodable_byte_is_escaped_and_the_file_still_found(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9/a\xff.wav")
    file.parent.mkdir()
    file.write_bytes(b"RIFF")
    (recording,) = walk(tmp_path).recordings
    assert recording.path == r"caf\xe9/a\xff.wav"
    assert opened(recording) == b"RIFF"


def test_of_two_names_that_are_written_the_same_way_the_second_is_a_reject(tmp_path):
    touch(tmp_path, r"a\xff.wav", os.fsdecode(b"a\xff.wav"), "b.wav")
    manifest = walk(tmp_path)
    assert paths(manifest) == [r"a\xff.wav", "b.wav"]
    assert manifest.recordings[0].file.endswith(rb"/a\xff.wav")
    (reject,) = manifest.rejects
    assert (reject.path, reject.stage, reject.error) == (r"a\xff.wav", "walk", "DuplicatePath")


@given(st.sets(st.binary(min_size=1, max_size=8).filter(lambda name: not {0, ord("/")} & set(name)), min_size=1))
@example({b".", b"..", b"a"})
@settings(max_examples=25, deadline=None)
def test_whatever_the_names_each_file_is_one_recording_or_one_reject(names):
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, os.fsdecode(name + b".wav")).write_bytes(name)
        manifest = walk(Path(folder))
        held = paths(manifest)
        assert len(held) + len(manifest.rejects) == len(names)
        assert len(set(held)) == len(held)
        for recording in manifest.recordings:
            recording.path.encode("utf-8")
            assert recording.file.endswith(b"/" + opened(recording) + b".wav")


# --- file names ---------------------------------------------------------------------------------------------------


def ravdess_name(metadata: Metadata) -> str:
    """The name that says what the metadata say, from the corpus's own description."""
    codes = (
        ("audio-video", "video", "audio").index(metadata.modality) + 1,
        ("speech", "song").index(metadata.vocal_channel) + 1,
        EMOTIONS.index(metadata.emotion) + 1,
        ("normal", "strong").index(metadata.intensity) + 1,
        ("Kids are talking by the door", "Dogs are sitting by the door").index(metadata.statement) + 1,
        metadata.repetition,
        metadata.actor,
    )
    return "-".join(f"{code:02d}" for code in codes)


def test_a_name_says_all_that_the_corpus_documents():
    assert parse_name("03-02-06-02-02-01-12.wav") == Metadata(
        corpus="ravdess",
        modality="audio",
        vocal_channel="song",
        emotion="fearful",
        intensity="strong",
        statement="Dogs are sitting by the door",
        repetition=1,
        actor=12,
        sex="female",
        speaker="ravdess-12",
    )


def test_all_actors_and_emotions_round_trip():
    speakers = set()
    for actor, emotion, other in itertools.product(range(1, 25), range(1, 9), ("01", "02")):
        name = f"03-{other}-{emotion:02d}-{other}-{other}-{other}-{actor:02d}"
        metadata = parse_name(f"{name}.flac")
        assert metadata is not None
        assert ravdess_name(metadata) == name
        assert metadata.emotion == EMOTIONS[emotion - 1]
        assert metadata.sex == ("male" if actor % 2 else "female")
        speakers.add((metadata.speaker, metadata.actor))
    assert len(speakers) == len({speaker for speaker, _ in speakers}) == 24


@pytest.mark.parametrize(
    "name",
    [
        *("03-01-00-01-01-01-01.wav", "03-01-09-01-01-01-01.wav", "03-01-01-01-01-01-00.wav"),
        *("03-01-01-01-01-01-25.wav", "04-01-01-01-01-01-01.wav", "00-01-01-01-01-01-01.wav"),
        *("03-03-01-01-01-01-01.wav", "03-01-01-03-01-01-01.wav", "03-01-01-01-03-01-01.wav"),
        *("03-01-01-01-01-03-01.wav", "03-01-01-01-01-00-01.wav", "x03-01-01-01-01-01-01.wav"),
        *(
            "03-01-01-01-01-01-01 (a).wav",
            "03-01-01-01-01-01-01 - Copyright.wav",
            "03-01-01-01-01-01-01.16k.wav",
            "03-01-01-01-01-01-01.wav\n",
        ),
        *("03-01-01-01-01-01.wav", "03-01-01-01-01-01-01-01.wav", "3-1-1-1-1-1-1.wav", "03_01_01_01_01_01_01.wav"),
        *("03-01-01-01-01-01-01", "03-01-01-01-01-01-\u0660\u0661.wav", "03-01-01-01-01-01-0¹.wav", ""),
    ],
)
def test_what_is_not_quite_a_ravdess_name_says_nothing(name):
    assert parse_name(name) is None


@given(st.text() | st.from_regex(r"0\d-0\d-0\d-0\d-0\d-0\d-[012]\d\.\w+", fullmatch=True))
@settings(max_examples=200, deadline=None)
def test_a_name_never_raises_and_is_understood_only_if_canonical(name):
    metadata = parse_name(name)
    if metadata is not None:
        assert name.rsplit(".", 1)[0] == ravdess_name(metadata)


def test_the_walk_reads_the_name_and_not_its_folders(tmp_path):
    touch(tmp_path, "03-01-05-01-01-01-02.d/call.wav", "x/03-01-05-01-01-01-02.wav")
    said = {recording.path: recording.metadata for recording in walk(tmp_path).recordings}
    assert said["03-01-05-01-01-01-02.d/call.wav"] == Metadata()
    assert said["x/03-01-05-01-01-01-02.wav"].speaker == "ravdess-02"


def test_all_real_recordings_are_understood(shared):
    manifest = walk(shared / "ravdess")
    said = [recording.metadata for recording in manifest.recordings]
    assert len(said) == 2036
    assert manifest.rejects == ()
    assert manifest.skipped_files == {".md": 1}
    assert all(metadata.corpus == "ravdess" and metadata.modality == "audio" for metadata in said)
    assert len({metadata.speaker for metadata in said}) == 20
    assert Counter(sex for _, sex in {(metadata.actor, metadata.sex) for metadata in said}) == {
        "male": 10,
        "female": 10,
    }
    assert {metadata.emotion for metadata in said if metadata.vocal_channel == "song"} == set(EMOTIONS[:6])
    # neutral has no strong intensity
    assert {metadata.intensity for metadata in said if metadata.emotion == "neutral"} == {"normal"}
    for recording in manifest.recordings:
        assert recording.path.endswith(f"/{ravdess_name(recording.metadata)}.flac")


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path):
    return walk(touch(tmp_path / "audio", "a.wav", "b/c.wav")).recordings


@pytest.fixture
def join(tmp_path, recordings):
    """Joins a labels file of the given text or bytes."""

    def join(text, *, timed=False, recordings=recordings, name="labels.csv"):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return join_labels(recordings, file, timed=timed)

    return join


def rows(joined) -> dict[str, tuple[LabelRow, ...]]:
    return {recording.path: recording.labels for recording in joined.recordings}


def test_rows_are_joined_by_path(join):
    joined = join("path,emotion,speaker\na.wav,angry,anna\nb/c.wav,,ben\n")
    assert rows(joined) == {
        "a.wav": (LabelRow(emotion="angry", speaker="anna"),),
        "b/c.wav": (LabelRow(emotion=None, speaker="ben"),),
    }
    assert joined.warnings == ()


def test_a_spreadsheets_mark_and_line_ends_do_no_harm(join):
    text = "\ufeffpath,emotion,channel\r\na.wav,angry,\r\nb/c.wav,sad,-1\r\n"
    assert [labels[0].emotion for labels in rows(join(text)).values()] == ["angry", "sad"]


def test_paths_may_hold_commas_quotes_line_breaks_and_spaces(tmp_path, join):
    names = ['x, "y".wav', "line\nbreak.wav", " lead.wav", "日本.wav"]
    recordings = walk(touch(tmp_path / "odd", *names)).recordings
    text = 'path,emotion\n"x, ""y"".wav",a0\n"line\nbreak.wav",a1\n lead.wav,a2\n日本.wav,a3\n'
    joined = rows(join(text, recordings=recordings))
    assert [joined[name][0].emotion for name in names] == ["a0", "a1", "a2", "a3"]


def test_times_and_channels_are_numbers_and_rows_keep_their_order(join):
    joined = join("path,emotion,channel,start_s,end_s\na.wav,sad,1,4.5,6\na.wav,happy,0,0,4.5\n", timed=True)
    assert rows(joined)["a.wav"] == (
        LabelRow(emotion="sad", channel=1, start_s=4.5, end_s=6.0),
        LabelRow(emotion="happy", channel=0, start_s=0.0, end_s=4.5),
    )


def test_parquet_gives_the_same_as_csv(tmp_path, recordings, join):
    text = "path,emotion,speaker,channel,start_s,end_s\na.wav,sad,7,1,0,1.5\nb/c.wav,happy,8,,,\n"
    frame = pl.DataFrame(
        {
            "path": ["a.wav", "b/c.wav"],
            "emotion": pl.Series(["sad", "happy"], dtype=pl.Categorical),
            "speaker": [7, 8],
            "channel": [1, None],
            "start_s": [0, None],
            "end_s": [1.5, None],
        }
    )
    frame.write_parquet(tmp_path / "labels.parquet")
    assert join_labels(recordings, tmp_path / "labels.parquet", timed=True).recordings == (
        join(text, timed=True).recordings
    )


@pytest.mark.parametrize("name", ["labels.csv", "{0} {x}.csv"])
def test_what_the_file_names_in_vain_and_what_it_lacks_is_a_warning(join, name):
    joined = join("path,emotion,note\na.wav,angry,x\ngone.wav,sad,\n/b/c.wav,sad,\n", name=name)
    unused, vain, lacking = joined.warnings
    assert "note" in unused
    assert "2 row paths" in vain
    assert "gone.wav, /b/c.wav" in vain
    assert "1 recordings" in lacking
    assert lacking.endswith("b/c.wav")
    assert all(name in warning for warning in joined.warnings)
    assert rows(joined)["b/c.wav"] == ()


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("path,emotion", "b/c.wav,Very angry", "emotion 'Very angry'"),
        ("path,emotion", "b/c.wav,accuracy", "emotion 'accuracy'"),
        ("path,emotion", "b/c.wav,macro_avg", "emotion 'macro_avg'"),
        ("path,emotion", "b/c.wav,a b", "emotion 'a b'"),
        ("path,emotion", "b/c.wav,7up", "emotion '7up'"),
        ("path,emotion", "b/c.wav,wütend", "emotion 'wütend'"),
        ("path,emotion", ",sad", "path is empty"),
        ("path,emotion", "b/c.wav,sad,1", "more cells"),
        ("path,emotion", "a.wav,sad", "a second row for a.wav"),
        ("path,emotion,channel", "b/c.wav,sad,-2", "channel -2"),
        ("path,emotion,channel", "b/c.wav,sad,0.5", "channel 0.5"),
        ("path,emotion,channel", "b/c.wav,sad,left", "channel 'left'"),
        ("path,emotion,channel", "a.wav,sad,0", "a second row for a.wav"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,0,1", "--segments labels"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,1,", "go together"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,,1", "go together"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,2,1", "start_s 2, end_s 1"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,1,1", "start_s 1, end_s 1"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,-1,1", "start_s -1"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,nan,1", "go together"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,0,inf", "end_s 'inf'"),
        ("path,emotion,start_s,end_s", "b/c.wav,sad,0:01,0:02", "start_s '0:01'"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_file_and_row(join, header, row, expected):
    good = "a.wav,angry" + "," * (header.count(",") - 1)
    with pytest.raises(InputError) as caught:
        join(f"{header}\n\n{good}\n{row}\n")  # the blank line counts, as it does in an editor
    assert "labels.csv, row 4: " in str(caught.value)
    assert expected in str(caught.value)


def test_two_rows_of_one_recording_are_fine_for_two_channels(join):
    joined = join("path,emotion,channel\na.wav,angry,0\na.wav,calm,1\n")
    assert [label.channel for label in rows(joined)["a.wav"]] == [0, 1]


@pytest.mark.parametrize("timed", [False, True])
def test_an_infinite_number_of_parquet_is_named_by_file_and_row(tmp_path, recordings, timed):
    frame = pl.DataFrame({"path": ["b/c.wav", "a.wav"], "emotion": "sad", "channel": [0.0, float("inf")]})
    frame.write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(InputError, match=r"labels\.parquet, row 2: channel 'inf'"):
        join_labels(recordings, tmp_path / "labels.parquet", timed=timed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,emotion\na.wav,sad\n", "no column path; it has file, emotion"),
        (",emotion\na.wav,sad\n", "no column path; it has one without a name, emotion"),
        ("path,path,emotion\na.wav,a.wav,sad\n", "two columns path"),
        ("PATH,Path,emotion\na.wav,a.wav,sad\n", "two columns path"),
        ("path,label\na.wav,sad\n", "no column emotion"),
        ("", "it is empty"),
        ("\ufeff\r\n \n", "it is empty"),
        ("path,emotion\n", "no rows"),
        ("path,emotion\n,\n  ,\n", "no rows"),
        (b"path,emotion\n\xe4.wav,sad\n", "UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00", "is a spreadsheet, and CSV or Parquet is expected; save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as CSV"),
        ('path,emotion\n"a.wav,sad\n' + "b/c.wav,sad\n" * 20_000, "quote"),
    ],
)
def test_a_file_that_is_no_labels_file_is_refused_by_name(join, text, expected):
    with pytest.raises(InputError, match=r"labels\.csv") as caught:
        join(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "path;emotion;speaker\na.wav;sad;Anna, B.\nb/c.wav;calm;\n",
        "sep=;\r\npath;emotion;speaker\r\na.wav;sad;Anna, B.\r\nb/c.wav;calm;\r\n",
        '"sep=|"\npath|emotion|speaker\na.wav|sad|Anna, B.\nb/c.wav|calm|\n',
        "path\temotion\tspeaker\na.wav\tsad\tAnna, B.\nb/c.wav\tcalm\t\n",
        "path\temotion\tspeaker\na.wav\tsad\tAnna, B.\nb/c.wav\tcalm\t\n".encode("utf-16"),
        ',path,emotion,speaker\n0,a.wav,sad,"Anna, B."\n1,b/c.wav,calm,\n',
        'Unnamed: 0,path,emotion,speaker\n0,a.wav,sad,"Anna, B."\n1,b/c.wav,calm,\n',
        '\n  \n\ufeffpath,emotion,speaker\na.wav,sad,"Anna, B."\n,,\n  ,, \nb/c.wav,calm,\n,,\n'.replace("\ufeff", ""),
        '\ufeffPath , EMOTION,Speaker\n ./a.wav , Sad ," Anna, B. "\n.\\b\\c.wav,CALM,\n',
        'path,emotion,speaker\n.//a.wav,sad,"Anna, B."\nb\\c.wav,calm,NaN\n',
    ],
)
def test_what_is_beyond_doubt_is_read_as_it_is_meant(join, text):
    joined = join(text)
    assert rows(joined) == {
        "a.wav": (LabelRow(emotion="sad", speaker="Anna, B."),),
        "b/c.wav": (LabelRow(emotion="calm"),),
    }
    assert [warning for warning in joined.warnings if "read as missing" not in warning] == []


@pytest.mark.parametrize(
    ("path", "there", "advice"),
    [
        (
            "ravdess/b/c.wav",
            "b/c.wav",
            "'ravdess/b/c.wav' is probably the recording 'b/c.wav': remove ravdess/ from the",
        ),
        ("/data/x/b/c.wav", "b/c.wav", "remove /data/x/ from the front"),
        ("D:\\x\\b\\c.wav", "b/c.wav", "remove D:/x/ from the front"),
        ("c.wav", "b/c.wav", "put b/ in front"),
        ("x/c.wav", "b/c.wav", "remove x/ from the front; put b/ in front"),
        ("b/c", "b/c.wav", "end it in .wav"),
        ("b/c.mp3", "b/c.wav", "end it in .wav, not in .mp3"),
        ("b/c.WAV", "b/c.wav", "end it in .wav, not in .WAV"),
        ("B/C.wav", "b/c.wav", "write capitals and small letters as in the file's name"),
        (
            "x/B/C.mp3",
            "b/c.wav",
            "remove x/ from the front; end it in .wav, not in .mp3; write capitals and small letters",
        ),
        ("ge\u0301.wav", "g\u00e9.wav", "write it in the Unicode form NFC"),
        ("g\u00e9/a.wav", "ge\u0301/a.wav", "write it in the Unicode form NFD"),
        ("z.wav", "b/c.wav", "The first is 'z.wav', a recording is 'b/c.wav'; expected paths relative to the folder"),
    ],
)
def test_labels_that_match_nothing_are_refused_with_the_likely_reason(tmp_path, join, path, there, advice):
    recordings = walk(touch(tmp_path / "other", there)).recordings
    with pytest.raises(InputError, match=r"labels\.csv: none of its 1 paths names a recording") as caught:
        join(f"path,emotion\n{path},sad\n", recordings=recordings)
    assert advice in str(caught.value)


def test_of_several_recordings_of_one_name_the_one_in_the_same_folders_is_meant(tmp_path, join):
    recordings = walk(touch(tmp_path / "other", "1/x.wav", "2/x.wav", "a/2/x.wav")).recordings
    with pytest.raises(InputError, match=r"probably the recording .a/2/x\.wav.: remove ser/ from the front"):
        join("path,emotion\nser/a/2/x.wav,sad\n", recordings=recordings)


def test_where_some_paths_match_the_others_are_told_with_the_likely_reason(join):
    (vain, _) = join("path,emotion\na.wav,sad\nx/b/c.wav,sad\n").warnings
    assert "1 row paths name no recording" in vain
    assert vain.endswith("'x/b/c.wav' is probably the recording 'b/c.wav': remove x/ from the front")


MISSING = ("", "  ", "nan", "NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "-")


@pytest.mark.parametrize("word", MISSING)
def test_a_missing_value_is_none_whatever_word_stands_for_it(join, word):
    columns = ("emotion", "speaker", "sex", "intensity", "statement", "corpus", "channel", "p_sad")
    joined = join(f"path,{','.join(columns)}\na.wav{f',{word}' * len(columns)}\nb/c.wav,sad,na,female,low,none,x,0,1\n")
    assert rows(joined)["a.wav"] == (LabelRow(emotion=None),)
    (spoken,) = rows(joined)["b/c.wav"]
    assert (spoken.speaker, spoken.statement) == ("na", "none")  # in lower case, these are names and words
    told = [warning for warning in joined.warnings if "read as missing" in warning]
    assert len(told) == (6 if word.strip() else 0)
    assert all(f"1 cells of {name} are {word}," in text for name, text in zip(sorted(columns[:6]), told, strict=False))


def test_numbers_that_pandas_made_of_speakers_are_those_they_were(tmp_path, recordings, join):
    by_text = rows(join("path,emotion,speaker\na.wav,sad,1.0\nb/c.wav,sad,\n"))
    frame = pl.DataFrame({"path": ["a.wav", "b/c.wav"], "emotion": ["sad"] * 2, "speaker": [1.0, float("nan")]})
    frame.write_parquet(tmp_path / "labels.parquet")
    joined = join_labels(recordings, tmp_path / "labels.parquet", timed=False)
    assert rows(joined) == by_text
    assert [row[0].speaker for row in by_text.values()] == ["1", None]
    assert joined.warnings == ()


def test_the_index_of_a_frame_is_no_unknown_column(tmp_path, recordings):
    columns = {"path": ["a.wav", "b/c.wav"], "emotion": ["sad", "calm"], "__index_level_0__": [4, 7]}
    pl.DataFrame(columns).write_parquet(tmp_path / "labels.parquet")
    assert join_labels(recordings, tmp_path / "labels.parquet", timed=False).warnings == ()


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet"])
def test_a_labels_file_that_cannot_be_read_is_refused_by_name(tmp_path, recordings, name):
    with pytest.raises(InputError, match=name):
        join_labels(recordings, tmp_path / name, timed=False)
    (tmp_path / name).write_bytes(b"\xff\xfe not that")
    with pytest.raises(InputError, match=name):
        join_labels(recordings, tmp_path / name, timed=False)
