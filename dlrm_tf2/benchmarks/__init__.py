"""The published benchmark models.

timing  the times of steps: mean, percentiles, samples per second; tables of text
zoo     the synthetic models, tiny to colossal, and criteo: tables, hotness, MLPs as plain data
"""
