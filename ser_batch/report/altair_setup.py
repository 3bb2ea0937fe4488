"""Import of Altair, which makes its methods of docstrings."""

from ser_batch.errors import UsageError

try:
    import altair as alt
except AttributeError as error:
    raise UsageError(
        "charts are drawn by Altair, which needs docstrings; run it without -OO and without PYTHONOPTIMIZE=2"
    ) from error

__all__ = ["alt"]
