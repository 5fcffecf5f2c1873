"""Sets up the process, in the one order that works: launcher, environment, TensorFlow, devices, threads, precision.

The only file that touches os.environ. `set_up_process` imports TensorFlow after it has prepared the environment.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from criteo_prep.machine import find_processors
from dlrm_tf2.runtime import instruction_sets
from dlrm_tf2.runtime.cores import idle_processors, threads_of_rank
from dlrm_tf2.runtime.rank_names import this_host

_NVIDIA_DRIVER = Path("/dev/nvidiactl")
ELASTIC_VARIABLE = "DLRM_TF2_ELASTIC"  # with it, a supervisor tells its ranks where it is

# Variables of the launchers: number of processes, rank, rank on this machine, ranks on this machine. The first launcher
# that is found counts: inside a SLURM job, mpirun starts its ranks through srun.
_LAUNCHERS = (
    ("HOROVOD_SIZE", "HOROVOD_RANK", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),  # horovodrun --gloo
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # mpiexec of MPICH and Intel MPI
    # srun. Not SLURM_NTASKS, which a batch script has too, and that is one process.
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)


@dataclass(frozen=True)
class Launch:
    """How the process was started: the ranks of the job and of this machine, and the rank of this process.

    Attributes:
      by_launcher: a launcher started the process, even if it is the only one.
    """

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    local_size: int = 1
    by_launcher: bool = field(default=False, compare=False)

    @classmethod
    def detect(cls) -> "Launch":
        """Reads the variables of the launcher. A process without a launcher is alone.

        Raises:
          ValueError: a variable is not a whole number, or torchrun started several processes.
        """
        candidates = [names for names in _LAUNCHERS if os.environ.get(names[0]) is not None]
        if not candidates:
            size = _whole_number("WORLD_SIZE", default=1) if "TORCHELASTIC_RUN_ID" in os.environ else 1
            if size > 1:
                raise ValueError(
                    f"WORLD_SIZE: torchrun started {size} processes, which Horovod cannot connect. Start them with "
                    f"horovodrun -np {size}, mpirun or srun."
                )
            return cls()
        # A launcher that also sets the ranks of the machine comes before one that does not, such as PMI under srun.
        names = min(candidates, key=lambda names: None in [os.environ.get(name) for name in names])
        return cls(
            _whole_number(names[0], default=1),
            _whole_number(names[1], default=0),
            local_rank=_whole_number(names[2], default=0),
            local_size=_tasks_here(names[3]),
            by_launcher=True,
        )

    @property
    def rank_name(self) -> str:
        """`rank 3`; with its host if the job has several hosts."""
        return f"rank {self.rank}" + (f" on {this_host()}" if self.local_size < self.world_size else "")

    @property
    def local_ranks(self) -> range:
        """The ranks on this machine; launchers number them machine by machine."""
        return range(self.rank - self.local_rank, self.rank - self.local_rank + self.local_size)


class Threads(NamedTuple):
    """Threads of TensorFlow.

    Attributes:
      intra_op: threads of an operation; None for this process's share of the cores.
      inter_op: operations at the same time; None for 2.
    """

    intra_op: int | None = None
    inter_op: int | None = None


DEFAULT_THREADS = Threads()


@dataclass(frozen=True)
class Runtime:
    """The choices of set_up_process.

    Attributes:
      device: "cpu" or "gpu".
      compute_dtype: name of the type of MLPs and interaction; variables are always float32.
      threads: threads of an operation.
      notes: lines for the user, such as the type that --amp chose.
      gpu: number of the GPU among the GPUs that the process sees; None on a CPU.
    """

    device: str
    compute_dtype: str
    threads: int
    notes: tuple[str, ...]
    gpu: int | None = None


def gloo_timeout_s() -> float | None:
    """Seconds that gloo waits for another rank before it aborts the process; None without horovodrun --gloo."""
    if "HOROVOD_SIZE" not in os.environ:
        return None
    return _whole_number("HOROVOD_GLOO_TIMEOUT_SECONDS", default=30)


def elastic_supervisor() -> str | None:
    """Where the supervisor of an elastic job is, see runtime/elastic.py; None for a process that has none."""
    return os.environ.get(ELASTIC_VARIABLE)


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
    threads: Threads = DEFAULT_THREADS,
    stall_timeout_s: float = 0.0,
) -> Runtime:
    """Prepares the process and starts TensorFlow.

    Args:
      launch: how the process was started, see Launch.detect.
      cpu: use no GPU, even if the machine has one.
      amp: compute in 16 bits: `amp_dtype`, or bfloat16 on a CPU and float16 on a GPU.
      amp_dtype: "bfloat16" or "float16"; None for the default of the device.
      threads: threads that the user asks for.
      stall_timeout_s: seconds without progress after which the job ends itself; 0 for never.

    Raises:
      ValueError: DLRM_TF2_CPU asks for an instruction set that the processor does not have.
    """
    forced = force_instruction_set()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Horovod looks for new tensors this often (ms); its default of 1 ms is noticeable in a step of a few.
    os.environ.setdefault("HOROVOD_CYCLE_TIME", "0.2")
    # Horovod reports which tensors wait, and for which ranks, before the watchdog ends the job. Its default of 60 s is
    # too short: an evaluation may keep one rank busy for longer.
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(max(1, int((stall_timeout_s or 600) / 2))))
    if cpu or not _NVIDIA_DRIVER.exists():
        # Tensors of a step lie in memory that the process keeps. By default the system would take large tensors back
        # after every step, and clear their pages again in the next.
        os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
        os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(1 << 30))  # the system's memory is the limit
    processors = find_processors()
    num_threads = threads.intra_op or threads_of_rank(processors, launch.local_size)
    if num_threads == 1 and launch.local_size > 1:
        # A waiting rank must leave its core to a working rank; by default, Open MPI keeps the core busy.
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
            f"{processors.bound}. With mpirun, --bind-to none lets the operating system choose the cores."
        )
    gpus = tf.config.list_physical_devices("GPU")
    device, gpu = "cpu", None
    if cpu or not gpus:
        tf.config.set_visible_devices([], "GPU")
    else:
        device, gpu = "gpu", launch.local_rank % len(gpus)
        tf.config.set_visible_devices(gpus[gpu], "GPU")
        tf.config.experimental.set_memory_growth(gpus[gpu], True)
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads.inter_op or 2)
    compute_dtype = "float32"
    if amp:
        compute_dtype = amp_dtype or ("float16" if device == "gpu" else "bfloat16")
        notes.append(f"amp: {compute_dtype} on the {device.upper()}")
    return Runtime(device, compute_dtype, threads=num_threads, notes=tuple(notes), gpu=gpu)


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name)
    try:
        return int(text) if text else default
    except ValueError:
        raise ValueError(
            f"{name}: found {text!r}, expected a whole number. A launcher sets this variable; unset it to run alone."
        ) from None


def _tasks_here(name: str) -> int:
    """The processes on this machine, from a variable with a number or with SLURM's list for each machine, `4(x2),3`."""
    text = os.environ.get(name) or "1"
    counts = []
    try:
        for part in text.split(","):
            number, _, times = part.rstrip(")").partition("(x")
            counts += [int(number)] * int(times or 1)
    except ValueError:
        raise ValueError(f"{name}: found {text!r}, expected numbers of processes such as 4 or 4(x2),3.") from None
    return counts[_whole_number("SLURM_NODEID", default=0)] if len(counts) > 1 else counts[0]
