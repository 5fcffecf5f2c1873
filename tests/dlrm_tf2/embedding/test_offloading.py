"""Tables that a GPU leaves in the memory of its host. There need be no GPU: another device plays it."""

import os
import subprocess
import sys
from pathlib import Path

TWO_DEVICES = Path(__file__).resolve().parents[2] / "support" / "two_devices.py"


def test_tables_on_the_host_are_looked_up_and_updated_there():
    environment = {**os.environ, "PYTHONPATH": str(TWO_DEVICES.parents[2])}
    command = [sys.executable, str(TWO_DEVICES)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "everything in its place" in run.stdout
