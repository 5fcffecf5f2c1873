"""The layer over Horovod, several processes: the same random cases as with ranks that are threads."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2] / "support" / "horovod_cases.py"

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not installed, so there is only one rank"
)


def check(ranks, seeds):
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    launcher = [str(Path(sys.executable).parent / "horovodrun"), "-np", str(ranks), "--mpi-args=--oversubscribe"]
    run = subprocess.run(
        [*launcher, sys.executable, str(CASES), *map(str, seeds)],
        env=environment, capture_output=True, text=True, timeout=590,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    in_16_bits = 2 if ranks == 2 else 0  # the first one, in two types
    assert run.stdout.count(", equal") == len(seeds) + in_16_bits, run.stdout


# The first has a rank that makes nothing for the others, which TensorFlow once left out of their exchange.
@needs_horovod
@pytest.mark.parametrize("ranks, seeds", [(2, [1, 2]), (3, [7])])
def test_cases_equal_numpy(ranks, seeds):
    check(ranks, seeds)


@needs_horovod
@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_dozen_cases_equal_numpy(ranks):
    check(ranks, range(100, 112))
