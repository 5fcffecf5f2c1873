"""Memory of this process and of a GPU; large pages for large buffers."""

import contextlib
import ctypes
import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CUDA_DRIVER = "libcuda.so.1"
_LEAST_PREPARED_MIB = 64


def resident_bytes(status: Path = Path("/proc/self/status")) -> tuple[int, int]:
    """(now, peak): resident memory of this process in bytes, mapped files included.

    Args:
      status: file with the kernel's figures of the process; `VmRSS` and `VmHWM` are read, in KiB.
    """
    kib = {line.split(":")[0]: line.split()[1] for line in status.read_text().splitlines() if line.endswith(" kB")}
    return int(kib["VmRSS"]) * 1024, int(kib["VmHWM"]) * 1024


class Gpu(NamedTuple):
    """A GPU, and the bytes that can still be allocated on it."""

    uuid: bytes
    available_bytes: int


def gpu(number: int, driver: ctypes.CDLL | None = None) -> Gpu:
    """Asks the driver about a GPU that TensorFlow uses already; TensorFlow's own share is not available.

    Args:
      number: number of the GPU among the GPUs that this process sees (CUDA_VISIBLE_DEVICES), from 0.
      driver: the library of the CUDA driver.

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
    """Advises the kernel to use pages of 2 MiB instead of 4 KiB for a buffer that nobody has written yet.

    A large table is then filled several times as fast, and reading random rows needs fewer look-ups of pages. Where the
    kernel has no such pages, nothing changes.
    """
    address = np.frombuffer(buffer, np.uint8).ctypes.data
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + buffer.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)


def fill(buffer: memoryview, value: float) -> None:
    """Writes a number into all places of a buffer that Python considers read-only and that nobody else knows yet."""
    if buffer.nbytes:
        array = np.asarray(buffer)
        places = (ctypes.c_char * buffer.nbytes).from_address(array.ctypes.data)
        np.frombuffer(places, array.dtype).fill(value)


def prepare_step_memory(num_bytes: float) -> None:
    """Makes TensorFlow take the memory of the coming steps from pages of 2 MiB, on a CPU.

    A tensor of this size is made and given back without being written, and its memory advised to have large pages.
    TensorFlow keeps the memory for its next tensors (see process.set_up_process). With pages of 4 KiB, half of the time
    of a step with wide batches would be spent on clearing and finding pages.

    Args:
      num_bytes: bytes that a step needs at a time.
    """
    import tensorflow as tf

    mib = int(num_bytes) >> 20
    if mib < _LEAST_PREPARED_MIB:
        return
    with contextlib.suppress(tf.errors.ResourceExhaustedError), tf.device("/CPU:0"):
        use_huge_pages(memoryview(tf.raw_ops.Empty(shape=[mib, 1 << 20], dtype=tf.uint8, init=False)))
