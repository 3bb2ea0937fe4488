"""Against a real server on 127.0.0.1, with small archives laid out as the official ones."""

import hashlib
import json
import logging
import random
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging.handlers import BufferingHandler
from pathlib import Path
from threading import Thread

import pooch
import pytest
from click.testing import CliRunner

from ser_batch import download
from ser_batch.cli.commands import cli
from ser_batch.corpus.known_corpora import SOURCES
from ser_batch.download import (
    CHECKPOINTS,
    RELEASES,
    Archive,
    Checkpoint,
    DownloadSummary,
    Release,
    download_checkpoint,
    download_corpus,
    find_release,
)
from ser_batch.errors import DownloadError, OutputError, UsageError

SPEECH, SONG = "speech.zip", "song.zip"


@dataclass
class Server:
    """What it offers, how it misbehaves, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    wrong_start: bool = False  # a range other than the one asked for
    says_length: bool = True
    stop_after: list[int] = field(default_factory=list)  # bytes of the next answers, then the connection closes
    always_stop_after: int | None = None
    statuses: list[int] = field(default_factory=list)  # of the next answers
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # name, Range header
    bytes_sent: int = 0

    def asked_ranges(self) -> list[str]:
        return [asked for _, asked in self.requests if asked is not None]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            asked = self.headers["Range"]
            state.requests.append((name, asked))
            status = state.statuses.pop(0) if state.statuses else 200
            if status == 200 and name not in state.files:
                status = 404
            if status != 200:
                self.send_error(status)
                return
            content = state.files[name]
            start = 0
            if asked and state.ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + (7 if state.wrong_start else 0)
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            body = content[start:]
            if state.says_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            limit = state.stop_after.pop(0) if state.stop_after else state.always_stop_after
            body = body[:limit]
            self.wfile.write(body)
            state.bytes_sent += len(body)

    class Threads(ThreadingHTTPServer):
        daemon_threads = False  # so that server_close waits for them

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Threads(("127.0.0.1", 0), Handler) as listening:
        state.address = f"http://127.0.0.1:{listening.server_port}/files"
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wait for nothing, and remember for how long it would have been."""
    waited: list[float] = []
    monkeypatch.setattr(download, "_sleep", waited.append)
    return waited


