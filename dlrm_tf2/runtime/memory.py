"""Memory of this process and of a GPU; large pages for large buffers."""

import ctypes
import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CUDA_DRIVER = "libcuda.so.1"


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
