"""Whatever lies in a folder: what is refused and how that is told, what works all the same, and good neighbours."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner, Result

from ser_batch.cli.commands import cli
from ser_batch.storage.atomic import TEMPORARY_MARK

TONE = (0.3 * np.sin(np.arange(12_000) * 0.2)).astype(np.float32)


def write(file: Path, samples: np.ndarray = TONE, sampling_rate: int = 8000, **options: str) -> Path:
    soundfile.write(file, samples, sampling_rate, **options)
    return file


def featurize(*arguments: object) -> Result:
    """The command in this process."""
    options = ["--jobs", "1", "--preset", "telephone"]
    return CliRunner().invoke(cli, ["featurize", *map(str, arguments), *options])


def paths_of(out: Path) -> list[str]:
    return sorted(path for part in out.glob("part-*.parquet") for path in pq.read_table(part)["path"].to_pylist())


def rejects_of(out: Path) -> list[tuple[str, str]]:
    rejects = pq.read_table(out / "_meta" / "rejects.parquet").to_pylist()
    return [(reject["path"], reject["stage"]) for reject in rejects]


def check_told(result: Result, status: int, *said: str) -> None:
    """A message instead of a traceback, and nothing that steers a terminal."""
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.output.replace("\n", "").isprintable()
    for words in said:
        assert re.search(words, result.stderr), result.stderr


@pytest.fixture
def root(tmp_path):
    """A folder with two good recordings."""
    folder = tmp_path / "audio"
    folder.mkdir()
    write(folder / "good.wav")
    write(folder / "z.flac")
    return folder


GOOD = ["good.wav", "z.flac"]


def text(file: Path) -> None:
    file.write_text("Dear colleagues, this is no recording.\n" * 99)


def cut_in_the_middle(file: Path) -> None:
    write(file)
    os.truncate(file, file.stat().st_size // 2)


def with_one(value: float) -> Callable[[Path], object]:
    def make(file: Path) -> None:
        samples = TONE.copy()
        samples[5000] = value
        write(file, samples, subtype="FLOAT")

    return make


BAD: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("text.wav", text, "open", "cannot be read as audio"),
    ("text.gsm", text, "open", "cannot be read as audio"),
    ("text.mp3", text, "open", "cannot be read as audio"),
    ("cut.wav", cut_in_the_middle, "open", "cut off"),
    ("cut.aiff", cut_in_the_middle, "open", "cut off"),
    ("cut.flac", cut_in_the_middle, "open", "cut off"),
    ("empty.wav", Path.touch, "open", "0 bytes"),
    ("silent.wav", lambda file: write(file, TONE[:0]), "decode", "no samples"),
    ("nan.wav", with_one(np.nan), "decode", "NaN"),
    ("infinite.wav", with_one(np.inf), "decode", "infinite"),
    ("absurd.wav", with_one(1e30), "decode", r"reach 1e\+30"),
    (
        "never scaled.wav",
        lambda file: write(file, 2.0**15 * TONE, subtype="FLOAT"),
        "decode",
        "where full scale is 1.0",
    ),
    ("slow.wav", lambda file: write(file, sampling_rate=100), "open", "100 Hz"),
    ("wide.wav", lambda file: write(file, np.zeros((9, 99))), "open", "99 channels"),
]


@pytest.mark.parametrize(("name", "make", "stage", "reason"), BAD)
def test_a_recording_that_cannot_be_used_is_told_and_listed_and_its_neighbours_are_done(
    name, make, stage, reason, root, tmp_path
):
    make(root / name)
    out = tmp_path / "out"

    result = featurize(root, "--out", out)

    check_told(result, 0, rf"rejected \({stage}\): {re.escape(name)}: .*{reason}.*; replace the file or remove it")
    assert re.search(r"^done: 3 recordings .*, 1 rejected$", result.stdout.splitlines()[-1])
    assert rejects_of(out) == [(name, stage)]
    assert paths_of(out) == GOOD
    assert not list(out.rglob(f"*{TEMPORARY_MARK}*"))


def test_all_kinds_at_once_cost_no_good_recording_and_strict_exits_with_3(root, tmp_path):
    for name, make, _, _ in BAD:
        make(root / name)
    out = tmp_path / "out"

    result = featurize(root, "--out", out, "--strict")

    check_told(result, 3, f"rejected: {len(BAD) - 10} more, listed in ")
    assert paths_of(out) == GOOD
    assert rejects_of(out) == sorted((name, stage) for name, _, stage, _ in BAD)
    assert featurize(root, "--out", out, "--strict").exit_code == 3  # those of earlier runs count
    assert featurize(root, "--out", out).exit_code == 0


def test_strict_exits_with_0_where_nothing_is_rejected(root, tmp_path):
    check_told(featurize(root, "--out", tmp_path / "out", "--strict"), 0)


def test_where_all_is_rejected_the_status_is_1_and_the_reason_is_told(tmp_path):
    (tmp_path / "audio").mkdir()
    text(tmp_path / "audio/a.wav")

    result = featurize(tmp_path / "audio", "--out", tmp_path / "out")

    check_told(result, 1, r"nothing could be featurized.*1 rejected.*a\.wav: .*replace the file or remove it")
    assert rejects_of(tmp_path / "out") == [("a.wav", "open")]


# ---- unusual, but good ----


def streamed(file: Path) -> None:
    """A WAV by a recorder that could not go back to write its length."""
    content = bytearray(write(file, subtype="PCM_16").read_bytes())
    assert content[36:40] == b"data"
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("8 bit.wav", lambda file: write(file, subtype="PCM_U8")),
        ("24 bit.wav", lambda file: write(file, subtype="PCM_24")),
        ("float.wav", lambda file: write(file, subtype="FLOAT")),
        ("96 khz.wav", lambda file: write(file, sampling_rate=96_000)),
        ("one sample.wav", lambda file: write(file, TONE[1:2])),
        ("silence.wav", lambda file: write(file, 0 * TONE)),
        ("streamed.wav", streamed),
        ("aiff.wav", lambda file: write(file, format="AIFF")),
        ("wav.mp3", lambda file: write(file, format="WAV")),
        ("bare.gsm", lambda file: write(file, format="RAW", subtype="GSM610")),
        ("UPPER.WAV", write),
    ],
)
def test_unusual_recordings_work(name, make, root, tmp_path):
    make(root / name)

    result = featurize(root, "--out", tmp_path / "out", "--strict")

    check_told(result, 0)
    is_silent = name in ("one sample.wav", "silence.wav")
    assert result.stderr == is_silent * ("warning: 1 segments are digital silence; `ser-batch train` leaves them out\n")
    rows = pa.concat_tables(pq.read_table(part) for part in (tmp_path / "out").glob("part-*"))
    assert sorted(rows["path"].to_pylist()) == sorted([*GOOD, name])
    values = rows["mfcc"].combine_chunks().flatten().flatten().to_numpy()
    assert np.isfinite(values).all()


NAMES = {
    b"with space.wav": "with space.wav",
    b'it\'s "quoted".wav': 'it\'s "quoted".wav',
    b"two\nlines.wav": "two\nlines.wav",
    "Grüße 日本.wav".encode(): "Grüße 日本.wav",
    b"latin-\xe9.wav": "latin-\\xe9.wav",
    b"\x1b[31mred\x1b[0m.wav": "\x1b[31mred\x1b[0m.wav",
    b"back\\slash.wav": "back\\slash.wav",
    b"100% {name}.wav": "100% {name}.wav",
    b"-rf.wav": "-rf.wav",
}


@pytest.mark.parametrize("is_good", [True, False])
def test_any_name_is_a_key_of_the_table_and_harmless_in_messages(is_good, root, tmp_path):
    for name in NAMES:
        (root / os.fsdecode(name)).write_bytes((root / "good.wav").read_bytes() if is_good else b"no recording")

    result = featurize(root, "--out", tmp_path / "out")

    check_told(result, 0)
    if is_good:
        assert paths_of(tmp_path / "out") == sorted([*NAMES.values(), *GOOD])
    else:
        assert rejects_of(tmp_path / "out") == sorted((path, "open") for path in NAMES.values())
        assert r"\x1b[31mred\x1b[0m.wav: " in result.stderr
        assert r"two\nlines.wav: " in result.stderr
        assert r"latin-\xe9.wav: " in result.stderr


def test_two_names_that_are_written_the_same_way_are_not_confused(root, tmp_path):
    for name in (b"a\xe9.wav", b"a\\xe9.wav"):
        (root / os.fsdecode(name)).write_bytes((root / "good.wav").read_bytes())

    result = featurize(root, "--out", tmp_path / "out")

    check_told(result, 0, r"rejected \(walk\): a\\xe9\.wav: .*rename one")
    assert paths_of(tmp_path / "out") == sorted(["a\\xe9.wav", *GOOD])
    assert rejects_of(tmp_path / "out") == [("a\\xe9.wav", "walk")]


def test_folders_of_any_name_work_as_input(root, tmp_path):
    for name in (b"\xff\x1b[31m", "Grüße ".encode(), b"it's\n"):
        folder, out = tmp_path / os.fsdecode(name), tmp_path / "out"
        folder.mkdir()
        (folder / "a.wav").write_bytes((root / "good.wav").read_bytes())

        check_told(featurize(folder, "--out", out, "--overwrite"), 0)

        (part,) = out.glob("part-*")
        assert pq.read_table(part)["dataset"].to_pylist() == [name.decode("utf-8", errors="backslashreplace")]


def test_an_output_whose_name_leaves_no_room_for_the_tables_beside_it_is_refused(root, tmp_path):
    check_told(featurize(root, "--out", tmp_path / ("n" * 240)), 1, r"nnn: the name is too long.*--out")


def test_an_output_folder_has_to_be_named_in_utf8_because_readers_of_parquet_want_that(root, tmp_path):
    check_told(featurize(root, "--out", tmp_path / "Grüße 日本"), 0)
    assert paths_of(tmp_path / "Grüße 日本") == GOOD

    bad = tmp_path / os.fsdecode(b"\xff\x1b[31m")
    check_told(featurize(root, "--out", bad), 2, r"\\udcff\\x1b\[31m: .*not UTF-8.*--out")
    assert not bad.exists()


# ---- wrong calls ----


def test_an_empty_folder_is_status_1_and_a_missing_one_is_status_2(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/thesis.txt").touch()
    out = tmp_path / "out"

    check_told(
        featurize(tmp_path / "empty", "--out", out), 1, r"empty: no recordings found; expected files that end in"
    )
    check_told(featurize(tmp_path / "papers", "--out", out), 1, "no recordings found; it holds 1 other files")
    check_told(
        featurize(tmp_path / "gone\x1b[31m", "--out", out), 2, r"gone\\x1b\[31m: no such folder or file; expected"
    )

    assert not out.exists()


def test_an_output_that_cannot_be_made_is_status_1(root, tmp_path):
    (tmp_path / "file").touch()

    for out in (tmp_path / "file", tmp_path / "file/below", Path("/proc/nowhere")):
        check_told(featurize(root, "--out", out), 1, rf"{out}.*: cannot be made .*; choose another place with --out")

    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--preset", "opera"], "--preset opera; expected one of wideband, telephone"),
        (["--segments", "words"], "words.*clip.*windows.*labels"),
        (["--channels", "left"], "channels 'left'; expected mix, split, or numbers such as 0,1"),
        (["--channels", "0,0"], "channels '0,0'; expected"),
        (["--channels", "-1"], "channels '-1'; expected"),
        (["--window", "0"], "--window 0; expected a number from 0.01 to 86400"),
        (["--hop", "nan"], "--hop nan; expected a number from 0.01 to 86400"),
        (["--window", "9", "--segments", "windows"], "window of 9 s does not fit.*--window 4.04 or less"),
        (["--window", "wide"], "--window wide; expected a number"),
        (["--jobs", "0"], "--jobs 0; expected a whole number, 1 or more"),
        (["--shard-size", "0"], "--shard-size 0; expected a whole number, 1 or more"),
        (["--verify", "-1"], "--verify -1; expected a whole number, 0 or more"),
        (["--segments", "labels"], "needs --labels FILE"),
        (["--labels", "nowhere.csv"], "--labels nowhere.csv: no such file"),
        (["--labels", "."], "--labels .: is a folder; expected a file"),
        (["--loud"], "--loud"),
    ],
)
def test_options_that_cannot_be_are_status_2_and_touch_nothing(options, said, root, tmp_path):
    # after the options of `featurize` above, so that these count
    command = ["featurize", str(root), "--out", str(tmp_path / "out"), "--preset", "telephone", *options]

    check_told(CliRunner().invoke(cli, command), 2, said)

    assert not (tmp_path / "out").exists()


LABELS = [
    ("path,feeling\ngood.wav,sad\n", "no column emotion; it has path, feeling; expected path, emotion"),
    ("", "it is empty"),
    ("path,emotion\ngood.wav,Very sad\n", "row 2: emotion 'Very sad'; expected a lower-case word"),
    ("path,emotion\nbad.wav,sad\n", "none of its 1 paths names a recording"),
    ("path,emotion\ngood.wav,accuracy\n", "row 2: emotion 'accuracy'"),
    ("path,emotion\n,sad\n", "row 2: path is empty"),
    ("path,emotion\na,b.wav,sad\n", "row 2: more cells than the header has columns"),
    ("path,emotion\ngood.wav,sad\ngood.wav,calm\n", "row 3: a second row for good.wav"),
    ("path,emotion,start_s,end_s\ngood.wav,sad,0,1\n", "row 2: start_s is given.*--segments labels"),
    ("path,emotion,channel\ngood.wav,sad,left\n", "row 2: channel 'left'; expected a number"),
    ("path,emotion,channel\ngood.wav,sad,-2\n", "row 2: channel -2; expected -1"),
    (b"path,emotion\nstra\xdfe.wav,sad\n", "cannot be read as CSV in UTF-8"),
    ('path,emotion\n"good.wav,sad\n' + "x,calm\n" * 20_000, "cannot be read as CSV"),
    ("path,emotion\n\x1b[31m.wav,S/D\n", "row 2: emotion 'S/D'"),
]


@pytest.mark.parametrize(("content", "said"), LABELS)
def test_a_labels_file_that_cannot_be_used_is_status_1_and_touches_nothing(content, said, root, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_bytes(content if isinstance(content, bytes) else content.encode())

    check_told(featurize(root, "--out", tmp_path / "out", "--labels", labels), 1, rf"labels\.csv.*{said}")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("good.wav,sad,1,", "start_s and end_s go together"),
        ("good.wav,sad,2,1", "start_s 2, end_s 1; expected 0 <= start_s < end_s"),
        ("good.wav,sad,-1,1", "expected 0 <= start_s < end_s"),
        ("good.wav,sad,0,inf", "end_s 'inf'; expected a number"),
        ("good.wav,sad,0:01,0:02", "start_s '0:01'; expected a number"),
    ],
)
def test_times_that_cannot_be_are_told_by_row(row, said, root, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(f"path,emotion,start_s,end_s\nz.flac,calm,0,1\n{row}\n")

    result = featurize(root, "--out", tmp_path / "out", "--labels", labels, "--segments", "labels")

    check_told(result, 1, rf"labels\.csv, row 3: .*{said}")
    assert not (tmp_path / "out").exists()


def test_a_labels_file_that_is_no_parquet_is_told(root, tmp_path):
    labels = tmp_path / "labels.parquet"
    labels.write_text("path,emotion\ngood.wav,sad\n")

    check_told(
        featurize(root, "--out", tmp_path / "out", "--labels", labels), 1, r"labels\.parquet: cannot be read as Parquet"
    )

    pq.write_table(pa.table({"path": ["good.wav"], "emotion": ["sad"]}), labels)
    check_told(featurize(root, "--out", tmp_path / "out", "--labels", labels), 0, "1 recordings have no row: z.flac")


@pytest.mark.parametrize("content", ["\ufeffpath,emotion\r\ngood.wav,sad\r\n", 'emotion,"path"\n sad , good.wav \n\n'])
def test_labels_as_spreadsheets_write_them_are_read(content, root, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_bytes(content.encode())

    result = featurize(root, "--out", tmp_path / "out", "--labels", labels)

    check_told(result, 0, "1 recordings have no row: z.flac")
    assert "emotions: sad 1, unknown 1" in result.stdout


def test_labels_of_recordings_that_are_not_there_are_told_without_steering_the_terminal(root, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("path,emotion,color\ngood.wav,sad,red\ngone\x1b[31m.wav,calm,blue\n")

    result = featurize(root, "--out", tmp_path / "out", "--labels", labels)

    check_told(result, 0, r"1 row paths name no recording.*gone\\x1b\[31m\.wav", "columns not used: color")


# ---- once in a process of its own, with workers ----


def test_the_command_itself_with_workers_tells_status_messages_and_rejects(root, tmp_path):
    for name, make, _, _ in BAD[:8]:
        make(root / name)
    command = [
        sys.executable,
        "-c",
        "from ser_batch.cli.commands import main; main()",
        "featurize",
        str(root),
        "--jobs",
        "2",
    ]

    done = subprocess.run([*command, "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    told = sorted(
        re.findall(r"^rejected \((\w+)\): (\S+): .*; replace the file or remove it$", done.stderr, re.MULTILINE)
    )
    assert told == sorted((stage, name) for name, _, stage, _ in BAD[:8])
    assert paths_of(tmp_path / "features") == GOOD
    assert done.stdout.splitlines()[-1].endswith(", 8 rejected")
