"""Modes eval and inference: scores over all ranks, metrics, latencies, predictions as a file."""
