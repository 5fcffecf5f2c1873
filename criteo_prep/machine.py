"""The processors and the memory that this process may use: of the machine, and of every cgroup above the process.

A container, a SLURM job or a systemd slice limits a process by cgroups, and they nest: the tightest level counts.
Version 1 and version 2 of the kernel's cgroups are read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")
# Files of a cgroup, version 2 and version 1: its limit, its use, and the line of memory.stat with the droppable cache.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Processors:
    """The processors that a process may use.

    Attributes:
      bound: processors that the process itself may run on.
      machine: processors that the processes of the machine, or of its container, may run on together.
      quota: processors' worth of time that the cgroups grant to those processes together; None for no limit.
    """

    bound: int
    machine: int
    quota: float | None = None

    @property
    def usable(self) -> int:
        """Threads that this process can keep busy, at least 1."""
        return max(1, min(self.bound, self.machine if self.quota is None else int(self.quota)))


def find_processors(own_cgroups: Path = _OWN_CGROUPS, cgroup_root: Path = _CGROUP_ROOT) -> Processors:
    """The processors of this process.

    Args:
      own_cgroups: file with the cgroups of this process, one `id:controllers:path` a line.
      cgroup_root: folder where the cgroup file systems are mounted.
    """
    sets, quotas = [os.cpu_count() or 1], []
    for folder in _cgroup_folders(own_cgroups, cgroup_root, {"cpu", "cpuset"}):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus"):  # version 2, version 1
            if listed := _text(folder / name):
                sets.append(_count(listed))
        time, period = (*_text(folder / "cpu.max").split(), "", "")[:2]
        if not time:
            time, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if time.isdigit() and period.isdigit():  # no limit is "max", or -1
            quotas.append(int(time) / int(period))
    return Processors(len(os.sched_getaffinity(0)), min(sets), min(quotas, default=None))


def processors() -> int:
    """Threads that this process can keep busy, at least 1."""
    return find_processors().usable


def available_memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), own_cgroups: Path = _OWN_CGROUPS, cgroup_root: Path = _CGROUP_ROOT
) -> int:
    """Bytes that this process may still allocate: the least of what the machine and each of its cgroups have left.

    File cache that the kernel drops on demand does not count as used.

    Args:
      meminfo: file with the kernel's memory figures; `MemAvailable` is read, in KiB.
      own_cgroups, cgroup_root: as for find_processors.

    Returns:
      Bytes, 0 or more.

    Raises:
      ValueError: meminfo has no MemAvailable.
    """
    left = [_machine_memory_bytes(meminfo)]
    for folder in _cgroup_folders(own_cgroups, cgroup_root, {"memory"}):
        for limit, usage, reclaimable in _MEMORY_FILES:
            if _text(folder / limit).isdigit() and _text(folder / usage):
                used = int(_text(folder / usage)) - _statistic(folder / "memory.stat", reclaimable)
                left.append(int(_text(folder / limit)) - used)
    return max(0, min(left))


def _cgroup_folders(own_cgroups: Path, root: Path, controllers: set[str]) -> Iterator[Path]:
    """Folders of the cgroups above this process, innermost first: of version 2, and of version 1 for `controllers`."""
    for line in _text(own_cgroups).splitlines():
        _, listed, path = line.split(":", 2)
        # Version 2 is one tree for all controllers. Version 1 has one tree for each, named after what it controls.
        for name in [""] if listed == "" else sorted(controllers.intersection(listed.split(","))):
            top = root / name
            folder = top / path.lstrip("/")  # in a container the path may be the host's, and only the root exists
            yield from (cgroup for cgroup in (folder, *folder.parents) if cgroup.is_relative_to(top))


def _machine_memory_bytes(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{meminfo}: has no MemAvailable. Linux 3.14 or later has it.")


def _statistic(path: Path, key: str) -> int:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _count(listed: str) -> int:
    """Number of processors in a list such as `0-3,8`."""
    ends = [part.split("-") for part in listed.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _text(path: Path) -> str:
    """Text of a file, or "" where the file does not exist or cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
