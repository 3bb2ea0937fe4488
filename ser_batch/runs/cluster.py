"""Shards over the machines of a cluster: only shards and summaries travel, workers write to shared storage."""

import abc
import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ser_batch.config.options import RunOptions
from ser_batch.errors import RecordingError, SerBatchError
from ser_batch.runs.ledger import Shard, ShardSummary
from ser_batch.runs.pieces import Pieces, drop_repeated
from ser_batch.runs.recovery import DEATHS_IN_A_ROW, died, write_reject
from ser_batch.runs.remote_worker import RemoteShard
from ser_batch.runs.watchdog import make_notes_folder, remove_notes
from ser_batch.runs.worker import Work, content_hash_of
from ser_batch.storage.atomic import remove_temporaries
from ser_batch.storage.lock import claim_of


@dataclasses.dataclass(frozen=True)
class Lost:
    """What comes back of a shard whose workers were lost, several in a row; `how` says it for people."""

    shard: Shard
    how: str


class Cluster(abc.ABC):
    """A cluster that this process is connected to."""

    @property
    @abc.abstractmethod
    def n_workers(self) -> int:
        """How many shards it does at a time, now."""

    @abc.abstractmethod
    def results(self, calls: Sequence[RemoteShard]) -> Generator[ShardSummary | Lost]:
        """Yield what becomes of calls, as they are ready."""


class JoblibCluster(Cluster):
    """One that joblib has a backend for; it gives what a lost worker had to other ones."""

    # what it is called in messages, what to see to where it fails, and how many calls it is given ahead
    name: str
    remedy: str
    pre_dispatch: int | str

    @abc.abstractmethod
    def backend(self) -> Any:
        """Return its backend of joblib, with `OutcomesMixin`."""

    @abc.abstractmethod
    def loss(self, error: BaseException) -> str | None:
        """Return how workers were lost, for people; None where the error is another one."""

    def results(self, calls: Sequence[RemoteShard]) -> Generator[ShardSummary | Lost]:
        """See `Cluster`."""
        import joblib

        parallel = joblib.Parallel(
            n_jobs=-1,
            backend=self.backend(),
            batch_size=1,
            pre_dispatch=self.pre_dispatch,
            return_as="generator_unordered",
        )
        with contextlib.closing(parallel(joblib.delayed(call)() for call in calls)) as results:
            for result in results:
                if isinstance(result, ShardSummary):
                    yield result
                    continue
                shard, error = result
                how = self.loss(error)
                if how is None:
                    raise SerBatchError(
                        f"{self.name} could not do {shard.name}: {type(error).__name__}: {error}. See {self.remedy}, "
                        "and run the same command again to go on; finished parts are kept"
                    ) from error
                yield Lost(shard, how)


@contextlib.contextmanager
def connected(options: RunOptions) -> Iterator[Cluster | None]:
    """Connect to the cluster that the options name; None where this machine does the work."""
    if options.backend == "loky":
        yield None
        return
    if options.backend == "dask":
        from ser_batch.runs.dask_cluster import connect
    else:
        from ser_batch.runs.ray_cluster import connect
    with connect(options.scheduler) as cluster:
        yield cluster


def summaries(
    work: Work, shards: Sequence[Shard], cluster: Cluster, *, timeout_s: float | None
) -> Generator[ShardSummary]:
    """Do shards on a cluster; yield a summary of each, or of the pieces it was cut into."""
    # A shard that several workers were lost with is halved, until it is known which recording it is; that one is tried
    # once more with nothing else at work, and then it is a reject.
    claim = claim_of(work.folder)
    assert claim is not None  # the stage holds the folder
    run = _ClusterRun(work, cluster, claim, timeout_s)
    make_notes_folder(work.folder)
    try:
        waiting = list(shards)
        while waiting:
            yield from run.summaries(waiting)
            waiting = drop_repeated(work.folder, work.schemas, shards)
    finally:
        remove_temporaries(work.folder)
        remove_notes(work.folder)


class _ClusterRun:
    """What is still to do, and which recordings may be to blame for lost workers."""

    def __init__(self, work: Work, cluster: Cluster, claim: str, timeout_s: float | None) -> None:
        self._work, self._cluster, self._claim, self._timeout_s = work, cluster, claim, timeout_s
        self._losses = 0  # in a row

    def summaries(self, shards: Sequence[Shard]) -> Iterator[ShardSummary]:
        waiting, suspects = list(shards), list[Shard]()
        while waiting or suspects:
            is_alone = not waiting
            batch, waiting = ([suspects.pop(0)], []) if is_alone else (waiting, [])
            unheard = {shard.name: shard for shard in batch}
            for result in self._cluster.results([self._call(shard) for shard in batch]):
                if isinstance(result, ShardSummary):
                    self._losses = 0
                    del unheard[result.name]
                    yield result
                    continue
                del unheard[result.shard.name]
                self._note_loss(result)
                pieces = Pieces(self._work.folder, result.shard)
                done, left = pieces.state()
                yield from done
                if left != [result.shard]:
                    waiting += left
                elif len(result.shard.recordings) > 1:
                    waiting += pieces.halves()
                elif is_alone:
                    yield self._reject(result)
                else:
                    suspects.append(result.shard)
            if len(unheard) == len(batch):  # joblib's generator has a way out of its loop that raises nothing
                self._note_loss(Lost(batch[0], "nothing was heard of it"))
            for shard in unheard.values():
                done, left = Pieces(self._work.folder, shard).state()
                yield from done
                waiting += left

    def _call(self, shard: Shard) -> RemoteShard:
        return RemoteShard(self._work, shard, self._claim, self._timeout_s)

    def _note_loss(self, lost: Lost) -> None:
        self._losses += 1
        if self._losses >= DEATHS_IN_A_ROW:
            raise SerBatchError(
                f"{self._losses} shards in a row lost their workers, the last one at "
                f"{lost.shard.recordings[0].path}: {lost.how}. See to the memory of the workers, and run the same "
                "command again to go on; finished parts are kept"
            )

    def _reject(self, lost: Lost) -> ShardSummary:
        (recording,) = lost.shard.recordings
        content_hash = None
        with contextlib.suppress(RecordingError):
            content_hash = content_hash_of(recording)  # so that it is not tried again before it changes
        return write_reject(self._work, lost.shard, died(recording, lost.how), content_hash=content_hash)


class OutcomesMixin:
    """Lets a backend of joblib tell of a lost worker as it tells of a result, where joblib would wait for ever."""

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Send a batch, which is one call."""
        ((call, _, _),) = func.items
        return super().submit(func, lambda out: callback((call.shard, out)))  # type: ignore[misc]  # joblib's

    def retrieve_result_callback(self, outcome: tuple[Shard, Any]) -> Any:
        """Return what a worker returned, or the error that the cluster has instead."""
        shard, out = outcome
        if isinstance(out, BaseException):
            return [(shard, out)]
        return super().retrieve_result_callback(out)  # type: ignore[misc]  # joblib's
