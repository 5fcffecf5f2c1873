"""Any click log that a schema describes -> a tf_raw dataset; docs/own_data.md is the page for users.

Stages, id rule, layout and manifest are the same as for Criteo's logs (criteo_prep.preprocess).

run              preprocess_table(): find the files, decide, make, report
schema           what a schema says; schema_document and document_values read it, schema_in_manifest writes it
files            files, folders and patterns; read_csv, read_ndjson and read_arrow read them as frames
row_values       a frame -> the values of its good rows; cells has the types
parse            files -> work_files, with the journal's checkpoints
splits           which rows are train, test and validation rows
transforms       numericals; arrange writes them
columns          values -> value_codes -> vocabulary_file -> ids
stages           parse, arrange, columns, finish; request says what is made, preflight what it needs
decide           complete, resume, derive, rebuild or refuse, by what finished reads; derive makes ids from ids
new_rows         encode_table(): new rows for an existing model
first_schema     verb schema, by the profile of each column
"""
