"""Work whose recordings say how many rows they have, and where they break.

In a module of its own because each worker process imports it.
"""

import dataclasses
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from ser_batch.audio.recording_file import RecordingFile
from ser_batch.corpus.manifest import Recording
from ser_batch.errors import RecordingError
from ser_batch.runs.part_writer import MAIN, Rows
from ser_batch.runs.worker import Work

SCHEMA = pa.schema([("path", pa.string()), ("end_s", pa.float64()), ("number", pa.int64())])
CALLS = pa.schema([("path", pa.string()), ("n_rows", pa.int64())])


@dataclasses.dataclass(frozen=True)
class CountingWork(Work):
    """Yields as many numbered rows as a file says, and one row about it in a second table."""

    folder: Path
    error: type[Exception] = RuntimeError

    @property
    def schemas(self) -> Mapping[str, pa.Schema]:
        return {MAIN: SCHEMA, "calls": CALLS}

    def rows(self, recording: Recording, _: RecordingFile) -> Rows:
        n_rows, fate = Path(os.fsdecode(recording.file)).read_text().partition(" ")[::2]
        for number in range(int(n_rows)):
            yield MAIN, dict(zip(SCHEMA.names, (recording.path, number + 1.0, number), strict=True))
        if fate == "breaks":
            raise (
                RecordingError("decode", f"{recording.path}: broken in the middle")
                if self.error is RecordingError
                else (self.error("the decoder has thought up something"))
            )
        if fate == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        yield "calls", dict(zip(CALLS.names, (recording.path, int(n_rows)), strict=True))
