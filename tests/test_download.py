"""Against a real server on 127.0.0.1, with small archives laid out as the official ones."""

import contextlib
import hashlib
import logging
import random
import re
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging.handlers import BufferingHandler
from pathlib import Path
from threading import Thread

import pooch
import pytest
import requests
from click.testing import CliRunner

from ser_batch import download
from ser_batch.cli.commands import cli
from ser_batch.corpus.known_corpora import SOURCES
from ser_batch.download import (
    CHECKPOINTS,
    RELEASES,
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
    says_length: bool = True
    stop_after: list[int] = field(default_factory=list)  # bytes of the next answers, then the connection closes
    always_stop_after: int | None = None
    statuses: list[int] = field(default_factory=list)  # of the next answers
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # name, Range header
    bytes_sent: int = 0

    def asked_ranges(self):
        return [asked for _, asked in self.requests if asked is not None]


@pytest.fixture
def server(monkeypatch):
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

        def do_GET(self):
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
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
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
def waits(monkeypatch):
    """Wait for nothing, and remember for how long it would have been."""
    waited: list[float] = []
    monkeypatch.setattr(download, "_sleep", waited.append)
    return waited


def recordings(vocal_channel, n_bytes=40):
    draw = random.Random(vocal_channel)
    return {
        f"Actor_{actor}/03-{vocal_channel}-05-01-01-01-{actor}.wav": b"RIFF" + draw.randbytes(n_bytes)
        for actor in ("01", "02", "03")
    }


@pytest.fixture
def offer(server, tmp_path):
    """Put an archive on the server, of the members given; return its bytes."""

    def put(members, name=SPEECH):
        path = tmp_path / "made.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        server.files[name] = path.read_bytes()
        path.unlink()
        return server.files[name]

    return put


@pytest.fixture
def large(offer):
    """Several chunks, yet too little for a broken connection to count as a success: 900 kB."""
    return offer(recordings("01", n_bytes=300_000))


@pytest.fixture
def archives(tmp_path):
    """The folder that archives are kept in."""
    folder = tmp_path / "audio" / ".archives"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch all archives that the server has now, with the checksums that they have now."""

    def call(*, md5=None, **options):
        checksums = {name: md5 or hashlib.md5(content).hexdigest() for name, content in server.files.items()}
        return download_corpus(tmp_path / "audio", release=Release(url=server.address, archives=checksums), **options)

    return call


def tree(folder):
    """Return what a walk sees: all but the archives."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".archives" not in path.parts
    }


def test_every_release_is_of_a_known_corpus_with_checksums():
    for name, release in RELEASES.items():
        assert find_release(name) is release
        assert release.url == f"{SOURCES[name].page}/files"
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in release.archives.values())


@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(RELEASES)))
def test_a_known_corpus_without_an_archive_says_where_to_get_it(name):
    with pytest.raises(UsageError) as refused:
        find_release(name)
    source = SOURCES[name]
    assert f"from {source.page} ({source.access}). License: {source.terms}" in str(refused.value)


def test_an_unknown_corpus_gets_a_hint():
    with pytest.raises(UsageError, match=r"subsco: no such corpus; .*ravdess.*did you mean subesco"):
        find_release("subsco")


def test_archives_are_unpacked_into_one_folder(server, offer, fetch, tmp_path):
    offer(recordings("01"))
    offer(recordings("02"), SONG)
    seen = []
    summary = fetch(report=lambda *progress: seen.append(progress))
    audio = tmp_path / "audio"
    assert summary == DownloadSummary(out=audio, n_recordings=6, fetched=(SPEECH, SONG), already_here=())
    assert tree(audio) == recordings("01") | recordings("02")
    assert seen[0] == (SPEECH, 0, len(server.files[SPEECH]))
    assert seen[-1] == (SONG, len(server.files[SONG]), len(server.files[SONG]))
    assert {path.name for path in (audio / ".archives").iterdir()} == {SPEECH, SONG}


def test_only_recordings_and_tables_are_unpacked(offer, fetch, tmp_path):
    wanted = recordings("01") | {"corpus/samples.csv": b"file_name\n", "SUBESCO/F_02_MONIKA_S_2_3].WAV": b"RIFF"}
    others = (
        *("Actor_01/", "__MACOSX/", "__MACOSX/Actor_01/._03-01-05-01-01-01-01.wav", ".DS_Store", "Actor_01/.DS_Store"),
        *("Actor_01/._03-01-05-01-01-01-01.wav", "corpus/LICENSE.txt", "corpus/split.json"),
    )
    offer(wanted | dict.fromkeys(others, b""))
    assert fetch().n_recordings == 4
    assert tree(tmp_path / "audio") == wanted


def test_pooch_is_quiet_and_speaks_again_afterwards(large, fetch):
    logger = pooch.get_logger()
    level = logger.level
    listener = BufferingHandler(capacity=100)
    logger.addHandler(listener)
    try:
        fetch()
        assert listener.buffer == []
        assert logger.level == level < logging.ERROR
    finally:
        logger.removeHandler(listener)


