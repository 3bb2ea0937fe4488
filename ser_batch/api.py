"""The stages as functions: options as keywords, Polars frames as results."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import polars as pl

from ser_batch.config.fields import option
from ser_batch.config.functions import as_function, with_default
from ser_batch.config.options import DEFAULT_FEATURES, FeaturizeOptions, ScoreOptions, TrainOptions
from ser_batch.errors import InputError, UsageError
from ser_batch.report.predictions import side_tables
from ser_batch.runs.progress import no_progress
from ser_batch.storage.paths import local_path, to_path
from ser_batch.storage.streams import open_missing_streams
from ser_batch.tables.parquet import read_frame

if TYPE_CHECKING:  # a stage is loaded when it is called
    from ser_batch.featurization import FeaturizeSummary
    from ser_batch.scoring.summary import ScoreSummary
    from ser_batch.training.run import TrainSummary


@dataclasses.dataclass(frozen=True)
class Featurized:
    """A features folder."""

    summary: "FeaturizeSummary"  # what the call did: counts, warnings, seconds

    @property
    def path(self) -> Path:
        """The features folder."""
        return self.summary.out

    @property
    def features(self) -> pl.LazyFrame:
        """One row per segment and variant; arrays (``mfcc`` or ``embedding``) are read where you ask for them."""
        return _scan(sorted(self.path.glob("part-*.parquet")))

    @property
    def rejects(self) -> pl.DataFrame:
        """One row per recording that could not be used, and why."""
        return read_frame(self.path / "_meta" / "rejects.parquet")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model folder."""

    summary: "TrainSummary"  # what the call did: counts, figures and what they mean, warnings, seconds

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
        """One row per label, condition and part of the held-out rows."""
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
        return _scan([path]) if path.is_file() else pl.LazyFrame()


@dataclasses.dataclass(frozen=True)
class Scored:
    """Predictions, and the tables beside them."""

    summary: "ScoreSummary"  # what the call did: counts, the model, warnings, seconds

    @property
    def path(self) -> Path:
        """The file of the predictions, or the folder of its parts."""
        return self.summary.out

    @property
    def predictions(self) -> pl.LazyFrame:
        """One row per segment."""
        parts = sorted(self.path.glob("part-*.parquet")) if self.path.is_dir() else [self.path]
        return _scan(parts)

    @property
    def calls(self) -> pl.DataFrame:
        """One row per recording and channel."""
        return self._beside("calls")

    @property
    def quarters(self) -> pl.DataFrame:
        """One row per recording, channel and quarter of the recording."""
        return self._beside("quarters")

    @property
    def report(self) -> pl.DataFrame:
        """One row per label and role, and the figures where the truth is known."""
        return self._beside("report")

    @property
    def rejects(self) -> pl.DataFrame:
        """One row per recording that could not be used, and why."""
        return self._beside("rejects")

    def _beside(self, name: str) -> pl.DataFrame:
        return read_frame(side_tables(self.path)[name])


def _scan(paths: Sequence[Path]) -> pl.LazyFrame:
    """Return files as one lazy frame; addresses are read by Polars itself, which fetches no more than is asked for."""
    return pl.scan_parquet(list(map(str, paths)), glob=False)  # noqa: TID251 - here it is set


_Progress = Annotated[bool, option("Execution", "Show progress on stderr.")]


class _FeaturizeKeywords(FeaturizeOptions, frozen=True, kw_only=True):
    progress: _Progress = True


class _TrainKeywords(TrainOptions, frozen=True, kw_only=True):
    progress: _Progress = True


class _ScoreKeywords(ScoreOptions, frozen=True, kw_only=True):
    progress: _Progress = True


def _featurize(audio: Path | str, options: _FeaturizeKeywords) -> Featurized:
    """Turn a folder of recordings into a table of features, as ``ser-batch featurize`` does.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording; it and `out` may be addresses such as ``s3://bucket/calls``.

    Returns
    -------
    Featurized
        ``.features``, a LazyFrame; ``.rejects``; ``.summary``; ``.path``.

    Raises
    ------
    UsageError
        `audio` or the encoder is not there, or options do not go together.
    InputError
        Nothing could be featurized, or with `strict` anything was rejected.
    SerBatchError
        With `verify`: MFCCs differ from librosa's by more than 0.01.
    EncoderError
        The encoder is incomplete or altered.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    import ser_batch.featurization

    _begin()
    summary = ser_batch.featurization.featurize(
        to_path(audio), options, progress=None if options.progress else no_progress
    )
    _refuse_rejects(audio, options, summary)
    return Featurized(summary)


def _train(features: Path | str | Sequence[Path | str], options: _TrainKeywords) -> Trained:
    """Train a model and evaluate it on what is held out, as ``ser-batch train`` does.

    Parameters
    ----------
    features
        A features folder, or several.

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
    import ser_batch.training.run

    _begin()
    folders = [features] if isinstance(features, Path | str) else features
    say = None if options.progress else _say_nothing
    return Trained(ser_batch.training.run.train(list(map(local_path, folders)), options, say=say))


def _score(audio: Path | str, options: _ScoreKeywords) -> Scored:
    """Score a folder of recordings, as ``ser-batch score`` does.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording; it and `out` may be addresses such as ``s3://bucket/calls``.

    Returns
    -------
    Scored
        ``.predictions``, a LazyFrame; ``.calls``, ``.report`` and ``.rejects``; ``.summary``; ``.path``.

    Raises
    ------
    UsageError
        `audio` or the model is not there, or options do not go together.
    InputError
        Nothing could be scored, `reference` is of another encoder, or with `strict` anything was rejected.
    ModelError
        The model folder is incomplete or altered.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    import ser_batch.scoring.run

    _begin()
    summary = ser_batch.scoring.run.score(to_path(audio), options, progress=None if options.progress else no_progress)
    _refuse_rejects(audio, options, summary)
    return Scored(summary)


def _refuse_rejects(
    audio: Path | str, options: FeaturizeOptions | ScoreOptions, summary: "FeaturizeSummary | ScoreSummary"
) -> None:
    if options.strict and summary.n_rejected:
        raise InputError(
            f"{audio}: {summary.n_rejected} recordings were rejected, the first one: {summary.rejected[0].message}"
        )


# whether this process has threads that Polars and JAX wait for; whether it lacks them, because it was forked
_has_threads = _lacks_threads = False


def _before_fork() -> None:
    global _has_threads  # noqa: PLW0603 - for the process to come
    with contextlib.suppress(OSError):  # of a thread that has just ended
        names = (file.read_text(errors="replace") for file in Path("/proc/self/task").glob("*/comm"))
        _has_threads = any(re.match(r"polars-\d|tf_XLA", name) for name in names)


def _after_fork() -> None:
    global _lacks_threads  # noqa: PLW0603 - it is so for good
    _lacks_threads = _lacks_threads or _has_threads


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _begin() -> None:
    """Refuse a process that would wait for ever; have all standard streams."""
    if _lacks_threads:
        raise UsageError(
            "this process was forked from one in which Polars or JAX had threads, which a fork does not copy, so it "
            "would wait for ever; start processes anew: multiprocessing.get_context('spawn')"
        )
    open_missing_streams()


def _say_nothing(_line: str) -> None:
    return


featurize = as_function(_FeaturizeKeywords, _featurize)
train = with_default(as_function(_TrainKeywords, _train), DEFAULT_FEATURES)
score = as_function(_ScoreKeywords, _score)
