"""The frozen settings that travel along the pipeline: how features are computed, how recordings are cut.

Everything that changes a value lives in one of these classes, is validated when it is made, and can be
written to JSON and compared. There is no global configuration.
"""

import dataclasses
import hashlib
import json
import math
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from ser_batch.errors import JobError, UsageError

SegmentMode = Literal["clip", "windows", "labels"]
Recipe = Literal["seed"]
Estimator = Literal["cnn", "svm", "forest", "logistic"]
_Spec = TypeVar("_Spec")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """All numbers that define the MFCCs; the defaults are the preset ``ravdess``.

    ``librosa.feature.mfcc`` with the same parameters on ``librosa.load``'s samples is the definition.

    Parameters
    ----------
    sampling_rate
        Rate the recording is resampled to (soxr HQ), in Hz. Mel bands reach up to half of it.
    n_mfcc
        Coefficients kept of the orthonormal DCT-II.
    n_fft, win_length, hop_length
        FFT size, periodic Hann window and step, in samples; frames are centred, zeros pad both ends.
    n_mels
        Slaney mel bands, area-normalised.
    top_db
        How far below the loudest point of the segment the dB values are cut off.
    n_frames
        Frames a segment has; longer ones are cut, shorter ones padded with 0.0.
    """

    sampling_rate: int = 22050
    n_mfcc: int = 40
    n_fft: int = 2048
    win_length: int = 2048
    hop_length: int = 512
    n_mels: int = 128
    top_db: float = 80.0
    n_frames: int = 174

    def __post_init__(self) -> None:
        """Refuse numbers that no MFCC can be computed with."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise UsageError(f"feature spec: {field.name} is {value!r}; expected a positive number")
        if self.win_length > self.n_fft:
            raise UsageError(
                f"feature spec: win_length {self.win_length} is larger than n_fft {self.n_fft}; "
                "choose n_fft at least as large"
            )
        if self.n_mfcc > self.n_mels:
            raise UsageError(
                f"feature spec: n_mfcc {self.n_mfcc} is larger than n_mels {self.n_mels}; "
                "there are no more coefficients than mel bands"
            )

    @property
    def max_samples(self) -> int:
        """Most samples a segment can have without being cut to `n_frames` frames."""
        return self.n_frames * self.hop_length - 1

    @property
    def max_window_s(self) -> float:
        """Longest window that fits `n_frames` frames, in seconds."""
        return self.max_samples / self.sampling_rate

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, as they are written to spec.json and bundle.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; unknown fields are refused by name.

        Raises
        ------
        UsageError
            A field is unknown or has an impossible value.
        """
        return _from_dict(cls, values, "feature spec")

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the fields that differ from their default.

        Fields at their default are left out, so that a field added later leaves old hashes as they were.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        changed = {name: value for name, value in self.to_dict().items() if value != defaults[name]}
        return hashlib.sha256(canonical_json(changed).encode()).hexdigest()