def test_the_second_call_does_nothing(server, large, fetch, tmp_path):
    fetch()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "audio").rglob("*.wav")}
    assert fetch() == DownloadSummary(out=tmp_path / "audio", n_recordings=3, fetched=(), already_here=(SPEECH,))
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("damaged", [False, True])
def test_an_archive_in_the_folder_is_used_where_its_checksum_is_right(server, large, fetch, archives, damaged):
    (archives / SPEECH).write_bytes(b"damaged" if damaged else large)
    assert fetch().already_here == (() if damaged else (SPEECH,))
    assert tree(archives.parent) == recordings("01", n_bytes=300_000)
    assert len(server.requests) == damaged


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"RI")], ids=["deleted", "cut"])
def test_a_lost_recording_is_restored_without_the_network(server, large, fetch, tmp_path, damage):
    fetch()
    damage(next((tmp_path / "audio").rglob("*.wav")))
    assert fetch().already_here == (SPEECH,)
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=300_000)
    assert len(server.requests) == 1


def test_an_interrupted_unpacking_leaves_nothing_half(large, fetch, tmp_path, monkeypatch):
    def interrupt(_source, target):
        target.write(b"RIFF")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert tree(tmp_path / "audio") == {}
    fetch()
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=300_000)
    assert [path.name for path in (tmp_path / "audio" / ".archives").iterdir()] == [SPEECH]


def test_another_version_of_the_archive_replaces_the_recordings(offer, fetch, tmp_path):
    for n_bytes in (40, 50):
        offer(recordings("01", n_bytes=n_bytes))
        assert fetch().fetched == (SPEECH,)
        assert tree(tmp_path / "audio") == recordings("01", n_bytes=n_bytes)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_continues_where_the_server_knows_ranges(server, large, fetch, tmp_path, waits, ranges):
    server.ranges = ranges
    server.stop_after = [400_000, 300_000]
    fetch()
    assert tree(tmp_path / "audio") == recordings("01", n_bytes=300_000)
    assert len(server.asked_ranges()) == 2
    assert (server.bytes_sent < 1.3 * len(large)) == ranges
    assert waits == [1, 2]


def test_a_transfer_continues_where_a_closed_connection_passes_for_the_end(server, large, fetch, monkeypatch, waits):
    iter_content = requests.Response.iter_content

    def as_of_old(response, size):  # urllib3 before 2.0
        with contextlib.suppress(requests.RequestException):
            yield from iter_content(response, size)

    monkeypatch.setattr(requests.Response, "iter_content", as_of_old)
    server.stop_after = [400_000]
    assert fetch().n_recordings == 3
    assert (len(server.asked_ranges()), waits) == (1, [1])


def test_what_was_kept_by_an_earlier_call_is_used(server, large, fetch, tmp_path):
    def interrupt(_name, bytes_done, _bytes_total):
        if bytes_done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(report=interrupt)
    n_bytes = (tmp_path / "audio" / ".archives" / f"{SPEECH}.part").stat().st_size
    assert n_bytes > 500_000
    seen = []
    fetch(report=lambda _name, *bytes_done_and_total: seen.append(bytes_done_and_total))
    assert server.asked_ranges() == [f"bytes={n_bytes}-"]
    assert seen[0] == (n_bytes, len(large))


def test_a_part_that_is_the_whole_file_is_not_fetched_again(server, large, fetch, archives):
    (archives / f"{SPEECH}.part").write_bytes(large)
    fetch()
    assert (len(server.requests), server.bytes_sent) == (1, 0)


@pytest.mark.parametrize("n_bytes", [20, 2_000_000])
def test_a_part_of_something_else_is_removed(server, large, fetch, archives, n_bytes):
    (archives / f"{SPEECH}.part").write_bytes(b"x" * n_bytes)
    with pytest.raises(DownloadError, match="Run the same command again"):
        fetch()
    fetch()
    assert tree(archives.parent) == recordings("01", n_bytes=300_000)
    assert server.requests == [(SPEECH, f"bytes={n_bytes}-"), (SPEECH, None)]


def test_a_server_that_does_not_say_the_length(server, large, fetch):
    server.says_length = False
    totals = set()
    fetch(report=lambda _name, _bytes_done, bytes_total: totals.add(bytes_total))
    assert totals == {0}


def test_a_busy_server_is_asked_again(server, large, fetch, waits):
    server.statuses = [503, 429]
    fetch()
    assert len(server.requests) == 3
    assert waits == [1, 2]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_always_breaks_is_given_up_and_kept(server, large, fetch, tmp_path, waits, ranges):
    server.ranges = ranges
    server.always_stop_after = 100_000
    with pytest.raises(DownloadError) as caught:
        fetch()
    n_bytes = (tmp_path / "audio" / ".archives" / f"{SPEECH}.part").stat().st_size
    assert f"{n_bytes} bytes are kept; run the same command to continue" in str(caught.value)
    assert n_bytes > (200_000 if ranges else 0)
    assert len(server.requests) == 6
    assert waits == [1, 2, 4, 8, 16]
    server.always_stop_after = None
    assert fetch().n_recordings == 3


