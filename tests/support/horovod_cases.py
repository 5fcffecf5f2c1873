"""Run by test_horovod.py under horovodrun: trains random cases of the layer and compares with numpy on rank 0."""

import sys
from pathlib import Path

sys.path[:0] = [str(parent) for parent in Path(__file__).resolve().parents[1:3]]  # tests, and the repository

from dlrm_tf2.runtime import process  # noqa: E402 - found by the line above


def main(seeds):
    launch = process.Launch.detect()
    process.set_up_process(launch, cpu=True, amp=False)
    import numpy as np
    from support.embedding_case import assembled, draw, train, train_reference

    from dlrm_tf2.runtime.comm import connect

    comm = connect(launch.world_size)

    def check(case, name, tolerances=(1e-8, 1e-10), **settings):
        """Compares with numpy on rank 0; the tolerances are relative and absolute."""
        everybody = comm.allgather_object(train(case, comm, 4, **settings), name=f"results of {name}")
        if comm.rank != 0:
            return
        losses, tables = train_reference(case, 4)
        for rank_losses, _ in everybody:
            np.testing.assert_allclose(rank_losses, losses, rtol=tolerances[0])
        found = assembled(case, {key: part for _, parts in everybody for key, part in parts.items()})
        assert found.keys() == tables.keys()
        for key, table in found.items():
            np.testing.assert_allclose(table, tables[key], *tolerances, err_msg=str(key))
        print(f"case {name}: {case.optimizer.name}, data-parallel input {case.data_parallel_input}, equal", flush=True)

    for seed in seeds:
        check(draw(seed, comm.size), f"{seed}")
    case = draw(seeds[0], comm.size, "sgd")
    for wire, tolerance in (("float16", 5e-4), ("bfloat16", 4e-3)) if comm.size == 2 else ():
        check(case, f"{seeds[0]} in {wire}", (tolerance, tolerance), dtype="float32", wire=wire)


main([int(seed) for seed in sys.argv[1:]])
