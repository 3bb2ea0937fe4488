"""Who may be held out: the values of ``--split``; what each of them does is in `ser_batch.splits`."""

import re
from pathlib import Path

from ser_batch.errors import UsageError, did_you_mean

PROTOCOLS = ("stratified", "speaker", "emobox", "luna", "text", "corpus", "none")


def check_protocol(protocol: str) -> None:
    """Refuse a ``--split`` that is neither a protocol nor a file of folds.

    Raises
    ------
    UsageError
        Naming those there are.
    """
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
