import os

import pytest

from dlrm_tf2.cores import Cores


@pytest.mark.parametrize("bound, machine, quota, ranks, share", [
    (32, 32, None, 1, 32),
    (32, 32, None, 4, 8),  # not bound: they share
    (1, 32, None, 2, 1),  # mpirun's default for two ranks: a core each
    (16, 32, None, 8, 4),  # bound to a socket, which four ranks share
    (8, 32, None, 4, 8),  # bound to their own
    (2, 2, None, 3, 1),
    (32, 32, 6.5, 2, 3),
    (32, 32, 0.5, 2, 1),
])  # fmt: skip
def test_share_of_a_rank(bound, machine, quota, ranks, share):
    assert Cores(bound, machine, quota).share_of(ranks) == share


def test_cores_that_the_launcher_leaves_without_work():
    assert Cores(1, 32).unused_by(2) == 30
    assert Cores(8, 32).unused_by(4) == Cores(32, 32).unused_by(4) == 0
    assert Cores(1, 32).unused_by(1) == 0  # a user's own binding


@pytest.fixture
def cgroups(tmp_path):
    def here(own, **files):
        (tmp_path / "own").write_text(own)
        for path, text in files.items():
            file = tmp_path / "root" / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return Cores.here(tmp_path / "own", tmp_path / "root")

    return here


@pytest.fixture(autouse=True)
def machine_of_64(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))


def test_without_cgroups(cgroups):
    assert cgroups("") == cgroups("0::/\n") == Cores(48, 64, None)


def test_version_2(cgroups):
    files = {"pod__cpu.max": "350000 100000", "pod__job__cpu.max": "max 100000", "cpuset.cpus.effective": "0-63",
             "pod__cpuset.cpus.effective": "0-15,32-47,60"}  # fmt: skip
    assert cgroups("0::/pod/job\n", **files) == Cores(48, 33, 3.5)


def test_version_1(cgroups):
    files = {"cpu__job__cpu.cfs_quota_us": "250000", "cpu__job__cpu.cfs_period_us": "100000",
             "cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000",
             "cpuset__cpuset.effective_cpus": "3"}  # fmt: skip
    assert cgroups("5:cpu,cpuacct:/job\n3:cpuset:/docker/01ab\n4:memory:/\n0::/\n", **files) == Cores(48, 1, 2.5)
