"""The command group: errors, hints, completion, versions."""

import errno
import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import click

from ser_batch import __version__
from ser_batch.cli.console import Output, echo_error, output_options, wrapped
from ser_batch.config.fields import GROUPS
from ser_batch.errors import SerBatchError, printable

# of the list of commands
SECTIONS = ("Score", "Train", "More")
_EXAMPLE = "\b\nExample:\n"
# that decide the numbers or the files; librosa is the definition of the features, av reads more formats
_PACKAGES = (
    "numpy", "scipy", "soxr", "soundfile", "librosa", "av", "polars", "pyarrow", "joblib", "scikit-learn", "keras",
    "jax", "jaxlib", "skops", "onnxruntime",
)  # fmt: skip


class Command(click.Command):
    """A command with ``--json``, ``--quiet`` and ``--verbose``, and the example of its docstring at the help's end."""

    def __init__(self, *arguments: Any, section: str = SECTIONS[-1], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        text, _, example = inspect.cleandoc(self.help or "").partition(_EXAMPLE)
        self.help, self.example, self.section = text.rstrip(), example.strip(), section
        self.params += output_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by their groups."""
        for group, options in option_groups(self.get_params(ctx)).items():
            with formatter.section(group):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])

    def format_epilog(
        self,
        ctx: click.Context,  # noqa: ARG002 - as click calls it
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the example; click would wrap it."""
        formatter.write(f"\n  Example:\n    {self.example}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Refuse options that contradict each other; run the command."""
        output = Output.current()
        if output.quiet and output.verbose:
            raise click.UsageError("--quiet and --verbose contradict each other; leave one of them out", ctx)
        if output.verbose:
            output.detail(", ".join(f"{name} {version}" for name, version in versions().items()))
            settings = ", ".join(f"{name}={value}" for name, value in ctx.params.items() if value is not None)
            output.detail(f"{ctx.info_name}: {settings}")
        return super().invoke(ctx)


def option_groups(params: Iterable[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Return options by the group that help lists them in, those without one by the last."""
    groups: dict[str, list[click.Parameter]] = {group: [] for group in GROUPS}
    for param in params:
        if isinstance(param, click.Option):
            groups[getattr(param, "group", GROUPS[-1])].append(param)
    return {group: options for group, options in groups.items() if options}


class Group(click.Group):
    """Turns the errors of ser-batch into a message and an exit status, for every command."""

    command_class = Command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - as click calls it
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the commands by their sections."""
        width = max(map(len, self.commands))
        for section in SECTIONS:
            commands = [one for one in self.commands.values() if getattr(one, "section", SECTIONS[-1]) == section]
            if commands:
                limit = formatter.width - 6 - width
                with formatter.section(section):
                    formatter.write_dl(
                        [(f"{one.name or '':<{width}}", one.get_short_help_str(limit)) for one in commands]
                    )

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # names come from the shell's wildcards, too; click's own lines and indents stay
            lines = ("\t".join(map(printable, line.split("\t"))) for line in error.format_message().split("\n"))
            text = wrapped("\n".join(lines), sys.stderr, before="Error: ")
            error.format_message = lambda: text  # type: ignore[method-assign]  # its type and usage line are kept
            raise
        except SerBatchError as error:
            echo_error(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            interrupted = "\nInterrupted. Completed work is saved; run the same command to resume."
            click.echo(wrapped(interrupted, sys.stderr), err=True)
            ctx.exit(130)


def commands_of(group: click.Group, before: str = "") -> dict[str, Command]:
    """Return all commands by what is typed, such as ``encoder convert``."""
    found: dict[str, Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands_of(command, f"{before}{name} ")
        else:
            assert isinstance(command, Command)
            found[f"{before}{name}"] = command
    return found


def versions() -> Mapping[str, str]:
    """Return the versions that matter, by name; nothing is loaded for it."""
    import importlib.metadata
    import platform

    found = {"ser-batch": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def print_versions(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    """Print the version for ``--version``; with ``-v`` those of the libraries that matter too, one per line."""
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"ser-batch {__version__}")
    if ctx.params.get("verbose"):
        import platform

        _, *others = versions().items()
        for name, version in others:
            click.echo(f"{name} {version}")
        click.echo(f"platform {platform.platform()}")
    ctx.exit()


def complete_models(_ctx: click.Context, _option: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of an installed model, or a folder."""
    from click.shell_completion import CompletionItem

    from ser_batch.storage.installed import INSTALLED_MODELS

    installed = [CompletionItem(name) for name in INSTALLED_MODELS if name.startswith(incomplete)]
    return [*installed, CompletionItem(incomplete, type="dir")]


def complete_downloads(_ctx: click.Context, _option: click.Parameter, incomplete: str) -> list[Any]:
    """Complete the name of what can be downloaded."""
    from click.shell_completion import CompletionItem

    from ser_batch.download import CHECKPOINTS, RELEASES

    return [CompletionItem(name) for name in (*RELEASES, *CHECKPOINTS) if name.startswith(incomplete)]


def report_unprinted(errors: Mapping[str, OSError], *, is_done: bool) -> None:
    """Say which streams are full; on stdout where stderr is, unless that holds an object."""
    is_in_stderr = "stderr" not in errors
    if "--json" in sys.argv and not is_in_stderr:
        return
    for name, error in errors.items():
        if error.errno != errno.EPIPE:  # a reader has left, as head does
            done = "; the work is done" if is_done else ""
            echo_error(
                f"{name} cannot be written ({error.strerror}), so what was printed there is not complete{done}",
                err=is_in_stderr,
            )


def report_crash(error: Exception) -> None:
    """Print where an internal error happened, to stderr; with ``--verbose`` its traceback."""
    import traceback

    if {"-v", "--verbose"} & set(sys.argv):
        traceback.print_exception(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    echo_error(
        f"internal error: {type(error).__name__}: {printable(error)} ({printable(frame.filename)}, line "
        f"{frame.lineno}). Please report it with the traceback (--verbose) and the output of `ser-batch --version`"
    )
