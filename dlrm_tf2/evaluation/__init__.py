"""The test split scored by all ranks, and what is reported about the scores.

evaluator    Evaluator: scores the test split
metrics      AUC, log loss, normalised entropy, calibration
auc          the AUC, exact or in the published bins
predictions  the scores as a Parquet file
inference    latencies by batch size
"""
