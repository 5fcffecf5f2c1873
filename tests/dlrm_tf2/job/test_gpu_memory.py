"""The memory that a run needs on a GPU and on its host. No GPU is needed: the available bytes are given."""

import ctypes
import dataclasses
import re

import pytest

from criteo_prep.synthetic import presets
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.job import memories as job_memories
from dlrm_tf2.job import preflight
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime import memory
from dlrm_tf2.runtime.process import Launch, Runtime
from dlrm_tf2.sharding.plan import make_plan

GIB = 1 << 30
T15 = ModelConfig(
    tuple(f"cat_{i}" for i in range(26)),
    tuple(presets.T15),
    num_numerical=13,
    embedding_dim=128,
    bottom_mlp_dims=(512, 256, 128),
    top_mlp_dims=(1024, 1024, 512, 256, 1),
)
T15_GIB = 16_747_078_656 / GIB

ON_GPU, ON_HOST = {"of_host": False}, {"of_device": False}


def check(model, plan, ranks, available, kinds, **flags):
    """The line of preflight about a memory that some ranks share."""
    shared = preflight.Memory("this machine", ranks, available, **kinds)
    return preflight.check_memory(
        TrainConfig(dataset_path="data", **flags), model, plan=plan, memory=shared, data=preflight.DataShape()
    )


def needed(line):
    """GiB that a memory line says are needed."""
    return float(re.match(r"memory: about ([\d.]+) GiB of ", line)[1])


def test_a_gpu_has_the_tables_and_the_step_and_its_host_the_process():
    flags = {"batch_size": 8192, "valid_batch_size": 8192}
    plan = make_plan(T15.tables, 1)
    on_cpu, on_gpu, on_host = (
        needed(check(T15, plan, [0], 80 * GIB, kinds, **flags)) for kinds in ({}, ON_GPU, ON_HOST)
    )
    assert on_gpu > T15_GIB and on_host == pytest.approx(900 / 1024, abs=0.01)
    assert on_gpu + on_host == pytest.approx(on_cpu, abs=0.02)


def test_offloaded_tables_count_on_the_host_and_their_vectors_on_both():
    plan = make_plan(T15.tables, 1)
    some = frozenset(shard for shard in plan.shards if plan.num_bytes([shard]) > GIB)
    moved = plan.num_bytes(some) / GIB
    assert 10 < moved < T15_GIB
    offloaded = dataclasses.replace(plan, on_host=some)
    flags = {"batch_size": 8192, "evals_per_epoch": 0}
    gpu, host = (
        [needed(check(T15, one, [0], 80 * GIB, kinds, **flags)) for one in (plan, offloaded)]
        for kinds in (ON_GPU, ON_HOST)
    )
    assert gpu[0] - gpu[1] == pytest.approx(moved, abs=0.02)
    vectors = 2 * 4 * 8192 * 128 * len(some) / GIB  # and a gradient for each
    assert host[1] - host[0] == pytest.approx(moved + vectors, abs=0.02)


def test_too_large_for_the_gpu_it_may_leave_tables_to_the_host():
    flags = {"batch_size": 8192, "evals_per_epoch": 0}
    plan = make_plan(T15.tables, 2)
    with pytest.raises(preflight.DoesNotFit, match="does not fit on this machine .2 ranks.: .*--cpu_offloading_thresh"):
        check(T15, plan, [0, 1], 15 * GIB, ON_GPU, **flags)
    offloaded = dataclasses.replace(plan, on_host=frozenset(plan.shards))
    assert "tables 0.00 GiB" in check(T15, offloaded, [0, 1], 15 * GIB, ON_GPU, **flags)
    with pytest.raises(preflight.DoesNotFit, match="15.60 GiB of them tables.*Use more machines"):
        check(T15, offloaded, [0, 1], 15 * GIB, ON_HOST, **flags)


def test_the_copy_of_checkpoint_async_is_on_the_host():
    plan = make_plan(T15.tables, 1)
    flags = {"batch_size": 512, "valid_batch_size": 512, "save_checkpoint_path": "c", "checkpoint_async": True}
    assert needed(check(T15, plan, [0], 18 * GIB, ON_GPU, **flags)) < 17
    with pytest.raises(preflight.DoesNotFit, match="15.61 GiB of these bytes are the copy of --checkpoint_async"):
        check(T15, plan, [0], 16 * GIB, ON_HOST, **flags)


# Which rank checks which memory.


@pytest.fixture
def memories(run_ranks, monkeypatch):
    """`memories(gpus, per_machine)`: what each of 4 ranks checks, given the (uuid, bytes) of its GPU, or an error."""

    def memories(gpus, per_machine):
        def gpu(number):
            if isinstance(gpus[number], OSError):
                raise gpus[number]
            return gpus[number] and memory.Gpu(*gpus[number])

        def work(comm):
            launch = Launch(4, comm.rank, local_rank=comm.rank % per_machine, local_size=per_machine)
            number = None if gpus[comm.rank] is None else comm.rank
            mine, notes = job_memories.memories_to_check(launch, Runtime("", "", threads=1, notes=(), gpu=number), comm)
            return [(m.name, list(m.ranks), m.available_bytes, m.of_device, m.of_host) for m in mine], notes

        monkeypatch.setattr(job_memories, "available_memory_bytes", lambda: 7)
        monkeypatch.setattr(memory, "gpu", gpu)
        return run_ranks(4, work)

    return memories


def test_without_gpus_each_machine_is_checked_by_its_first_rank(memories):
    first, second = ([("this machine", ranks, 7, True, True)] for ranks in ([0, 1], [2, 3]))
    assert memories([None] * 4, per_machine=2) == [(first, []), ([], []), (second, []), ([], [])]


def test_a_gpu_is_checked_by_the_first_rank_on_it(memories):
    """Ranks 1 and 3 share a GPU, and the GPU of rank 2 does not answer."""
    gpus = [(b"a", 100), (b"b", 90), OSError("no answer"), (b"b", 80)]
    assert memories(gpus, per_machine=4) == [
        ([("this machine", [0, 1, 2, 3], 7, False, True), ("GPU 0", [0], 100, True, False)], []),
        ([("GPU 1", [1, 3], 80, True, False)], []),
        ([], ["memory of GPU 2: not checked: no answer"]),
        ([], []),
    ]


class Driver:
    """CUDA's driver with one GPU, as far as memory.gpu calls it; `broken` is the name of a call that fails."""

    def __init__(self, broken=None):
        self.broken, self.called = broken, []

    def __getattr__(self, name):
        def call(*arguments):
            self.called.append(name)
            if name == self.broken:
                return 2
            if name == "cuDeviceGet":
                arguments[0]._obj.value = 40 + arguments[1]
            elif name == "cuDeviceGetUuid_v2":
                ctypes.memmove(arguments[0]._obj, bytes(range(16)), 16)
            elif name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 3 * GIB, 8 * GIB
            if name in ("cuDeviceGetUuid_v2", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"):
                assert arguments[-1].value == 43
            return 0

        return call


def test_the_driver_is_asked_and_left_as_it_was():
    driver = Driver()
    assert memory.gpu(3, driver) == (bytes(range(16)), 3 * GIB)
    assert driver.called[-1] == "cuDevicePrimaryCtxRelease_v2"
    assert driver.called.index("cuCtxPushCurrent_v2") < driver.called.index("cuMemGetInfo_v2")


def test_a_driver_that_fails_says_where():
    driver = Driver("cuMemGetInfo_v2")
    with pytest.raises(OSError, match="libcuda.so.1: cuMemGetInfo_v2 returned 2"):
        memory.gpu(3, driver)
    assert driver.called[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
