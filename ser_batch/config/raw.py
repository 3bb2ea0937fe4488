"""What files without a header hold: the user has to say it."""

import dataclasses
import re
from typing import Self

from ser_batch.errors import UsageError, did_you_mean

# outside of these no speech is to be found, and a resampler would be asked for absurd ratios
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 1000, 768_000
MAX_CHANNELS = 64
RAW_ENCODINGS = ("mulaw", "alaw", "gsm", "vox", "s16le", "s16be", "u8")
# their decoders hold the state of one channel
MONO_ENCODINGS = frozenset({"gsm", "vox"})
EXAMPLE_RAW_FORMAT = "mulaw:8000:1"
_NUMBER = re.compile("[0-9]{1,9}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFormat:
    """How to read files that have no header.

    Parameters
    ----------
    encoding
        ``mulaw`` and ``alaw`` (G.711), ``gsm`` (GSM 6.10), ``vox`` (Dialogic ADPCM), ``s16le`` and ``s16be`` (16-bit
        PCM, little and big end first), ``u8`` (8-bit PCM without sign).
    sampling_rate
        In Hz, 1000 to 768000.
    n_channels
        Interleaved channels, 1 to 64; gsm and vox have one.
    """

    encoding: str
    sampling_rate: int
    n_channels: int

    def __post_init__(self) -> None:
        """Refuse what no file can be read by."""
        if self.encoding not in RAW_ENCODINGS:
            hint = did_you_mean(self.encoding, RAW_ENCODINGS)
            raise UsageError(
                f"--raw-format: encoding {self.encoding!r}; expected one of {', '.join(RAW_ENCODINGS)}{hint}"
            )
        if not MIN_SAMPLING_RATE <= self.sampling_rate <= MAX_SAMPLING_RATE:
            raise UsageError(
                f"--raw-format: {self.sampling_rate} Hz; expected a rate from {MIN_SAMPLING_RATE} to "
                f"{MAX_SAMPLING_RATE}, such as {EXAMPLE_RAW_FORMAT}"
            )
        most = 1 if self.encoding in MONO_ENCODINGS else MAX_CHANNELS
        if not 1 <= self.n_channels <= most:
            raise UsageError(
                f"--raw-format: {self.n_channels} channels of {self.encoding}; expected "
                + ("1" if most == 1 else f"1 to {most}")
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``ENCODING:RATE:CHANNELS``.

        Raises
        ------
        UsageError
            It has other parts, or an impossible one.
        """
        encoding, *numbers = (part.strip() for part in text.split(":"))
        if len(numbers) != 2 or not all(_NUMBER.fullmatch(number) for number in numbers):
            raise UsageError(f"--raw-format {text!r}; expected ENCODING:RATE:CHANNELS, such as {EXAMPLE_RAW_FORMAT}")
        return cls(encoding=encoding, sampling_rate=int(numbers[0]), n_channels=int(numbers[1]))

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.encoding}:{self.sampling_rate}:{self.n_channels}"
