"""Categorical columns: values are counted, become vocabularies, and then ids."""
