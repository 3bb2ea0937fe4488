"""A folder of recordings to a features folder: the whole stage."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from ser_batch.config import CLEAN, FeaturizeOptions, Segmentation
from ser_batch.corpus import Recording, Reject, emotion_of, join_labels, speaker_of, utf8, walk
from ser_batch.errors import InputError, UsageError
from ser_batch.featurize.verify import verify
from ser_batch.featurize.work import FeaturizeWork
from ser_batch.parallel import Plan, Store, StoreSummary, run_shards, worker_count
from ser_batch.tables import SCHEMA_VERSION, read_parts, write_json


@dataclasses.dataclass(frozen=True)
class FeaturizeSummary:
    """What `featurize` did.

    Parameters
    ----------
    out
        The features folder.
    n_done
        Recordings featurized by this call; `n_already` were done before, `n_vanished` are no longer there.
    n_recordings, n_segments, audio_s
        Of the whole folder, rejects not counted among the segments; a segment is a row of the table, so each counts
        once a variant; seconds of sound.
    n_variants
        Rows each segment of a recording has.
    rejects
        All recordings that could not be used.
    passed_over
        Other files seen by the walk, by suffix.
    warnings
        Sentences about the labels file.
    emotions
        Segments by emotion, whatever the number of variants; None where none is known.
    seconds
        Time this call took.
    verified
        Number of recordings compared with librosa and the largest absolute difference, or None.
    """

    out: Path
    n_done: int
    n_already: int
    n_vanished: int
    n_recordings: int
    n_segments: int
    n_variants: int
    audio_s: float
    rejects: tuple[Reject, ...]
    passed_over: Mapping[str, int]
    warnings: tuple[str, ...]
    emotions: Mapping[str | None, int]
    seconds: float
    verified: tuple[int, float] | None


def featurize(audio: Path, options: FeaturizeOptions | None = None) -> FeaturizeSummary:
    """Turn a folder of recordings into a features folder; go on where an earlier call stopped.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording.
    options
        Those of ``ser-batch featurize``.

    Raises
    ------
    UsageError
        `audio` is not there, or options do not go together.
    InputError
        Nothing could be featurized, or the labels file cannot be used.
    OutputError
        The output cannot be written, or belongs to another run.
    """
    options = options or FeaturizeOptions()
    started = time.monotonic()
    spec, segmentation = options.spec, options.segmentation
    _check_combination(options)
    manifest = walk(audio)
    recordings, warnings = labelled(manifest.recordings, options.labels, segmentation)
    dataset = utf8(options.name or manifest.root.name)
    identity = {
        "root": utf8(manifest.root),
        "dataset": dataset,
        "feature_spec": spec.to_dict(),
        "segmentation": segmentation.decisive(),
        "variants": dataclasses.asdict(options.wanted_variants),
    }
    store = Store(options.out, identity, overwrite=options.overwrite)
    write_json(
        options.out / "spec.json",
        {
            "schema_version": SCHEMA_VERSION,
            "feature_spec": spec.to_dict(),
            "feature_spec_hash": spec.digest(),
            "segmentation": segmentation.to_dict(),
            "dataset": dataset,
            "variants": dataclasses.asdict(options.wanted_variants),
        },
    )
    plan = store.plan(recordings, there={recording.path for recording in manifest.recordings}, prune=options.prune)
    if plan.relabel and options.labels is None:
        warnings += (f"{len(plan.relabel)} recordings lost the labels of an earlier --labels, which was not given now",)
    _relabel(store, plan, segmentation)
    # absolute: loky keeps its workers for the next call, in the working directory of the first
    work = FeaturizeWork(options.out.absolute(), dataset, spec, segmentation, options.wanted_variants)
    run_shards(work, store.shards(plan.todo, options), jobs=worker_count(options), title="featurize")
    held = store.finish(manifest.rejects)
    if not held.n_rows:
        raise nothing_done(audio, "featurized", store, held)
    return FeaturizeSummary(
        out=options.out,
        n_done=len(plan.todo),
        n_already=plan.n_done,
        n_vanished=plan.n_vanished,
        n_recordings=held.n_recordings,
        n_segments=held.n_rows,
        n_variants=len(options.wanted_variants.names),
        audio_s=held.audio_s,
        rejects=held.rejects,
        passed_over=manifest.passed_over,
        warnings=(*warnings, *_without_rows(held.n_without_rows)),
        emotions=_emotions(options),
        seconds=time.monotonic() - started,
        verified=verify(options, recordings) if options.verify else None,
    )


def _emotions(options: FeaturizeOptions) -> dict[str | None, int]:
    """Count the segments of each emotion: the rows of one variant."""
    import pyarrow.compute as pc  # slow to load

    rows = read_parts(options.out, ["variant", "emotion"])
    of_one = pc.equal(rows["variant"], options.wanted_variants.names[0])
    counts = rows["emotion"].filter(of_one).value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in counts}


def nothing_done(audio: Path, what: str, store: Store, held: StoreSummary) -> InputError:
    """Return the error of a run that has no row to show: why, and where the reasons stand."""
    if held.rejects:
        reasons = "; ".join(reject.message for reject in held.rejects[:3])
        return InputError(
            f"{audio}: nothing could be {what}; {len(held.rejects)} rejected, all in {store.rejects_file}: {reasons}"
        )
    return InputError(
        f"{audio}: nothing could be {what}: no recording has speech, or a channel, role or row of the labels file that "
        "was asked for (a mono recording has channel 0 and no role)"
    )


def _without_rows(n: int) -> Iterator[str]:
    if n:
        yield (
            f"{n} recordings have no rows: no speech, or none of the channels that were asked for (mono has channel 0)"
        )


def labelled(
    recordings: tuple[Recording, ...], labels: Path | None, segmentation: Segmentation
) -> tuple[tuple[Recording, ...], tuple[str, ...]]:
    """Join the labels file, if there is one; under ``labels`` only recordings with rows are kept.

    Returns
    -------
    tuple of recordings and warnings

    Raises
    ------
    UsageError
        Segments are to follow a labels file, and there is none.
    """
    if labels is None:
        if segmentation.mode == "labels":
            raise UsageError("--segments labels needs --labels FILE, with start_s and end_s")
        return recordings, ()
    joined = join_labels(recordings, labels, timed=segmentation.mode == "labels")
    kept = joined.recordings
    if segmentation.mode == "labels":
        kept = tuple(recording for recording in kept if recording.labels)
    return kept, joined.warnings


def _check_combination(options: FeaturizeOptions) -> None:
    if options.verify and (options.segments != "clip" or options.segmentation.channels != "mix"):
        raise UsageError("--verify compares whole clips with librosa; leave out --segments and --channels")
    if options.verify and CLEAN not in options.wanted_variants.names:
        raise UsageError(f"--verify compares recordings as they are with librosa; add {CLEAN} to --variants")


def _relabel(store: Store, plan: Plan, segmentation: Segmentation) -> None:
    """Write new emotions and speakers into the parts of recordings whose labels changed, without decoding."""
    if not plan.relabel:
        return
    from ser_batch.featurize.cutting import label_of

    changed = {recording.path: recording for recording in plan.relabel}

    def change(table: pa.Table) -> pa.Table:
        columns = {name: table[name].to_pylist() for name in ("path", "n_channels", "channel", "segment")}
        emotions, speakers = table["emotion"].to_pylist(), table["speaker"].to_pylist()
        for i, (path, n_channels, channel, segment) in enumerate(zip(*columns.values(), strict=True)):
            if path in changed:
                label = label_of(changed[path], segmentation, n_channels, channel, segment)
                emotions[i] = emotion_of(changed[path], label)
                speakers[i] = speaker_of(changed[path], label)
        for name, values in (("emotion", emotions), ("speaker", speakers)):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), pa.array(values, pa.string()))
        return table

    store.relabel(plan.relabel, change)
