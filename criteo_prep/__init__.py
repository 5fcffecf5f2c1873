"""Criteo-scale click logs in, a verified training dataset out. Importing the package starts nothing heavy."""

__version__ = "0.1.0"
