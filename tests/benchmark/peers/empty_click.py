"""The least that a command line made with click can be.

python tests/benchmark/peers/empty_click.py --help
"""

import click


@click.command()
def main() -> None:
    """Do nothing."""


if __name__ == "__main__":
    main()
