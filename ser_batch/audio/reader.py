"""A recording of any format as a stream of blocks."""

import contextlib
from collections.abc import Iterator

import soundfile

from ser_batch.audio.headers import (
    begins_as_gsm,
    is_common_container,
    is_container,
    is_gsm,
    is_only_like_mp3,
    layout_of,
    may_be_headerless,
    no_audio,
)
from ser_batch.audio.layout import Layout
from ser_batch.audio.libsndfile import SoundfileSource
from ser_batch.audio.recording_file import RecordingFile
from ser_batch.audio.sound import REMEDY, Joined, Samples, Sound, Source, refusal, too_long
from ser_batch.config.option_values import (
    EXAMPLE_RAW_FORMAT,
    MAX_CHANNELS,
    MAX_SAMPLING_RATE,
    MIN_SAMPLING_RATE,
    RawFormat,
    ReaderSettings,
)
from ser_batch.errors import RecordingError

# the rate of GSM 6.10 is always this
_GSM = RawFormat(encoding="gsm", sampling_rate=8000, n_channels=1)
# of each stream, what decoders take off for the delay of encoders
_LOST_S = 0.25
_INSTALL = 'pip install "ser-batch[av]"'


class AudioReader:
    """A recording being decoded, in blocks; a context manager.

    Parameters
    ----------
    file
        To decode. What it is is read from its content, not its name.
    settings
        The raw format counts where the name says that it may have no header and the content tells nothing. Recordings
        that are too long are refused by their header, or as soon as so much was decoded.

    Raises
    ------
    RecordingError
        Stage ``open``: it is not audio, empty, cut off, of an impossible rate, or too long. Stage ``decode``: it has to
        be decoded to learn its length, and is broken.
    """

    def __init__(self, file: RecordingFile, settings: ReaderSettings | None = None) -> None:
        settings = settings or ReaderSettings()
        self._file, self._path, self._max_duration_s = file, file.path, settings.max_duration_s
        self._source = self._opened(settings.raw_format)
        try:
            self.sound = self._source.sound
            self._check(self.sound)
        except BaseException:
            self._source.close()
            raise
        self.n_samples = 0

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.close()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the file's bytes, hex."""
        return self._file.content_hash

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the recording that is read all the same."""
        return tuple(self._file.warnings)

    def blocks(self) -> Iterator[Samples]:
        """Yield the recording in blocks of at most 30 s, shorter ones of many channels or a high rate.

        Each call begins anew; one that is not too long is decoded once for all of them.

        Yields
        ------
        array of float32, shape (samples, channels)
            Full scale is 1.0. `n_samples` counts what has come so far. Not to be written to.

        Raises
        ------
        RecordingError
            Stage ``decode``: broken data, no samples, NaN or infinite samples, fewer than announced, or too many.
        """
        self.n_samples = 0
        for block in self._source.blocks():
            self.n_samples += len(block)
            if self.n_samples > self._max_duration_s * self.sound.sampling_rate:
                seconds = self.n_samples / self.sound.sampling_rate
                raise too_long(self._path, "decode", seconds, self._max_duration_s)
            yield block
        if not self.n_samples:
            raise refusal(self._path, "decode", "it holds no samples")

    def _opened(self, raw_format: RawFormat | None) -> Source:
        """Open all streams of the file, and compare their length with the announced one."""
        try:
            if not self._file.size:
                raise refusal(self._path, "open", "it is empty (0 bytes)")
            layout = layout_of(self._file.stream, self._file.size)
            if layout is None or not layout.streams:
                return self._open(self._file, raw_format)
            if layout.is_cut and layout.held_s is not None:
                raise self._cut(layout, layout.held_s)
            try:
                source = self._joined(layout)
            except RecordingError as error:
                if layout.is_cut:
                    raise refusal(self._path, "open", "it is cut off: its end is missing") from error
                raise
        except OSError as error:
            raise refusal(self._path, "open", f"it cannot be read ({error.strerror})") from error
        try:
            self._compare(layout, source.sound)
        except BaseException:
            source.close()
            raise
        return source

    def _joined(self, layout: Layout) -> Source:
        with contextlib.ExitStack() as opened:
            sources = []
            for pieces in layout.streams:
                sources.append(self._open(self._file.part(pieces), None))
                opened.callback(sources[-1].close)
            source = Joined.of(sources, self._path)
            opened.pop_all()
        return source

    def _compare(self, layout: Layout, sound: Sound) -> None:
        """Refuse a file that lacks sound; warn of one whose headers are wrong."""
        decoded_s = sound.n_samples / sound.sampling_rate
        held_s = decoded_s if layout.held_s is None else layout.held_s
        if layout.is_cut:
            raise self._cut(layout, held_s)
        if decoded_s < held_s - _LOST_S * len(layout.streams):
            lost = f"only {decoded_s:.2f} s of its {held_s:.2f} s can be decoded"
            raise refusal(self._path, "decode", lost)
        if layout.announced is not None and layout.announced != layout.held:
            said, there = _figures(held_s * layout.announced / layout.held, decoded_s)
            self._file.warn(f"its header announces {said} s; all {there} s that it holds were read")
        if len(layout.streams) > 1:
            self._file.warn(f"it holds {len(layout.streams)} recordings one after the other; all were read")
        if layout.remark:
            self._file.warn(f"it {layout.remark}")

    def _cut(self, layout: Layout, held_s: float) -> RecordingError:
        if layout.remark:
            return refusal(self._path, "open", f"it {layout.remark}")
        if layout.announced is None:
            return refusal(self._path, "open", f"it is cut off after {held_s:.2f} s, in the middle of its data")
        if not layout.held:
            return refusal(self._path, "open", "it is cut off: its header announces sound, and it holds none")
        said, there = _figures(held_s * layout.announced / layout.held, held_s)
        return refusal(self._path, "open", f"it is cut off: its header announces {said} s, it holds {there} s")

    def _open(self, file: RecordingFile, raw_format: RawFormat | None) -> Source:
        """Open by content: libsndfile first, then FFmpeg, and what has no header by what was said of it."""
        try:
            if may_be_headerless(file.name) and is_only_like_mp3(file.stream):
                raise soundfile.SoundFileRuntimeError("Format not recognised")
            return SoundfileSource(file, max_duration_s=self._max_duration_s)
        except soundfile.SoundFileError as error:
            return self._open_other(file, raw_format, error)

    def _open_other(self, file: RecordingFile, raw_format: RawFormat | None, error: soundfile.SoundFileError) -> Source:
        name, stream = file.name, file.stream
        reason = _said(error).rstrip(".") or "unknown format"
        for_av = is_container(stream)
        if for_av or is_common_container(stream):
            return self._open_container(file, None if for_av else reason)
        if is_gsm(stream, name):
            return self._open_headerless(file, _GSM)
        if raw_format and may_be_headerless(name):
            return self._open_headerless(file, raw_format)
        if (known := no_audio(stream)) is not None:
            kind, remedy = known
            raise refusal(self._path, "open", f"it is {kind}", remedy) from error
        remedy = REMEDY
        if may_be_headerless(name) and not name.lower().endswith(b".gsm"):
            remedy = (
                f"if it has no header, say what it holds with --raw-format, such as {EXAMPLE_RAW_FORMAT}, or remove it"
            )
        raise refusal(self._path, "open", f"it cannot be read as audio ({reason})", remedy) from error

    def _open_container(self, file: RecordingFile, reason: str | None) -> Source:
        """Open what FFmpeg reads; `reason` is what libsndfile, which reads most of its kind, said against it."""
        try:
            from ser_batch.audio.ffmpeg import AvSource  # loaded where it is needed: FFmpeg is large
        except ImportError as error:
            if reason is None:
                wanted = "it needs the decoders of FFmpeg, which are not installed"
                raise refusal(self._path, "open", wanted, f"{_INSTALL}, or remove the file") from error
            raise refusal(
                self._path, "open", f"it cannot be read as audio ({reason})", f"{_INSTALL} for more encodings, {REMEDY}"
            ) from error
        return AvSource(file, reason, max_duration_s=self._max_duration_s)

    def _open_headerless(self, file: RecordingFile, raw_format: RawFormat) -> Source:
        if raw_format.encoding == "gsm" and not begins_as_gsm(file.stream):
            raise refusal(
                self._path,
                "open",
                f"it is no GSM 6.10, as --raw-format {raw_format} says",
                "correct that, or remove it",
            )
        try:
            return SoundfileSource(file, raw_format, max_duration_s=self._max_duration_s)
        except soundfile.SoundFileError as error:
            raise refusal(self._path, "open", f"it cannot be read as {raw_format} ({_said(error)})") from error

    def _check(self, sound: Sound) -> None:
        if not MIN_SAMPLING_RATE <= sound.sampling_rate <= MAX_SAMPLING_RATE:
            raise refusal(
                self._path,
                "open",
                f"its header says {sound.sampling_rate} Hz; expected {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE}",
            )
        if not 1 <= sound.n_channels <= MAX_CHANNELS:
            raise refusal(self._path, "open", f"it has {sound.n_channels} channels; expected 1 to {MAX_CHANNELS}")
        if sound.n_samples > self._max_duration_s * sound.sampling_rate:
            raise too_long(self._path, "open", sound.n_samples / sound.sampling_rate, self._max_duration_s)


def _figures(one_s: float, other_s: float) -> tuple[str, str]:
    """Return two lengths in seconds, with as many digits as tell them apart."""
    digits = next((n for n in (2, 3) if round(one_s, n) != round(other_s, n)), 5)
    return f"{one_s:.{digits}f}", f"{other_s:.{digits}f}"


def _said(error: soundfile.SoundFileError) -> str:
    said = str(getattr(error, "error_string", error))
    # what libsndfile says of an MP3 in which it finds no frame to begin with
    return "its data are damaged" if said.startswith("File does not exist") else said
