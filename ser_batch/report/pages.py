"""The HTML page of a model folder or of predictions."""

import contextlib
import shlex
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ser_batch.config.options import Playback
from ser_batch.errors import UsageError
from ser_batch.model.folder import MODEL_FILE
from ser_batch.report.predictions import segment_files, side_tables
from ser_batch.storage.atomic import write_text
from ser_batch.storage.paths import refuse_undecodable
from ser_batch.summary import Summary


class PageSummary(Summary, frozen=True, kw_only=True):
    """What `write_page` wrote."""

    out: Annotated[Path, Meta(description="the page")]
    source: Annotated[Path, Meta(description="what it reports on")]


def page_warnings(source: Path, out: Path, playback: Playback = "link") -> tuple[str, ...]:
    """Write the page of what is finished; return a warning where that fails, since the work is worth more than it."""
    try:
        write_page(source, out, playback)
    except Exception as error:  # a fault of the page, of the charts or of the disk: all cost the page only
        with contextlib.suppress(OSError):
            out.unlink(missing_ok=True)  # a page of what was there before
        reason = str(error) or type(error).__name__
        command = shlex.join(["ser-batch", "report", str(source), "--out", str(out)])
        command += "" if playback == "link" else f" --playback {playback}"
        return (f"{out}: the page could not be made ({reason}); make it with `{command}`",)
    return ()


def write_page(source: Path, out: Path, playback: Playback = "link") -> PageSummary:
    """Write the HTML page of a model folder or of preds.parquet.

    Parameters
    ----------
    source
        A folder made by train, or what score made: a .parquet file with its side tables, or a folder of parts.
    out
        The page; one file that needs no network.
    playback
        How a page of predictions plays calls: ``link`` to the recordings, ``clips`` beside the page, or ``none``.

    Raises
    ------
    UsageError
        `source` is neither.
    ModelError
        model.json is broken.
    """
    if (source / MODEL_FILE).is_file():
        from ser_batch.report.model_page import model_page  # with Altair, half a second that only this page needs

        page = model_page(source)
    else:
        refuse_undecodable(source)
        needed = [*side_tables(source).values(), *segment_files(source)]
        missing = [path for path in needed if not path.is_file()]
        if missing:
            raise UsageError(
                f"{source}: neither a model folder (with model.json) nor predictions made by `ser-batch score` "
                f"({missing[0].name} is missing)"
            )
        from ser_batch.report.calls_page import calls_page

        page = calls_page(source, out, playback)
    write_text(out, page)
    return PageSummary(out=out, source=source)
