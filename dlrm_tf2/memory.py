"""Memory of the machine and of a GPU: how much can still be allocated; and large pages for what is."""

import ctypes
import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CUDA_DRIVER = "libcuda.so.1"


def available_bytes(
    meminfo: Path = Path("/proc/meminfo"),
    own_cgroups: Path = Path("/proc/self/cgroup"),
    cgroup_root: Path = Path("/sys/fs/cgroup"),
) -> int:
    """The smaller of what the machine has available and what each cgroup of this process leaves (version 1 and 2).

    File cache that the kernel drops on demand does not count as used, in the machine as in a cgroup.

    Args:
      meminfo: the kernel's memory figures; `MemAvailable` is read, in KiB.
      own_cgroups: the cgroups of this process, one `id:controllers:path` a line.
      cgroup_root: where the cgroup file systems are mounted.

    Returns:
      Bytes, 0 or more.
    """
    return max(0, min([_machine_bytes(meminfo), *_cgroup_bytes(own_cgroups, cgroup_root)]))


def resident_bytes(status: Path = Path("/proc/self/status")) -> tuple[int, int]:
    """(now, peak): the memory of the machine that this process holds, what it has mapped of files included.

    Args:
      status: the kernel's figures of the process; `VmRSS` and `VmHWM` are read, in KiB.
    """
    kib = {line.split(":")[0]: line.split()[1] for line in status.read_text().splitlines() if line.endswith(" kB")}
    return int(kib["VmRSS"]) * 1024, int(kib["VmHWM"]) * 1024


class Gpu(NamedTuple):
    """A GPU, and the bytes that can still be allocated on it."""

    uuid: bytes
    available_bytes: int


def gpu(number: int, driver: ctypes.CDLL | None = None) -> Gpu:
    """Asks the driver about a GPU on which TensorFlow has begun to compute: what that takes is not available any more.

    Args:
      number: of those that this process sees (CUDA_VISIBLE_DEVICES), from 0.
      driver: CUDA's.

    Raises:
      OSError: there is no driver, or it does not answer.
    """
    driver = driver or ctypes.CDLL(_CUDA_DRIVER)
    device, context, uuid = ctypes.c_int(), ctypes.c_void_p(), (ctypes.c_char * 16)()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()

    def call(name: str, *arguments: object) -> None:
        if status := getattr(driver, name)(*arguments):
            raise OSError(f"{_CUDA_DRIVER}: {name} returned {status}")

    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), number)
    call("cuDeviceGetUuid_v2", ctypes.byref(uuid), device)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)  # TensorFlow's
    try:
        call("cuCtxPushCurrent_v2", context)
        try:
            call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        finally:
            call("cuCtxPopCurrent_v2", ctypes.byref(context))
    finally:
        call("cuDevicePrimaryCtxRelease_v2", device)
    return Gpu(uuid.raw, free.value)


def _machine_bytes(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{meminfo}: has no MemAvailable. Linux 3.14 or later has it.")


def _cgroup_bytes(own_cgroups: Path, root: Path) -> list[int]:
    """What each limited cgroup above this process leaves, the innermost first."""
    left = []
    for line in _text(own_cgroups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2: one tree for all controllers
            top, limit, usage, reclaimable = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            reclaimable = "total_inactive_file"
        else:
            continue
        # In a container the path may be the host's, of which only the mounted root is visible.
        folder = top / path.lstrip("/")
        for cgroup in [folder, *folder.parents]:
            if cgroup.is_relative_to(top) and _text(cgroup / limit).strip().isdigit() and _text(cgroup / usage):
                used = int(_text(cgroup / usage)) - _statistic(cgroup / "memory.stat", reclaimable)
                left.append(int(_text(cgroup / limit)) - used)
    return left


def _statistic(path: Path, key: str) -> int:
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def _text(path: Path) -> str:
    """The file's text, or nothing where there is no such file or it may not be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def use_huge_pages(buffer: memoryview) -> None:
    """Asks the kernel to back a buffer that was not written yet with 2 MiB pages instead of 4 KiB ones.

    A large table is then filled several times as fast, and random rows of it are found with fewer look-ups of pages. It
    is advice: where the kernel has no such pages, nothing changes.
    """
    address = np.frombuffer(buffer, np.uint8).ctypes.data
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + buffer.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
