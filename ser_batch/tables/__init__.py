"""Column names and dtypes, declared once; reading and writing Parquet.

Workers write Parquet with pyarrow, the only table library they load; users and later stages read it with Polars.
"""
