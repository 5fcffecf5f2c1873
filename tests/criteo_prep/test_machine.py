"""Processors and memory through trees of cgroups, version 1 and 2, as containers and batch systems nest them."""

import os

import pytest

from criteo_prep.machine import Processors, available_memory_bytes, find_processors, processors

GIB = 1 << 30


@pytest.mark.parametrize("found, usable", [
    (Processors(48, 64), 48), (Processors(48, 16), 16), (Processors(48, 64, 3.5), 3), (Processors(2, 2, 0.5), 1),
])  # fmt: skip
def test_threads_that_a_process_keeps_busy(found, usable):
    assert found.usable == usable


@pytest.fixture
def cgroups(tmp_path, machine_of_64):
    def here(own, **files):
        (tmp_path / "own").write_text(own)
        for path, text in files.items():
            file = tmp_path / "root" / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return find_processors(tmp_path / "own", tmp_path / "root")

    return here


@pytest.fixture
def machine_of_64(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)))


def test_processors_without_cgroups(cgroups):
    assert cgroups("") == cgroups("0::/\n") == Processors(48, 64, None)


def test_processors_of_version_2(cgroups):
    files = {"pod__cpu.max": "350000 100000", "pod__job__cpu.max": "max 100000", "cpuset.cpus.effective": "0-63",
             "pod__cpuset.cpus.effective": "0-15,32-47,60"}  # fmt: skip
    assert cgroups("0::/pod/job\n", **files) == Processors(48, 33, 3.5)


def test_processors_of_version_1(cgroups):
    files = {"cpu__job__cpu.cfs_quota_us": "250000", "cpu__job__cpu.cfs_period_us": "100000",
             "cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000",
             "cpuset__cpuset.effective_cpus": "3"}  # fmt: skip
    assert cgroups("5:cpu,cpuacct:/job\n3:cpuset:/docker/01ab\n4:memory:/\n0::/\n", **files) == Processors(48, 1, 2.5)


@pytest.fixture
def machine(tmp_path):
    """A machine with 20 GiB available; `write` adds files of its cgroup tree, `available` asks."""

    class Machine:
        def __init__(self):
            (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {20 * GIB // 1024} kB\n")

        def write(self, path, value):
            (tmp_path / "cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "cgroup" / path).write_text(f"{value}\n")

        def available(self, own):
            (tmp_path / "own").write_text(own)
            return available_memory_bytes(tmp_path / "meminfo", tmp_path / "own", tmp_path / "cgroup")

    return Machine()


def test_without_cgroups_it_is_what_the_machine_has(machine, tmp_path):
    assert machine.available("0::/\n") == 20 * GIB
    assert available_memory_bytes(tmp_path / "meminfo", tmp_path / "none", tmp_path / "none") == 20 * GIB


def test_version_2_limit_less_use_without_droppable_cache(machine):
    machine.write("job/memory.max", 8 * GIB)
    machine.write("job/memory.current", 5 * GIB)
    assert machine.available("0::/job\n") == 3 * GIB
    machine.write("job/memory.stat", f"anon 17\ninactive_file {2 * GIB}\nactive_file 5")
    assert machine.available("0::/job\n") == 5 * GIB


def test_version_2_without_a_limit(machine):
    machine.write("memory.max", "max")
    machine.write("memory.current", 5 * GIB)
    assert machine.available("0::/\n") == 20 * GIB


def test_a_limit_further_up_counts_too(machine):
    machine.write("pod/job/memory.max", 9 * GIB)
    machine.write("pod/job/memory.current", 1 * GIB)
    machine.write("pod/memory.max", 6 * GIB)
    machine.write("pod/memory.current", 2 * GIB)
    assert machine.available("0::/pod/job\n") == 4 * GIB


def test_memory_limit_of_version_1(machine):
    machine.write("memory/job/memory.limit_in_bytes", 8 * GIB)
    machine.write("memory/job/memory.usage_in_bytes", 7 * GIB)
    machine.write("memory/job/memory.stat", f"inactive_file 1\ntotal_inactive_file {3 * GIB}")
    machine.write("memory/memory.limit_in_bytes", 0x7FFFFFFFFFFFF000)  # how version 1 says: none
    machine.write("memory/memory.usage_in_bytes", 11 * GIB)
    assert machine.available("5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n") == 4 * GIB


def test_version_1_in_a_container_that_names_the_host_path(machine):
    machine.write("memory/memory.limit_in_bytes", 2 * GIB)
    machine.write("memory/memory.usage_in_bytes", 1 * GIB)
    assert machine.available("4:memory:/docker/0123abcd\n") == 1 * GIB


def test_more_used_than_allowed_is_zero(machine):
    machine.write("memory.max", 1 * GIB)
    machine.write("memory.current", 2 * GIB)
    assert machine.available("0::/\n") == 0


def test_an_old_kernel_is_named(machine, tmp_path):
    (tmp_path / "meminfo").write_text("MemFree: 5 kB\n")
    with pytest.raises(ValueError, match="has no MemAvailable"):
        machine.available("0::/\n")


def test_this_machine():
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory_bytes() <= physical
    assert 1 <= processors() <= (os.cpu_count() or 1)
