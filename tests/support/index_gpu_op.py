"""TensorFlow's GPU ops of the hash table as kernels of the CPU that run the CUDA kernels through cuda_emulator.h.

They have the label "emulated", so that the ops' own kernels of the CPU stay what they are.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from support.row_cuda_kernels import HERE, SOURCE

from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.hash_table import IndexRules, KeyIndex
from dlrm_tf2.sharding.buckets import Buckets

ON_HOST = {  # op -> its arguments in the host's memory
    "DlrmKeyIndex": ["index"],
    "DlrmKeyIndexFind": ["index"],
    "DlrmKeyIndexFindOrInsert": ["index", "step"],
    "DlrmKeyIndexAssign": ["index"],
    "DlrmKeyIndexErase": ["index"],
    "DlrmKeyIndexExpire": ["before_step", "index"],
    "DlrmKeyIndexClear": ["index"],
    "DlrmKeyIndexSize": ["index"],
    "DlrmKeyIndexCounters": ["index"],
    "DlrmKeyIndexExport": ["first_row", "index", "num_rows"],
    "DlrmKeyIndexExportCounts": ["counts", "index", "keys"],
    "DlrmKeyIndexAssignCounts": ["counts", "index", "keys"],
    "DlrmKeyIndexErased": ["index", "keys", "since_step", "steps"],
    "DlrmKeyIndexTrimErased": ["before_step", "index"],
    "DlrmBucketOf": [],
    "DlrmInitializeRows": ["slabs", "slots"],
}


def load(folder: Path) -> None:
    """Compiles the ops' own text and loads it; half a minute."""
    index, path = SOURCE / "hash_table", folder / "libemulated_index_ops.so"
    common = ["g++", "-std=c++17", "-fPIC", "-w", "-DDLRM_EMULATE", "-ffp-contract=off", "-I", SOURCE, "-c"]
    tensorflow = ["-O0", *tf.sysconfig.get_compile_flags()]
    sources = {
        **{index / f"{name}_gpu_op.cc": tensorflow for name in ("key_index", "key_index_upkeep", "initial_rows")},
        HERE / "cuda_emulator" / "emulated_index.cc": ["-O1", "-I", HERE / "cuda_emulator"],
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


def emulated(function: Callable, *arguments):
    """The result of a function in a graph whose hash table ops are the emulated ones."""

    def traced(*tensors):
        with tf.compat.v1.get_default_graph()._kernel_label_map(dict.fromkeys(ON_HOST, "emulated")):
            return function(*tensors)

    return tf.function(traced, autograph=False)(*arguments)


def index_of(buckets: Buckets, owned: range, rules: IndexRules) -> KeyIndex:
    """An index on the emulated GPU, for emulated calls."""
    index = KeyIndex(buckets, owned, rules)
    index.handle = emulated(lambda: hash_table.make_index(buckets, owned, rules))
    return index
