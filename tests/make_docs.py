"""docs/cli.md, made of the commands themselves: `make docs` writes it, tests/test_docs.py compares.

python tests/make_docs.py
"""

import re
from collections.abc import Iterable
from pathlib import Path

import click

from ser_batch.cli.app import commands_of, option_groups
from ser_batch.cli.commands import cli
from ser_batch.cli.console import output_options
from ser_batch.cli.summaries import RESULT_KEYS

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

OPENING = """\
# Commands

Made of the program by `make docs`; `ser-batch COMMAND --help` says the same.

## What is printed where

Results go to files, a short summary to stdout, progress, warnings and errors to stderr. On a terminal the progress is a
bar and tables are drawn; elsewhere both are plain lines, which stay as they are. Control characters in names are shown
escaped. `NO_COLOR=1` takes the colors out.

These options stand after any command. The object of `--json` is one line, the only one on stdout; its keys are listed
with each command, names are as in the tables, and a number that is not finite is null.

SHARED_OPTIONS

| exit status | |
|---|---|
| 0 | Done. Rejected recordings are listed and counted. |
| 1 | Nothing could be done, or it failed. The reason is on stderr, and stdout has no JSON. |
| 2 | Wrong usage: an option, a value, a path that is not there. As 1; a name that is nearly right gets a hint. |
| 3 | With `--strict`, when anything was rejected. The summary is printed all the same. |

```sh
ser-batch score ./calls --json --quiet | jq '.n_rejected'
```

`ser-batch --version` prints the versions that matter, one a line: the program's first, then those of what decides the
numbers, then the platform.

## Completion

The shell completes commands, options, their values and the names of shipped models after

```sh
eval "$(_SER_BATCH_COMPLETE=bash_source ser-batch)"       # in ~/.bashrc
eval "$(_SER_BATCH_COMPLETE=zsh_source ser-batch)"        # in ~/.zshrc
_SER_BATCH_COMPLETE=fish_source ser-batch | source        # in ~/.config/fish/completions/ser-batch.fish
```

which starts the program each time a shell starts. Its output may be kept in a file and sourced from there instead.
"""

SHARED = {"as_json", "quiet", "verbose", "help"}


def cell(text: str) -> str:
    """Return text as a cell of a Markdown table has it."""
    return re.sub(r"\s+", " ", text).strip().replace("|", r"\|")


def option_table(options: Iterable[click.Parameter], context: click.Context) -> list[str]:
    """Return the lines of a table of options."""
    rows: list[str] = []
    groups = option_groups(options)
    for group, members in groups.items():
        records = [record for option in members if (record := option.get_help_record(context))]
        rows += [f"| **{group}** | |"] if len(groups) > 1 else []
        rows += [f"| `{cell(names)}` | {cell(text).replace('<', '&lt;')} |" for names, text in records]
    return ["| option | what it does |", "|---|---|", *rows] if rows else []


def section(name: str, command: click.Command) -> str:
    """Return what the page says of one command."""
    context = click.Context(command, info_name=name, parent=click.Context(cli, info_name="ser-batch"))
    usage = re.sub(r"\s+", " ", command.get_usage(context)).removeprefix("Usage: ")
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    lines = [f"## {name}", "", f"    {usage}", ""]
    for paragraph in paragraphs:
        lines += [paragraph, ""]
    lines += [f"    $ {command.example}", ""]
    own = [option for option in command.params if isinstance(option, click.Option) and option.name not in SHARED]
    if own:
        lines += [*option_table(own, context), ""]
    lines += ["| key of `--json` | |", "|---|---|"]
    lines += [f"| `{key}` | {cell(description)} |" for key, description in RESULT_KEYS[name].items()]
    return "\n".join(lines)


def page() -> str:
    """Return docs/cli.md."""
    shared = "\n".join(option_table(output_options(), click.Context(cli)))
    opening = OPENING.replace("SHARED_OPTIONS", shared)
    return "\n".join([opening, *(f"{section(name, command)}\n" for name, command in commands_of(cli).items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: written")
