"""The names of variants: changes of the waveform, made by `ser_batch.audio.perturb` before the MFCCs."""

import dataclasses
import re
from collections.abc import Mapping

from ser_batch.errors import UsageError, did_you_mean

CLEAN = "clean"
# changes that have no number
PLAIN_CHANGES = ("g711", "gsm", "mp3", "opus", "room", "telephone")
# those that have one, with the least and the most it may be
NUMBERED_CHANGES: Mapping[str, tuple[float, float]] = {
    "clip": (1, 40),  # dB by which the loudest sample exceeds full scale
    "level": (-60, 20),  # dB of gain
    "loss": (1, 50),  # percent of the packets
    "noise": (-10, 60),  # dB, speech over noise
    "speed": (0.5, 2),  # factor
}
VARIANT_SETS: Mapping[str, tuple[str, ...]] = {
    "robust": (
        "clean",
        "speed0.9",
        "speed1.1",
        "level-20+noise20",
        "noise10",
        "noise20",
        "room",
        "room+noise15",
        "telephone+clip12",
        "g711",
        "gsm",
        "opus",
        "mp3",
        "noise15+g711+loss5",
    ),
}
_NUMBERED = re.compile(r"([a-z]+?)(-?\d+(?:\.\d+)?)")


@dataclasses.dataclass(frozen=True)
class Change:
    """One step of a variant."""

    name: str  # of `PLAIN_CHANGES` or `NUMBERED_CHANGES`
    amount: float = 0.0  # its number, 0.0 where it has none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variants:
    """Which variants of each segment are featurized."""

    names: tuple[str, ...] = (CLEAN,)  # as they stand in the column variant; ``clean`` is the recording itself
    seed: int = 0  # of all that is drawn at random: noise, rooms, lost packets


def variant_names(text: str) -> tuple[str, ...]:
    """Return the names in a list such as ``clean,noise10+g711,robust``, sets written out, none twice."""
    given = [name.strip() for name in text.split(",")]
    names = dict.fromkeys(variant for name in given for variant in VARIANT_SETS.get(name, (name,)))
    for name in names:
        changes(name)
    return tuple(names)


def changes(variant: str) -> tuple[Change, ...]:
    """Return the steps of a variant, such as ``noise10+g711``, in their order; none for ``clean``."""
    return () if variant == CLEAN else tuple(_change(step) for step in variant.split("+"))


def _change(step: str) -> Change:
    if step in PLAIN_CHANGES:
        return Change(step)
    match = _NUMBERED.fullmatch(step)
    if match is None or match[1] not in NUMBERED_CHANGES:
        known = [CLEAN, *PLAIN_CHANGES, *NUMBERED_CHANGES, *VARIANT_SETS]
        hint = did_you_mean(step, known) or did_you_mean(step.rstrip("-.0123456789"), known)
        numbered = ", ".join(f"{name}N" for name in NUMBERED_CHANGES)
        raise UsageError(
            f"variant {step!r} is not known; expected {CLEAN}, {', '.join(PLAIN_CHANGES)}, {numbered} with a number "
            f"N, several joined by +, or the set {', '.join(VARIANT_SETS)}{hint}"
        )
    amount = float(match[2]) + 0.0  # -0 is 0
    least, most = NUMBERED_CHANGES[match[1]]
    if not least <= amount <= most:
        raise UsageError(f"variant {step!r}; expected a number from {least:g} to {most:g} after {match[1]}")
    if match[2] != f"{amount:g}":
        raise UsageError(f"variant {step!r}; write {match[1]}{amount:g}, so that each variant has one name")
    return Change(match[1], amount)
