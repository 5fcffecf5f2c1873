"""Dumps of dynamic tables: everything that a table holds, and what has changed since a step.

__main__.py  the program that applies changes to a dump: `python -m dlrm_tf2.dump`
tables.py    from a DistributedEmbedding to files and back; the only file here that imports TensorFlow
files.py     the files of a dump: plain little-endian numbers
changes.py   the files of changes: Parquet
apply.py     a dump and the changes after it as one dump
"""
