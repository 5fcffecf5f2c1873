"""The published benchmark models.

torchrec  TorchRec's DLRM example as data
zoo     the synthetic models, tiny to colossal, and criteo: tables, hotness, MLPs as plain data
"""
