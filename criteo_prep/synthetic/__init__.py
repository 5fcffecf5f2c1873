"""Datasets made of nothing but a seed: power-law ids, and labels that are fair coins or a planted click model.

generator    samples of any range, written by a writer that the caller gives
presets      the published shapes: cardinality, hotness and alpha of each column
columns      ids and levels of the features
power_law    ids by a power law, as a function of seed and position alone
teacher      the planted click model
truth        the best AUC that the planted labels allow
criteo_tsv   the same rows as day files in Criteo's form
"""
