"""preprocess stays within the processors and the memory that nested cgroups grant, as in a SLURM step."""

from functools import partial

import pytest
from support.log_samples import make, random_rows, write_rows

from criteo_prep import machine
from criteo_prep.preprocess import preflight
from criteo_prep.preprocess.columns.memory import PreflightError
from criteo_prep.preprocess.stages import Resources

GIB = 1 << 30


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Makes a tree of cgroups the tree of this process; the machine has 64 processors and 100 GiB of memory."""

    def use(own, files):
        (tmp_path / "own").write_text(own)
        (tmp_path / "meminfo").write_text(f"MemAvailable: {100 * GIB // 1024} kB\n")
        for path, text in files.items():
            (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / path).write_text(f"{text}\n")

    paths = tmp_path / "own", tmp_path / "root"
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "find_processors", partial(machine.find_processors, *paths))
    memory = partial(machine.available_memory_bytes, tmp_path / "meminfo", *paths)
    monkeypatch.setattr(preflight, "available_memory_bytes", memory)
    return use


TREES = {
    "a SLURM step in a job, version 2": ("0::/slurm/job_7/step_0\n", {
        "slurm/memory.max": 50 * GIB, "slurm/memory.current": 41 * GIB, "slurm/memory.stat": f"inactive_file {GIB}",
        "slurm/job_7/cpu.max": "300000 100000", "slurm/job_7/memory.max": 40 * GIB, "slurm/job_7/memory.current": GIB,
        "slurm/job_7/step_0/cpu.max": "max 100000", "slurm/job_7/step_0/memory.max": "max",
    }),
    "a container in a slice, version 1": ("4:memory:/pod/box\n3:cpu,cpuacct:/pod/box\n", {
        "cpu/pod/cpu.cfs_quota_us": 350_000, "cpu/pod/cpu.cfs_period_us": 100_000, "cpu/pod/box/cpu.cfs_quota_us": -1,
        "cpu/pod/box/cpu.cfs_period_us": 100_000, "memory/pod/memory.limit_in_bytes": 30 * GIB,
        "memory/pod/memory.usage_in_bytes": 25 * GIB, "memory/pod/memory.stat": f"total_inactive_file {5 * GIB}",
        "memory/pod/box/memory.limit_in_bytes": 20 * GIB, "memory/pod/box/memory.usage_in_bytes": GIB,
    }),
}  # fmt: skip


@pytest.mark.parametrize("tree", TREES)
def test_the_tightest_level_is_the_default(cgroups, tree):
    """Both trees leave 10 GiB and a quota of at least 3 processors, each limit at a level of its own."""
    cgroups(*TREES[tree])
    plan = Resources().memory
    assert plan.workers == 3
    assert plan.limit_bytes == int(10 * GIB * 0.9)


def test_a_run_is_refused_that_would_be_killed_for_its_memory(cgroups, tmp_path):
    cgroups("0::/job/step\n", {"job/memory.max": GIB // 2, "job/memory.current": 0, "job/step/memory.max": "max"})
    path = write_rows(tmp_path / "rows.tsv", random_rows(0, 20))
    with pytest.raises(PreflightError, match=r"--memory_limit 483\.18 MB: is too small; 64 workers need .* --workers"):
        make(path, tmp_path / "set")
    assert not (tmp_path / "set").exists()
