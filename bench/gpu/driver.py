"""A GPU through the CUDA driver alone (libcuda), for machines with neither torch nor CuPy."""

import ctypes

import numpy as np

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute


class Memory:
    def __init__(self, call, num_bytes: int):
        self._call, self.num_bytes, self.address = call, num_bytes, ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(max(1, num_bytes)))

    def __del__(self):
        if self.address:
            self._call("cuMemFree_v2", self.address)


class DriverDevice:
    """The first GPU, in its primary context, which the kernels' runtime uses too; everything on the default stream."""

    library = "the CUDA driver"

    def __init__(self):
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", 0)
        device, context, name = ctypes.c_int(), ctypes.c_void_p(), ctypes.create_string_buffer(100)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuDeviceGetName", name, 100, device)
        numbers = [ctypes.c_int(), ctypes.c_int()]
        for number, attribute in zip(numbers, (COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR), strict=True):
            self._call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        self.name, self.capability = name.value.decode(), f"sm_{numbers[0].value}{numbers[1].value}"

    def _call(self, function: str, *arguments) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code != 0:
            raise RuntimeError(f"{function} returned {code}")

    def upload(self, values: np.ndarray) -> Memory:
        values = np.ascontiguousarray(values)
        memory = Memory(self._call, values.nbytes)
        if values.nbytes:
            source = ctypes.c_void_p(values.ctypes.data)
            self._call("cuMemcpyHtoD_v2", memory.address, source, ctypes.c_size_t(values.nbytes))
        return memory

    def download(self, memory: Memory) -> np.ndarray:
        values = np.empty(memory.num_bytes, np.uint8)
        if memory.num_bytes:
            target = ctypes.c_void_p(values.ctypes.data)
            self._call("cuMemcpyDtoH_v2", target, memory.address, ctypes.c_size_t(memory.num_bytes))
        return values

    def poisoned(self, num_bytes: int) -> Memory:
        memory = Memory(self._call, num_bytes)
        if num_bytes:
            self._call("cuMemsetD8_v2", memory.address, ctypes.c_ubyte(0xFF), ctypes.c_size_t(num_bytes))
        return memory

    def random(self, num_bytes: int, dtype: str) -> Memory:
        block = np.random.default_rng(0).standard_normal(1 << 22, np.float32)
        bits = (block.view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else block.astype(dtype)
        return self.upload(np.resize(bits.view(np.uint8), num_bytes))

    def address(self, memory: Memory) -> int:
        return memory.address.value

    def copy(self, target: Memory, source: Memory) -> None:
        self._call("cuMemcpyDtoDAsync_v2", target.address, source.address, ctypes.c_size_t(source.num_bytes), None)

    def wait(self) -> None:
        self._call("cuCtxSynchronize")

    def event(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), 0)
        self._call("cuEventRecord", event, None)
        return event

    def elapsed_ms(self, start: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        milliseconds = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return milliseconds.value
