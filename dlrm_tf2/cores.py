"""How many cores a rank may use: those it is bound to, the machine's or container's, and the quota of its cgroups."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cores:
    """The cores that there are for a process.

    Attributes:
      bound: those that it may run on.
      machine: those that all processes of the machine, or of its container, may run on.
      quota: cores' worth of time that its cgroups leave them together; None for no limit.
    """

    bound: int
    machine: int
    quota: float | None = None

    @classmethod
    def here(
        cls, own_cgroups: Path = Path("/proc/self/cgroup"), cgroup_root: Path = Path("/sys/fs/cgroup")
    ) -> "Cores":
        """Of this process.

        Args:
          own_cgroups: the cgroups of this process, one `id:controllers:path` a line.
          cgroup_root: where the cgroup file systems are mounted.
        """
        sets, quotas = [os.cpu_count() or 1], []
        for folder in _folders(own_cgroups, cgroup_root):
            for name in ("cpuset.cpus.effective", "cpuset.effective_cpus"):  # version 2, version 1
                if cores := _text(folder / name):
                    sets.append(_count(cores))
            time, period = (*_text(folder / "cpu.max").split(), "", "")[:2]
            if not time:
                time, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            if time.isdigit() and period.isdigit():  # no limit is "max", or -1
                quotas.append(int(time) / int(period))
        return cls(len(os.sched_getaffinity(0)), min(sets), min(quotas, default=None))

    def share_of(self, local_size: int) -> int:
        """The cores for one of `local_size` ranks on this machine, at least 1."""
        among = self.machine if self.quota is None else min(self.machine, int(self.quota))
        return max(1, min(self.bound, among // local_size))

    def unused_by(self, local_size: int) -> int:
        """Cores that stay without work because the launcher binds each of `local_size` ranks to others."""
        return max(0, self.machine - self.bound * local_size) if local_size > 1 else 0


def _folders(own_cgroups: Path, root: Path) -> list[Path]:
    """The cgroups above this process, in all of the trees that have something to say about cores."""
    found = []
    for line in _text(own_cgroups).splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 is one tree for all controllers; version 1 has one for each, named after what it controls.
        for name in [""] if controllers == "" else {"cpu", "cpuset"}.intersection(controllers.split(",")):
            top = root / name
            folder = top / path.lstrip("/")  # in a container the path may be the host's, and only the root is there
            found += [cgroup for cgroup in [folder, *folder.parents] if cgroup.is_relative_to(top)]
    return found


def _count(cores: str) -> int:
    """How many `0-3,8` are."""
    ends = [part.split("-") for part in cores.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _text(path: Path) -> str:
    """The file's text, or nothing where there is no such file or it may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
