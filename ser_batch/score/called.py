"""The third stage as a function of a library: plain options in, Polars frames out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.config import CorpusName, ScoreOptions, SegmentMode
from ser_batch.config.options import DEFAULT_MAX_DURATION_S, Backend
from ser_batch.config.places import place
from ser_batch.errors import InputError
from ser_batch.parallel import no_progress
from ser_batch.score.stage import ScoreSummary
from ser_batch.score.stage import score as run

if TYPE_CHECKING:
    import polars as pl  # workers import this package, and need none of it


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

        from ser_batch.report import side_tables

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
    BundleError
        The model folder is incomplete or altered.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    options = ScoreOptions(
        out=place(out),
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
    summary = run(place(audio), options, progress=None if progress else no_progress)
    if strict and summary.rejects:
        raise InputError(
            f"{audio}: {len(summary.rejects)} recordings were rejected, the first one: {summary.rejects[0].message}"
        )
    return Scored(summary)
