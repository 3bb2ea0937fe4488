"""The options of the commands, each declared once.

The command line (`ser_batch.cli.params`), job files (`ser_batch.config.job`), the Python functions (`ser_batch.api`)
and docs/cli.md are made of these fields; `ser_batch.config.fields` converts and checks their values.
"""

import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import msgspec.structs

from ser_batch.config.features import PRESETS, AnyFeatureSpec, EncoderSpec, FeatureSpec
from ser_batch.config.fields import (
    Count,
    CountOrZero,
    NameOption,
    NameOrNone,
    Options,
    PathOption,
    PathOrNone,
    Seed,
    Share,
    initial,
    option,
)
from ser_batch.config.option_values import (
    DEFAULT_PRIORITIZED,
    RawFormat,
    ReaderSettings,
    check_protocol,
    parse_channel_roles,
    parse_prior,
    parse_since,
)
from ser_batch.config.segmentation import MIN_LENGTH_S, Segmentation, SegmentMode
from ser_batch.config.variants import CLEAN, Variants, variant_names
from ser_batch.errors import UsageError, did_you_mean

RecipeName = Literal["robust", "published", "head"]
Estimator = Literal["network", "svm", "forest", "logistic"]
VocalChannel = Literal["both", "speech", "song"]
Normalize = Literal["none", "recording", "speaker"]
# who does the work: processes of this machine, or the workers of a cluster
Backend = Literal["loky", "dask", "ray"]
# how a page of calls plays them: recordings where they are, excerpts beside the page, or not at all
Playback = Literal["link", "clips", "none"]
# whose names recordings have; `none` of all, or the one they are to have
CorpusName = Literal[
    "auto", "none", "ravdess", "crema-d", "emodb", "savee", "tess", "jl", "subesco", "mesd", "oreau", "resd",
    "enterface", "cafe", "nemo", "emovo", "shemo", "esd",
]  # fmt: skip
# what stands beside a model in the table of models: networks by their recipe, the others by their name
BASELINES = ("majority", "logistic", "svm", "forest", "published", "robust", "head")
# of MFCCs, and of embeddings
DEFAULT_RECIPE: RecipeName = "robust"
HEAD_RECIPE: RecipeName = "head"
DEFAULT_FEATURES = Path("features")  # where featurize writes and train reads
# the front end that is no encoder
MFCC = "mfcc"
DEFAULT_PRESET = "wideband"

_DAY_S = 86_400.0
_LengthS = Annotated[float, msgspec.Meta(ge=MIN_LENGTH_S, le=_DAY_S)]
_TimeoutS = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
_DurationS = Annotated[float, msgspec.Meta(gt=0)]
_Segments = Annotated[
    SegmentMode,
    option(
        "Features",
        "Cut recordings into segments. clip: the first 4.04 s, or with an encoder the whole recording. windows: "
        "overlapping windows. turns: speech between pauses. labels: the rows of --labels.",
    ),
]
_Model = Annotated[
    NameOrNone,
    option(
        "Scoring",
        "Model folder, or the name of an installed model.",
        default="the folder model if it exists, else open",
        metavar="DIR|NAME",
        short="m",
        completes="models",
    ),
]


_Playback = Annotated[
    Playback,
    option(
        "Output",
        "Let the page play recordings where they are (link), or 20 s excerpts beside it for the 200 calls of the "
        "highest priority (clips).",
    ),
]


