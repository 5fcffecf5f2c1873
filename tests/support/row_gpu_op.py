"""TensorFlow's GPU ops of embedding rows as kernels of the CPU that run the CUDA kernels through cuda_emulator.h.

They have the label "emulated", so that the ops' own kernels of the CPU stay what they are.
"""

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import tensorflow as tf
from support.row_cuda_kernels import HERE, SOURCE

OPS = ("DlrmEmbeddingLookup", "DlrmEmbeddingUpdate", "DlrmEmbeddingSum")


def load(folder: Path) -> None:
    """Compiles the ops' own text and loads it; half a minute."""
    rows, path = SOURCE / "embedding_rows", folder / "libemulated_ops.so"
    common = ["g++", "-std=c++17", "-fPIC", "-w", "-DDLRM_EMULATE", "-ffp-contract=off", "-I", SOURCE, "-c"]
    tensorflow = tf.sysconfig.get_compile_flags()
    sources = {
        rows / "embedding_rows_gpu_op.cc": ["-O0", *tensorflow],
        HERE / "cuda_emulator" / "emulated_rows.cc": ["-O1", "-I", HERE / "cuda_emulator"],
        rows / "lookup_cpu.cc": ["-O1"],
        rows / "embedding_rows_cpu_scalar.cc": ["-O1"],
        SOURCE / "instruction_sets.cc": ["-O1"],
        SOURCE / "errors.cc": ["-O1"],
    }
    objects = [folder / f"{source.name}.o" for source in sources]
    compiling = [
        subprocess.Popen([*common, *options, source, "-o", to])
        for (source, options), to in zip(sources.items(), objects, strict=True)
    ]
    assert [process.wait() for process in compiling] == [0] * len(compiling)
    options = ["-shared", "-Wl,-Bsymbolic", "-o", path]
    subprocess.run(["g++", *options, *objects, *tf.sysconfig.get_link_flags()], check=True)
    tf.load_op_library(str(path))


def emulated(function: Callable) -> Callable:
    """The function as a graph whose embedding ops are the emulated ones."""

    def traced(*arguments):
        with labels():
            return function(*arguments)

    return tf.function(traced)


def labels() -> AbstractContextManager:
    return tf.compat.v1.get_default_graph()._kernel_label_map(dict.fromkeys(OPS, "emulated"))
