"""Builds the op library: `python dlrm_tf2/ops/build.py` writes the folder lib. Standard library only.

A compiler that is missing or fails stops nothing: everything then runs in TensorFlow's own ops.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent


def build(destination: Path, log: Path | None = None) -> str | None:
    """Compiles the kernels, and TensorFlow's wrapper for the TensorFlow of this Python.

    Args:
      destination: folder for the libraries. Nothing in it changes when the build fails.
      log: file for the output of cmake and the compilers.

    Returns:
      None when both libraries were built; otherwise what is missing, as one line.
    """
    missing = [tool for tool in ("cmake", "make", "g++") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    output = ""
    for cuda in ("ON", "OFF"):  # a CUDA compiler that fails must not take the CPU kernels with it
        with tempfile.TemporaryDirectory(prefix="dlrm_ops_") as scratch:
            why, printed = _compile(Path(scratch), cuda)
            output += printed
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(output)
            if why is None:
                _put(Path(scratch) / "lib", destination)
                return None if (destination / "libdlrm_ops.so").is_file() else f"{sys.executable} has no TensorFlow"
    return why


def _compile(scratch: Path, cuda: str) -> tuple[str | None, str]:
    """Runs cmake into scratch/lib. Returns (why it failed, or None; what it printed)."""
    steps = (
        ["cmake", "-G", "Unix Makefiles", "-S", str(SOURCE), "-B", str(scratch),
         f"-DPython3_EXECUTABLE={sys.executable}", f"-DDLRM_CUDA_KERNELS={cuda}"],
        ["cmake", "--build", str(scratch), "-j", str(len(os.sched_getaffinity(0)))],
        ["cmake", "--install", str(scratch), "--prefix", str(scratch / "lib")],
    )  # fmt: skip
    output = ""
    for step in steps:
        run = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output += run.stdout
        if run.returncode != 0:
            errors = [line.strip() for line in output.splitlines() if "rror" in line]
            return f"`{' '.join(step[:2])}` failed: {(errors or ['no output'])[0]}", output
    return None, output


def _put(staging: Path, destination: Path) -> None:
    """Moves the files in place one by one: a process that has an old library loaded keeps it."""
    destination.mkdir(parents=True, exist_ok=True)
    for old in destination.glob("*.so"):
        if not (staging / old.name).exists():
            old.unlink()
    for path in staging.iterdir():
        shutil.copy2(path, destination / f"{path.name}.new")
        os.replace(destination / f"{path.name}.new", destination / path.name)


def main() -> int:
    why = build(SOURCE / "lib", SOURCE / "lib" / "build_log.txt")
    if why is not None:
        print(f"No native ops: {why}. Everything runs in TensorFlow's own ops. Log: {SOURCE / 'lib' / 'build_log.txt'}")
    return 0 if why is None else 1


if __name__ == "__main__":
    sys.exit(main())
