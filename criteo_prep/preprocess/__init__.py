"""Criteo's logs -> a tf_raw dataset.

run          preprocess(): find the inputs, decide what to do, do it, report
request      what is to be made, and the resources to make it with
inputs       which files train, and which rows become which split
input_files  the files that paths stand for: days, pieces of one input, part files
rules        everything else that a user decides about the samples
preflight    rows, disk and memory that a run needs
decide       complete, resume, derive, rebuild or refuse: one pure function
stages       parse, arrange, encode, finish; each stage resumes an interrupted run
parse/       input files -> columns of numbers
arrange      label and numericals into the splits
shuffle      a random order of rows, out of core
columns/     values -> counts -> vocabularies -> ids
parquet_file an open parquet file, whose errors name it
journal      the finished part of the work, on disk
unfinished   the work of a stopped run: read, kept or deleted
derive       other ids from a finished dataset
new_rows     encode(): new rows with the vocabularies of a dataset
"""
