"""Batch speech-emotion analytics on dataframes: audio to Parquet features, a 1D CNN, Parquet predictions.

The three stages are functions that return Polars frames; docs/python.md shows them::

    from ser_batch import featurize, train, score

They are loaded when they are first used: importing `ser_batch` takes no time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_batch.api import featurize, score, train

__version__ = "0.1.0"
__all__ = ["__version__", "featurize", "score", "train"]


def __getattr__(name: str) -> Any:
    """Load the functions when one is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ser_batch import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """List the functions too, loaded or not."""
    return sorted({*globals(), *__all__})
