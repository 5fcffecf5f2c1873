"""The published benchmark models.

zoo     the synthetic models, tiny to colossal, and criteo: tables, hotness, MLPs as plain data
"""
