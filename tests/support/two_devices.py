"""Run by test_offloading.py: this machine's CPU as two devices, of which CPU:1 plays the GPU.

Trains the same tables with and without some of them on the host, and checks on which device everything is.
"""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.sharding.tables import TableConfig

TABLES = [
    TableConfig("large", 50, embedding_dim=4, combiner="mean", features=("a", "b")),
    TableConfig("small", 7, 4),
    TableConfig("wide", 9, embedding_dim=8, combiner="sum"),
    TableConfig("vast", 90, 8),
]
ON_HOST = {"large", "vast"}


def train(plan):
    """Returns (layer, its step as a graph, losses, (slot, shard) -> rows)."""
    hotness = {"a": 3, "b": None}
    layer = DistributedEmbedding(
        TABLES, plan, comm=SingleProcess(), seed=1, optimizer=Optimizer("adam"), hotness=hotness,
        embedding_op="tensorflow",
    )  # fmt: skip

    def step(ids, number):
        lookup = layer.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            loss = tf.reduce_mean(layer.exchange(lookup) ** 3)
        layer.apply_gradient(lookup, tape.gradient(loss, lookup.vectors), learning_rate=0.1, step=number)
        return loss

    step = tf.function(step, input_signature=[layer.signature, tf.TensorSpec([], tf.float32)])
    losses, rng = [], np.random.default_rng(2)
    for number in range(1, 4):
        ids = {
            "a": rng.integers(0, 50, (6, 3)),
            "b": (rng.integers(0, 50, 7), np.array([3, 0, 1, 2, 0, 1])),
            "small": rng.integers(0, 7, 6),
            "wide": rng.integers(0, 9, 6),
            "vast": rng.integers(0, 90, 6),
        }
        ids = tf.nest.map_structure(lambda t: tf.cast(t, tf.int32), layer.ids(ids))
        losses.append(float(step(ids, float(number))))
    rows = {
        (slot, shard): layer.read_rows(shard, slot, start=shard.rows[0], stop=shard.rows[1])
        for shard in plan.shards
        for slot in layer.slots
    }
    return layer, step.get_concrete_function().graph, losses, rows


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    plan = make_plan(TABLES, 1)
    with tf.device("/CPU:1"):
        _, _, losses, rows = train(plan)
        on_host = frozenset(shard for shard in plan.shards if shard.table in ON_HOST)
        layer, graph, host_losses, host_rows = train(replace(plan, on_host=on_host))
    np.testing.assert_allclose(host_losses, losses, rtol=1e-6)
    for key, values in host_rows.items():
        np.testing.assert_allclose(values, rows[key], rtol=1e-6, err_msg=str(key))
    inside = {id(outside): tensor for outside, tensor in graph.captures}
    assert sorted(layer._slabs) == [(4, False, False), (4, False, True), (8, False, False), (8, False, True)]
    for kind, slab in layer._slabs.items():
        for variable, update in (slab.variable, "Sub"), *((slot, "Update") for slot in slab.slots.values()):
            assert variable.device.endswith("CPU:0" if kind.on_host else "CPU:1"), (kind, variable.device)
            users = {op.type: op.device[-5:] for op in inside[id(variable.handle)].consumers()}
            # An operation without a device of its own runs where its variable is.
            wanted = "CPU:0" if kind.on_host else ""
            assert users == {"ResourceGather": wanted, f"ResourceScatter{update}": wanted}, (kind, users)
    # Large's bags are pooled, and the gradients of its and vast's rows added up, where the rows are.
    sums = [op.device[-5:] for op in graph.get_operations() if op.type == "UnsortedSegmentSum"]
    assert sums.count("CPU:0") >= 3, sums
    print("two devices: equal, and everything in its place")


if __name__ == "__main__":
    main()
