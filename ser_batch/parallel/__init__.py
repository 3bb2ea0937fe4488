"""Shards over worker processes: each writes its own part, a ledger remembers what is done.

A store is a folder that a stage writes to::

    part-000001.parquet           rows of the first shard, written by the worker that made them
    _meta/run.json                what the run was: another root, spec or option that changes values is refused
    _meta/ledger/part-000001.json written after its part: the recordings that are done, the rejects
    _meta/rejects.parquet         of all ledgers together, written when the run ends
    _meta/lock.json               which run is writing, as long as it does
    _meta/at/part-000001.txt      what the worker of a shard is at, as long as it has it

A part without its ledger entry is as good as not there; so a run that was stopped anywhere goes on. `running` does the
shards: in this process, or in worker processes (`workers`) that may die, which costs the recording they were at
(`watching`, `recovering`); or by the workers of a `cluster`, each of which has such a process too (`remote`).
"""

from ser_batch.parallel.cluster import Cluster, connected
from ser_batch.parallel.owning import claimed, refuse_other
from ser_batch.parallel.parts import MAIN, ROWS_A_GROUP, Rows
from ser_batch.parallel.planning import Plan
from ser_batch.parallel.progress import Progress, each_shard, no_progress
from ser_batch.parallel.running import run_recordings, run_shards
from ser_batch.parallel.shards import Shard, ShardSummary, Work
from ser_batch.parallel.store import Store, StoreSummary, worker_count

__all__ = [
    "MAIN",
    "ROWS_A_GROUP",
    "Cluster",
    "Plan",
    "Progress",
    "Rows",
    "Shard",
    "ShardSummary",
    "Store",
    "StoreSummary",
    "Work",
    "claimed",
    "connected",
    "each_shard",
    "no_progress",
    "refuse_other",
    "run_recordings",
    "run_shards",
    "worker_count",
]
