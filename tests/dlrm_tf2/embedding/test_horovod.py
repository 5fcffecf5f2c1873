"""The layer over Horovod, several processes: the same random cases as with ranks that are threads, and the example."""

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CASES, TWO_TOWERS = ROOT / "tests/support/horovod_cases.py", ROOT / "examples/two_towers.py"

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not installed, so there is only one rank"
)


def run(ranks, script, *arguments):
    """What a script prints on `ranks` processes; one is started without a launcher."""
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    launcher = [str(Path(sys.executable).parent / "horovodrun"), "-np", str(ranks), "--mpi-args=--oversubscribe"]
    command = [*(launcher if ranks > 1 else []), sys.executable, str(script), *map(str, arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=590)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def check(ranks, seeds):
    printed = run(ranks, CASES, *seeds)
    in_16_bits = 2 if ranks == 2 else 0  # the first one, in two types
    assert printed.count(", equal") == len(seeds) + in_16_bits, printed
    assert printed.count(", as differences") == (2 if ranks == 2 else 0), printed  # in eager mode and compiled


# The first has a rank that makes nothing for the others, which TensorFlow once left out of their exchange.
@needs_horovod
@pytest.mark.parametrize("ranks, seeds", [(2, [1]), pytest.param(3, [7], marks=pytest.mark.long)])
def test_cases_equal_numpy(ranks, seeds):
    check(ranks, seeds)


@needs_horovod
@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_dozen_cases_equal_numpy(ranks):
    check(ranks, range(100, 112))


def losses_of_two_towers(ranks, *arguments):
    return [float(loss) for loss in re.findall(r"loss ([\d.]+)", run(ranks, TWO_TOWERS, *arguments))]


@needs_horovod
def test_two_towers_have_the_same_losses_on_1_and_on_2_ranks():
    with ThreadPoolExecutor() as at_once:
        alone, together = at_once.map(lambda ranks: losses_of_two_towers(ranks, "--steps", 5), (1, 2))
    assert len(set(alone)) == 5
    assert together == pytest.approx(alone, abs=2e-5)


@needs_horovod
@pytest.mark.long
def test_two_towers_of_2_ranks_continue_on_1(tmp_path):
    together = losses_of_two_towers(2, "--steps", 5, "--save_path", tmp_path / "towers")
    restored = losses_of_two_towers(1, "--steps", 3, "--restore_path", tmp_path / "towers")
    assert together + restored == pytest.approx(losses_of_two_towers(1, "--steps", 8), abs=2e-5)