class RunOptions(Options, frozen=True, kw_only=True):
    """The options that `featurize` and `score` share."""

    labels: Annotated[
        PathOrNone,
        option(
            "Input",
            "Labels file, CSV or Parquet: path, emotion, and optionally speaker, sex, intensity, statement, corpus, "
            "channel, start_s, end_s (not for clip), and votes of listeners, p_<label>.",
            default="none",
            metavar="FILE",
            is_input=True,
        ),
    ] = initial(None)
    corpus: Annotated[
        CorpusName,
        option(
            "Input",
            "Corpus whose file names tell emotion and speaker. auto: any known corpus (docs/tables.md). none: ignore "
            "file names.",
            metavar="auto|none|CORPUS",
            decides_rows=True,
        ),
    ] = "auto"
    raw_format: Annotated[
        str | None,
        option(
            "Input",
            "Format of files without a header (.ul .al .raw .pcm .vox ...), such as mulaw:8000:1. Encodings: mulaw, "
            "alaw, gsm, vox, s16le, s16be, u8.",
            default="reject them",
            metavar="ENCODING:RATE:CHANNELS",
            decides_rows=True,
        ),
    ] = None
    max_duration: Annotated[
        _DurationS,
        option(
            "Input",
            "Reject longer recordings; inf for no limit.",
            default="86400, a day",
            metavar="SECONDS",
            decides_rows=True,
        ),
    ] = _DAY_S
    segments: _Segments = "clip"
    window: Annotated[
        _LengthS, option("Features", "Length of windows, and the maximum of turns.", metavar="SECONDS")
    ] = 4.04
    hop: Annotated[_LengthS, option("Features", "Step from window to window.", metavar="SECONDS")] = 2.02
    channels: Annotated[
        str | None,
        option(
            "Channels",
            "Use the mean of all channels, each channel, or these channels.",
            default="mix for clip, else split",
            metavar="mix|split|0,1",
        ),
    ] = None
    overwrite: Annotated[bool, option("Incremental", "Delete what the output holds and start again.")] = False
    prune: Annotated[bool, option("Incremental", "Drop the rows of recordings that no longer exist.")] = False
    since: Annotated[
        str | None,
        option(
            "Incremental",
            "Process only recordings modified since 2026-03-01, 2026-03-01T18:00 (local time), or within 24h, 7d.",
            default="all",
            metavar="WHEN",
        ),
    ] = None
    limit: Annotated[
        Count | None, option("Incremental", "Process at most N recordings; run again to continue.", default="all")
    ] = None
    jobs: Annotated[
        Count | None,
        option("Execution", "Worker processes; 1 works in this process.", default="all cores", short="j"),
    ] = None
    backend: Annotated[
        Backend,
        option(
            "Execution",
            "Run in processes of this machine, or on a cluster that finds AUDIO and --out under the same names "
            "(docs/scale.md).",
        ),
    ] = "loky"
    scheduler: Annotated[
        str | None,
        option(
            "Execution",
            "Scheduler address, such as tcp://10.0.0.1:8786 (dask) or 10.0.0.1:6379 (ray).",
            default="none; for ray RAY_ADDRESS, or this machine",
            metavar="ADDRESS",
        ),
    ] = None
    isolate: Annotated[bool, option("Execution", "Use a worker process even with --jobs 1.")] = False
    timeout: Annotated[
        _TimeoutS | None,
        option(
            "Execution",
            "Reject recordings that take longer; needs --jobs 2 or more, or --isolate.",
            default="no limit",
            metavar="SECONDS",
        ),
    ] = None
    shard_size: Annotated[Count, option("Execution", "Recordings per worker task, at most.")] = 64
    strict: Annotated[bool, option("Execution", "Exit with status 3 if any recording was rejected.")] = False

    def __post_init__(self) -> None:
        """Check the options against each other, and what stands in them."""
        super().__post_init__()
        _ = self.segmentation, self.since_ns
        if self.raw_format is not None:
            self._set("raw_format", str(RawFormat.parse(self.raw_format)))
        if self.timeout is not None and self.jobs == 1 and not self.isolate:
            raise UsageError(
                f"--timeout {self.timeout:g} with --jobs 1, where there is no worker process to end; add --isolate, or "
                "give 2 jobs or more"
            )
        self._check_backend()

    def _check_backend(self) -> None:
        if self.backend == "loky":
            if self.scheduler is not None:
                raise UsageError(f"--scheduler {self.scheduler} without a cluster; add --backend dask or --backend ray")
            return
        if self.jobs is not None:
            raise UsageError(
                f"--jobs {self.jobs} with --backend {self.backend}: a cluster has as many as it has workers"
            )
        if self.backend == "dask" and (self.scheduler is None or "://" not in self.scheduler):
            raise UsageError(
                f"--backend dask with --scheduler {self.scheduler or 'left out'}; expected the address that `dask "
                "scheduler` prints, such as tcp://10.0.0.1:8786"
            )

    @property
    def segmentation(self) -> Segmentation:
        """How recordings are cut."""
        return Segmentation(mode=self.segments, window_s=self.window, hop_s=self.hop, channels=self.channels)

    @property
    def since_ns(self) -> int | None:
        """The time of `since` in nanoseconds since 1970, as files have it; an age counts from now."""
        return None if self.since is None else round(parse_since(self.since).timestamp() * 1e9)

    @property
    def reader_settings(self) -> ReaderSettings:
        """How recordings are read."""
        raw_format = None if self.raw_format is None else RawFormat.parse(self.raw_format)
        return ReaderSettings(raw_format, self.max_duration)


