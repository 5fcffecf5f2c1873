import mmap
import os
import re
from pathlib import Path

import numpy as np
import pytest

from dlrm_tf2.memory import available_bytes, use_huge_pages

GIB = 1 << 30


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
            return available_bytes(tmp_path / "meminfo", tmp_path / "own", tmp_path / "cgroup")

    return Machine()


def test_without_cgroups_it_is_what_the_machine_has(machine, tmp_path):
    assert machine.available("0::/\n") == 20 * GIB
    assert available_bytes(tmp_path / "meminfo", tmp_path / "none", tmp_path / "none") == 20 * GIB


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


def test_version_1(machine):
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
    assert 0 < available_bytes() <= physical


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no transparent huge pages"
)
def test_huge_pages_are_asked_for_the_buffer_alone():
    size = 8 << 20
    with mmap.mmap(-1, 3 * size) as memory:
        whole = np.frombuffer(memory, np.uint8)
        address = whole.ctypes.data + size
        use_huge_pages(memoryview(whole[size : 2 * size]))
        advised = _advised_ranges()
        del whole
    assert (address, address + size) in advised


def _advised_ranges() -> set[tuple[int, int]]:
    """The address ranges of this process that were advised to have huge pages."""
    advised, current = set(), None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            current = (int(match[1], 16), int(match[2], 16))
        elif line.startswith("VmFlags:") and "hg" in line.split():
            advised.add(current)
    return advised
