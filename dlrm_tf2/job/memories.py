"""The memories that a rank checks before a run allocates anything: its machine's, and its GPU's."""

import tensorflow as tf

from criteo_prep.machine import available_memory_bytes
from dlrm_tf2.job.preflight import Memory
from dlrm_tf2.runtime import memory, process
from dlrm_tf2.runtime.comm import Comm


def memories_to_check(launch: process.Launch, device: process.Runtime, comm: Comm) -> tuple[list[Memory], list[str]]:
    """The memories that this rank checks, and lines for the user. The first rank of a memory checks it."""
    memories, notes, gpu = [], [], None
    if launch.local_rank == 0:
        available = available_memory_bytes()
        memories.append(Memory("this machine", launch.local_ranks, available, of_device=device.gpu is None))
    if device.gpu is not None:
        tf.config.list_logical_devices("GPU")  # makes TensorFlow start using the GPU
        try:
            gpu = memory.gpu(device.gpu)
        except OSError as error:
            notes.append(f"memory of GPU {device.gpu}: not checked: {error}")
    gpus = comm.allgather_object(gpu, name="gpus")
    sharing = [rank for rank, other in enumerate(gpus) if gpu and other and other.uuid == gpu.uuid]
    if comm.rank in sharing[:1]:
        available = min(gpus[rank].available_bytes for rank in sharing)
        memories.append(Memory(f"GPU {device.gpu}", sharing, available, of_host=False))
    return memories, notes
