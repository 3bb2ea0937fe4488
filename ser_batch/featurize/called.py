"""The first stage as a function of a library: plain options in, Polars frames out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ser_batch.config import CorpusName, FeaturizeOptions, SegmentMode
from ser_batch.config.options import DEFAULT_MAX_DURATION_S, DEFAULT_PRESET, MFCC, Backend
from ser_batch.config.places import place
from ser_batch.errors import InputError
from ser_batch.featurize.stage import FeaturizeSummary
from ser_batch.featurize.stage import featurize as run
from ser_batch.parallel import no_progress

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
        out=place(out),
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
    summary = run(place(audio), options, progress=None if progress else no_progress)
    if strict and summary.rejects:
        raise InputError(
            f"{audio}: {len(summary.rejects)} recordings were rejected, the first one: {summary.rejects[0].message}"
        )
    return Featurized(summary)
