"""Files of raw records to the three files of HugeCTR's benchmarks or to a dataset to train on; and back.

__main__     the program `python -m criteo_prep.split_bin`, with the published flags
record       what a record is, and which numbers it may hold
metadata     metadata.json
known_form   the types that a feature spec or metadata.json next to the records states
files        split() and join(): records to three files and back
dataset_spec the feature spec of the three files, in memory: a trainer reads them as they are
to_tf_raw    split_to_tf_raw(): records to a tf_raw dataset
"""
