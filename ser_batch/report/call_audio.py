"""The sound of a page of calls: links to the recordings, or excerpts beside the page."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl

from ser_batch.config.option_values import RawFormat, ReaderSettings
from ser_batch.config.options import Playback
from ser_batch.errors import RecordingError, printable
from ser_batch.storage.atomic import atomic_path, make_folder, remove_temporaries
from ser_batch.storage.paths import is_remote

# what both Chromium and Firefox play, where the codec is one of the usual ones
PLAYABLE = (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm")
MAX_CLIPS = 200
CLIP_S, BEFORE_S = 20.0, 3.0
CLIP_RATE = 16_000  # Hz
_UNDECODABLE = re.compile(rb"\\x([0-9a-f]{2})")
_CLIP_NAME = re.compile(r"[0-9a-f]{16}\.ogg")


@dataclasses.dataclass(frozen=True)
class CallAudio:
    """Where a page finds the sound of its calls."""

    base: str | None  # address of the root, which paths are put behind; None where there is nothing to play
    why: str = ""  # there is nothing to play
    # addresses of names that are not UTF-8, by path
    addresses: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # by path and channel: name and start of the excerpt, or why there is none; None: whole recordings are played
    clips: Mapping[tuple[str, int], tuple[str, float] | str] | None = None

    def address(self, path: str, channel: int, listen_at_s: float | None) -> str | None:
        """Return what a link plays; None where nothing can be played."""
        if self.base is None:
            return None
        if self.clips is not None:
            clip = self.clips.get((path, channel))
            return self.base + clip[0] if isinstance(clip, tuple) else None
        if not path.lower().endswith(PLAYABLE):
            return None
        return (self.addresses.get(path) or self.base + quote(path)) + f"#t={listen_at_s or 0:.1f}"


def clips_folder(page: Path) -> Path:
    """Return where the excerpts of a page lie: preds.audio beside preds.report.html."""
    return page.with_name(page.name.removesuffix(".html").removesuffix(".report") + ".audio")


def call_audio(calls: pl.DataFrame, settings: Mapping[str, Any], page: Path, playback: Playback) -> CallAudio:
    """Return the sound of `calls`, highest priority first; write excerpts where they are asked for."""
    why = _nothing_to_play(settings, page, playback)
    if why:
        return CallAudio(None, why)
    root = _existing(b"/", settings["root"].lstrip("/"))
    if playback == "clips":
        return _excerpts(calls, root, settings, page)
    folder = os.fsencode(page.absolute().parent)
    base = quote(os.path.relpath(root, folder)) + "/"
    odd = [path for path in calls["path"].unique().to_list() if "\\x" in path]
    relative = functools.partial(os.path.relpath, start=folder)
    return CallAudio(base, addresses={path: quote(relative(_existing(root, path))) for path in odd})


def _nothing_to_play(settings: Mapping[str, Any], page: Path, playback: Playback) -> str:
    """Return why a page cannot play anything; empty where it can."""
    if playback == "none":
        return "This page was made without audio (--playback none)."
    if "root" not in settings:
        return "No audio: the folder with the settings of the run (.parts) is not beside the table."
    root: str = settings["root"]
    if "://" in root:
        return f"No audio: the recordings are in an object store, {printable(root)}."
    if not os.path.isdir(_existing(b"/", root.lstrip("/"))):  # noqa: PTH112 - pathlib knows no bytes
        return f"No audio: {printable(root)} is not there any more."
    if is_remote(page) and playback == "link":
        return "No audio: this page is in an object store; --playback clips puts excerpts beside it."
    return ""


def _existing(root: bytes, path: str) -> bytes:
    r"""Return the file of a name in the tables, which writes bytes that are not UTF-8 as ``\xNN``."""
    file = os.path.join(root, path.encode())  # noqa: PTH118 - pathlib knows no bytes
    if b"\\x" not in file or os.path.exists(file):  # noqa: PTH110 - as above
        return file
    return os.path.join(root, _UNDECODABLE.sub(lambda found: bytes.fromhex(found[1].decode()), path.encode()))  # noqa: PTH118 - as above


def _excerpts(calls: pl.DataFrame, root: bytes, settings: Mapping[str, Any], page: Path) -> CallAudio:
    """Write an excerpt of each call that has a priority; remove those that the page no longer plays."""
    folder = clips_folder(page)
    make_folder(folder)
    remove_temporaries(folder)
    raw_format = settings.get("raw_format")
    reading = ReaderSettings(RawFormat.parse(raw_format) if raw_format else None)
    clips: dict[tuple[str, int], tuple[str, float] | str] = {}
    for row in _listened(calls):
        start_s = max(0.0, row["listen_at_s"] - BEFORE_S)
        key = f"{row['content_hash']} {row['channel']} {start_s:.2f}"
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.ogg"
        try:
            if not (folder / name).is_file():
                write_clip(_existing(root, row["path"]), row["path"], row["channel"], start_s, folder / name, reading)
        except RecordingError as error:
            clips[row["path"], row["channel"]] = str(error)
        else:
            clips[row["path"], row["channel"]] = (name, round(start_s, 2))
    names = {clip[0] for clip in clips.values() if isinstance(clip, tuple)}
    for file in list(folder.glob("*.ogg")):  # a store has no empty folder
        if _CLIP_NAME.fullmatch(file.name) and file.name not in names:
            file.unlink()
    return CallAudio(f"{quote(folder.name)}/", clips=clips)


def _listened(calls: pl.DataFrame) -> Iterable[dict[str, Any]]:
    rows = calls.drop_nulls(["priority", "listen_at_s"]).head(MAX_CLIPS)
    return rows.select("path", "channel", "content_hash", "listen_at_s").iter_rows(named=True)


def write_clip(
    file: bytes, path: str, channel: int, start_s: float, out: Path, settings: ReaderSettings | None = None
) -> None:
    """Write the 20 s of a recording from `start_s` as Ogg Opus: of more than two channels the one of the call."""
    import soundfile  # a tenth of a second with these, which pages that link to recordings need not wait for

    from ser_batch.audio.reader import AudioReader
    from ser_batch.audio.recording_file import RecordingFile
    from ser_batch.audio.resampling import Resampler, channel_samples

    pieces = []
    with RecordingFile(file, path) as opened, AudioReader(opened, settings) as reader:
        rate, n_channels = reader.sound.sampling_rate, reader.sound.n_channels
        first, last, at = round(start_s * rate), round((start_s + CLIP_S) * rate), 0
        for block in reader.blocks():
            pieces.append(block[max(0, first - at) : max(0, last - at)].copy())
            at += len(block)
            if at >= last:
                break
    samples = np.concatenate(pieces)
    if not len(samples):
        raise RecordingError("decode", f"{printable(path)}: ends before {start_s:.1f} s, where the call is to be heard")
    chosen = range(n_channels) if n_channels <= 2 else (channel,)
    resampled = [Resampler(rate, CLIP_RATE).feed(channel_samples(samples, number), last=True) for number in chosen]
    with atomic_path(out) as temporary:
        soundfile.write(temporary, np.column_stack(resampled), CLIP_RATE, format="OGG", subtype="OPUS")
