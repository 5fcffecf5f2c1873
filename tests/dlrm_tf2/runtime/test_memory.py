import mmap
import re
from pathlib import Path

import numpy as np
import pytest

from dlrm_tf2.runtime.memory import use_huge_pages


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
