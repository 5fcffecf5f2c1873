"""Mode inference: scores batch by batch, the way a server would, and times each."""


import numpy as np

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.evaluation import Evaluator

_WARMUP = 10  # batches whose latency does not count, as published


def infer(config: TrainConfig, evaluator: Evaluator) -> dict:
    """Returns the flat summary. All ranks must call it."""
    latencies = []
    evaluation = evaluator.evaluate(config.max_steps, latencies)
    timed = latencies[min(_WARMUP, len(latencies) // 2) :]
    seconds = np.array([latency for latency, _ in timed])
    return {
        "mean_inference_throughput": sum(size for _, size in timed) / seconds.sum(),
        "mean_inference_latency": float(seconds.mean()),
        **{f"p{p}_inference_latency": float(np.percentile(seconds, p)) for p in (90, 95, 99)},
        "auc": evaluation.auc,
    }
