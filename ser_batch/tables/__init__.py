"""The tables: column names and dtypes spelled once, written whole or not at all, read back.

Parquet goes through pyarrow here, because workers write it and pyarrow is what they load; Polars is what users
and the later stages read it with.
"""
