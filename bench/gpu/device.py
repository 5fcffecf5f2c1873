"""Device memory, events and the compiled kernels, over torch, CuPy or the CUDA driver alone."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from driver import DriverDevice

SOURCE = Path(__file__).resolve().parents[2] / "dlrm_tf2" / "ops" / "src"
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
KERNELS = {"best": -1, "general": 0, "tensor": 1}
BAD_ARGUMENT = 1
# What the library is made of, with the options of cuda.cmake and CMakeLists.txt that change bits.
EXACT = ("-fmad=false", "--prec-sqrt=true", "--prec-div=true")
SOURCES = {
    "errors.cc": (),
    "instruction_sets.cc": (),
    "dot_interaction/dot_interaction_cuda.cu": (),
    "dot_interaction/dot_interaction_cpu.cc": (),
    "dot_interaction/dot_interaction_cpu_scalar.cc": (),
    "embedding_rows/embedding_rows_cuda.cu": EXACT,
    "embedding_rows/status_cuda.cu": (),
    "embedding_rows/sort_cuda.cu": (),
    "hash_table/initial_rows_cuda.cu": ("-fmad=false",),
    "hash_table/key_index_cuda.cu": (),
    "embedding_rows/lookup_cpu.cc": (),
    "embedding_rows/embedding_rows_cpu_scalar.cc": ("-Xcompiler", "-ffp-contract=off"),
}


class TorchDevice:
    def __init__(self):
        import torch

        self.torch = torch
        self.name = torch.cuda.get_device_name()
        self.capability = "sm_{}{}".format(*torch.cuda.get_device_capability())
        self.library = f"torch {torch.__version__}"

    def upload(self, values: np.ndarray):
        return self.torch.from_numpy(values.view(np.uint8).reshape(-1)).cuda()

    def download(self, memory) -> np.ndarray:
        return memory.cpu().numpy()

    def poisoned(self, num_bytes: int):
        return self.torch.full((num_bytes,), 0xFF, dtype=self.torch.uint8, device="cuda")

    def random(self, num_bytes: int, dtype: str):
        values = self.torch.randn(num_bytes // ITEM_BYTES[dtype], device="cuda", dtype=getattr(self.torch, dtype))
        return values.view(self.torch.uint8)

    def address(self, memory) -> int:
        return memory.data_ptr()

    def copy(self, target, source) -> None:
        target.copy_(source)

    def wait(self) -> None:
        self.torch.cuda.synchronize()

    def event(self):
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed_ms(self, start, end) -> float:
        return start.elapsed_time(end)


class CupyDevice:
    def __init__(self):
        import cupy

        self.cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        self.name, self.library = properties["name"].decode(), f"cupy {cupy.__version__}"
        self.capability = f"sm_{cupy.cuda.Device().compute_capability}"

    def upload(self, values: np.ndarray):
        return self.cupy.asarray(values.view(np.uint8).reshape(-1))

    def download(self, memory) -> np.ndarray:
        return self.cupy.asnumpy(memory)

    def poisoned(self, num_bytes: int):
        return self.cupy.full(num_bytes, 0xFF, self.cupy.uint8)

    def random(self, num_bytes: int, dtype: str):
        count = num_bytes // ITEM_BYTES[dtype]
        values = self.cupy.random.standard_normal(count, dtype=self.cupy.float32)
        if dtype == "bfloat16":
            return (values.view(self.cupy.uint32) >> 16).astype(self.cupy.uint16).view(self.cupy.uint8)
        return values.astype(dtype).view(self.cupy.uint8)

    def address(self, memory) -> int:
        return memory.data.ptr

    def copy(self, target, source) -> None:
        self.cupy.cuda.runtime.memcpyAsync(target.data.ptr, source.data.ptr, source.nbytes, 3, 0)

    def wait(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def event(self):
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def elapsed_ms(self, start, end) -> float:
        return self.cupy.cuda.get_elapsed_time(start, end)


def open_device():
    """The GPU, by torch, else CuPy, else the CUDA driver.

    Raises:
      RuntimeError: there is no GPU to use.
    """
    reasons = []
    for kind in (TorchDevice, CupyDevice, DriverDevice):
        try:
            return kind()
        except Exception as error:  # whatever an incomplete installation raises
            reasons.append(f"{kind.__name__}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise RuntimeError("no CUDA GPU can be used: " + "; ".join(reasons))


def compile_kernels() -> Path:
    """Builds the CUDA kernels for this machine's GPU with nvcc and returns the library.

    Raises:
      RuntimeError: there is no nvcc, or it fails.
    """
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        raise RuntimeError("no nvcc on the path. Give a library that was built elsewhere: --library PATH")
    folder = Path(tempfile.mkdtemp(prefix="dlrm_gpu_check_"))
    library = folder / "libdlrm_kernels.so"
    common = [nvcc, "-O3", "-std=c++17", "-arch=native", "-lineinfo", "-DDLRM_CUDA", "-Xcompiler", "-fPIC"]
    objects = []
    for source, options in SOURCES.items():
        objects.append(str(folder / f"{Path(source).name}.o"))
        _run([*common, *options, "-I", str(SOURCE), "-c", "-o", objects[-1], str(SOURCE / source)])
    _run([*common, "-shared", "-o", str(library), *objects])
    return library


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")


class Kernels:
    """The CUDA kernels of a library, called on device addresses."""

    def __init__(self, path: os.PathLike):
        self.path = Path(path)
        self.library = ctypes.CDLL(str(path))
        self.library.dlrm_error_text.restype = ctypes.c_char_p
        rest = [ctypes.c_int64] * 3 + [ctypes.c_int] * 2 + [ctypes.c_void_p]
        self.library.dlrm_dot_interaction_cuda.argtypes = [ctypes.c_void_p] * 2 + rest
        self.library.dlrm_dot_interaction_gradient_cuda.argtypes = [ctypes.c_void_p] * 3 + rest

    def forward(self, features: int, output: int, shape: tuple[int, int, int], dtype: str, kernel: str) -> bool:
        """Queues it. False where that kernel does not serve the shape."""
        return self._served(
            self.library.dlrm_dot_interaction_cuda(features, output, *shape, DTYPES[dtype], KERNELS[kernel], None)
        )

    def gradient(
        self, features: int, upstream: int, gradient: int, shape: tuple[int, int, int], dtype: str, kernel: str
    ) -> bool:
        return self._served(
            self.library.dlrm_dot_interaction_gradient_cuda(
                features, upstream, gradient, *shape, DTYPES[dtype], KERNELS[kernel], None
            )
        )

    def _served(self, code: int) -> bool:
        if code not in (0, BAD_ARGUMENT):
            raise RuntimeError(f"the kernel could not be queued: {self.library.dlrm_error_text(code).decode()}")
        return code == 0


def output_width(count: int, width: int) -> int:
    return (width + count * (count - 1) // 2 + 7) // 8 * 8
