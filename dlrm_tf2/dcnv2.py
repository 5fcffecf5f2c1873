"""The program: trains, evaluates or benchmarks DCNv2. It is the program dlrm with other defaults.

    python -m dlrm_tf2.dcnv2 --dataset_path DIR [--mode train|eval|inference|plan] ...

Source: the defaults of NVIDIA's dcnv2.py.
"""

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: the packages are in this file's parent folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dlrm_tf2 import dlrm

DEFAULTS = {"interaction": "cross", "optimizer": "adam", "learning_rate": 1e-4, "warmup_steps": 100}


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return dlrm.main(arguments, "dcnv2", DEFAULTS)


if __name__ == "__main__":
    sys.exit(main())