class FeaturizeOptions(RunOptions, frozen=True, kw_only=True):
    """The options of `featurize`."""

    features: Annotated[
        NameOption,
        option(
            "Features",
            "Compute MFCCs, or the embeddings of a speech encoder, by name or folder.",
            metavar="mfcc|whisper-tiny.en|DIR",
        ),
    ] = initial(MFCC)
    preset: Annotated[
        str, option("Features", "MFCCs at 22050 Hz or 8000 Hz; not for encoders.", choices=tuple(PRESETS))
    ] = DEFAULT_PRESET
    variants: Annotated[
        str,
        option(
            "Features",
            "Perturbed copies to add, for training and evaluation: speedN, levelN, clipN, noiseN, room, telephone, "
            "g711, gsm, opus, mp3, lossN, joined by +, such as noise10+g711; or the set robust.",
            metavar="clean,NAME,...",
        ),
    ] = CLEAN
    seed: Annotated[Seed, option("Features", "Random seed of the variants.")] = 0
    verify: Annotated[
        CountOrZero,
        option("Features", "Compare N recordings with librosa's MFCCs; fail if any differs by more than 0.01."),
    ] = 0
    name: Annotated[
        str | None,
        option("Output", "Name of the dataset in the tables.", default="the folder's name", metavar="DATASET"),
    ] = None
    out: Annotated[PathOption, option("Output", "Features folder.", short="o", is_remote=True)] = initial(
        DEFAULT_FEATURES
    )

    def __post_init__(self) -> None:
        """Check the options against each other."""
        super().__post_init__()
        _ = self.variant_set
        if self.spec is None:
            self._check_encoder()
        else:
            self.segmentation.check_window(self.spec)

    def _check_encoder(self) -> None:
        """Refuse what only MFCCs have."""
        if not self.features or "://" in self.features or "\0" in self.features:
            raise UsageError(
                f"--features {self.features!r}; expected {MFCC}, the name of an encoder that ships with ser-batch, or "
                "the folder of an encoder on this machine"
            )
        if self.preset != DEFAULT_PRESET:
            raise UsageError(
                f"--preset {self.preset} with --features {self.features}: an encoder has a sampling rate of its own; "
                "leave one of the two out"
            )
        if self.verify:
            raise UsageError(
                f"--verify {self.verify} with --features {self.features}: it compares MFCCs with those of librosa; "
                "leave one of the two out"
            )

    @property
    def spec(self) -> FeatureSpec | None:
        """The feature spec of the preset; None where an encoder is to compute the features."""
        return PRESETS[self.preset] if self.features == MFCC else None

    @property
    def variant_set(self) -> Variants:
        """The variants of each segment; the seed counts only where something is drawn."""
        names = variant_names(self.variants)
        return Variants(names=names, seed=0 if names == (CLEAN,) else self.seed)


