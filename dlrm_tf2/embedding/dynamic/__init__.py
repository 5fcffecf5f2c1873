"""Dynamic tables of the embedding layer: keys of any value, which get rows of a slab while the table trains.

table         the part of one dynamic table on one rank: its index, the contents of fresh rows, expiry
tables        the dynamic tables of a rank, and what a training step knows of its keys
batch_keys    the keys of a batch become rows, on one rank
key_exchange  keys go to the ranks that own their buckets, rows come back, on several ranks
tiers         which part of the tables is in memory, and which in a file
step_times    which step a time belongs to, for expiry after seconds

All other work on rows is the work of embedding/slab.py and embedding/native_rows.py.
"""
