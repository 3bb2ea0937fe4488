"""The options that featurize and score share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ser_batch.cli.app import Choice

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Place(click.Path):
    """A path, or the address of an object store, such as s3://bucket/calls."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ser_batch.storage.paths import to_path

        return to_path(str(super().convert(value, param, ctx)))


PLACE = _Place()


class _CorpusChoice(Choice):
    """The corpora that config names, asked for when they are needed: importing it takes longer than the rest."""

    def __init__(self) -> None:
        super().__init__(())

    @property
    def choices(self) -> tuple[str, ...]:
        import typing

        from ser_batch.config.options import CorpusName

        return typing.get_args(CorpusName)

    @choices.setter
    def choices(self, _none: object) -> None:
        """Nothing to keep: click's own initializer gives what it was given."""


def run_options(mode: str) -> Callable[[_Command], _Command]:
    """Add the options on how recordings are cut and who does the work."""

    def add(command: _Command) -> _Command:
        for option in reversed(
            (
                click.option(
                    "--segments",
                    type=click.Choice(["clip", "windows", "turns", "labels"]),
                    default=mode,
                    show_default=True,
                    help="clip: the first 4.04 s of each recording, or with an encoder all of it. windows: all of it, "
                    "in overlapping windows. turns: its stretches of speech between pauses. labels: the rows of the "
                    "labels file.",
                ),
                click.option(
                    "--window",
                    type=float,
                    default=4.04,
                    show_default=True,
                    help="Length of a window, and the most of a turn, seconds.",
                ),
                click.option(
                    "--hop",
                    type=float,
                    default=2.02,
                    show_default=True,
                    help="From window to window, seconds.",
                ),
                click.option(
                    "--channels",
                    metavar="mix|split|0,1",
                    help="The mean of all channels, each by itself, or some of them.  [default: mix for clip, "
                    "else split]",
                ),
                click.option(
                    "--raw-format",
                    metavar="ENCODING:RATE:CHANNELS",
                    help="What files without a header hold (.ul .al .raw .pcm .vox ...), such as mulaw:8000:1 (Hz): "
                    "mulaw, alaw, gsm, vox, s16le, s16be, u8.  [default: they are rejected]",
                ),
                click.option(
                    "--max-duration",
                    type=float,
                    default=86_400.0,
                    show_default=True,
                    metavar="SECONDS",
                    help="Reject recordings that last longer, seconds (86400 is a day); inf is no limit.",
                ),
                click.option(
                    "--labels",
                    type=click.Path(path_type=Path, exists=True, dir_okay=False),
                    help="CSV or Parquet: path, emotion, and if known speaker, sex, intensity, statement, corpus, "
                    "channel, start_s, end_s (not for clip), and votes of listeners, p_<label>.  [default: none]",
                ),
                click.option(
                    "--corpus",
                    type=_CorpusChoice(),
                    default="auto",
                    show_default=True,
                    metavar="auto|none|CORPUS",
                    help="The corpus whose file names the recordings have; names tell emotion and speaker. auto: any "
                    "known corpus (docs/tables.md). none: ignore names.",
                ),
                click.option(
                    "--jobs",
                    type=int,
                    help="Worker processes; a recording that crashes one is rejected. 1: none, all is done in this "
                    "process.  [default: all cores]",
                ),
                click.option(
                    "--backend",
                    type=click.Choice(["loky", "dask", "ray"]),
                    default="loky",
                    show_default=True,
                    help="Who works: processes of this machine, or the workers of a cluster, which find AUDIO and "
                    "--out under the same names (docs/scale.md).",
                ),
                click.option(
                    "--scheduler",
                    metavar="ADDRESS",
                    help="Of the cluster: of a Dask scheduler, tcp://10.0.0.1:8786, or of a Ray head, 10.0.0.1:6379.  "
                    "[default: none; of ray RAY_ADDRESS, else the one on this machine]",
                ),
                click.option("--isolate", is_flag=True, help="Use a worker process even for one job."),
                click.option(
                    "--timeout",
                    type=float,
                    metavar="SECONDS",
                    help="Give a recording up that takes longer, and reject it; needs 2 jobs or more, or --isolate.  "
                    "[default: no limit]",
                ),
                click.option(
                    "--shard-size",
                    type=int,
                    default=64,
                    show_default=True,
                    help="Recordings a worker takes at a time, at most.",
                ),
                click.option("--overwrite", is_flag=True, help="Throw away what the output holds, start anew."),
                click.option("--prune", is_flag=True, help="Drop the rows of recordings that are gone."),
                click.option(
                    "--since",
                    metavar="WHEN",
                    help="Do only recordings modified since 2026-03-01, 2026-03-01T18:00 (local time) or an age: 24h, "
                    "7d; what is done already stays.  [default: all]",
                ),
                click.option(
                    "--limit",
                    type=int,
                    metavar="N",
                    help="Do at most N recordings, the next call goes on.  [default: all]",
                ),
                click.option("--strict", is_flag=True, help="Exit with status 3 if anything was rejected."),
            )
        ):
            command = option(command)
        return command

    return add
