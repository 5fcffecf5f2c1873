"""How a process finds out who started it, and what it sets up: environment, devices, threads."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from support.small_dataset import write_dataset

from criteo_prep.machine import Processors
from dlrm_tf2 import dlrm
from dlrm_tf2.runtime import instruction_sets, process
from dlrm_tf2.runtime.process import Launch

REPOSITORY = Path(__file__).resolve().parents[3]
SBATCH = dict(
    SLURM_JOB_ID=7, SLURM_NTASKS=8, SLURM_PROCID=0, SLURM_LOCALID=0, SLURM_NODEID=0, SLURM_TASKS_PER_NODE="4(x2)"
)
SRUN = SBATCH | dict(SLURM_STEP_ID=0, SLURM_STEP_NUM_TASKS=8, SLURM_STEP_TASKS_PER_NODE="4(x2)", SLURM_NODEID=1,
                     SLURM_PROCID=6, SLURM_LOCALID=2)  # fmt: skip
OPEN_MPI = dict(
    OMPI_COMM_WORLD_SIZE=4, OMPI_COMM_WORLD_RANK=3, OMPI_COMM_WORLD_LOCAL_RANK=1, OMPI_COMM_WORLD_LOCAL_SIZE=2
)
TORCHRUN = dict(TORCHELASTIC_RUN_ID="none", WORLD_SIZE=2, RANK=0, LOCAL_RANK=0)
HYDRA = dict(PMI_SIZE=4, PMI_RANK=3, MPI_LOCALRANKID=1, MPI_LOCALNRANKS=2)


@pytest.fixture
def environment(monkeypatch):
    """Puts variables into an environment that no launcher has touched."""
    for name in list(os.environ):
        if name.startswith(
            ("HOROVOD_", "OMPI_", "PMI_", "PMIX_", "MPI_", "SLURM_", "TORCHELASTIC_", "DLRM_TF2_", "ONEDNN_")
        ):
            monkeypatch.delenv(name)

    def put(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return put


@pytest.mark.parametrize(
    "variables, launch",
    [
        ({}, Launch()),
        (
            dict(HOROVOD_SIZE=4, HOROVOD_RANK=3, HOROVOD_LOCAL_RANK=1, HOROVOD_LOCAL_SIZE=2),
            Launch(4, 3, local_rank=1, local_size=2),
        ),
        (OPEN_MPI, Launch(4, 3, local_rank=1, local_size=2)),
        (HYDRA, Launch(4, 3, local_rank=1, local_size=2)),
        (SBATCH, Launch()),  # a process of the batch script is alone, for any number of tasks
        (SRUN, Launch(8, 6, local_rank=2, local_size=4)),
        (SRUN | dict(SLURM_STEP_TASKS_PER_NODE="5,3"), Launch(8, 6, local_rank=2, local_size=3)),
        (
            SRUN | dict(SLURM_STEP_TASKS_PER_NODE="2(x2),3,1(x4)", SLURM_NODEID=2),
            Launch(8, 6, local_rank=2, local_size=3),
        ),
        (SRUN | dict(PMI_SIZE=8, PMI_RANK=6), Launch(8, 6, local_rank=2, local_size=4)),  # srun --mpi=pmi2
        (
            SRUN | OPEN_MPI | dict(SLURM_STEP_NUM_TASKS=2, SLURM_STEP_TASKS_PER_NODE="1(x2)"),
            Launch(4, 3, local_rank=1, local_size=2),
        ),
        (SBATCH | OPEN_MPI, Launch(4, 3, local_rank=1, local_size=2)),  # mpirun in a batch script
        (dict(PMI_SIZE=4, PMI_RANK=3), Launch(4, 3, local_rank=0, local_size=1)),
        (TORCHRUN | dict(WORLD_SIZE=1), Launch()),
        (TORCHRUN | OPEN_MPI, Launch(4, 3, local_rank=1, local_size=2)),
    ],
)
def test_launch(environment, variables, launch):
    environment(**variables)
    assert Launch.detect() == launch


@pytest.mark.parametrize(
    "variables, message",
    [
        (OPEN_MPI | dict(OMPI_COMM_WORLD_SIZE="abc"), "OMPI_COMM_WORLD_SIZE: found 'abc', expected a whole number"),
        (SRUN | dict(SLURM_STEP_TASKS_PER_NODE="4,x"), "SLURM_STEP_TASKS_PER_NODE: found '4,x', expected numbers of"),
        (TORCHRUN, "WORLD_SIZE: torchrun started 2 processes, .* Start them with horovodrun -np 2,"),
    ],
)
def test_a_launcher_that_cannot_be_used_is_named(environment, variables, message, capsys):
    environment(**variables)
    with pytest.raises(ValueError, match=message):
        Launch.detect()
    assert dlrm.main(["--dataset_path", "none"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


class _FakeTensorflow:
    """Records what is asked of tf.config."""

    def __init__(self, gpus):
        self.config = MagicMock()
        self.config.list_physical_devices.side_effect = lambda kind: gpus if kind == "GPU" else []
        self.visible = self.config.set_visible_devices


@pytest.fixture
def set_up(monkeypatch, environment):
    """Calls process.set_up_process on a machine with some GPUs; returns the runtime and the fake TensorFlow."""

    def call(launch, gpus=(), cores=(16, 16), **arguments):
        tensorflow = _FakeTensorflow(list(gpus))
        monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
        monkeypatch.setattr(process, "find_processors", lambda: Processors(*cores))
        before = dict(os.environ)
        chosen = process.set_up_process(launch, **{"cpu": False, "amp": False, **arguments})
        changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
        for name in changed:  # so that monkeypatch puts them back
            monkeypatch.setenv(name, changed[name])
        return chosen, tensorflow, changed

    return call


@pytest.mark.parametrize("local_rank, mine", [(0, "gpu0"), (1, "gpu1"), (3, "gpu1")])
def test_a_rank_takes_the_gpu_of_its_local_rank(set_up, local_rank, mine):
    chosen, tensorflow, _ = set_up(
        Launch(8, 4 + local_rank, local_rank=local_rank, local_size=4), gpus=["gpu0", "gpu1"]
    )
    assert chosen.device == "gpu"
    tensorflow.visible.assert_called_once_with(mine, "GPU")


@pytest.mark.parametrize("gpus, cpu", [([], False), ([], True), (["gpu0", "gpu1"], True), (["gpu0"], False)])
@pytest.mark.parametrize("given", [None, "1,0"])
def test_no_empty_device_list_is_exported(set_up, monkeypatch, gpus, cpu, given):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    chosen, _, changed = set_up(Launch(2, 1, local_rank=1, local_size=2), gpus, cpu=cpu)
    assert chosen.device == ("gpu" if gpus and not cpu else "cpu")
    assert "" not in changed.values() and os.environ.get("CUDA_VISIBLE_DEVICES") == given


def test_intra_op_parallelism_and_inter_op_parallelism_default_to_this_ranks_share(set_up):
    chosen, tensorflow, _ = set_up(Launch(8, 5, local_rank=1, local_size=4))
    assert chosen.threads == 4 and chosen.notes == ()
    tensorflow.config.threading.set_intra_op_parallelism_threads.assert_called_once_with(4)
    tensorflow.config.threading.set_inter_op_parallelism_threads.assert_called_once_with(2)


def test_cores_that_the_launcher_leaves_without_work_are_reported(set_up):
    chosen, _, _ = set_up(Launch(2, 0, local_rank=0, local_size=2), cores=(1, 16))
    assert chosen.threads == 1
    assert chosen.notes[0].startswith("14 of 16 cores stay without work: the launcher binds each process to 1.")


def test_ranks_that_share_a_core_let_each_other_run(set_up):
    assert set_up(Launch(4, 0, local_rank=0, local_size=4), cores=(2, 2))[2]["OMPI_MCA_mpi_yield_when_idle"] == "1"
    assert "OMPI_MCA_mpi_yield_when_idle" not in set_up(Launch(), cores=(1, 1))[2]


def test_horovod_warns_of_a_stall_before_stall_timeout_s_ends_the_job(set_up, monkeypatch):
    assert set_up(Launch(), stall_timeout_s=90.0)[2]["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "45"
    monkeypatch.setenv("HOROVOD_STALL_CHECK_TIME_SECONDS", "7")  # the user's own
    set_up(Launch(), stall_timeout_s=90.0)
    assert os.environ["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "7"


@pytest.mark.parametrize("name, limit", [
    ("scalar", "SSE41"), ("avx2", "AVX2"), ("avx512", "AVX512_CORE"), ("avx512_bf16", "AVX512_CORE_BF16"),
])  # fmt: skip
def test_dlrm_tf2_cpu_limits_onednn(set_up, environment, monkeypatch, name, limit):
    monkeypatch.setattr(instruction_sets, "of_processor", lambda: instruction_sets.NAMES)
    environment(DLRM_TF2_CPU=name)
    chosen, _, changed = set_up(Launch())
    assert changed["ONEDNN_MAX_CPU_ISA"] == limit
    assert chosen.notes == (f"DLRM_TF2_CPU={name}: {name} for the native ops, at most {limit} for oneDNN",)


def test_without_dlrm_tf2_cpu_onednn_has_no_limit_and_the_users_own_limit_stays(set_up, environment):
    for variables in ({}, {"DLRM_TF2_CPU": ""}):
        environment(**variables)
        chosen, _, changed = set_up(Launch())
        assert "ONEDNN_MAX_CPU_ISA" not in changed and chosen.notes == ()
    environment(DLRM_TF2_CPU="scalar", ONEDNN_MAX_CPU_ISA="AVX")
    chosen, _, changed = set_up(Launch())
    assert "ONEDNN_MAX_CPU_ISA" not in changed and chosen.notes[0].endswith("at most AVX for oneDNN")


@pytest.mark.parametrize("name", ["avx512", "sse9"])
def test_an_instruction_set_that_the_processor_lacks_ends_the_program(tmp_path, environment, monkeypatch, capsys, name):
    write_dataset(tmp_path, train=50, test=50)
    monkeypatch.setattr(instruction_sets, "of_processor", lambda: ("scalar", "avx2"))
    environment(DLRM_TF2_CPU=name)
    assert dlrm.main(["--dataset_path", str(tmp_path), "--cpu", "--log_path", str(tmp_path / "log")]) == 1
    assert capsys.readouterr().err == (
        f"dlrm: DLRM_TF2_CPU: found {name!r}, expected one of the instruction sets of this processor: scalar, avx2. "
        "Choose one of these, or unset DLRM_TF2_CPU to use the best one.\n"
    )
    assert not (tmp_path / "log").exists()


def test_intra_op_parallelism_inter_op_parallelism_and_dlrm_tf2_cpu_reach_tensorflow(tmp_path, environment):
    write_dataset(tmp_path, train=50, test=50)
    program = """if True:
        import os, sys
        from dlrm_tf2 import dlrm
        status = dlrm.main(sys.argv[1:])
        import tensorflow as tf
        threading = tf.config.threading
        print(status, threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
        print("empty:", [name for name in os.environ if "VISIBLE_DEVICES" in name and not os.environ[name]])
        os.environ["ONEDNN_VERBOSE"] = "1"
        tf.matmul(tf.ones([64, 64]), tf.ones([64, 64]))
        """
    environment(DLRM_TF2_CPU="scalar")
    arguments = ["--dataset_path", tmp_path, "--mode", "eval", "--restore_checkpoint_path", tmp_path / "none",
                 "--cpu", "--intra_op_parallelism", 3, "--inter_op_parallelism", 5,
                 "--log_path", tmp_path / "log"]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True
    )
    lines = run.stdout.splitlines()
    assert {"1 3 5", "empty: []"} <= set(lines), run.stdout + run.stderr
    if platform.machine() == "x86_64":
        assert "onednn_verbose,info,cpu,isa:Intel SSE4.1" in lines
