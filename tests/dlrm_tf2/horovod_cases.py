"""Run by test_horovod.py under horovodrun: trains random cases of the layer and compares with numpy on rank 0."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from dlrm_tf2 import comm, runtime  # noqa: E402 - found by the line above


def main(seeds):
    launch = runtime.Launch.detect()
    runtime.setup(launch, cpu=True, amp=False)
    import numpy as np
    from embedding_case import assembled, draw, train, train_reference

    ranks = comm.connect(launch.world_size)
    for seed in seeds:
        case = draw(seed, ranks.size)
        everybody = ranks.allgather_object(train(case, ranks, 4), name=f"results of {seed}")
        if ranks.rank != 0:
            continue
        losses, tables = train_reference(case, 4)
        for rank_losses, _ in everybody:
            np.testing.assert_allclose(rank_losses, losses, rtol=1e-9)
        found = assembled(case, {key: part for _, parts in everybody for key, part in parts.items()})
        assert found.keys() == tables.keys()
        for key, table in found.items():
            np.testing.assert_allclose(table, tables[key], rtol=1e-8, atol=1e-10, err_msg=str(key))
        print(f"case {seed}: {case.optimizer.name}, data-parallel input {case.data_parallel_input}, equal", flush=True)


main([int(seed) for seed in sys.argv[1:]])