class TrainOptions(Options, frozen=True, kw_only=True):
    """The options of `train`."""

    estimator: Annotated[
        Estimator, option("Training", "Train a network, or a classical model on embeddings or MFCC statistics.")
    ] = "network"
    recipe: Annotated[
        RecipeName | None,
        option(
            "Training",
            "Architecture and training of the network. published: the published CNN on MFCCs. robust: a CNN for noise "
            "and telephones. head: small heads on embeddings.",
            default="head for embeddings, else robust; or that of --init",
        ),
    ] = None
    init: Annotated[
        NameOrNone,
        option(
            "Training",
            "Fine-tune this model: a model folder, or the name of an installed model.",
            default="none",
            metavar="DIR|NAME",
            completes="models",
        ),
    ] = initial(None)
    vocal_channel: Annotated[VocalChannel, option("Training", "Train on speech, song or both.")] = "both"
    train_variants: Annotated[
        str | None,
        option(
            "Training",
            "Variants to train on.",
            default="clean for published and classical models, else all",
            metavar="all|clean,...",
        ),
    ] = None
    soft_labels: Annotated[
        bool, option("Training", "Learn the shares of the listeners' votes, where a row has them.")
    ] = False
    normalize: Annotated[
        Normalize | None,
        option(
            "Training",
            "Normalize MFCCs by all training data, by each recording, or by all speech of each speaker (in calls: "
            "channel).",
            default="none, or that of --init",
        ),
    ] = None
    epochs: Annotated[
        Count | None,
        option(
            "Training",
            "Passes over the training data.",
            default="robust 200, published 100, head 14; with --init 50, head 14",
        ),
    ] = None
    seed: Annotated[Seed, option("Training", "Random seed.")] = 0
    seeds: Annotated[Count, option("Training", "Repeat with N seeds and average the scores.")] = 1
    split: Annotated[
        NameOption,
        option(
            "Evaluation",
            "Hold out 20 % of the rows, 20 % of the speakers, each speaker once in K folds, the published folds of "
            "RAVDESS (emobox, luna), each statement, each corpus, these corpora, nothing, or the folds of a file "
            "(columns fold, and path or speaker).",
            metavar="stratified|speaker|speaker:K|emobox|luna|text|corpus|corpus:NAME,...|none|FILE.csv",
        ),
    ] = initial("stratified")
    test_vocal_channel: Annotated[VocalChannel, option("Evaluation", "Evaluate on speech, song or both.")] = "both"
    conditions: Annotated[
        str, option("Evaluation", "Evaluate the held-out rows in these variants.", metavar="clean,g711,...")
    ] = CLEAN
    baselines: Annotated[
        str | None,
        option(
            "Evaluation",
            "Other models to evaluate on the same folds: majority, logistic, svm, forest, published, robust, head.",
            default="none",
            metavar="majority,svm,...",
        ),
    ] = None
    out: Annotated[PathOption, option("Output", "Model folder.", short="o")] = initial(Path("model"))
    overwrite: Annotated[bool, option("Output", "Replace another model in the output.")] = False

    def __post_init__(self) -> None:
        """Check the options against each other, and what stands in them."""
        super().__post_init__()
        if self.init is not None and self.estimator != "network":
            raise UsageError(
                f"--init {self.init} with --estimator {self.estimator}; only a network can start from another one, "
                "leave one of the two out"
            )
        if self.soft_labels and self.estimator != "network":
            raise UsageError(
                f"--soft-labels with --estimator {self.estimator}; only a network learns from votes, leave one of the "
                "two out"
            )
        if self.cmvn_reference != "none" and self.estimator != "network":
            raise UsageError(
                f"--normalize {self.normalize} with --estimator {self.estimator}; nothing would be left of the mean "
                "and deviation that such a model goes by, leave one of the two out"
            )
        check_protocol(self.split)
        if self.seed + self.seeds > 2**32:
            raise UsageError(
                f"--seed {self.seed} with --seeds {self.seeds}; expected seeds up to {2**32 - 1}, choose a smaller one"
            )
        _ = self.condition_names, self.train_variant_names
        for name in self.baseline_names:
            if name not in BASELINES:
                raise UsageError(
                    f"--baselines {name!r}; expected some of {', '.join(BASELINES)}{did_you_mean(name, BASELINES)}"
                )

    def for_features(self, spec: AnyFeatureSpec) -> "TrainOptions":
        """Return the options with the recipe that features have, or refuse one of the other front end."""
        is_encoder = isinstance(spec, EncoderSpec)
        recipe = self.recipe or (HEAD_RECIPE if is_encoder else DEFAULT_RECIPE)
        networks = (recipe, *self.baseline_names) if self.estimator == "network" else self.baseline_names
        for name in networks:
            if name in typing.get_args(RecipeName) and is_encoder != (name == HEAD_RECIPE):
                found, made = ("embeddings", "MFCCs") if is_encoder else ("MFCCs", "embeddings")
                how = "" if is_encoder else " --features whisper-tiny.en"
                other = HEAD_RECIPE if is_encoder else DEFAULT_RECIPE
                raise UsageError(
                    f"recipe {name} is of {made}, and these features are {found}; train with --recipe {other}, or "
                    f"featurize into another folder: ser-batch featurize AUDIO{how} --out OTHER"
                )
        if is_encoder and self.cmvn_reference != "none":
            raise UsageError(
                f"--normalize {self.normalize} with embeddings: heads have references of their own, of the archive and "
                "of the channel; leave --normalize out"
            )
        return msgspec.structs.replace(self, recipe=recipe) if self.estimator == "network" else self

    @property
    def kind(self) -> str:
        """What is trained: the recipe of the network, else the estimator."""
        return (self.recipe or DEFAULT_RECIPE) if self.estimator == "network" else self.estimator

    @property
    def model_name(self) -> str:
        """What the model is called beside its baselines, one of which may be its own recipe from the beginning."""
        return self.kind if self.init is None else "tuned"

    @property
    def cmvn_reference(self) -> Normalize:
        """Whose mean and deviation MFCCs are scaled by; none is that of all that is trained on."""
        return self.normalize or "none"

    @property
    def condition_names(self) -> tuple[str, ...]:
        """The variants that held-out segments are tried in."""
        return variant_names(self.conditions)

    @property
    def train_variant_names(self) -> tuple[str, ...] | None:
        """The variants to train on; None stands for all there are."""
        if self.train_variants is None:
            return None if self.kind in (DEFAULT_RECIPE, HEAD_RECIPE) else (CLEAN,)
        return None if self.train_variants == "all" else variant_names(self.train_variants)

    @property
    def baseline_names(self) -> tuple[str, ...]:
        """What is fitted on the same folds, to stand beside the model."""
        return tuple(dict.fromkeys(name.strip() for name in self.baselines.split(","))) if self.baselines else ()


