"""Stage 1: a folder of recordings to a features folder."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from msgspec import Meta

from ser_batch.audio.recording_file import RecordingFile
from ser_batch.config.features import AnyFeatureSpec, FeatureSpec
from ser_batch.config.option_values import ReaderSettings
from ser_batch.config.options import FeaturizeOptions
from ser_batch.config.segmentation import Segmentation
from ser_batch.config.variants import CLEAN, Variants
from ser_batch.corpus.manifest import LABEL_COLUMNS, LabelRow, Recording, metadata_of
from ser_batch.corpus.object_store import fetched
from ser_batch.corpus.walk import utf8
from ser_batch.errors import SerBatchError, UsageError
from ser_batch.runs.part_writer import MAIN, Rows
from ser_batch.runs.progress import Progress
from ser_batch.runs.run import Input, Run, connected
from ser_batch.runs.store import Plan, Store
from ser_batch.runs.summary import RunSummary
from ser_batch.runs.worker import Work
from ser_batch.storage.atomic import write_json
from ser_batch.storage.installed import INSTALLED_ENCODERS
from ser_batch.storage.lock import claimed
from ser_batch.summary import Summary
from ser_batch.tables.parquet import read_parts
from ser_batch.tables.schemas import LABEL_PREFIX, SCHEMA_VERSION, features_schema

if TYPE_CHECKING:
    from ser_batch.encoder.pooling import Embedding
    from ser_batch.segments.front_ends import Frames


# of a coefficient, between our MFCCs and librosa's
MAX_DIFFERENCE = 0.01


class Verified(Summary, frozen=True, kw_only=True):
    """A comparison with librosa."""

    n_recordings: Annotated[int, Meta(description="recordings compared")]
    largest_difference: Annotated[float, Meta(description="largest absolute difference of a coefficient")]


class FeaturizeSummary(RunSummary, frozen=True, kw_only=True):
    """What `featurize` did."""

    out: Annotated[Path, Meta(description="features folder")]
    n_rows: Annotated[int, Meta(description="rows in the output: one per segment and variant")]
    n_variants: Annotated[int, Meta(description="variants per segment")]
    emotions: Annotated[Mapping[str, int], Meta(description="segments by emotion")]
    n_without_emotion: Annotated[int, Meta(description="segments whose emotion is unknown")]
    verified: Annotated[Verified | None, Meta(description="comparison with librosa; null without `--verify`")]


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
    SerBatchError
        With `verify`: a coefficient differs from librosa's by more than 0.01.
    OutputError
        The output cannot be written, belongs to another run, or another run is writing it.
    """
    options = options or FeaturizeOptions()
    started = time.monotonic()
    _check_combination(options)
    spec, encoder = _front_end(options)
    found = Input.find(audio, options)
    dataset = utf8(options.name or found.manifest.root.name)
    identity = found.identity(options) | {
        "dataset": dataset,
        "feature_spec": spec.to_dict(),
        "variants": dataclasses.asdict(options.variant_set),
        "votes": list(found.vote_columns) or None,
    }
    with connected(options, progress) as runner, claimed(options.out):
        store = Store(options.out, identity, overwrite=options.overwrite)
        write_json(
            options.out / "spec.json",
            {
                "schema_version": SCHEMA_VERSION,
                "feature_spec": spec.to_dict(),
                "feature_spec_hash": spec.digest(),
                "segmentation": options.segmentation.to_dict(),
                "dataset": dataset,
                "variants": dataclasses.asdict(options.variant_set),
                **({} if encoder is None else {"encoder_folder": _folder_of(encoder)}),
            },
        )
        work = FeaturizeWork(
            folder=options.out.absolute(),  # workers have a working directory of their own
            dataset=dataset,
            spec=spec,
            encoder=encoder,
            segmentation=options.segmentation,
            variants=options.variant_set,
            reader_settings=options.reader_settings,
            vote_columns=found.vote_columns,
        )
        run = Run.prepare(found, store, work, options, started)
        warnings = list(found.warnings)
        if run.plan.relabel and options.labels is None:
            warnings.append(
                f"{len(run.plan.relabel)} recordings lost the labels of an earlier --labels, which was not given now"
            )
        _relabel(store, run.plan, options.segmentation)
        runner.do(work, store, run.plan.todo, title="featurize")
        held = run.finish("featurized")
        if held.n_without_rows:
            warnings.append(
                f"{held.n_without_rows} recordings have no rows: no speech, or none of the channels that were asked "
                "for (mono has channel 0)"
            )
        n_variants = len(options.variant_set.names)
        emotions, n_without_emotion, n_silent = _segment_counts(options)
        if n_silent:
            warnings.append(f"{n_silent} segments are digital silence; `ser-batch train` leaves them out")
        verified = verify(options, found.recordings) if options.verify else None
        if verified is not None and not verified.n_recordings:
            warnings.append("librosa opens none of the recordings, so nothing was compared with it")
        return FeaturizeSummary(
            **run.counts(held) | {"n_segments": held.n_rows // n_variants},
            out=options.out,
            n_rows=held.n_rows,
            n_variants=n_variants,
            warnings=tuple(warnings),
            emotions=emotions,
            n_without_emotion=n_without_emotion,
            verified=verified,
        )


def _segment_counts(options: FeaturizeOptions) -> tuple[dict[str, int], int, int]:
    """Count the segments of each emotion, those of none, and those that are silence: the rows of one variant."""
    import pyarrow.compute as pc  # slow to load

    rows = read_parts(options.out, ["variant", "emotion", "rms_dbfs"])
    rows = rows.filter(pc.equal(rows["variant"], options.variant_set.names[0]))
    counts = rows["emotion"].value_counts().to_pylist()
    found = {row["values"]: row["counts"] for row in counts}
    n_without_emotion = found.pop(None, 0)
    return dict(sorted(found.items())), n_without_emotion, rows["rms_dbfs"].null_count


def _front_end(options: FeaturizeOptions) -> tuple[AnyFeatureSpec, str | None]:
    """Return what defines the features, and where workers find the encoder; see `front_ends.front_end`."""
    if options.spec is not None:
        return options.spec, None
    from ser_batch.encoder.model import find_encoder, read_encoder_spec  # MFCCs need none of it
    from ser_batch.segments.front_ends import front_end

    folder = find_encoder(options.features).resolve()
    # the workers of a cluster have what is installed in a place of their own
    spec, encoder = read_encoder_spec(folder), INSTALLED_ENCODERS.name_of(folder) or str(folder)
    if utf8(encoder) != encoder:
        raise UsageError(f"--features {encoder}: the name is not UTF-8, which spec.json needs; rename the folder")
    front_end(spec, encoder)  # what cannot be loaded is refused before anything is written
    return spec, encoder


def _folder_of(encoder: str) -> str | None:
    """Return the folder of an encoder, None for one that is installed."""
    return encoder if Path(encoder).is_absolute() else None


def _check_combination(options: FeaturizeOptions) -> None:
    if options.verify and (options.segments != "clip" or options.segmentation.channels != "mix"):
        raise UsageError("--verify compares whole clips with librosa; leave out --segments and --channels")
    if options.verify and CLEAN not in options.variant_set.names:
        raise UsageError(f"--verify compares recordings as they are with librosa; add {CLEAN} to --variants")


def _relabel(store: Store, plan: Plan, segmentation: Segmentation) -> None:
    """Write new metadata into the parts of recordings whose labels changed, without decoding."""
    if not plan.relabel:
        return
    from ser_batch.segments.boundaries import label_of

    changed = {recording.path: recording for recording in plan.relabel}

    def change(table: pa.Table) -> pa.Table:
        keys = ("path", "n_channels", "channel", "segment", "start_s", "end_s")
        rows = zip(*(table[name].to_pylist() for name in keys), strict=True)
        names = [name for name in table.column_names if name in LABEL_COLUMNS or name.startswith(LABEL_PREFIX)]
        columns = {name: table[name].to_pylist() for name in names}
        for i, (path, n_channels, channel, segment, *times_s) in enumerate(rows):
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


def labelled_columns(recording: Recording, label: LabelRow | None) -> dict[str, Any]:
    """Return what the name and the labels file say of a segment, by column."""
    votes = label.votes if label is not None else ()
    return metadata_of(recording, label) | {LABEL_PREFIX + name: share for name, share in votes}


@dataclasses.dataclass(frozen=True)
class FeaturizeWork(Work):
    """What a worker of featurize does with a recording."""

    folder: Path
    dataset: str
    spec: AnyFeatureSpec
    segmentation: Segmentation
    _: dataclasses.KW_ONLY
    encoder: str | None = None  # name or folder of the encoder, if there is one
    variants: Variants = dataclasses.field(default_factory=Variants)
    reader_settings: ReaderSettings = dataclasses.field(default_factory=ReaderSettings)
    vote_columns: tuple[str, ...] = ()

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        """The parts only; made in the worker, because a schema is not sent."""
        return {MAIN: features_schema(self.spec, self.vote_columns)}

    @property
    def cuts_at_labels(self) -> bool:
        """Whether segments follow the labels file."""
        return self.segmentation.follows_labels

    def prepare(self) -> None:
        """Load what decodes and computes."""
        import ser_batch.segments.segmenter  # noqa: F401 - loaded by workers only
        from ser_batch.segments.front_ends import front_end

        front_end(self.spec, self.encoder)

    def rows(self, recording: Recording, file: RecordingFile) -> Rows:
        """Yield a row of the features table for each segment."""
        from ser_batch.audio.reader import AudioReader
        from ser_batch.segments.boundaries import activity_of
        from ser_batch.segments.front_ends import front_end
        from ser_batch.segments.segmenter import segments  # loaded by workers only

        with AudioReader(file, self.reader_settings) as reader:
            sound = reader.sound
            # where people or the file's own beginning decide what is cut, nobody asks for speech
            is_scanned = self.segmentation.mode in ("windows", "turns")
            for segment in segments(
                reader,
                recording,
                front_end(self.spec, self.encoder),
                self.segmentation,
                variants=self.variants,
                activity=activity_of(reader, recording, self.segmentation) if is_scanned else None,
                warn=file.warn,
            ):
                assert segment.features is not None  # no segment has too little speech
                yield (
                    MAIN,
                    {
                        "dataset": self.dataset,
                        "path": recording.path,
                        "content_hash": file.content_hash,
                        **labelled_columns(recording, segment.label),
                        "channel": segment.channel,
                        "segment": segment.index,
                        "variant": segment.variant,
                        "start_s": segment.start_s,
                        "end_s": segment.end_s,
                        "duration_s": sound.n_samples / sound.sampling_rate,
                        "sampling_rate": sound.sampling_rate,
                        "n_channels": sound.n_channels,
                        "speech_ratio": segment.speech_ratio,
                        "rms_dbfs": segment.rms_dbfs,
                        **_computed_columns(segment.features, self.spec),
                    },
                )


def _computed_columns(features: "Frames | Embedding", spec: AnyFeatureSpec) -> dict[str, Any]:
    """Return the columns that a front end fills."""
    if not isinstance(features, np.ndarray):
        return {"n_tokens": features.n_tokens, "embedding": features.values}
    assert isinstance(spec, FeatureSpec)
    mfcc = np.zeros((spec.n_frames, spec.n_mfcc), dtype=np.float32)
    mfcc[: len(features)] = features
    return {
        "n_frames": len(features),
        "mfcc": mfcc,
        "mfcc_mean": features.mean(axis=0),
        "mfcc_std": features.std(axis=0),
    }


def verify(options: FeaturizeOptions, recordings: Iterable[Recording]) -> Verified:
    """Compare recordings drawn at random with what librosa itself computes for them; refuse other numbers."""
    import librosa
    import pyarrow.compute as pc
    import soundfile

    from ser_batch.vad.channels import listened_samples

    files = {recording.path: recording for recording in recordings}
    table = read_parts(options.out, ["path", "variant", "n_frames", "mfcc"])
    is_there = pc.is_in(table["path"], pa.array(list(files), pa.string()))
    table = table.filter(pc.and_(is_there, pc.equal(table["variant"], CLEAN)))
    spec, n_compared, largest = options.spec, 0, 0.0
    assert spec is not None  # `FeaturizeOptions` refuses --verify with an encoder
    for number in np.random.default_rng().permutation(table.num_rows):
        if n_compared == options.verify:
            break
        (row,) = table.slice(number, 1).to_pylist()
        try:
            with fetched(files[row["path"]]) as readable, open(readable.file, "rb") as stream:  # noqa: PTH123 - bytes
                channels, rate = librosa.load(stream, sr=None, mono=False)
        except (soundfile.SoundFileError, ValueError, TypeError):
            continue  # what librosa does not open: GSM, what FFmpeg decodes, and what has no header
        n_compared += 1
        samples = listened_samples(np.atleast_2d(channels).T, -1)
        powers = librosa.feature.melspectrogram(
            y=librosa.resample(samples, orig_sr=rate, target_sr=spec.sampling_rate),
            sr=spec.sampling_rate,
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
        )
        reference = np.max if spec.level == "peak" else 1.0
        decibels = librosa.power_to_db(powers, ref=reference, amin=spec.amin, top_db=spec.top_db)
        expected = librosa.feature.mfcc(S=decibels, n_mfcc=spec.n_mfcc)
        frames = np.asarray(row["mfcc"], dtype=np.float32)[: row["n_frames"]]
        if expected.T[: spec.n_frames].shape != frames.shape:
            raise SerBatchError(f"{row['path']}: librosa finds {expected.shape[1]} frames, the table has {len(frames)}")
        difference = float(np.abs(expected.T[: spec.n_frames] - frames).max())
        if not difference <= MAX_DIFFERENCE:
            raise SerBatchError(
                f"{row['path']}: its MFCCs in {options.out} differ from librosa's by up to {difference:.4g}; expected "
                f"at most {MAX_DIFFERENCE}. Install the versions of constraints.txt, and give --overwrite"
            )
        largest = max(largest, difference)
    return Verified(n_recordings=n_compared, largest_difference=largest)
