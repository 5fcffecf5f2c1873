"""A launcher that does not end by itself is killed; only Open MPI's launchers are."""

import os
import signal
import subprocess
import sys

# A launcher with a rank that says whether its launcher will end, and ends.
RANK = (
    "import os; from dlrm_tf2.runtime import launcher; print(launcher.end_soon(os.getpid(), {patience_s}), flush=True)"
)
LAUNCHER = "(exec {python} -c '{rank}'); {then}"


def launch(folder, name, *, then, patience_s):
    """A shell under another name starts the rank, and then does something else."""
    shell = folder / name
    shell.symlink_to("/bin/bash")
    rank = RANK.format(patience_s=patience_s)
    text = LAUNCHER.format(python=sys.executable, rank=rank, then=then)
    return subprocess.Popen([shell, "-c", text], stdout=subprocess.PIPE, text=True, env=os.environ)


def test_a_launcher_that_waits_is_killed_and_one_that_ends_is_left_alone(tmp_path):
    waiting = launch(tmp_path, "mpirun", then="read < <(sleep 60)", patience_s=1)
    ending = launch(tmp_path, "orted", then="sleep 0.2; exit 3", patience_s=1)
    assert (waiting.wait(30), ending.wait(30)) == (-signal.SIGKILL, 3)
    assert (waiting.stdout.readline(), ending.stdout.readline()) == ("True\n", "True\n")


def test_another_parent_is_left_alone(tmp_path):
    shell = launch(tmp_path, "slurmstepd", then="sleep 1.5; exit 4", patience_s=1)
    assert shell.wait(30) == 4
    assert shell.stdout.readline() == "False\n"