class ScoreOptions(RunOptions, frozen=True, kw_only=True):
    """The options of `score`."""

    segments: _Segments = "windows"
    channel_roles: Annotated[
        str | None,
        option(
            "Channels",
            "Who speaks on which channel, in channel order or as 0=agent,1=customer.",
            default="not known",
            metavar="agent,customer",
            decides_rows=True,
        ),
    ] = None
    only: Annotated[
        str | None,
        option("Channels", "Score only these roles.", default="all", metavar="customer", decides_rows=True),
    ] = None
    model: _Model = initial(None)
    min_confidence: Annotated[
        Share,
        option(
            "Scoring",
            "Leave segments below this top probability, 0 to 1, without a label.",
            metavar="P",
            decides_rows=True,
        ),
    ] = 0.0
    min_speech: Annotated[
        Share,
        option(
            "Scoring",
            "Score windows and turns with at least this share of speech, 0 to 1; others keep an empty row.",
            metavar="SHARE",
            decides_rows=True,
        ),
    ] = 0.3
    prioritize: Annotated[
        str,
        option(
            "Scoring",
            "Labels that the priority of calls looks for.",
            metavar="LABEL,...",
            decides_rows=True,
        ),
    ] = DEFAULT_PRIORITIZED
    reference: Annotated[
        NameOrNone,
        option(
            "Scoring",
            "Reference of the archive for head models: the .reference.json of another run, or none.",
            default="a sample of this archive, stored by the first run; none below 10 recordings",
            metavar="FILE|none",
        ),
    ] = initial(None)
    prior: Annotated[
        str | None,
        option(
            "Scoring",
            "Expected share of each emotion, such as neutral=0.35; the others share the rest evenly.",
            default="balanced for clip and labels, else that of the model",
            metavar="balanced|LABEL=SHARE,...",
        ),
    ] = None
    out: Annotated[
        PathOption,
        option(
            "Output",
            "Predictions; other tables go beside them. Without .parquet: a folder of parts.",
            short="o",
            is_remote=True,
        ),
    ] = initial(Path("preds.parquet"))
    playback: _Playback = "link"

    def __post_init__(self) -> None:
        """Check the options against each other, and what stands in them."""
        super().__post_init__()
        if self.reference == "":
            raise UsageError("--reference is empty; expected a file, or none")
        _ = self.prior_shares
        if self.out.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".feather", ".arrow", ".pq"):
            raise UsageError(f"--out {self.out}; expected a name that ends in .parquet, or the name of a folder")
        self._set("prioritize", ",".join(sorted(self.prioritized)))
        roles = ",".join(f"{n}={role}" for n, role in sorted(self.role_of_channel.items()))
        self._set("channel_roles", roles or None)
        self._set("only", ",".join(sorted(self.scored_roles)) or None)
        unknown = self.scored_roles - set(self.role_of_channel.values())
        if unknown:
            raise UsageError(
                f"--only names {', '.join(sorted(unknown))}, which --channel-roles gives to no channel; "
                "add it there, such as --channel-roles agent,customer"
                + did_you_mean(min(unknown), self.role_of_channel.values())
            )

    def stored(self) -> dict[str, Any]:
        """Return the options that decide rows; of the share of speech what is applied."""
        return super().stored() | {"min_speech": self.min_speech_ratio}

    @property
    def min_speech_ratio(self) -> float:
        """The share of speech that a segment needs to be scored: where the user chose the segments, all are."""
        return self.min_speech if self.segments in ("windows", "turns") else 0.0

    @property
    def prior_shares(self) -> dict[str, float] | None:
        """Shares of labels, empty for balanced; None stands for the default of the segments and the model."""
        return None if self.prior is None else parse_prior(self.prior)

    @property
    def prioritized(self) -> frozenset[str]:
        """The labels that the priority looks for."""
        return frozenset(label.strip() for label in self.prioritize.split(",") if label.strip())

    @property
    def role_of_channel(self) -> dict[int, str]:
        """Role by channel number."""
        return parse_channel_roles(self.channel_roles) if self.channel_roles else {}

    @property
    def scored_roles(self) -> frozenset[str]:
        """The roles to score; none stands for all channels."""
        return frozenset(role.strip() for role in self.only.split(",")) if self.only else frozenset()


