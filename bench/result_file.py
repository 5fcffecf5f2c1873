"""The JSON file of a benchmark: what was measured, on which machine, by which command at which commit."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16")


def write_result(path: str | Path, document: dict, *, arguments: list[str] | None = None) -> None:
    """Writes what was measured with `about_run` into a JSON file, and says so.

    Args:
      path: the JSON file.
      document: what was measured.
      arguments: of the command; by default the arguments of this process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | about_run(arguments), indent=1) + "\n")
    print(f"written to {path}")


def about_run(arguments: list[str] | None = None) -> dict:
    """The machine, its load, the commit and the command, in which a path outside of the repository is only a name."""
    words = [sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]
    return {**hardware(), "load_average": os.getloadavg(), "commit": commit(), "command": " ".join(map(_word, words))}


def _word(word: str) -> str:
    path = Path(word)
    if not path.is_absolute() and ("/" not in word or not path.exists()):
        return word
    return str(path.resolve().relative_to(ROOT)) if path.resolve().is_relative_to(ROOT) else path.name


def hardware() -> dict:
    """The processor, its instruction sets, how many processors this process may use, memory, the version of Python."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    found = {name.strip(): value.strip() for name, _, value in lines}
    return {
        "processor": found.get("model name") or platform.processor(),
        "processor_family": f"{found.get('cpu family', '?')}/{found.get('model', '?')}",
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in found.get("flags", "").split()],
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The short name of the commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()
