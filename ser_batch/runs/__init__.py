"""Shards over worker processes: each writes its own part, a ledger remembers what is done.

A store is a folder that a stage writes to::

    part-000001.parquet           rows of the first shard, written by the worker that made them
    _meta/run.json                what the run was: another root, spec or option that changes values is refused
    _meta/ledger/part-000001.json written after its part: the recordings that are done, the rejects
    _meta/rejects.parquet         of all ledgers together, written when the run ends
    _meta/lock.json               which run is writing, as long as it does
    _meta/at/part-000001.txt      what the worker of a shard is at, as long as it has it

A part without its ledger entry is as good as not there; so a run that was stopped anywhere goes on.
"""
