"""Batch speech-emotion analytics on dataframes: audio to Parquet features, a 1D CNN, Parquet predictions.

The three stages are functions that return Polars frames; docs/python.md shows them::

    from ser_batch import featurize, train, score

Each is also the package of its name, which can be called (`ser_batch.config.calling` says why). They are loaded when
they are asked for: importing `ser_batch` takes no time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_batch.featurize.called import featurize
    from ser_batch.score.called import score
    from ser_batch.train.called import train

__version__ = "0.1.0"
__all__ = ["__version__", "featurize", "score", "train"]


def __getattr__(name: str) -> Any:
    """Load a stage when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """Name the stages too, loaded or not."""
    return sorted({*globals(), *__all__})
