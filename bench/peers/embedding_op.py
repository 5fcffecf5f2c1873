"""FBGEMM's table-batched embedding on the CPU, for bench/embedding_op.py --peer: needs torch, fbgemm-gpu-cpu and numpy.

    python bench/peers/embedding_op.py IDS.npz

Prints one line of JSON: milliseconds of the lookup, of lookup, backward and Adagrad together, and of the difference.
"""

import json
import os
import statistics
import sys
import time

import numpy as np
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    OptimType,
    SplitTableBatchedEmbeddingBagsCodegen,
)


def main() -> None:
    file = np.load(sys.argv[1])
    num_rows, width = (int(number) for number in file["shape"])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    layer = SplitTableBatchedEmbeddingBagsCodegen(
        [(num_rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=OptimType.EXACT_ADAGRAD,
        learning_rate=0.01,
    )
    batches = []
    for name in sorted(set(file.files) - {"shape"}):
        ids = torch.from_numpy(file[name].astype(np.int64))
        batches.append((ids, torch.arange(len(ids) + 1)))
    gradient = torch.randn(len(batches[0][0]), width) * 1e-3

    def look_up(number: int) -> None:
        with torch.no_grad():
            layer(*batches[number % len(batches)])

    lookup = median_ms(look_up)
    both = median_ms(lambda number: layer(*batches[number % len(batches)]).backward(gradient))
    print(json.dumps({"lookup": lookup, "both": both, "update": both - lookup}))


def median_ms(run) -> float:
    """The median time of a call, which gets the number of the call; the first two are not counted."""
    times = []
    for number in range(8):
        start = time.perf_counter()
        run(number)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
