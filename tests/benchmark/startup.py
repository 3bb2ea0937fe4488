"""How long `ser-batch --help` takes, beside a program whose only command, made with click, does nothing.

python tests/benchmark/startup.py
"""

from harness import Bar, Program, argument_parser, compare_runs, interleave, script, ser_batch, show


def main() -> None:
    """Measure and print."""
    parser = argument_parser(__doc__, "--runs")
    parser.set_defaults(runs=15)
    arguments = parser.parse_args()
    programs = [
        Program("ser-batch --help", ser_batch("--help")),
        Program("empty click command", script("peers/empty_click.py", "--help")),
    ]
    rows = compare_runs(interleave(programs, arguments.runs), {"empty click command": Bar("at most", 3)})
    show("Start-up", rows, arguments.markdown)


if __name__ == "__main__":
    main()
