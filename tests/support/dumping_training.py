"""A training that saves checkpoints and dumps its dynamic tables, and that the same command resumes.

python -m support.dumping_training FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from support.dynamic_case import RankOfSetup, Setup

from dlrm_tf2.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from dlrm_tf2.dump.tables import begin_changes, begin_dump
from dlrm_tf2.embedding import DynamicTableConfig
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.dynamic_tables import AfterSteps

STEPS, EVERY = 24, 3  # steps between two dumps, each followed by a checkpoint


def main(arguments: list[str]) -> int:
    folder, comm = Path(arguments[0]), SingleProcess()
    rules = {"bucket_capacity": 64, "score": "step", "expiry": AfterSteps(7)}
    tables = tuple(DynamicTableConfig(name, 2000, embedding_dim=4, **rules) for name in ("a", "b"))
    rank = RankOfSetup(
        Setup(tables, {"a": 1, "b": 2}, optimizer=Optimizer("adagrad"), settings={"log_erased": True}), comm
    )
    first = 1
    if has_checkpoint(folder / "saved"):
        first = 1 + load_checkpoint(folder / "saved", comm, dense={}, embedding=rank.embedding)["step"]
    for step in range(first, STEPS + 1):
        rng = np.random.default_rng(step)
        rank.train(rank.setup.batch(rng, 100, lambda _, n, rng=rng, step=step: rng.integers(0, 300 * step, n)), step)
        rank.embedding.expire(step)
        if step % EVERY == 0:
            if step == EVERY:
                dump = begin_dump(rank.embedding, folder / "dump", comm=comm, step=step, time=0)
            else:
                changed = step - EVERY + 1
                dump = begin_changes(
                    rank.embedding, folder / "changes", comm=comm, first_step=changed, step=step, time=0
                )
            dump.commit()
            save_checkpoint(folder / "saved", comm, dense={}, embedding=rank.embedding, document={"step": step})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
