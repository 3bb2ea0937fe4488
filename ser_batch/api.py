"""The stages as functions of a library: plain options in, Polars frames out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ser_batch.config.options import (
    DEFAULT_MAX_DURATION_S,
    DEFAULT_PRESET,
    MFCC,
    Backend,
    CorpusName,
    Estimator,
    FeaturizeOptions,
    Normalize,
    RecipeName,
    ScoreOptions,
    TrainOptions,
    VocalChannel,
)
from ser_batch.config.segmentation import SegmentMode
from ser_batch.errors import InputError
from ser_batch.featurization import FeaturizeSummary
from ser_batch.featurization import featurize as run_featurize
from ser_batch.runs.progress import no_progress
from ser_batch.scoring.run import ScoreSummary
from ser_batch.scoring.run import score as run_score
from ser_batch.storage.paths import to_path
from ser_batch.training.run import DEFAULT_FEATURES, TrainSummary
from ser_batch.training.run import train as run_train

if TYPE_CHECKING:
    import polars as pl  # workers import this package, and need none of it


@dataclasses.dataclass(frozen=True)
class Featurized:
    """A features folder.

    Parameters
    ----------
    summary
        What the call did: counts, warnings, seconds.
    """

    summary: FeaturizeSummary

    @property
    def path(self) -> Path:
        """The features folder."""
        return self.summary.out

    @property
    def features(self) -> "pl.LazyFrame":
        """One row per segment and variant; arrays (``mfcc`` or ``embedding``) are read where you ask for them."""
        import polars as pl

        return pl.scan_parquet(sorted(map(str, self.path.glob("part-*.parquet"))), glob=False)

    @property
    def rejects(self) -> "pl.DataFrame":
        """One row a recording that could not be used, and why."""
        import polars as pl

        return pl.read_parquet(str(self.path / "_meta" / "rejects.parquet"), glob=False)


def featurize(
    audio: Path | str,
    *,
    out: Path | str = "features",
    features: str = MFCC,
    preset: str = DEFAULT_PRESET,
    variants: str = "clean",
    name: str | None = None,
    verify: int = 0,
    seed: int = 0,
    labels: Path | str | None = None,
    corpus: CorpusName = "auto",
    segments: SegmentMode = "clip",
    window: float = 4.04,
    hop: float = 2.02,
    channels: str | None = None,
    raw_format: str | None = None,
    max_duration: float = DEFAULT_MAX_DURATION_S,
    jobs: int | None = None,
    backend: Backend = "loky",
    scheduler: str | None = None,
    isolate: bool = False,
    timeout: float | None = None,
    shard_size: int = 64,
    overwrite: bool = False,
    prune: bool = False,
    since: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Featurized:
    """Turn a folder of recordings into a table of features, as ``ser-batch featurize`` does.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording; it and `out` may be addresses such as ``s3://bucket/calls``.
    features
        ``mfcc``, or an encoder: the name of one that ships with ser-batch, such as ``whisper-tiny.en``, or the path of
        an encoder's folder.
    out, preset, variants, name, verify, seed
        The options of ``ser-batch featurize``, which its ``--help`` tells.
    labels, corpus, segments, window, hop, channels, raw_format, max_duration
        How recordings are cut and what is known of them; window, hop and max_duration in seconds.
    jobs, backend, scheduler, isolate, timeout, shard_size, overwrite, prune, since, limit
        How the work is done; timeout in seconds.
    strict
        Raise where anything was rejected; what could be done is kept.
    progress
        Show on stderr how far it is.

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
    EncoderError
        The encoder is incomplete or altered.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    options = FeaturizeOptions(
        out=to_path(out),
        features=features,
        preset=preset,
        variants=variants,
        name=name,
        verify=verify,
        seed=seed,
        labels=None if labels is None else Path(labels),
        corpus=corpus,
        segments=segments,
        window=window,
        hop=hop,
        channels=channels,
        raw_format=raw_format,
        max_duration=max_duration,
        jobs=jobs,
        backend=backend,
        scheduler=scheduler,
        isolate=isolate,
        timeout=timeout,
        shard_size=shard_size,
        overwrite=overwrite,
        prune=prune,
        since=since,
        limit=limit,
        strict=strict,
    )
    summary = run_featurize(to_path(audio), options, progress=None if progress else no_progress)
    if strict and summary.rejects:
        raise InputError(
            f"{audio}: {len(summary.rejects)} recordings were rejected, the first one: {summary.rejects[0].message}"
        )
    return Featurized(summary)


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
    estimator: Estimator = "network",
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
    return Trained(run_train([Path(folder) for folder in folders], options, say=say))


