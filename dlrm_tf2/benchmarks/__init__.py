"""The published benchmark models.

timing    the times of steps: mean, percentiles, samples per second; tables of text
floor     the time that the bytes and operations of a step need at the measured speeds of the machine
torchrec  TorchRec's DLRM example as data
zoo       the synthetic models, tiny to colossal, and criteo: tables, hotness, MLPs as plain data
zoo_*     a run of a synthetic model: configuration, memory, data, model, benchmark, phases
"""
