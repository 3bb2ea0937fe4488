"""The options of the stages: the same ones on the command line, in a job file and from Python."""

import dataclasses
import math
import typing
from pathlib import Path
from typing import Literal

from ser_batch.config.features import PRESETS, AnyFeatureSpec, EncoderSpec, FeatureSpec
from ser_batch.config.option_values import RawFormat, ReaderSettings, check_protocol, parse_prior, parse_since
from ser_batch.config.segmentation import Segmentation, SegmentMode
from ser_batch.config.variants import CLEAN, Variants, variant_names
from ser_batch.errors import UsageError, did_you_mean
from ser_batch.storage.paths import is_remote

RecipeName = Literal["robust", "published", "head"]
Estimator = Literal["network", "svm", "forest", "logistic"]
VocalChannel = Literal["both", "speech", "song"]
Normalize = Literal["none", "recording", "speaker"]
# who does the work: processes of this machine, or the workers of a cluster
Backend = Literal["loky", "dask", "ray"]
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
# the front end that is no encoder
MFCC = "mfcc"
DEFAULT_PRESET = "wideband"
# no call lasts a day; what says that it does would keep a worker for hours
DEFAULT_MAX_DURATION_S = 86_400.0


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed {seed}; expected a number from 0 to 4294967295")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `featurize` and `score` share: how recordings are cut, and how the work is done."""

    labels: Path | None = None  # the labels file
    # whose file names the recordings have: ``auto`` for any known corpus, ``none``, or one by name
    corpus: CorpusName = "auto"
    # see `Segmentation`; window and hop in seconds
    segments: SegmentMode = "clip"
    window: float = 4.04
    hop: float = 2.02
    channels: str | None = None
    raw_format: str | None = None  # ``ENCODING:RATE:CHANNELS`` of files that have no header; see `RawFormat`
    # longest recording that is used, in seconds; longer ones are rejected. Infinity is no limit
    max_duration: float = DEFAULT_MAX_DURATION_S
    jobs: int | None = None  # worker processes; None stands for all cores. 1 is a plain loop in this process
    backend: Backend = "loky"  # ``loky``, worker processes of this machine, or a cluster: ``dask``, ``ray``
    # where the cluster is: for Dask the address of its scheduler; for Ray that of its head, None for the one of
    # ``RAY_ADDRESS`` or on this machine
    scheduler: str | None = None
    # do the work of one job in a worker process too, so that a recording that crashes it is rejected
    isolate: bool = False
    # seconds a recording may take before it is rejected; None is no limit. Worker processes only
    timeout: float | None = None
    shard_size: int = 64  # recordings a worker takes at a time, at most; they become one Parquet part
    overwrite: bool = False  # throw away what the output holds and start anew
    prune: bool = False  # drop the rows of recordings that are no longer there
    # do only recordings modified since: an ISO date or date-time, or an age such as ``24h``; None does all. The rows of
    # others stay as they are
    since: str | None = None
    limit: int | None = None  # do so many recordings at most; None is no limit. The next call goes on
    strict: bool = False  # exit with status 3 where anything was rejected

    def __post_init__(self) -> None:
        """Refuse counts below one, times that are none, and what no recording can be cut by."""
        _ = self.segmentation, self.since_ns, self.reader_settings
        if self.labels is not None and is_remote(self.labels):
            raise UsageError(f"--labels {self.labels}; expected a file of this machine, fetch it first")
        if not self.max_duration > 0:
            raise UsageError(
                f"--max-duration {self.max_duration}; expected a number of seconds above 0, or inf for no limit"
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}; expected 1 or more recordings, or nothing for all")
        if self.corpus not in typing.get_args(CorpusName):
            names = typing.get_args(CorpusName)
            raise UsageError(
                f"corpus {self.corpus!r}; expected one of {', '.join(names)}{did_you_mean(self.corpus, names)}"
            )
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}; expected 1 or more, or nothing for all cores")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise UsageError(f"--timeout {self.timeout:g}; expected more than 0 seconds, or nothing for no limit")
        if self.timeout is not None and self.jobs == 1 and not self.isolate:
            raise UsageError(
                f"--timeout {self.timeout:g} with --jobs 1, where there is no worker process to end; add --isolate, or "
                "give 2 jobs or more"
            )
        self._check_backend()
        if self.shard_size < 1:
            raise UsageError(f"--shard-size {self.shard_size}; expected 1 or more")

    def _check_backend(self) -> None:
        if self.backend not in typing.get_args(Backend):
            raise UsageError(f"backend {self.backend!r}; expected one of {', '.join(typing.get_args(Backend))}")
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

    @property
    def reading_identity(self) -> dict[str, str | float]:
        """What raw format and longest duration add to the settings that an output belongs to."""
        # Nothing where they are as they were before there was such an option, so that older outputs go on.
        said: dict[str, str | float] = {}
        if self.raw_format is not None:
            said["raw_format"] = str(self.reader_settings.raw_format)
        if self.max_duration != DEFAULT_MAX_DURATION_S:
            said["max_duration"] = float(self.max_duration) if math.isfinite(self.max_duration) else "inf"
        return said


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturizeOptions(RunOptions):
    """The options of `featurize`; see ``ser-batch featurize --help``."""

    out: Path = Path("features")
    features: str = MFCC
    preset: str = DEFAULT_PRESET
    variants: str = CLEAN
    name: str | None = None
    verify: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options against each other."""
        super().__post_init__()
        _ = self.wanted_variants
        check_seed(self.seed)
        if self.verify < 0:
            raise UsageError(f"--verify {self.verify}; expected 0 or more recordings")
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
        if self.features != MFCC:
            return None
        if self.preset not in PRESETS:
            raise UsageError(
                f"preset {self.preset!r}; expected one of {', '.join(PRESETS)}{did_you_mean(self.preset, PRESETS)}"
            )
        return PRESETS[self.preset]

    @property
    def wanted_variants(self) -> Variants:
        """The variants of each segment; the seed counts only where something is drawn."""
        names = variant_names(self.variants)
        return Variants(names=names, seed=0 if names == (CLEAN,) else self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `train`; see ``ser-batch train --help``.

    A `recipe` of None stands for `DEFAULT_RECIPE`, or `HEAD_RECIPE` where the features are embeddings; `normalize` of
    None for none; or both for those of the model that `init` names.
    """

    out: Path = Path("model")
    estimator: Estimator = "network"
    recipe: RecipeName | None = None
    init: str | None = None
    split: str = "stratified"
    vocal_channel: VocalChannel = "both"
    test_vocal_channel: VocalChannel = "both"
    train_variants: str | None = None
    conditions: str = CLEAN
    baselines: str | None = None
    soft_labels: bool = False
    normalize: Normalize | None = None
    epochs: int | None = None
    seed: int = 0
    seeds: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what no training can be run with."""
        if is_remote(self.out):
            raise UsageError(f"--out {self.out}; train writes to a folder of this machine, copy the model from there")
        for name, choices in (
            ("estimator", Estimator),
            ("recipe", RecipeName),
            ("vocal_channel", VocalChannel),
            ("test_vocal_channel", VocalChannel),
            ("normalize", Normalize),
        ):
            is_open = name in ("recipe", "normalize") and getattr(self, name) is None
            value, known = getattr(self, name), typing.get_args(choices)
            if value not in known and not is_open:
                raise UsageError(f"{name} {value!r}; expected one of {', '.join(known)}{did_you_mean(value, known)}")
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
        if self.normalize not in (None, "none") and self.estimator != "network":
            raise UsageError(
                f"--normalize {self.normalize} with --estimator {self.estimator}; nothing would be left of the mean "
                "and deviation that such a model goes by, leave one of the two out"
            )
        check_protocol(self.split)
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"--epochs {self.epochs}; expected 1 or more")
        check_seed(self.seed)
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}; expected 1 or more")
        check_seed(self.seed + self.seeds - 1)
        _ = self.wanted_conditions, self.wanted_train_variants
        for name in self.wanted_baselines:
            if name not in BASELINES:
                raise UsageError(
                    f"--baselines {name!r}; expected some of {', '.join(BASELINES)}{did_you_mean(name, BASELINES)}"
                )

    def for_features(self, spec: AnyFeatureSpec) -> "TrainOptions":
        """Return the options with the recipe that features have, or refuse one of the other front end."""
        is_encoder = isinstance(spec, EncoderSpec)
        recipe = self.recipe or (HEAD_RECIPE if is_encoder else DEFAULT_RECIPE)
        networks = (recipe, *self.wanted_baselines) if self.estimator == "network" else self.wanted_baselines
        for name in networks:
            if name in typing.get_args(RecipeName) and is_encoder != (name == HEAD_RECIPE):
                found, made = ("embeddings", "MFCCs") if is_encoder else ("MFCCs", "embeddings")
                how = "" if is_encoder else " --features whisper-tiny.en"
                other = HEAD_RECIPE if is_encoder else DEFAULT_RECIPE
                raise UsageError(
                    f"recipe {name} is of {made}, and these features are {found}; train with --recipe {other}, or "
                    f"featurize into another folder: ser-batch featurize AUDIO{how} --out OTHER"
                )
        if is_encoder and self.normalize not in (None, "none"):
            raise UsageError(
                f"--normalize {self.normalize} with embeddings: heads have references of their own, of the archive and "
                "of the channel; leave --normalize out"
            )
        return dataclasses.replace(self, recipe=recipe) if self.estimator == "network" else self

    @property
    def kind(self) -> str:
        """What is trained: the recipe of the network, else the estimator."""
        return (self.recipe or DEFAULT_RECIPE) if self.estimator == "network" else self.estimator

    @property
    def model_name(self) -> str:
        """What the model is called beside its baselines, one of which may be its own recipe from the beginning."""
        return self.kind if self.init is None else "tuned"

    @property
    def wanted_normalize(self) -> Normalize:
        """Whose mean and deviation MFCCs are scaled by; none is that of all that is trained on."""
        return self.normalize or "none"

    @property
    def wanted_conditions(self) -> tuple[str, ...]:
        """The variants that held-out segments are tried in."""
        return variant_names(self.conditions)

    @property
    def wanted_train_variants(self) -> tuple[str, ...] | None:
        """The variants to train on; None stands for all there are."""
        if self.train_variants is None:
            return None if self.kind in (DEFAULT_RECIPE, HEAD_RECIPE) else (CLEAN,)
        return None if self.train_variants == "all" else variant_names(self.train_variants)

    @property
    def wanted_baselines(self) -> tuple[str, ...]:
        """What is fitted on the same folds, to stand beside the model."""
        return tuple(dict.fromkeys(name.strip() for name in self.baselines.split(","))) if self.baselines else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions(RunOptions):
    """The options of `score`; see ``ser-batch score --help``."""

    out: Path = Path("preds.parquet")
    model: str | None = None
    segments: SegmentMode = "windows"
    channel_roles: str | None = None
    roles: str | None = None
    min_confidence: float = 0.0
    min_speech: float = 0.3
    reference: str | None = None
    prior: str | None = None

    def __post_init__(self) -> None:
        """Check the options against each other."""
        super().__post_init__()
        if not 0 <= self.min_speech <= 1:
            raise UsageError(f"--min-speech {self.min_speech}; expected a number from 0 to 1")
        if not 0 <= self.min_confidence <= 1:
            raise UsageError(f"--min-confidence {self.min_confidence}; expected a number from 0 to 1")
        if self.reference == "":
            raise UsageError("--reference is empty; expected a file, or none")
        _ = self.wanted_prior
        if self.out.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".feather", ".arrow", ".pq"):
            raise UsageError(f"--out {self.out}; expected a name that ends in .parquet, or the name of a folder")
        unknown = self.wanted_roles - set(self.role_of_channel.values())
        if unknown:
            raise UsageError(
                f"--roles names {', '.join(sorted(unknown))}, which --channel-roles gives to no channel; "
                "add it there, such as --channel-roles 0=agent,1=customer"
                + did_you_mean(min(unknown), self.role_of_channel.values())
            )

    @property
    def min_speech_ratio(self) -> float:
        """The share of speech that a segment needs to be scored: where the user chose the segments, all are."""
        return self.min_speech if self.segments in ("windows", "turns") else 0.0

    @property
    def wanted_prior(self) -> dict[str, float] | None:
        """Shares of labels, empty for balanced; None stands for the default of the segments and the model."""
        return None if self.prior is None else parse_prior(self.prior)

    @property
    def role_of_channel(self) -> dict[int, str]:
        """Channel number to role, from ``0=agent,1=customer``."""
        roles: dict[int, str] = {}
        for item in self.channel_roles.split(",") if self.channel_roles else ():
            number, equals, role = (part.strip() for part in item.partition("="))
            if not (number.isdecimal() and len(number) < 10 and equals and role):
                raise UsageError(f"--channel-roles {self.channel_roles!r}; expected such as 0=agent,1=customer")
            if int(number) in roles:
                raise UsageError(f"--channel-roles {self.channel_roles!r}; channel {int(number)} stands there twice")
            roles[int(number)] = role
        return roles

    @property
    def wanted_roles(self) -> frozenset[str]:
        """The roles to score; none stands for all channels."""
        return frozenset(role.strip() for role in self.roles.split(",")) if self.roles else frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthOptions:
    """The options of `synth`; see ``ser-batch synth --help``."""

    actors: int = 4
    seed: int = 0
    overwrite: bool = False


Options = SynthOptions | FeaturizeOptions | TrainOptions | ScoreOptions
# in the order in which a job runs them
STAGES: dict[str, type[Options]] = {
    "synth": SynthOptions,
    "featurize": FeaturizeOptions,
    "train": TrainOptions,
    "score": ScoreOptions,
}

# what a stage works on stands beside its options under these keys
STAGE_INPUTS = {"synth": "folder", "featurize": "audio", "train": "features", "score": "audio"}
