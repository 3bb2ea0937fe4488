"""Values of options: splits, priors, points in time, channel roles, the format of files without a header."""

import dataclasses
import datetime
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

from ser_batch.errors import UsageError, did_you_mean

DEFAULT_PRIORITIZED = "angry"
PROTOCOLS = ("stratified", "speaker", "emobox", "luna", "text", "corpus", "none")


def check_protocol(protocol: str) -> None:
    """Refuse a ``--split`` that is neither a protocol nor a file of folds."""
    is_file = Path(protocol).suffix.lower() in (".csv", ".parquet")
    if protocol in PROTOCOLS or is_file or (speaker_folds(protocol) or 0) >= 2 or held_out_corpora(protocol):
        return
    raise UsageError(
        f"--split {protocol!r}; expected {', '.join(PROTOCOLS)}, speaker:K (2 folds or more, such as speaker:5), "
        "corpus:NAME,... (such as corpus:emodb), or a file that ends in .csv or .parquet"
        + did_you_mean(protocol, PROTOCOLS)
    )


def speaker_folds(protocol: str) -> int | None:
    """Return K of the protocol ``speaker:K``, None of all others."""
    name, _, number = protocol.partition(":")
    return int(number) if name == "speaker" and re.fullmatch("[0-9]{1,9}", number) else None


def held_out_corpora(protocol: str) -> tuple[str, ...]:
    """Return the names of the protocol ``corpus:NAME,...``, none of all others."""
    kind, _, names = protocol.partition(":")
    return tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip())) if kind == "corpus" else ()


def holds_out_corpora(protocol: str) -> bool:
    """Return whether a protocol holds out whole corpora."""
    return protocol == "corpus" or bool(held_out_corpora(protocol))


def parse_channel_roles(text: str) -> dict[int, str]:
    """Return the role by channel number of ``agent,customer``, in channel order, or of ``0=agent,1=customer``."""
    items = [item.strip() for item in text.split(",")]
    if not any("=" in item or item.isdecimal() for item in items):
        items = [f"{number}={role}" for number, role in enumerate(items)]
    roles: dict[int, str] = {}
    for item in items:
        number, equals, role = (part.strip() for part in item.partition("="))
        if not (number.isdecimal() and len(number) < 10 and equals and role):
            raise UsageError(
                f"--channel-roles {text!r}; expected roles in channel order, such as agent,customer, or with their "
                "channels, such as 0=agent,1=customer"
            )
        if int(number) in roles:
            raise UsageError(f"--channel-roles {text!r}; names channel {int(number)} twice, leave one of the two out")
        roles[int(number)] = role
    return roles


_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([mhdw])")


def parse_since(text: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """Return the moment that ``--since`` means, with its time zone."""
    age = _AGE.fullmatch(text.strip())
    try:
        if age:
            seconds = float(age[1]) * _SECONDS[age[2]]
            return (now or datetime.datetime.now().astimezone()) - datetime.timedelta(seconds=seconds)
        moment = datetime.datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.astimezone()
        moment.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"--since {text!r}; expected a date such as 2026-03-01, a time such as 2026-03-01T18:00, or an age such as "
            "90m, 24h, 7d, 2w"
        ) from error
    return moment


# every label is expected as often as the others
BALANCED = "balanced"
# shares that add up to 1 as decimals may not do so as floats
_ROUNDING = 1e-6


def parse_prior(text: str) -> dict[str, float]:
    """Return the shares that ``balanced`` or ``LABEL=SHARE,...`` stands for; empty is balanced."""
    if text.strip() == BALANCED:
        return {}
    prior: dict[str, float] = {}
    for item in text.split(","):
        label, equals, share = (part.strip() for part in item.partition("="))
        if not (label and equals and share):
            raise UsageError(f"--prior {text!r}; expected {BALANCED}, or LABEL=SHARE,... such as neutral=0.35")
        if label in prior:
            raise UsageError(f"--prior {text!r}; names {label} twice, leave one of the two out")
        try:
            prior[label] = float(share)
        except ValueError:
            raise UsageError(f"--prior {text!r}; the share of {label} is {share!r}, expected a number") from None
        if not 0 < prior[label] < 1:
            raise UsageError(f"--prior {text!r}; the share of {label} is {share}, expected more than 0 and less than 1")
    if sum(prior.values()) > 1 + _ROUNDING:
        raise UsageError(f"--prior {text!r}; the shares add up to {sum(prior.values()):g}, expected less than 1")
    return prior


def check_prior(prior: Mapping[str, float], labels: Collection[str]) -> None:
    """Refuse a parsed prior that does not fit the labels of a model."""
    unknown = [label for label in prior if label not in labels]
    if unknown:
        raise UsageError(
            f"--prior {prior_text(prior)}: the model has no label {unknown[0]}; expected some of "
            f"{', '.join(labels)}{did_you_mean(unknown[0], labels)}"
        )
    if not are_shares(prior, labels):
        total = sum(prior.values())
        expected = "less than 1" if len(prior) < len(labels) else "1, as all labels of the model are named"
        raise UsageError(f"--prior {prior_text(prior)}: the shares add up to {total:g}; expected {expected}")


def check_prioritized(text: str, labels: Collection[str]) -> None:
    """Refuse labels to look for that a model does not have; only the default may be missing from own labels."""
    for label in text.split(","):
        if label not in labels and text != DEFAULT_PRIORITIZED:
            raise UsageError(
                f"--prioritize {text}: the model has no label {label!r}; expected some of {', '.join(labels)}"
                + did_you_mean(label, labels)
            )


def are_shares(prior: Mapping[str, float], labels: Collection[str]) -> bool:
    """Whether a prior has shares of labels of a model: each in (0, 1), together below 1, or 1 if they are all there."""
    total = sum(prior.values())
    is_whole = abs(total - 1) <= _ROUNDING
    return (
        all(label in labels and 0 < share < 1 for label, share in prior.items())
        and (is_whole if len(prior) == len(labels) else total < 1 and not is_whole)
    ) or not prior


def prior_text(prior: Mapping[str, float]) -> str:
    """Return a prior as `parse_prior` reads it, labels in order."""
    return ",".join(f"{label}={share!r}" for label, share in sorted(prior.items())) or BALANCED


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
    """How to read files that have no header."""

    # ``mulaw`` and ``alaw`` (G.711), ``gsm`` (GSM 6.10), ``vox`` (Dialogic ADPCM), ``s16le`` and ``s16be`` (16-bit PCM,
    # little and big end first), ``u8`` (8-bit PCM without sign)
    encoding: str
    sampling_rate: int  # in Hz, 1000 to 768000
    n_channels: int  # interleaved channels, 1 to 64; gsm and vox have one

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
        """Read ``ENCODING:RATE:CHANNELS``."""
        encoding, *numbers = (part.strip() for part in text.split(":"))
        if len(numbers) != 2 or not all(_NUMBER.fullmatch(number) for number in numbers):
            raise UsageError(f"--raw-format {text!r}; expected ENCODING:RATE:CHANNELS, such as {EXAMPLE_RAW_FORMAT}")
        return cls(encoding=encoding, sampling_rate=int(numbers[0]), n_channels=int(numbers[1]))

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.encoding}:{self.sampling_rate}:{self.n_channels}"


@dataclasses.dataclass(frozen=True)
class ReaderSettings:
    """How recordings are read."""

    raw_format: RawFormat | None = None  # what files without a header hold, where that was said
    max_duration_s: float = math.inf  # longer recordings are refused