class SynthOptions(Options, frozen=True, kw_only=True):
    """The options of `synth`."""

    actors: Annotated[Annotated[int, msgspec.Meta(ge=1, le=24)], option("Output", "Speakers, 1 to 24.")] = 4
    calls: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None,
        option("Output", "Make this many telephone calls with labels.csv instead.", default="none", metavar="N"),
    ] = None
    seed: Annotated[Seed, option("Output", "Random seed of the voices.")] = 0
    overwrite: Annotated[bool, option("Output", "Replace recordings of the same names.")] = False


class ReportOptions(Options, frozen=True, kw_only=True):
    """The options of `report`."""

    out: Annotated[PathOption, option("Output", "HTML page.", short="o")] = initial(Path("report.html"))
    playback: _Playback = "link"


class InspectOptions(Options, frozen=True, kw_only=True):
    """The options of `inspect`."""

    rows: Annotated[CountOrZero, option("Output", "Show the first N rows.")] = 5


class PlotOptions(Options, frozen=True, kw_only=True):
    """The options of `plot`."""

    channel: Annotated[str, option("Channels", "Channel, or the mean of all channels.", metavar="N|mix")] = "0"
    model: _Model = initial(None)
    out: Annotated[
        PathOrNone,
        option(
            "Output",
            'Picture: .html, or .png or .svg with pip install "ser-batch[plots]".',
            default="the recording's name and .html, here",
            short="o",
        ),
    ] = initial(None)


class ExportOptions(Options, frozen=True, kw_only=True):
    """The options of `export`."""

    format: Annotated[Literal["onnx"], option("Output", "File format.")] = "onnx"
    out: Annotated[
        PathOrNone, option("Output", "File to write.", default="the model's name and .onnx, here", short="o")
    ] = initial(None)


class DownloadOptions(Options, frozen=True, kw_only=True):
    """The options of `download`."""

    url: Annotated[str | None, option("Input", "Mirror that holds the files.", default="the publisher's address")] = (
        None
    )
    out: Annotated[
        PathOrNone,
        option("Output", "Folder to write to.", default="audio, or the name of the checkpoint", short="o"),
    ] = initial(None)


class ConvertOptions(Options, frozen=True, kw_only=True):
    """The options of `encoder convert`."""

    outputs: Annotated[
        str | None,
        option(
            "Features",
            "Outputs to read: 0 the convolutions, 1 the first block, and so on; one more than there are blocks is the "
            "final norm.",
            default="four from a third to five sixths of the blocks; tiny 1,2,3, base 2,3,4,5",
            metavar="1,2,3",
        ),
    ] = None
    name: Annotated[str | None, option("Output", "Name of the encoder.", default="that of the folder OUT")] = None
    origin: Annotated[str | None, option("Output", "Source of the weights.", default="as in config.json")] = None
    license: Annotated[str | None, option("Output", "License of the weights.", default="MIT for openai/whisper-*")] = (
        None
    )
    overwrite: Annotated[bool, option("Output", "Replace an encoder in OUT.")] = False


# in the order in which a job runs them
STAGES: dict[str, type[Options]] = {
    "synth": SynthOptions,
    "featurize": FeaturizeOptions,
    "train": TrainOptions,
    "score": ScoreOptions,
}

# what a stage works on stands beside its options under these keys
STAGE_INPUTS = {"synth": "folder", "featurize": "audio", "train": "features", "score": "audio"}
