"""The end of a launcher that would wait for ever for a host that is gone.

When a rank fails, Open MPI's launcher tells all hosts to end, and waits for the answer of each host. A host that is
gone does not answer, and the launcher waits until TCP gives up: a quarter of an hour.
"""

import subprocess
from pathlib import Path

_OF_OPEN_MPI = frozenset(("mpirun", "mpiexec", "orterun", "orted"))
PATIENCE_S = 90  # more than an Open MPI that works takes: twice odls_base_sigkill_timeout, which may be 30
# Ends with the launcher, or ends the launcher. $1: process id; $2: its name; $3: seconds.
_REAPER = """for second in $(seq "$3"); do
    [ "$(cat /proc/$1/comm 2>/dev/null)" = "$2" ] || exit
    sleep 1
done
kill -9 "$1" $(cat /proc/$1/task/$1/children)  # its ssh would also wait for the host that is gone
"""


def end_soon(process: int, patience_s: int = PATIENCE_S) -> bool:
    """Kills Open MPI's launcher of a process on this host, if it is still there after a while.

    Args:
      process: id of the process, which may end meanwhile.
      patience_s: seconds that the launcher has to end by itself.

    Returns:
      Whether there is such a launcher.
    """
    name = _name_of(process)
    while name not in _OF_OPEN_MPI:
        process = _parent_of(process)
        if process <= 1:
            return False
        name = _name_of(process)
    # In a session of its own, or the launcher would end it; without the pipes, or the launcher would wait for it.
    subprocess.Popen(
        ["sh", "-c", _REAPER, "sh", str(process), name, str(patience_s)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return True


def _name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def _parent_of(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
