"""A folder of recordings to a features folder: the whole stage."""

import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from ser_batch.config import CLEAN, AnyFeatureSpec, FeaturizeOptions, RunOptions, Segmentation
from ser_batch.corpus import SAID_BY_LABELS, Recording, Reject, join_labels, name_warnings, utf8, walk
from ser_batch.errors import InputError, UsageError
from ser_batch.featurize.verify import verify
from ser_batch.featurize.work import FeaturizeWork, labelled_columns
from ser_batch.parallel import Plan, Progress, Store, StoreSummary, claimed, connected, run_recordings
from ser_batch.tables import LABEL_PREFIX, SCHEMA_VERSION, read_parts, write_json


@dataclasses.dataclass(frozen=True)
class FeaturizeSummary:
    """What `featurize` did.

    Parameters
    ----------
    out
        The features folder.
    n_done
        Recordings featurized by this call; `n_already` were done before, `n_vanished` are no longer there.
    n_left, n_older
        Recordings not done because of ``--limit``, and without rows because of ``--since``.
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
        Sentences about the labels file and the names.
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
    n_left: int
    n_older: int
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


def featurize(
    audio: Path, options: FeaturizeOptions | None = None, *, progress: Progress | None = None
) -> FeaturizeSummary:
    """Turn a folder of recordings into a features folder; go on where an earlier call stopped.

    Parameters
    ----------
    audio
        A folder, walked to any depth, or one recording.
    options
        Those of ``ser-batch featurize``.
    progress
        Shows how far it is; None is a bar on a terminal and plain lines elsewhere, on stderr.

    Raises
    ------
    UsageError
        `audio` or the encoder is not there, or options do not go together.
    EncoderError
        The encoder is incomplete or altered.
    InputError
        Nothing could be featurized, or the labels file cannot be used.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    options = options or FeaturizeOptions()
    started = time.monotonic()
    segmentation = options.segmentation
    _check_combination(options)
    spec, encoder_place = _front_end(options)
    manifest = walk(audio, corpus=options.corpus)
    recordings, warnings, voted = labelled(manifest.recordings, options)
    dataset = utf8(options.name or manifest.root.name)
    identity = {
        "root": utf8(manifest.root),
        "dataset": dataset,
        "feature_spec": spec.to_dict(),
        "segmentation": segmentation.decisive(),
        "variants": dataclasses.asdict(options.wanted_variants),
        **options.reading_identity,
        "corpus": named_corpus(options),
        "votes": list(voted) or None,
    }
    with connected(options) as cluster, claimed(options.out):
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
                **({} if encoder_place is None else {"encoder_folder": _folder_of(encoder_place)}),
            },
        )
        # absolute: workers have a working directory of their own
        work = FeaturizeWork(
            options.out.absolute(),
            dataset,
            spec,
            segmentation,
            options.wanted_variants,
            options.wanted_raw_format,
            voted,
            options.max_duration,
            encoder_place,
        )
        plan = store.plan(
            recordings,
            work,
            there={recording.path for recording in manifest.recordings},
            prune=options.prune,
            since_ns=options.since_ns,
            limit=options.limit,
            timeout_s=options.timeout,
        )
        if plan.relabel and options.labels is None:
            warnings += (
                f"{len(plan.relabel)} recordings lost the labels of an earlier --labels, which was not given now",
            )
        _relabel(store, plan, segmentation)
        run_recordings(work, store, plan.todo, options, title="featurize", cluster=cluster, progress=progress)
        held = store.finish(manifest.rejects)
        if not held.n_rows:
            raise nothing_done(audio, "featurized", store, held, plan)
        return FeaturizeSummary(
            out=options.out,
            n_done=len(plan.todo),
            n_already=plan.n_done,
            n_vanished=plan.n_vanished,
            n_left=plan.n_left,
            n_older=plan.n_older,
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


def nothing_done(audio: Path, what: str, store: Store, held: StoreSummary, plan: Plan) -> InputError:
    """Return the error of a run that has no row to show: why, and where the reasons stand."""
    if held.rejects:
        reasons = "; ".join(reject.message for reject in held.rejects[:3])
        return InputError(
            f"{audio}: nothing could be {what}; {len(held.rejects)} rejected, all in {store.rejects_file}: {reasons}"
        )
    if plan.n_older:
        return InputError(
            f"{audio}: nothing was {what}: all {plan.n_older} recordings were last modified before --since; choose an "
            "earlier time, or leave it out"
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
    recordings: tuple[Recording, ...], options: RunOptions
) -> tuple[tuple[Recording, ...], tuple[str, ...], tuple[str, ...]]:
    """Join the labels file, if there is one; under ``labels`` only recordings with rows are kept.

    Returns
    -------
    tuple of recordings, warnings, and the labels that the file has votes of

    Raises
    ------
    UsageError
        Segments are to follow a labels file, and there is none.
    """
    by_labels = options.segmentation.follows_labels
    if options.labels is None:
        if by_labels:
            raise UsageError("--segments labels needs --labels FILE, with start_s and end_s")
        return recordings, name_warnings(recordings, corpus=options.corpus), ()
    joined = join_labels(recordings, options.labels, timed=options.segments != "clip", cut=by_labels)
    kept = tuple(recording for recording in joined.recordings if recording.labels or not by_labels)
    return kept, (*joined.warnings, *name_warnings(kept, corpus=options.corpus)), joined.voted


def named_corpus(options: RunOptions) -> str | None:
    """Return the corpus as it decides the tables: None, as in runs that had no choice, where names are found out."""
    return None if options.corpus == "auto" else options.corpus


def _front_end(options: FeaturizeOptions) -> tuple[AnyFeatureSpec, str | None]:
    """Return what defines the features, and where workers find the encoder; see `front_ends.front_end`."""
    if options.spec is not None:
        return options.spec, None
    from ser_batch import encoder  # MFCCs need none of it
    from ser_batch.featurize.front_ends import front_end

    folder = encoder.find(options.features).resolve()
    # the workers of a cluster have what ships in a place of their own
    shipped = next((name for name, own in encoder.shipped().items() if own.resolve() == folder), None)
    spec, place = encoder.read_spec(folder), shipped or str(folder)
    if utf8(place) != place:
        raise UsageError(f"--features {place}: the name is not UTF-8, which spec.json needs; rename the folder")
    front_end(spec, place)  # what cannot be loaded is refused before anything is written
    return spec, place


def _folder_of(encoder_place: str) -> str | None:
    """Return the folder of an encoder, None for one that ships with ser-batch."""
    return encoder_place if Path(encoder_place).is_absolute() else None


def _check_combination(options: FeaturizeOptions) -> None:
    if options.verify and (options.segments != "clip" or options.segmentation.channels != "mix"):
        raise UsageError("--verify compares whole clips with librosa; leave out --segments and --channels")
    if options.verify and CLEAN not in options.wanted_variants.names:
        raise UsageError(f"--verify compares recordings as they are with librosa; add {CLEAN} to --variants")


def _relabel(store: Store, plan: Plan, segmentation: Segmentation) -> None:
    """Write new metadata into the parts of recordings whose labels changed, without decoding."""
    if not plan.relabel:
        return
    from ser_batch.featurize.intervals import label_of

    changed = {recording.path: recording for recording in plan.relabel}

    def change(table: pa.Table) -> pa.Table:
        places = {
            name: table[name].to_pylist() for name in ("path", "n_channels", "channel", "segment", "start_s", "end_s")
        }
        names = [name for name in table.column_names if name in SAID_BY_LABELS or name.startswith(LABEL_PREFIX)]
        columns = {name: table[name].to_pylist() for name in names}
        for i, (path, n_channels, channel, segment, *times_s) in enumerate(zip(*places.values(), strict=True)):
            if path in changed:
                label = label_of(changed[path], segmentation, n_channels, channel, segment, tuple(times_s))
                said = labelled_columns(changed[path], label)
                for name, values in columns.items():
                    values[i] = said.get(name)
        for name, values in columns.items():
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
        return table

    store.relabel(plan.relabel, change)
