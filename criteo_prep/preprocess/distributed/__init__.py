"""The same dataset, made by tasks on many machines: what a task does, and what the driver does between tasks.

Nothing here imports Spark: a Cluster runs functions on tasks, and spark_engine.py is such a Cluster. Every function of
a task gives the same bytes whenever and wherever it runs, so a task may run twice, also at the same time.

cluster          what is asked of a cluster; which errors cross it
task_sizes       how much one task does
input_splits     input files -> splits, one task each
part_file        the parsed rows of a split on the shared disk
parse_split      one split -> its parts
parsed_input     the facts of all parts -> rows, bad rows and lines of each file
row_ranges       parts as ranges of rows, for the tasks after the parse
counts           values of a range of rows -> counts -> sorted buckets of a column
ranking          the counts in all buckets -> ids -> one vocabulary file
encode_rows      a range of rows -> its bytes in the files of the dataset
shuffled_rows    a range of rows -> buckets of the random order -> their bytes in the files
checksums        the checksums of a file, by ranges of its blocks
shared_folder    the folder that all machines see, and who has left what in it
stages           parse, rows, columns, finish
columns          the columns, some at a time
"""