def _say_nothing(_line: str) -> None:
    return


@dataclasses.dataclass(frozen=True)
class Scored:
    """Predictions, and the tables beside them.

    Parameters
    ----------
    summary
        What the call did: counts, the model, warnings, seconds.
    """

    summary: ScoreSummary

    @property
    def path(self) -> Path:
        """The file of the predictions, or the folder of its parts."""
        return self.summary.out

    @property
    def predictions(self) -> "pl.LazyFrame":
        """One row a segment."""
        import polars as pl

        parts = sorted(self.path.glob("part-*.parquet")) if self.path.is_dir() else [self.path]
        return pl.scan_parquet(list(map(str, parts)), glob=False)

    @property
    def calls(self) -> "pl.DataFrame":
        """One row a recording and channel."""
        return self._beside("calls")

    @property
    def report(self) -> "pl.DataFrame":
        """One row a label and role, and the figures where the truth is known."""
        return self._beside("report")

    @property
    def rejects(self) -> "pl.DataFrame":
        """One row a recording that could not be used, and why."""
        return self._beside("rejects")

    def _beside(self, name: str) -> "pl.DataFrame":
        import polars as pl

        from ser_batch.report.predictions import side_tables

        return pl.read_parquet(str(side_tables(self.path)[name]), glob=False)


def score(
    audio: Path | str,
    *,
    out: Path | str = "preds.parquet",
    model: Path | str | None = None,
    channel_roles: str | None = None,
    roles: str | None = None,
    min_confidence: float = 0.0,
    min_speech: float = 0.3,
    reference: Path | str | None = None,
    prior: str | None = None,
    labels: Path | str | None = None,
    corpus: CorpusName = "auto",
    segments: SegmentMode = "windows",
    window: float = 4.04,
    hop: float = 2.02,
    channels: str | None = None,
    raw_format: str | None = None,
    max_duration: float = DEFAULT_MAX_DURATION_S,
    jobs: int | None = None,
    backend: Backend = "loky",
    scheduler: str | None = None,
    isolate: bool = False,
    timeout: float | None = None,
    shard_size: int = 64,
    overwrite: bool = False,
    prune: bool = False,
    since: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    progress: bool = True,
) -> Scored:
    """Score a folder of recordings, as ``ser-batch score`` does.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording; it and `out` may be addresses such as ``s3://bucket/calls``.
    out, model, channel_roles, roles, min_confidence, min_speech, reference, prior
        The options of ``ser-batch score``, which its ``--help`` tells.
    labels, corpus, segments, window, hop, channels, raw_format, max_duration
        How recordings are cut and what is known of them; window, hop and max_duration in seconds.
    jobs, backend, scheduler, isolate, timeout, shard_size, overwrite, prune, since, limit
        How the work is done; timeout in seconds.
    strict
        Raise where anything was rejected; what could be done is kept.
    progress
        Show on stderr how far it is.

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
    options = ScoreOptions(
        out=to_path(out),
        model=None if model is None else str(model),
        channel_roles=channel_roles,
        roles=roles,
        min_confidence=min_confidence,
        min_speech=min_speech,
        reference=None if reference is None else str(reference),
        prior=prior,
        labels=None if labels is None else Path(labels),
        corpus=corpus,
        segments=segments,
        window=window,
        hop=hop,
        channels=channels,
        raw_format=raw_format,
        max_duration=max_duration,
        jobs=jobs,
        backend=backend,
        scheduler=scheduler,
        isolate=isolate,
        timeout=timeout,
        shard_size=shard_size,
        overwrite=overwrite,
        prune=prune,
        since=since,
        limit=limit,
        strict=strict,
    )
    summary = run_score(to_path(audio), options, progress=None if progress else no_progress)
    if strict and summary.rejects:
        raise InputError(
            f"{audio}: {len(summary.rejects)} recordings were rejected, the first one: {summary.rejects[0].message}"
        )
    return Scored(summary)
