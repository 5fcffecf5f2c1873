"""Run by test_horovod.py under horovodrun: trains random cases of the layer and compares with numpy on rank 0.

On two ranks also gradients of ids' weights, which go to one rank only or to rows that are fetched.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(parent) for parent in Path(__file__).resolve().parents[1:3]]  # tests, and the repository

from dlrm_tf2.runtime import process  # noqa: E402 - found by the line above


def main(seeds):
    launch = process.Launch.detect()
    process.set_up_process(launch, cpu=True, amp=False)
    import numpy as np
    from support.embedding_case import assembled, draw, train, train_reference
    from support.weight_gradient_case import check as check_weights
    from support.weight_gradient_case import draw_weighted, of_layer

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

    for compiled in (False, True) if comm.size == 2 else ():
        weighted = draw_weighted(79, 2, data_parallel_input=True)
        found = of_layer(weighted, comm, embedding_op="auto", dtype="float32", compiled=compiled)
        everybody = comm.allgather_object(found, name=f"weights, compiled {compiled}")
        if comm.rank == 0:
            check_weights(weighted, everybody, 2e-4, 2e-5)
            print(f"gradients of weights, compiled {compiled}, as differences", flush=True)


main([int(seed) for seed in sys.argv[1:]])
