"""The published benchmark models.

timing    the times of steps: mean, percentiles, samples per second; tables of text
torchrec  TorchRec's DLRM example as data
zoo       the synthetic models, tiny to colossal, and criteo: tables, hotness, MLPs as plain data
"""
