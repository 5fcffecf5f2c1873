"""Freed memory that is kept: what a second round of arrays costs, and a C library that cannot."""

import ctypes
import subprocess
import sys

from criteo_prep.transcribe.freed_memory import keep_freed_memory

ROUNDS = """
import resource
import numpy as np
from criteo_prep.transcribe.freed_memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(3 << 20, np.uint8) for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
first, _, third = new_pages(), new_pages(), new_pages()
assert first > 10_000 and third < first / 10, (first, third)
"""


def test_pages_are_taken_from_the_system_once():
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_c_library(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