def make_zip(path: Path, members: dict[str | zipfile.ZipInfo, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    content = path.read_bytes()
    path.unlink()
    return content


def recordings(vocal_channel: str, n_bytes: int = 40) -> dict[str | zipfile.ZipInfo, bytes]:
    draw = random.Random(vocal_channel)
    return {
        f"Actor_{actor}/03-{vocal_channel}-05-01-01-01-{actor}.wav": b"RIFF" + draw.randbytes(n_bytes)
        for actor in ("01", "02", "03")
    }


def offer(server: Server, name: str, content: bytes, n_recordings: int = 3) -> Archive:
    server.files[name] = content
    return Archive(name, hashlib.md5(content).hexdigest(), n_recordings)


@pytest.fixture
def speech(server: Server, tmp_path: Path) -> Archive:
    return offer(server, SPEECH, make_zip(tmp_path / "made.zip", recordings("01")))


@pytest.fixture
def large(server: Server, tmp_path: Path) -> Archive:
    """Several chunks, yet too little for a broken connection to count as a success: 900 kB."""
    return offer(server, SPEECH, make_zip(tmp_path / "made.zip", recordings("01", n_bytes=300_000)))


Fetch = Callable[..., DownloadSummary]


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Fetch:
    def call(*archives: Archive, **options: object) -> DownloadSummary:
        return download_corpus(tmp_path / "audio", release=Release(url=server.address, archives=archives), **options)

    return call


def tree(folder: Path) -> dict[str, bytes]:
    """Return what a walk sees: all but the archives."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".archives" not in path.parts
    }


def test_the_records_are_the_official_ones() -> None:
    told = {
        name: (release.url, [(archive.name, archive.md5, archive.n_recordings) for archive in release.archives])
        for name, release in RELEASES.items()
    }
    assert told == {
        "ravdess": (
            "https://zenodo.org/records/1188976/files",
            [
                ("Audio_Speech_Actors_01-24.zip", "bc696df654c87fed845eb13823edef8a", 1440),
                ("Audio_Song_Actors_01-24.zip", "5411230427d67a21e18aa4d466e6d1b9", 1012),
            ],
        ),
        "subesco": (
            "https://zenodo.org/records/4526477/files",
            [("SUBESCO.zip", "13d702cf944bf54d70d66bffc036ed7a", 7000)],
        ),
        "emozionalmente": (
            "https://zenodo.org/records/12616095/files",
            [("emozionalmente.zip", "398c6502dd2b0e1e810f927c12897547", 6902)],
        ),
    }


def test_what_is_fetched_is_of_a_known_corpus_from_its_own_page() -> None:
    for name, release in RELEASES.items():
        assert find_release(name) is release
        assert release.url == f"{SOURCES[name].page}/files"


@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(RELEASES)))
def test_a_known_corpus_without_an_archive_says_where_to_get_it(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_release(name)
    source = SOURCES[name]
    assert f"from {source.page} ({source.access}). License: {source.terms}" in str(refused.value)


def test_an_unknown_corpus_gets_a_hint() -> None:
    with pytest.raises(UsageError, match=r"subsco: no such corpus; .*ravdess.*did you mean subesco"):
        find_release("subsco")


def test_a_corpus_with_tables_is_unpacked_with_them_and_without_the_rest(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    kept = recordings("01") | {"corpus/metadata/samples.csv": b"file_name\n"}
    content = make_zip(tmp_path / "made.zip", kept | {"corpus/LICENSE.txt": b"x", "corpus/split.json": b"{}"})
    archive = replace(offer(server, SPEECH, content), has_tables=True)
    assert fetch(archive).n_recordings == 3
    assert tree(tmp_path / "audio") == kept
    assert fetch(archive) == DownloadSummary(out=tmp_path / "audio", n_recordings=3, fetched=(), already_here=(SPEECH,))
    server.files["again.zip"] = content
    with pytest.raises(DownloadError, match="nothing unpacked; expected 4 recordings, found 3"):
        fetch(replace(archive, name="again.zip", n_recordings=4))


def test_a_name_with_a_bracket_is_unpacked(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    members = {"SUBESCO/F_02_MONIKA_S_2_SURPRISE_3].wav": b"RIFF"}
    fetch(offer(server, SPEECH, make_zip(tmp_path / "made.zip", members), n_recordings=1))
    assert tree(tmp_path / "audio") == members


def test_both_archives_share_one_folder_an_actor(server: Server, speech: Archive, fetch: Fetch, tmp_path: Path) -> None:
    song = offer(server, SONG, make_zip(tmp_path / "made.zip", recordings("02")))
    seen: list[tuple[str, int, int]] = []

    summary = fetch(speech, song, report=lambda *progress: seen.append(progress))

    audio = tmp_path / "audio"
    assert summary == DownloadSummary(out=audio, n_recordings=6, fetched=(SPEECH, SONG), already_here=())
    assert tree(audio) == recordings("01") | recordings("02")
    assert seen[0] == (SPEECH, 0, len(server.files[SPEECH]))
    assert seen[-1] == (SONG, len(server.files[SONG]), len(server.files[SONG]))
    assert {path.name for path in (audio / ".archives").iterdir()} == {
        *(SPEECH, f"{SPEECH}.json"),
        *(SONG, f"{SONG}.json"),
    }


def test_pooch_is_quiet_and_speaks_again_afterwards(speech: Archive, fetch: Fetch) -> None:
    logger = pooch.get_logger()
    level = logger.level
    listener = BufferingHandler(capacity=100)
    logger.addHandler(listener)
    try:
        fetch(speech)
        assert listener.buffer == []
        assert logger.level == level < logging.ERROR
    finally:
        logger.removeHandler(listener)


def test_the_second_call_asks_for_nothing(server: Server, speech: Archive, fetch: Fetch, tmp_path: Path) -> None:
    fetch(speech)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "audio").rglob("*.wav")}
    summary = fetch(speech)
    assert (summary.n_recordings, summary.fetched, summary.already_here) == (3, (), (SPEECH,))
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_unpacked_recordings_do_not_need_the_archive(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path
) -> None:
    fetch(speech)
    (tmp_path / "audio" / ".archives" / SPEECH).unlink()
    assert fetch(speech).already_here == (SPEECH,)
    assert len(server.requests) == 1


def test_an_archive_put_there_by_hand_is_only_unpacked(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path
) -> None:
    kept = tmp_path / "audio" / ".archives"
    kept.mkdir(parents=True)
    (kept / SPEECH).write_bytes(server.files[SPEECH])
    assert fetch(speech).already_here == (SPEECH,)
    assert tree(tmp_path / "audio") == recordings("01")
    assert server.requests == []


def test_a_damaged_archive_in_the_folder_is_fetched_again(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path
) -> None:
    kept = tmp_path / "audio" / ".archives"
    kept.mkdir(parents=True)
    (kept / SPEECH).write_bytes(b"damaged")
    assert fetch(speech).fetched == (SPEECH,)
    assert tree(tmp_path / "audio") == recordings("01")


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_lost_recording_is_restored_without_the_network(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path, damage: str
) -> None:
    fetch(speech)
    lost = next((tmp_path / "audio").rglob("*.wav"))
    if damage == "deleted":
        lost.unlink()
    else:
        lost.write_bytes(b"RI")
    summary = fetch(speech)
    assert summary.already_here == (SPEECH,)
    assert tree(tmp_path / "audio") == recordings("01")
    assert len(server.requests) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"md5": 1, "files": []}', "\x00"])
def test_a_damaged_marker_means_unpack_again(speech: Archive, fetch: Fetch, tmp_path: Path, text: str) -> None:
    fetch(speech)
    marker = tmp_path / "audio" / ".archives" / f"{SPEECH}.json"
    good = json.loads(marker.read_text(encoding="utf-8"))
    marker.write_text(text, encoding="utf-8")
    assert fetch(speech).n_recordings == 3
    assert json.loads(marker.read_text(encoding="utf-8")) == good
    assert (good["md5"], good["n_recordings"]) == (speech.md5, 3)


def test_another_version_of_the_archive_replaces_the_recordings(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path
) -> None:
    fetch(speech)
    newer = offer(server, SPEECH, make_zip(tmp_path / "made.zip", recordings("01", n_bytes=50)))
    assert fetch(newer).fetched == (SPEECH,)
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=50)


def test_a_broken_transfer_goes_on_where_it_stopped(
    server: Server, large: Archive, fetch: Fetch, tmp_path: Path, waits: list[float]
) -> None:
    server.stop_after = [400_000, 300_000]
    assert fetch(large).n_recordings == 3
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=300_000)
    assert len(server.asked_ranges()) == 2
    assert server.bytes_sent < 1.3 * len(server.files[SPEECH])
    assert waits == [1, 2]


def test_what_was_kept_by_an_earlier_call_is_used(server: Server, large: Archive, fetch: Fetch, tmp_path: Path) -> None:
    def interrupt(_name: str, bytes_done: int, _bytes_total: int) -> None:
        if bytes_done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(large, report=interrupt)
    kept = tmp_path / "audio" / ".archives"
    n_bytes = (kept / f"{SPEECH}.part").stat().st_size
    assert n_bytes > 500_000
    seen: list[int] = []
    fetch(large, report=lambda _name, bytes_done, _bytes_total: seen.append(bytes_done))
    assert server.asked_ranges() == [f"bytes={n_bytes}-"]
    assert seen[0] == n_bytes
    assert not list(kept.glob("*.part"))


def test_a_server_without_ranges_sends_all_again(server: Server, large: Archive, fetch: Fetch, tmp_path: Path) -> None:
    server.ranges = False
    server.stop_after = [400_000]
    fetch(large)
    assert len(server.requests) == 2
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=300_000)


def test_a_server_that_sends_another_range_is_asked_for_all(
    server: Server, large: Archive, fetch: Fetch, tmp_path: Path
) -> None:
    server.wrong_start = True
    server.stop_after = [400_000, 0]
    fetch(large)
    assert [asked is None for _, asked in server.requests] == [True, False, True]
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=300_000)


def leave_part(tmp_path: Path, content: bytes) -> None:
    kept = tmp_path / "audio" / ".archives"
    kept.mkdir(parents=True)
    (kept / f"{SPEECH}.part").write_bytes(content)


def test_a_part_that_is_the_whole_file_is_not_fetched_again(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path
) -> None:
    leave_part(tmp_path, server.files[SPEECH])
    fetch(speech)
    assert len(server.requests) == 1
    assert server.bytes_sent == 0


@pytest.mark.parametrize("n_bytes", [20, "all", 5000])
def test_a_part_of_something_else_is_thrown_away(
    server: Server, speech: Archive, fetch: Fetch, tmp_path: Path, n_bytes: int | str
) -> None:
    leave_part(tmp_path, b"x" * (len(server.files[SPEECH]) if n_bytes == "all" else int(n_bytes)))
    fetch(speech)
    assert tree(tmp_path / "audio") == recordings("01")
    assert server.requests[0][1] is not None
    assert server.requests[-1] == (SPEECH, None)


def test_a_server_that_does_not_say_the_length(server: Server, speech: Archive, fetch: Fetch) -> None:
    server.says_length = False
    totals: set[int] = set()
    fetch(speech, report=lambda _name, _bytes_done, bytes_total: totals.add(bytes_total))
    assert totals == {0}


def test_a_busy_server_is_asked_again(server: Server, speech: Archive, fetch: Fetch, waits: list[float]) -> None:
    server.statuses = [503, 429]
    fetch(speech)
    assert len(server.requests) == 3
    assert waits == [1, 2]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_always_breaks_is_given_up_and_kept(
    server: Server, large: Archive, fetch: Fetch, tmp_path: Path, waits: list[float], ranges: bool
) -> None:
    server.ranges = ranges
    server.always_stop_after = 100_000
    with pytest.raises(DownloadError) as caught:
        fetch(large)
    part = tmp_path / "audio" / ".archives" / f"{SPEECH}.part"
    assert f"{part.stat().st_size} of {len(server.files[SPEECH])} bytes" in str(caught.value)
    assert "the same command goes on from there" in str(caught.value)
    assert len(server.requests) == 6
    assert waits == [1, 2, 4, 8, 16]
    assert part.stat().st_size > (200_000 if ranges else 0)
    server.always_stop_after = None
    assert fetch(large).n_recordings == 3


def test_a_connection_that_brings_much_is_no_failure(
    server: Server, fetch: Fetch, tmp_path: Path, waits: list[float]
) -> None:
    huge = offer(server, SPEECH, make_zip(tmp_path / "made.zip", recordings("01", n_bytes=3_000_000)))
    server.always_stop_after = 1_200_000
    fetch(huge)
    assert waits == [1] * 7


def test_the_same_bytes_again_are_no_progress(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    huge = offer(server, SPEECH, make_zip(tmp_path / "made.zip", recordings("01", n_bytes=1_000_000)))
    server.ranges = False
    server.always_stop_after = 1_200_000
    with pytest.raises(DownloadError, match="broke off"):
        fetch(huge)
    assert len(server.requests) == 6


def test_wrong_content_is_removed(server: Server, speech: Archive, fetch: Fetch, tmp_path: Path) -> None:
    kept = tmp_path / "audio" / ".archives"
    kept.mkdir(parents=True)
    (kept / SPEECH).write_bytes(b"damaged before")
    wrong = b"an error page"
    server.files[SPEECH] = wrong
    with pytest.raises(DownloadError) as caught:
        fetch(speech)
    for part_of_message in (SPEECH, speech.md5, hashlib.md5(wrong).hexdigest(), "--url"):
        assert part_of_message in str(caught.value)
    assert len(server.requests) == 1
    assert not any(path.is_file() for path in (tmp_path / "audio").rglob("*"))


def test_wrong_content_after_a_resume_is_fetched_once_more_and_no_oftener(
    server: Server, large: Archive, fetch: Fetch
) -> None:
    server.files[SPEECH] = bytes(900_000)
    server.stop_after = [400_000, 900_000, 400_000]
    with pytest.raises(DownloadError, match="found"):
        fetch(large)
    assert [asked is None for _, asked in server.requests] == [True, False, True, False]


@pytest.mark.parametrize("status", [403, 404, 416])
def test_an_answer_that_stays_is_no_reason_to_wait(
    server: Server, speech: Archive, fetch: Fetch, waits: list[float], status: int
) -> None:
    server.statuses = [status]
    with pytest.raises(DownloadError, match=rf"{SPEECH}: expected the file, .* answered {status} .*--url"):
        fetch(speech)
    assert len(server.requests) == 1
    assert waits == []


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/Audio_Speech.*no connection.*--url"):
        download_corpus(tmp_path, release=RELEASES["ravdess"], url="http://127.0.0.1:1/")
    assert waits == []


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc", "zenodo.org", "", "http://", "https:///x"])
def test_only_addresses_on_the_web(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="http://"):
        download_corpus(tmp_path / "audio", release=RELEASES["ravdess"], url=url)
    assert not (tmp_path / "audio").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, server: Server, speech: Archive) -> None:
    (tmp_path / "audio").write_text("a file")
    with pytest.raises(OutputError, match="--out"):
        download_corpus(tmp_path / "audio", release=Release(url=server.address, archives=(speech,)))


def special(name: str, kind: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 3  # Unix
    member.external_attr = (kind | 0o777) << 16
    return member


def compressed(name: str, how: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.compress_type = how
    return member


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../outside.wav", "name"),
        ("Actor_01/../../outside.wav", "name"),
        ("Actor_01/./x.wav", "name"),
        ("Actor_01//x.wav", "name"),
        ("/outside.wav", "name"),
        ("..\\outside.wav", "name"),
        ("C:\\outside.wav", "name"),
        ("C:outside.wav", "name"),
        ("..", "name"),
        ("../", "name"),
        ("Actor_01/x\x1b.wav", "name"),
        (".hidden/x.wav", "name"),
        (special("Actor_01/x.wav", stat.S_IFLNK), "link"),
        (special("Actor_09", stat.S_IFLNK), "link"),
        (special("Actor_01/x.wav", stat.S_IFIFO), "special"),
        (special("Actor_01/x.wav", stat.S_IFCHR), "special"),
        (special("Actor_01/x.wav", stat.S_IFBLK), "special"),
        (special("Actor_01/x.wav", stat.S_IFSOCK), "special"),
        ("Actor_01/run.sh", "not a .wav"),
        ("ACTOR_01/03-01-05-01-01-01-01.WAV", "upper and lower case"),
        ("Actor_01/03-01-05-01-01-01-01.Wav", "upper and lower case"),
        (compressed("Actor_01/x.wav", zipfile.ZIP_LZMA), "unusual"),
    ],
)
def test_an_archive_with_an_unsafe_member_is_refused_as_a_whole(
    server: Server, fetch: Fetch, tmp_path: Path, member: str | zipfile.ZipInfo, reason: str
) -> None:
    content = make_zip(tmp_path / "made.zip", recordings("01") | {member: b"/etc/passwd"})
    unsafe = offer(server, SPEECH, content, n_recordings=0)
    with pytest.raises(DownloadError, match=f"refused: .*{reason}"):
        fetch(unsafe)
    assert [path.name for path in tmp_path.iterdir()] == ["audio"]
    assert tree(tmp_path / "audio") == {}


def test_a_recording_that_is_a_folder_too_is_refused_before_anything_is_written(
    server: Server, fetch: Fetch, tmp_path: Path
) -> None:
    members = {"Actor_01/a.wav": b"x", "Actor_01/A.WAV/b.wav": b"x"}
    content = make_zip(tmp_path / "made.zip", recordings("02") | members)
    with pytest.raises(DownloadError, match=r"actor_01/a\.wav' is both a recording and a folder"):
        fetch(offer(server, SPEECH, content, n_recordings=0))
    assert tree(tmp_path / "audio") == {}


def test_a_name_that_goes_on_behind_a_nul_is_refused(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    content = make_zip(tmp_path / "made.zip", recordings("01") | {"Actor_01/x.wav?.exe": b"x"})
    unsafe = offer(server, SPEECH, content.replace(b"x.wav?.exe", b"x.wav\0.exe"), n_recordings=0)
    with pytest.raises(DownloadError, match="refused: its name"):
        fetch(unsafe)


def with_flag(content: bytes, flag: int) -> bytes:
    """Set the general purpose flag of the first member in the central directory."""
    start = content.index(b"PK\x01\x02")
    return content[: start + 8] + bytes([content[start + 8] | flag]) + content[start + 9 :]


def test_an_encrypted_member_is_refused(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    content = with_flag(make_zip(tmp_path / "made.zip", recordings("01")), 0x1)
    with pytest.raises(DownloadError, match="encrypted"):
        fetch(offer(server, SPEECH, content))


def test_an_archive_that_would_fill_the_disk_is_refused(
    speech: Archive, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_MAX_UNPACKED_BYTES", 100)
    with pytest.raises(DownloadError, match="at most 100 bytes, found 132"):
        fetch(speech)
    assert tree(tmp_path / "audio") == {}


def test_a_member_that_lies_about_its_content(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    content = make_zip(tmp_path / "made.zip", recordings("01"))
    first = next(iter(recordings("01").values()))
    with pytest.raises(DownloadError, match=r"sound zip archive.*CRC"):
        fetch(offer(server, SPEECH, content.replace(first, bytes(len(first)))))
    assert not list((tmp_path / "audio").rglob("*.unpacking"))


def test_the_right_checksum_of_no_zip_archive(server: Server, fetch: Fetch) -> None:
    with pytest.raises(DownloadError, match=f"{SPEECH}: expected a sound zip archive"):
        fetch(offer(server, SPEECH, b"no zip"))


def test_what_macos_adds_is_skipped(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    members = recordings("01") | {
        "Actor_01/": b"",
        "__MACOSX/": b"",
        "__MACOSX/Actor_01/._03-01-05-01-01-01-01.wav": b"x",
        ".DS_Store": b"x",
        "Actor_01/.DS_Store": b"x",
        "Actor_01/._03-01-05-01-01-01-01.wav": b"x",
    }
    assert fetch(offer(server, SPEECH, make_zip(tmp_path / "made.zip", members))).n_recordings == 3
    assert tree(tmp_path / "audio") == recordings("01")


@pytest.mark.parametrize(("expected", "found"), [(4, 3), (2, 3)])
def test_another_number_of_recordings(server: Server, fetch: Fetch, tmp_path: Path, expected: int, found: int) -> None:
    content = make_zip(tmp_path / "made.zip", recordings("01"))
    with pytest.raises(DownloadError, match=f"expected {expected} recordings, found {found}"):
        fetch(offer(server, SPEECH, content, n_recordings=expected))
    assert tree(tmp_path / "audio") == {}


def test_no_recordings_at_all(server: Server, fetch: Fetch, tmp_path: Path) -> None:
    content = make_zip(tmp_path / "made.zip", {"Actor_01/": b""})
    with pytest.raises(DownloadError, match="expected some recordings, found 0"):
        fetch(offer(server, SPEECH, content, n_recordings=0))


# ----------------------------------------------------------------------------------------- weights of speech encoders


@pytest.fixture
def checkpoint(server: Server) -> Checkpoint:
    """A checkpoint that the server has: 900 kB of weights."""
    config, weights = b'{"model_type": "whisper"}', random.Random(0).randbytes(900_000)
    server.files |= {"config.json": config, "model.safetensors": weights}
    blob = hashlib.sha1(b"blob 25\0" + config).hexdigest()
    return Checkpoint("main", blob, hashlib.sha256(weights).hexdigest())


@pytest.fixture
def fetch_checkpoint(server: Server, checkpoint: Checkpoint, tmp_path: Path) -> Fetch:
    def call(**options: object) -> DownloadSummary:
        given = {"url": server.address, "checkpoint": checkpoint, **options}
        return download_checkpoint("whisper-base", tmp_path / "whisper-base", **given)

    return call


def test_every_checkpoint_has_a_fixed_revision_and_both_checksums() -> None:
    for checkpoint in CHECKPOINTS.values():
        assert re.fullmatch("[0-9a-f]{40}", checkpoint.revision)
        assert re.fullmatch("[0-9a-f]{40}", checkpoint.config)
        assert re.fullmatch("[0-9a-f]{64}", checkpoint.weights)
    assert len({field for checkpoint in CHECKPOINTS.values() for field in vars(checkpoint).values()}) == 30


def test_weights_and_configuration_are_fetched_once(server: Server, fetch_checkpoint: Fetch, tmp_path: Path) -> None:
    folder = tmp_path / "whisper-base"
    both = ("config.json", "model.safetensors")
    assert fetch_checkpoint() == DownloadSummary(out=folder, n_recordings=0, fetched=both, already_here=())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == server.files
    assert fetch_checkpoint() == DownloadSummary(folder, 0, (), both)
    assert len(server.requests) == 2


def test_a_broken_transfer_of_weights_goes_on(server: Server, fetch_checkpoint: Fetch, tmp_path: Path) -> None:
    server.stop_after = [10_000, 400_000]  # the configuration comes whole
    fetch_checkpoint()
    assert server.asked_ranges() == [f"bytes={400_000 // 65_536 * 65_536}-"] or len(server.asked_ranges()) == 1
    assert (tmp_path / "whisper-base" / "model.safetensors").read_bytes() == server.files["model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_another_file_on_the_server_is_refused_and_removed(
    server: Server, fetch_checkpoint: Fetch, tmp_path: Path, name: str
) -> None:
    right = server.files[name]
    server.files[name] = b"x" + right[1:]
    with pytest.raises(DownloadError, match=rf"{name}: expected (git|sha256) [0-9a-f]+, found [0-9a-f]+; the file was"):
        fetch_checkpoint()
    assert not (tmp_path / "whisper-base" / name).exists()
    server.files[name] = right
    assert name in fetch_checkpoint().fetched


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_of_before_is_fetched_again(fetch_checkpoint: Fetch, tmp_path: Path, name: str) -> None:
    (tmp_path / "whisper-base").mkdir()
    (tmp_path / "whisper-base" / name).write_bytes(b"damaged")
    assert name in fetch_checkpoint().fetched


def test_a_file_that_is_missing_on_the_server_is_named(server: Server, fetch_checkpoint: Fetch) -> None:
    del server.files["model.safetensors"]
    with pytest.raises(DownloadError, match=r"model\.safetensors: expected the file, .* answered 404 .*--url"):
        fetch_checkpoint()


def test_an_unknown_checkpoint_or_address_is_refused(fetch_checkpoint: Fetch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"whisper-basee: no such checkpoint; .*; did you mean whisper-base\?"):
        download_checkpoint("whisper-basee", tmp_path / "out")
    with pytest.raises(UsageError, match="--url ftp://x: expected an address"):
        fetch_checkpoint(url="ftp://x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_fetches_from_the_fixed_revision(
    server: Server, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_batch.download.HUGGING_FACE", server.address)
    monkeypatch.setitem(CHECKPOINTS, "whisper-base", checkpoint)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["download", "whisper-base", "--quiet"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert sorted(path.name for path in Path("whisper-base").iterdir()) == ["config.json", "model.safetensors"]
