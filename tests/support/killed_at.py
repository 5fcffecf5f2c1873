"""Kills this process (kill -9) at its n-th operation on the files of a folder: opening, making, renaming, deleting.

python -m support.killed_at N FOLDER MODULE [ARGUMENT ...]     runs a module's main(arguments) until then
"""

import importlib
import os
import signal
import sys
from pathlib import Path

_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree")


def kill_at(number: int, folder: Path) -> None:
    """From now on, counts the operations and ends the process before the one with this number, from 1 on."""
    left, root = number, str(folder)

    def count(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in _EVENTS and any(isinstance(one, str | Path) and str(one).startswith(root) for one in arguments):
            if event == "open" and not _writes(arguments):
                return
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _writes(arguments: tuple) -> bool:
    """Whether the arguments of an audited `open` are those of a file that is opened for writing."""
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))


if __name__ == "__main__":
    kill_at(int(sys.argv[1]), Path(sys.argv[2]))
    sys.exit(importlib.import_module(sys.argv[3]).main(sys.argv[4:]))
