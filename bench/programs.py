"""Runs a program as a user starts it, for the benchmarks."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command: list[str], ranks: int = 1, *, folder: Path = ROOT) -> str:
    """What a command prints on stdout; ends this program, with the command's last words, if the command fails.

    Args:
      command: a program and its arguments; `python` is this interpreter.
      ranks: processes that run the command together, under horovodrun.
      folder: the working folder of the command. Modules come from this repository.
    """
    launcher = ["horovodrun", "-np", str(ranks), "--mpi-args=--oversubscribe"] if ranks > 1 else []
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    done = subprocess.run([*launcher, *command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
