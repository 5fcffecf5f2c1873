"""Datasets that a seed alone makes: power-law ids, and labels that are fair coins or a planted click model.

generator    samples of any range; a writer from the caller writes them
presets      the published shapes: cardinality, hotness and alpha of each column
columns      ids and levels of the features
power_law    ids by a power law; each id depends on the seed and its place alone
multi_hot    several ids a sample made of one
labels       how labels are drawn
teacher      the planted click model
truth        the best AUC and log loss that the labels allow
criteo_tsv   the same rows as day files in Criteo's form
"""
