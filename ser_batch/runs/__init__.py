"""Shards of recordings over worker processes or a cluster; a ledger remembers what is done.

A store is the folder that a stage writes to::

    part-000001.parquet           rows of a shard, written by the worker that did it
    _meta/run.json                the settings of the run: a run with others is refused
    _meta/ledger/part-000001.json written after the part: recordings that are done, rejects
    _meta/rejects.parquet         the rejects of all shards, written when the run ends
    _meta/lock.json               which process is writing, while it does

A part without its ledger is ignored and done again, so a run can be killed at any moment.
"""
