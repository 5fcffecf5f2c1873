"""Dumps of dynamic tables: everything that a table holds, and what has changed since a step or a time.

__main__.py   the program that applies changes to a dump: `python -m dlrm_tf2.dump`
tables.py     dumps of a layer, and of what has changed in it, at once or behind the training
loading.py    from a dump to a layer
copying.py    what the tables of a rank hold, read from them or from a copy. These three files import TensorFlow
pending.py    a folder that all ranks write, and that appears when it is complete
arguments.py  what a dump says of a table, and the rows that it has
files.py      the files of a dump: plain little-endian numbers
changes.py    the files of changes: Parquet
apply.py      a dump and the changes after it as one dump
"""
