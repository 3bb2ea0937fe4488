"""A recording of any format as a stream of blocks."""

from collections.abc import Iterator

import soundfile

from ser_batch.audio.headers import (
    begins_as_gsm,
    is_common_container,
    is_container,
    is_gsm,
    is_only_like_mp3,
    may_be_headerless,
)
from ser_batch.audio.libsndfile import SoundfileSource
from ser_batch.audio.recording_file import RecordingFile
from ser_batch.audio.sound import REMEDY, Samples, Sound, Source, refusal, too_long
from ser_batch.config.option_values import (
    EXAMPLE_RAW_FORMAT,
    MAX_CHANNELS,
    MAX_SAMPLING_RATE,
    MIN_SAMPLING_RATE,
    RawFormat,
    ReaderSettings,
)

# the rate of GSM 6.10 is always this
_GSM = RawFormat(encoding="gsm", sampling_rate=8000, n_channels=1)
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
        self._source = self._open(settings.raw_format)
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

    def _open(self, raw_format: RawFormat | None) -> Source:
        """Open by content: libsndfile first, then FFmpeg, and what has no header by what was said of it."""
        try:
            if not self._file.size:
                raise refusal(self._path, "open", "it is empty (0 bytes)")
            try:
                if may_be_headerless(self._file.name) and is_only_like_mp3(self._file.stream):
                    raise soundfile.SoundFileRuntimeError("Format not recognised")
                return SoundfileSource(self._file, max_duration_s=self._max_duration_s)
            except soundfile.SoundFileError as error:
                return self._open_other(raw_format, error)
        except OSError as error:
            raise refusal(self._path, "open", f"it cannot be read ({error.strerror})") from error

    def _open_other(self, raw_format: RawFormat | None, error: soundfile.SoundFileError) -> Source:
        name, stream = self._file.name, self._file.stream
        reason = _said(error).rstrip(".") or "unknown format"
        for_av = is_container(stream)
        if for_av or is_common_container(stream):
            return self._open_container(None if for_av else reason)
        if is_gsm(stream, name):
            return self._open_headerless(_GSM)
        if raw_format and may_be_headerless(name):
            return self._open_headerless(raw_format)
        remedy = REMEDY
        if may_be_headerless(name) and not name.lower().endswith(b".gsm"):
            remedy = (
                f"if it has no header, say what it holds with --raw-format, such as {EXAMPLE_RAW_FORMAT}, or remove it"
            )
        raise refusal(self._path, "open", f"it cannot be read as audio ({reason})", remedy) from error

    def _open_container(self, reason: str | None) -> Source:
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
        return AvSource(self._file, reason, max_duration_s=self._max_duration_s)

    def _open_headerless(self, raw_format: RawFormat) -> Source:
        if raw_format.encoding == "gsm" and not begins_as_gsm(self._file.stream):
            raise refusal(
                self._path,
                "open",
                f"it is no GSM 6.10, as --raw-format {raw_format} says",
                "correct that, or remove it",
            )
        try:
            return SoundfileSource(self._file, raw_format, max_duration_s=self._max_duration_s)
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


def _said(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error))
