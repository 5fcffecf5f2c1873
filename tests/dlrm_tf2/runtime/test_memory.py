import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlrm_tf2.runtime.memory import use_huge_pages

ROOT = Path(__file__).parents[3]
needs_huge_pages = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this kernel has no transparent huge pages"
)


@needs_huge_pages
def test_huge_pages_are_asked_for_the_buffer_alone():
    size = 8 << 20
    with mmap.mmap(-1, 3 * size) as memory:
        whole = np.frombuffer(memory, np.uint8)
        address = whole.ctypes.data + size
        use_huge_pages(memoryview(whole[size : 2 * size]))
        advised = advised_ranges()
        del whole
    assert (address, address + size) in advised


@needs_huge_pages
def test_the_memory_of_steps_has_large_pages_and_serves_the_next_tensors():
    """In a process of its own, because TensorFlow chooses its allocator when it starts."""
    program = """
import test_memory
from dlrm_tf2.runtime import memory, process
process.set_up_process(process.Launch(), cpu=True, amp=False)
memory.prepare_step_memory(300 << 20)
import numpy as np
import tensorflow as tf
tensor = tf.fill([40 << 20], 1.0)
address = np.frombuffer(memoryview(tensor), np.uint8).ctypes.data + 4096  # the first whole page
print(any(start <= address and address + (150 << 20) <= stop for start, stop in test_memory.advised_ranges()))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
    assert run.stdout == "True\n", run.stderr


def advised_ranges() -> set[tuple[int, int]]:
    """The address ranges of this process that were advised to have huge pages."""
    advised, current = set(), None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            current = (int(match[1], 16), int(match[2], 16))
        elif line.startswith("VmFlags:") and "hg" in line.split():
            advised.add(current)
    return advised
