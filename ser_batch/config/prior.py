"""The prior of a decision: how often each label is expected, such as ``neutral=0.35``."""

from collections.abc import Collection, Mapping

from ser_batch.errors import UsageError, did_you_mean

# every label is expected as often as the others
BALANCED = "balanced"
# shares that add up to 1 as decimals may not do so as floats
_ROUNDING = 1e-6


def parse_prior(text: str) -> dict[str, float]:
    """Return the shares that ``balanced`` or ``LABEL=SHARE,...`` stands for; empty is balanced.

    Raises
    ------
    UsageError
        It is neither, names a label twice, or has shares that are no shares.
    """
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
    """Refuse a parsed prior that does not fit the labels of a model.

    Raises
    ------
    UsageError
        It names another label, or leaves nothing for the labels that it does not name.
    """
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
