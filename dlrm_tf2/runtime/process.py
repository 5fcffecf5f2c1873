"""Sets up the process, in the one order that works: launcher, environment, TensorFlow, devices, threads, precision.

The only file that touches os.environ. TensorFlow is imported inside `setup`, after the environment is ready for it.
"""

import os
from dataclasses import dataclass, field

from criteo_prep.machine import find_processors
from dlrm_tf2.runtime import instruction_sets
from dlrm_tf2.runtime.cores import idle_processors, threads_of_rank

# What launchers call the number of processes, this one's rank, and its rank and number of ranks on its machine. In the
# order in which they count: mpirun starts its ranks through srun inside a SLURM job.
_LAUNCHERS = (
    ("HOROVOD_SIZE", "HOROVOD_RANK", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),  # horovodrun --gloo
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # mpiexec of MPICH and Intel MPI
    # srun. SLURM_NTASKS would not do: a batch script has it too, and is one process.
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)


@dataclass(frozen=True)
class Launch:
    """How the process was started: ranks in the job and on this machine, and which of them this process is.

    Attributes:
      by_launcher: a launcher did it, be it of one process.
    """

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    local_size: int = 1
    by_launcher: bool = field(default=False, compare=False)

    @classmethod
    def detect(cls) -> "Launch":
        """Reads what the launcher put into the environment; a process without one is alone."""
        told = [[os.environ.get(name) for name in names] for names in _LAUNCHERS]
        told = [values for values in told if values[0] is not None]
        if not told:
            return cls()
        # One that does not tell about the machine, as PMI under srun, stands back behind one that does.
        world_size, rank, local_rank, local_size = min(told, key=lambda values: None in values)
        return cls(int(world_size), int(rank or 0), int(local_rank or 0), _tasks_here(local_size or "1"), True)

    @property
    def local_ranks(self) -> range:
        """The ranks on this machine; launchers number them machine by machine."""
        return range(self.rank - self.local_rank, self.rank - self.local_rank + self.local_size)


@dataclass(frozen=True)
class Runtime:
    """What `setup` chose.

    Attributes:
      device: "cpu" or "gpu".
      compute_dtype: name of the type of MLPs and interaction; variables are float32 whatever it is.
      threads: threads of an operation.
      notes: lines a user should read once, such as a flag whose device is not there.
      gpu: the number of its GPU among those that the process sees; None on a CPU.
    """

    device: str
    compute_dtype: str
    threads: int
    notes: tuple[str, ...]
    gpu: int | None = None


def force_instruction_set() -> str | None:
    """Reads the instruction set that DLRM_TF2_CPU asks for, and limits oneDNN to this instruction set.

    oneDNN reads its limit at its first computation. A limit that the user has set (ONEDNN_MAX_CPU_ISA) stays.

    Returns:
      A name of instruction_sets.NAMES; None when DLRM_TF2_CPU is not set.

    Raises:
      ValueError: the processor does not have the instruction set.
    """
    name = os.environ.get("DLRM_TF2_CPU")
    if not name:
        return None
    found = instruction_sets.of_processor()
    if name not in found:
        raise ValueError(
            f"DLRM_TF2_CPU: found {name!r}, expected one of the instruction sets of this processor: "
            f"{', '.join(found)}. Choose one of these, or unset DLRM_TF2_CPU to use the best one."
        )
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", instruction_sets.ONEDNN_NAMES[name])
    return name


def set_up_process(
    launch: Launch,
    cpu: bool,
    *,
    amp: bool,
    amp_dtype: str | None = None,
    intra_op_threads: int | None = None,
    inter_op_threads: int | None = None,
    stall_timeout_s: float = 0.0,
) -> Runtime:
    """Prepares the process and starts TensorFlow.

    Args:
      launch: see Launch.detect.
      cpu: use no GPU even where there is one.
      amp: compute in 16 bits: `amp_dtype`, or bfloat16 on a CPU and float16 on a GPU.
      intra_op_threads: threads of an operation; this process's share of the cores when not given.
      inter_op_threads: operations at a time; 2 when not given.
      stall_timeout_s: after which the job ends itself when it makes no progress; 0 for never.

    Raises:
      ValueError: DLRM_TF2_CPU asks for an instruction set that the processor does not have.
    """
    forced = force_instruction_set()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Horovod looks for new tensors this often (ms); its default of 1 ms is noticeable in a step of a few.
    os.environ.setdefault("HOROVOD_CYCLE_TIME", "0.2")
    # Horovod says which tensors wait, and for whom, before the watchdog ends the job; its default of 60 s is less than
    # an evaluation may keep one rank busy.
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(max(1, int((stall_timeout_s or 600) / 2))))
    processors = find_processors()
    threads = intra_op_threads or threads_of_rank(processors, launch.local_size)
    if threads == 1 and launch.local_size > 1:
        # Ranks that wait must leave the core to those that work; by default Open MPI spins.
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    import tensorflow as tf

    notes = []
    if forced:
        notes.append(
            f"DLRM_TF2_CPU={forced}: {forced} for the native ops, at most {os.environ['ONEDNN_MAX_CPU_ISA']} for oneDNN"
        )
    if idle := idle_processors(processors, launch.local_size):
        notes.append(
            f"{idle} of {processors.machine} cores stay without work: the launcher binds each process to "
            f"{processors.bound}. With mpirun, --bind-to none leaves that to the operating system."
        )
    gpus = tf.config.list_physical_devices("GPU")
    device, gpu = "cpu", None
    if cpu or not gpus:
        tf.config.set_visible_devices([], "GPU")
    else:
        device, gpu = "gpu", launch.local_rank % len(gpus)
        tf.config.set_visible_devices(gpus[gpu], "GPU")
        tf.config.experimental.set_memory_growth(gpus[gpu], True)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads or 2)
    compute_dtype = "float32"
    if amp:
        compute_dtype = amp_dtype or ("float16" if device == "gpu" else "bfloat16")
        notes.append(f"amp: {compute_dtype} on the {device.upper()}")
    return Runtime(device, compute_dtype, threads=threads, notes=tuple(notes), gpu=gpu)


def _tasks_here(per_node: str) -> int:
    """The processes on this machine: a number, or SLURM's list of them for each machine, such as `4(x2),3`."""
    counts = []
    for part in per_node.split(","):
        number, _, times = part.rstrip(")").partition("(x")
        counts += [int(number)] * int(times or 1)
    return counts[int(os.environ.get("SLURM_NODEID", 0))] if len(counts) > 1 else counts[0]