def test_a_connection_that_brings_much_is_no_failure(server, offer, fetch, waits):
    offer(recordings("01", n_bytes=3_000_000))
    server.always_stop_after = 1_200_000
    fetch()
    assert waits == [1] * 7


def test_the_same_bytes_again_are_no_progress(server, offer, fetch):
    offer(recordings("01", n_bytes=1_000_000))
    server.ranges = False
    server.always_stop_after = 1_200_000
    with pytest.raises(DownloadError, match="broke off"):
        fetch()
    assert len(server.requests) == 6


def test_wrong_content_is_removed(server, fetch, archives):
    (archives / SPEECH).write_bytes(b"damaged before")
    server.files[SPEECH] = b"an error page"
    with pytest.raises(DownloadError) as caught:
        fetch(md5="0" * 32)
    for part_of_message in (SPEECH, "0" * 32, hashlib.md5(b"an error page").hexdigest(), "--url"):
        assert part_of_message in str(caught.value)
    assert len(server.requests) == 1
    assert not any(archives.iterdir())


@pytest.mark.parametrize("status", [403, 404, 416])
def test_an_answer_that_stays_is_no_reason_to_wait(server, large, fetch, waits, status):
    server.statuses = [status]
    with pytest.raises(DownloadError, match=rf"{SPEECH}: expected the file, .* answered {status} .*--url"):
        fetch()
    assert len(server.requests) == 1
    assert waits == []


def test_no_server(tmp_path, monkeypatch, waits):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/Audio_Speech.*no connection.*--url"):
        download_corpus(tmp_path, release=RELEASES["ravdess"], url="http://127.0.0.1:1/")
    assert waits == []


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc", "zenodo.org", "", "http://", "https:///x"])
def test_only_addresses_on_the_web(tmp_path, url):
    with pytest.raises(UsageError, match="http://"):
        download_corpus(tmp_path / "audio", release=RELEASES["ravdess"], url=url)
    assert not (tmp_path / "audio").exists()


def test_a_folder_that_cannot_be_written(tmp_path, large, fetch):
    (tmp_path / "audio").write_text("a file")
    with pytest.raises(OutputError, match="--out"):
        fetch()


# ----------------------------------------------------------------------------------------- weights of speech encoders


@pytest.fixture
def checkpoint(server):
    """A checkpoint that the server has: 900 kB of weights."""
    config, weights = b'{"model_type": "whisper"}', random.Random(0).randbytes(900_000)
    server.files |= {"config.json": config, "model.safetensors": weights}
    blob = hashlib.sha1(b"blob 25\0" + config).hexdigest()
    return Checkpoint("main", blob, hashlib.sha256(weights).hexdigest())


@pytest.fixture
def fetch_checkpoint(server, checkpoint, tmp_path):
    def call(**options):
        given = {"url": server.address, "checkpoint": checkpoint, **options}
        return download_checkpoint("whisper-base", tmp_path / "whisper-base", **given)

    return call


def test_every_checkpoint_has_a_fixed_revision_and_both_checksums():
    for checkpoint in CHECKPOINTS.values():
        assert re.fullmatch("[0-9a-f]{40}", checkpoint.revision)
        assert re.fullmatch("[0-9a-f]{40}", checkpoint.config)
        assert re.fullmatch("[0-9a-f]{64}", checkpoint.weights)
    assert len({field for checkpoint in CHECKPOINTS.values() for field in vars(checkpoint).values()}) == 30


def test_weights_and_configuration_are_fetched_once(server, fetch_checkpoint, tmp_path):
    folder = tmp_path / "whisper-base"
    both = ("config.json", "model.safetensors")
    assert fetch_checkpoint() == DownloadSummary(out=folder, n_recordings=0, fetched=both, already_here=())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == server.files
    assert fetch_checkpoint() == DownloadSummary(out=folder, n_recordings=0, fetched=(), already_here=both)
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_another_file_on_the_server_is_refused_and_removed(server, fetch_checkpoint, tmp_path, name):
    right = server.files[name]
    server.files[name] = b"x" + right[1:]
    with pytest.raises(DownloadError, match=rf"{name}: .*expected [0-9a-z:]+ but got [0-9a-f]+.*removed"):
        fetch_checkpoint()
    assert not (tmp_path / "whisper-base" / name).exists()
    server.files[name] = right
    assert name in fetch_checkpoint().fetched


def test_an_unknown_checkpoint_or_address_is_refused(fetch_checkpoint, tmp_path):
    with pytest.raises(UsageError, match=r"whisper-basee: no such checkpoint; .*; did you mean whisper-base\?"):
        download_checkpoint("whisper-basee", tmp_path / "out")
    with pytest.raises(UsageError, match="--url ftp://x: expected an address"):
        fetch_checkpoint(url="ftp://x")
    assert list(tmp_path.iterdir()) == []


def test_the_command_fetches_from_the_fixed_revision(server, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("ser_batch.download.HUGGING_FACE", server.address)
    monkeypatch.setitem(CHECKPOINTS, "whisper-base", checkpoint)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["download", "whisper-base", "--quiet"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert sorted(path.name for path in Path("whisper-base").iterdir()) == ["config.json", "model.safetensors"]
