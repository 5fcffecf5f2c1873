"""Input files -> columns of numbers: every row is parsed once.

parse_files      all files of a run, block by block, resumable
text_stream      the text of a plain or compressed file; other formats are refused by name
text_blocks      that text as blocks of whole lines
tsv              lines -> columns of numbers; what a good row is
labels           whether the rows of a file have labels
fields           one field: text -> number
parquet_rows     the same columns of numbers from parquet files
parquet_columns  which column of a parquet file is which
parquet_values   a parquet column of any type -> numbers
numerical        the numerical rule, by table look-up
row_writer       the files that parsing writes, and the checkpoints
raw_columns      the categorical columns on disk, before they are encoded
"""
