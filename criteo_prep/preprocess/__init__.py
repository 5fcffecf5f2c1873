"""Criteo's logs -> a tf_raw dataset.

run          preprocess(): find the inputs, decide what to do, do it, report
inputs       which files, and which of their rows become which split
rules        everything else that a user decides about the samples
preflight    rows, disk and memory that a run needs
stages       parse, arrange, encode, finish; each stage resumes an interrupted run
parse/       input files -> columns of numbers
arrange      label and numericals into the splits
shuffle      a random order of rows, out of core
columns/     values -> counts -> vocabularies -> ids
journal      what is done so far, on disk
derive       other thresholds from a finished dataset
new_rows     encode(): new rows through the vocabularies of a dataset
"""
