"""Set-up from a folder of wheels: what it says when the folder or a wheel is missing."""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", "-s", *arguments], cwd=folder, capture_output=True, text=True)


def test_a_missing_folder_of_wheels_stops_set_up_at_once(tmp_path):
    run = make(ROOT, "setup", f"WHEELHOUSE={tmp_path}/missing")
    assert run.returncode == 2 and run.stdout == ""
    lines = [line for line in run.stderr.splitlines() if line and not line.startswith("make")]
    assert len(lines) == 1
    assert lines[0].startswith(f"set-up stopped: WHEELHOUSE={tmp_path}/missing is not a folder. Make it where there is")


def test_a_folder_of_wheels_needs_a_name():
    run = make(ROOT, "wheelhouse", "WHEELHOUSE=")
    assert run.returncode == 2
    assert "set-up stopped: the folder has no name: make wheelhouse WHEELHOUSE=DIR" in run.stderr


def test_a_missing_wheel_is_named(tmp_path):
    for name in ("Makefile", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "setup", tmp_path / "setup")
    wheels = tmp_path / "no wheels"
    wheels.mkdir()
    run = make(tmp_path, "setup", f"WHEELHOUSE={wheels}", "HOROVOD=0", "GPU=0")
    assert run.returncode == 2
    expected = rf"^set-up stopped: WHEELHOUSE={re.escape(str(wheels))} lacks the package \S+ for Python 3\.1[12]\. "
    assert re.search(expected, run.stderr, re.M), run.stdout + run.stderr
    assert not (tmp_path / ".venv/set_up_done").exists()
