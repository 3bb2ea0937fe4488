"""The second stage as a function of a library: plain options in, Polars frames out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ser_batch.config import TrainOptions
from ser_batch.config.options import Estimator, Normalize, RecipeName, VocalChannel
from ser_batch.train.stage import DEFAULT_FEATURES, TrainSummary
from ser_batch.train.stage import train as run


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model folder.

    Parameters
    ----------
    summary
        What the call did: counts, figures and what they mean, warnings, seconds.
    """

    summary: TrainSummary

    @property
    def path(self) -> Path:
        """The model folder, which `score` takes."""
        return self.summary.out

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures of the held-out rows and their meaning in words; empty where nothing was held out."""
        return dict(self.summary.metrics)

    @property
    def report(self) -> pl.DataFrame:
        """One row a label, condition and part of the held-out rows."""
        return self._table("report").collect()

    @property
    def predictions(self) -> pl.LazyFrame:
        """The held-out rows and what the model said of them."""
        return self._table("predictions")

    @property
    def history(self) -> pl.DataFrame:
        """Loss and accuracy by epoch."""
        return self._table("history").collect()

    def _table(self, name: str) -> pl.LazyFrame:
        path = self.path / f"{name}.parquet"
        # nothing held out, no such table: a frame without columns rather than None, so that types stay simple
        return pl.scan_parquet(path, glob=False) if path.is_file() else pl.LazyFrame()


def train(
    features: Path | str | Sequence[Path | str] = DEFAULT_FEATURES,
    *,
    out: Path | str = "model",
    estimator: Estimator = "cnn",
    recipe: RecipeName | None = None,
    init: Path | str | None = None,
    split: Path | str = "stratified",
    vocal_channel: VocalChannel = "both",
    test_vocal_channel: VocalChannel = "both",
    train_variants: str | None = None,
    conditions: str = "clean",
    baselines: str | None = None,
    soft_labels: bool = False,
    normalize: Normalize | None = None,
    epochs: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> Trained:
    """Train a model and evaluate it on what is held out, as ``ser-batch train`` does.

    Parameters
    ----------
    features
        A features folder, or several.
    out, estimator, recipe, init, split, vocal_channel, test_vocal_channel, train_variants, conditions, baselines
        The options of ``ser-batch train``, which its ``--help`` tells.
    soft_labels, normalize, epochs, seed, seeds, overwrite
        More of them.
    progress
        Show a line an epoch on stderr.

    Returns
    -------
    Trained
        ``.report``, ``.history``; ``.predictions``, a LazyFrame; ``.metrics``; ``.summary``; ``.path``.

    Raises
    ------
    UsageError
        Options do not go together, or what `init` names cannot be started from.
    InputError
        The features cannot be used: other specs, one label, too few speakers.
    OutputError
        The model folder belongs to another training, or cannot be written.
    """
    options = TrainOptions(
        out=Path(out),
        estimator=estimator,
        recipe=recipe,
        init=None if init is None else str(init),
        split=str(split),
        vocal_channel=vocal_channel,
        test_vocal_channel=test_vocal_channel,
        train_variants=train_variants,
        conditions=conditions,
        baselines=baselines,
        soft_labels=soft_labels,
        normalize=normalize,
        epochs=epochs,
        seed=seed,
        seeds=seeds,
        overwrite=overwrite,
    )
    folders = [features] if isinstance(features, Path | str) else features
    say = None if progress else _say_nothing
    return Trained(run([Path(folder) for folder in folders], options, say=say))


def _say_nothing(_line: str) -> None:
    return
