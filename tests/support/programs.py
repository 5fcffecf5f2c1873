"""Programs in processes of their own, as users start them: one process, or several with horovodrun."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = "--embedding_dim 8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1 --batch_size 128 --valid_batch_size 90".split()
SCHEDULE = "--learning_rate 0.5 --warmup_steps 0 --print_freq 1 --seed 7".split()

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not installed, so there is only one rank"
)


def start(arguments, launcher=(), program=("-m", "dlrm_tf2.dlrm"), cwd=REPOSITORY, **environment):
    variables = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **environment}
    return subprocess.run(
        [*launcher, sys.executable, *program, *map(str, arguments)],
        cwd=cwd, env=variables, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def horovodrun(ranks):
    return [str(Path(sys.executable).parent / "horovodrun"), "-np", str(ranks), "--mpi-args=--oversubscribe"]