PRESETS: dict[str, FeatureSpec] = {
    "ravdess": FeatureSpec(),
    "telephone": FeatureSpec(sampling_rate=8000, n_fft=1024, win_length=743, hop_length=186, n_mels=64),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """How a recording becomes segments.

    Parameters
    ----------
    mode
        ``clip``: one segment, the recording's beginning. ``windows``: overlapping windows over all of it.
        ``labels``: the rows of the labels file.
    window_s, hop_s
        Length and step of the windows in seconds; only used by ``windows``.
    channels
        ``mix`` (the mean of all), ``split`` (each by itself) or the source's channel numbers, such as ``0,1``.
        None stands for the mode's default: mix for clip, split otherwise.
    """

    mode: SegmentMode = "clip"
    window_s: float = 4.04
    hop_s: float = 2.02
    channels: str | None = None

    def __post_init__(self) -> None:
        """Refuse lengths and channels that cannot be."""
        if self.mode not in typing.get_args(SegmentMode):
            raise UsageError(f"segments {self.mode!r}; expected one of {', '.join(typing.get_args(SegmentMode))}")
        for name, value in (("window", self.window_s), ("hop", self.hop_s)):
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} {value!r}; expected a number of seconds above 0")
        if self.channels is None:
            object.__setattr__(self, "channels", "mix" if self.mode == "clip" else "split")
        elif self.channels not in ("mix", "split"):
            _channel_numbers(self.channels)

    def channel_numbers(self, n_channels: int) -> tuple[int, ...]:
        """Return the table's channel numbers for a recording: -1 is the mean, 0 the only one of mono.

        Parameters
        ----------
        n_channels
            Channels of the recording. Numbers asked for that it does not have are left out.
        """
        if n_channels == 1:
            return (0,) if self.channels in ("mix", "split") or 0 in _channel_numbers(str(self.channels)) else ()
        if self.channels == "mix":
            return (-1,)
        if self.channels == "split":
            return tuple(range(n_channels))
        return tuple(number for number in _channel_numbers(str(self.channels)) if number < n_channels)

    def check_window(self, spec: FeatureSpec) -> None:
        """Refuse windows that a segment's frames cannot hold.

        Raises
        ------
        UsageError
            The window is longer than the `n_frames` frames of `spec`.
        """
        if self.mode == "windows" and round(self.window_s * spec.sampling_rate) > spec.max_samples:
            raise UsageError(
                f"a window of {self.window_s:g} s does not fit the {spec.n_frames} frames of a segment; "
                f"choose --window {math.floor(spec.max_window_s * 100) / 100:g} or less"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they are written to spec.json and bundle.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; unknown fields are refused by name."""
        return _from_dict(cls, values, "segmentation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `featurize` and `score` share: how the work is done, none of which changes a value.

    Parameters
    ----------
    jobs
        Worker processes; None stands for all cores. 1 is a plain loop in this process.
    shard_size
        Recordings a worker takes at a time, at most; they become one Parquet part.
    overwrite
        Throw away what the output holds and start anew.
    prune
        Drop the rows of recordings that are no longer there.
    strict
        Exit with status 3 where anything was rejected.
    """

    jobs: int | None = None
    shard_size: int = 64
    overwrite: bool = False
    prune: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}; expected 1 or more, or nothing for all cores")
        if self.shard_size < 1:
            raise UsageError(f"--shard-size {self.shard_size}; expected 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeaturizeOptions(RunOptions):
    """The options of `featurize`; see ``ser-batch featurize --help``."""

    out: Path = Path("features")
    preset: str = "ravdess"
    labels: Path | None = None
    name: str | None = None
    segments: SegmentMode = "clip"
    window: float = 4.04
    hop: float = 2.02
    channels: str | None = None
    verify: int = 0

    def __post_init__(self) -> None:
        """Check the options against each other."""
        super().__post_init__()
        if self.verify < 0:
            raise UsageError(f"--verify {self.verify}; expected 0 or more recordings")
        self.segmentation.check_window(self.spec)

    @property
    def spec(self) -> FeatureSpec:
        """The feature spec of the preset."""
        if self.preset not in PRESETS:
            raise UsageError(f"preset {self.preset!r}; expected one of {', '.join(PRESETS)}")
        return PRESETS[self.preset]

    @property
    def segmentation(self) -> Segmentation:
        """How recordings are cut."""
        return Segmentation(mode=self.segments, window_s=self.window, hop_s=self.hop, channels=self.channels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `train`; see ``ser-batch train --help``."""

    out: Path = Path("model")
    estimator: Estimator = "cnn"
    recipe: Recipe = "seed"
    split: str = "stratified"
    epochs: int = 100
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what no training can be run with."""
        for name, value, choices in (
            ("estimator", self.estimator, typing.get_args(Estimator)),
            ("recipe", self.recipe, typing.get_args(Recipe)),
        ):
            if value not in choices:
                raise UsageError(f"{name} {value!r}; expected one of {', '.join(choices)}")
        if self.epochs < 1:
            raise UsageError(f"--epochs {self.epochs}; expected 1 or more")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}; expected a number from 0 to 4294967295")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions(RunOptions):
    """The options of `score`; see ``ser-batch score --help``."""

    out: Path = Path("preds.parquet")
    model: str | None = None
    labels: Path | None = None
    segments: SegmentMode = "windows"
    window: float = 4.04
    hop: float = 2.02
    channels: str | None = None
    channel_roles: str | None = None
    roles: str | None = None

    def __post_init__(self) -> None:
        """Check the options against each other."""
        super().__post_init__()
        unknown = self.wanted_roles - set(self.role_of_channel.values())
        if unknown:
            raise UsageError(
                f"--roles names {', '.join(sorted(unknown))}, which --channel-roles gives to no channel; "
                "add it there, such as --channel-roles 0=agent,1=customer"
            )

    @property
    def segmentation(self) -> Segmentation:
        """How recordings are cut."""
        return Segmentation(mode=self.segments, window_s=self.window, hop_s=self.hop, channels=self.channels)

    @property
    def role_of_channel(self) -> dict[int, str]:
        """Channel number to role, from ``0=agent,1=customer``."""
        roles: dict[int, str] = {}
        for item in self.channel_roles.split(",") if self.channel_roles else ():
            number, equals, role = (part.strip() for part in item.partition("="))
            if not (number.isdecimal() and equals and role):
                raise UsageError(f"--channel-roles {self.channel_roles!r}; expected such as 0=agent,1=customer")
            roles[int(number)] = role
        return roles

    @property
    def wanted_roles(self) -> frozenset[str]:
        """The roles to score; none stands for all channels."""
        return frozenset(role.strip() for role in self.roles.split(",")) if self.roles else frozenset()


def canonical_json(value: Any) -> str:
    """Return `value` as JSON that is the same for equal values: keys sorted, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


STAGES: dict[str, type[FeaturizeOptions | TrainOptions | ScoreOptions]] = {
    "featurize": FeaturizeOptions,
    "train": TrainOptions,
    "score": ScoreOptions,
}
# what a stage works on stands beside its options under these keys
STAGE_INPUTS = {"featurize": "audio", "train": "features", "score": "audio"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A job file: what to run, in this order; paths are relative to the working directory.

    Parameters
    ----------
    synth
        Folder to make the small made-up corpus in, or None.
    steps
        What a stage works on (a folder; for train a tuple of them) and its options.
    """

    synth: Path | None
    steps: tuple[tuple[Any, FeaturizeOptions | TrainOptions | ScoreOptions], ...]


def read_job(path: Path, overrides: tuple[str, ...] = ()) -> Job:
    """Read a job file into the options of its stages.

    Parameters
    ----------
    path
        TOML with the tables ``[[featurize]]`` (may repeat; ``[featurize]`` is fine too), ``[train]`` and
        ``[score]``, whose keys are the options of the command, and ``[synth]`` with ``folder``.
    overrides
        ``table.key=value`` with a TOML value (a bare word is taken as a string).

    Raises
    ------
    JobError
        The file is not TOML, or holds unknown tables, unknown keys or values of the wrong type.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobError(f"{path}: cannot be read as TOML ({error}); see jobs/ for complete examples") from error
    for override in overrides:
        _override(tables, override)
    known = ("synth", *STAGES)
    _refuse_unknown(str(path), "table", tables, known)
    synth = tables.get("synth")
    if synth is not None:
        if not isinstance(synth, dict) or not isinstance(synth.get("folder"), str):
            raise JobError(f'{path}: [synth] needs a folder, such as folder = "demo/audio"')
        _refuse_unknown(f"{path}: [synth]", "key", synth, ("folder",))
    steps = []
    for stage in STAGES:
        entries = tables.get(stage, [])
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, dict):
                raise JobError(f"{path}: {stage} is {entry!r}; expected a table, [{stage}]")
            steps.append(_step(path, stage, entry))
    if not steps:
        raise JobError(f"{path}: nothing to run; expected one of the tables {', '.join(f'[{s}]' for s in STAGES)}")
    return Job(Path(synth["folder"]) if synth else None, tuple(steps))


def _step(path: Path, stage: str, entry: dict[str, Any]) -> tuple[Any, Any]:
    """Turn one table of a job into (input, options)."""
    options_type, input_key = STAGES[stage], STAGE_INPUTS[stage]
    where = f"{path}: [{stage}]"
    hints = typing.get_type_hints(options_type)
    _refuse_unknown(where, "key", entry, (input_key, *hints))
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key != input_key:
            values[key] = _coerce(where, key, value, hints[key])
    source: Any = entry.get(input_key)
    if stage == "train":
        folders = [source] if isinstance(source, str) else source or []
        if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
            raise JobError(f'{where}: {input_key} is {source!r}; expected a folder or a list, ["features"]')
        return tuple(Path(folder) for folder in folders), options_type(**values)
    if not isinstance(source, str):
        raise JobError(f'{where}: expected {input_key} = "folder", the recordings to work on')
    return Path(source), options_type(**values)


def _coerce(where: str, key: str, value: Any, hint: Any) -> Any:
    """Check a TOML value against the type of its option."""
    choices = typing.get_args(hint) or (hint,)
    if Path in choices and isinstance(value, str):
        return Path(value)
    if float in choices and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is not bool and isinstance(value, bool):
        pass  # True is an int to Python, not to the reader of a job
    elif value in [choice for choice in choices if isinstance(choice, str)] or any(
        isinstance(choice, type) and isinstance(value, choice) for choice in choices
    ):
        return value
    expected = " or ".join(getattr(choice, "__name__", repr(choice)) for choice in choices if choice is not type(None))
    raise JobError(f"{where}: {key} is {value!r}; expected {expected}")


def _override(tables: dict[str, Any], override: str) -> None:
    """Set one ``table.key=value`` in the tables of a job, in every one where the table repeats."""
    name, equals, text = override.partition("=")
    table, dot, key = name.strip().partition(".")
    if not (equals and dot and key):
        raise JobError(f"--set {override!r}; expected table.key=value, such as train.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    if table not in tables:
        raise JobError(f"--set {override!r}: the job has no table [{table}]; it has {', '.join(tables)}")
    entries = tables[table] if isinstance(tables[table], list) else [tables[table]]
    for entry in entries:
        entry[key] = value


def _refuse_unknown(where: str, what: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise a JobError that names the first unknown key and the nearest known one."""
    import difflib

    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise JobError(f"{where}: unknown {what} {key!r}; {hint}")


def _from_dict(cls: type[_Spec], values: Mapping[str, Any], what: str) -> _Spec:
    """Make a frozen spec of a JSON object, refusing unknown fields by name."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # all callers are dataclasses
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"{what}: unknown field {unknown[0]!r}; written by a newer version of ser-batch?")
    return cls(**values)


def _channel_numbers(text: str) -> tuple[int, ...]:
    """Parse ``0,1`` into channel numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts) or len(set(parts)) != len(parts):
        raise UsageError(f"channels {text!r}; expected mix, split, or numbers such as 0,1")
    return tuple(int(part) for part in parts)
