"""How inspect shows what it found: for people as lines and tables, for programs as one object."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ser_batch.cli.output import Output
from ser_batch.errors import printable

if TYPE_CHECKING:
    from ser_batch.report.inspecting import Inspection

_VALUES_SHOWN = 12
_CELL_WIDTH = 24


def print_inspection(found: "Inspection", output: Output) -> None:
    """Print what it is, how it came about, its health, its columns with their first values."""
    rows = "" if found.n_rows is None else f"{found.n_rows} rows in "
    version = f", schema version {found.schema_version}" if found.schema_version else ""
    files = "1 file" if found.n_files == 1 else f"{found.n_files} files"
    size = f"{found.n_bytes / 1e6:.1f} MB" if found.n_bytes >= 1e6 else f"{found.n_bytes / 1e3:.1f} kB"
    output.line(f"{printable(found.path)}: {found.kind}, {rows}{files}, {size}{version}")
    for name, value in found.spec.items():
        output.line(f"{printable(name)}: {_settings(value)}")
    if found.figures:
        output.line()
    for name, number in found.figures.items():
        output.line(f"{printable(name)}: {_number(number)}")
    shown = {name: counts for name, counts in found.counts.items() if counts}
    if shown:
        output.line()
    for name, counts in shown.items():
        output.line(f"{printable(name)}: {_counts(counts)}")
    if len(found.columns):
        output.line()
        first = found.first.to_dicts()
        lines = [
            [row["name"], _cell(row["dtype"]), *(_cell(one[row["name"]]) for one in first if row["name"] in one)]
            for row in found.columns.iter_rows(named=True)
        ]
        headers = ["column", "dtype", *(f"row {number + 1}" for number in range(len(first)))]
        output.table(_aligned([headers, *lines]), headers, lines, left=len(headers))
    if found.notes:
        output.line()
    for note in found.notes:
        output.line(f"note: {printable(note)}")


def inspection_result(found: "Inspection") -> dict[str, Any]:
    """Return the object of inspect."""
    return {
        "path": found.path,
        "kind": found.kind,
        "schema_version": found.schema_version,
        "n_files": found.n_files,
        "n_bytes": found.n_bytes,
        "n_rows": found.n_rows,
        "columns": found.columns.to_dicts(),
        "spec": found.spec,
        "figures": found.figures,
        "counts": {
            name: {"null" if value is None else value: n for value, n in counts.items()}
            for name, counts in found.counts.items()
        },
        "first": found.first.to_dicts(),
        "notes": found.notes,
    }


def _settings(value: Any) -> str:
    """Return settings as one line: names and values of a table, values of a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(name)}={_settings(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_settings(one) for one in value)
    return "none" if value is None else printable(value)


def _counts(counts: Mapping[Any, int]) -> str:
    items = [f"{'none' if value is None else printable(value)} {n}" for value, n in counts.items()]
    more = f", and {len(items) - _VALUES_SHOWN} more" if len(items) > _VALUES_SHOWN else ""
    return ", ".join(items[:_VALUES_SHOWN]) + more


def _number(number: float | None) -> str:
    return "none" if number is None else str(number) if isinstance(number, int) else f"{number:.3f}"


def _cell(value: Any) -> str:
    """Return a value short enough for a line of several."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else printable(value)
    return text if len(text) <= _CELL_WIDTH else f"{text[: _CELL_WIDTH - 3]}..."


def _aligned(rows: list[list[str]]) -> str:
    """Return rows of cells as text, each column as wide as its longest cell; rows may end early."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return "\n".join(
        "  ".join(f"{printable(cell):<{width}}" for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )
