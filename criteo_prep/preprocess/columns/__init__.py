"""Categorical columns: values are counted, become vocabularies, and then ids.

encoder      raw column -> counts -> vocabulary -> ids in their final files, several columns at a time
count        how often each value of a column occurs
vocabulary   the id rule, and the vocabulary files
id_table     values -> ids, by a vocabulary
hash_table   value -> count or id, for columns with few distinct values
rank_bitmap  value -> rank, for columns with many distinct values
memory       how many large columns fit the memory limit
"""
