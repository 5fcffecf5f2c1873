"""The bytes that a training sends over the network are the bytes that the plan's costs predict."""

import math
import sys

import pytest
from support.hosts import Hosts, unavailable
from support.programs import needs_horovod

from criteo_prep.feature_spec import Feature, tf_raw_spec
from dlrm_tf2.sharding.cost import Step, allreduce_bytes, cost_of
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.sharding.tables import TableConfig, share_of_ids

ROWS, WIDTH, BATCH, STEPS = (20, 900, 5000, 50_000), 64, 8192, 40
HEADER_BYTES = 14 + 20 + 32  # of a packet: Ethernet; IPv4; TCP with time stamps
SEGMENT_BYTES = 1500 - 20 - 32  # payload of a full packet
# 13 numericals are padded to 16; bottom MLP 16 -> 64; 10 products of pairs of 5 vectors; top MLP 64 + 10 + 1 -> 8 -> 1
DENSE_NUMBERS = 17 * 64 + (75 + 1) * 8 + 9
TOTALS = 4

pytestmark = [
    needs_horovod,
    pytest.mark.skipif(bool(unavailable()), reason=f"one host only: {unavailable()}"),
    pytest.mark.long,
]
ONCE = ["--data_parallel_threshold", 0, "--data_parallel_input", "--dedup_ids", "on"]
WAYS = {
    "tables": (2, ["--data_parallel_threshold", 0]),
    "16 bits": (2, ["--data_parallel_threshold", 0, "--amp"]),
    "replicated": (2, []),
    "requested once": (2, ONCE),
    "two ranks on a host": (4, ["--data_parallel_threshold", 0]),
    "replicated, two ranks on a host": (4, []),
    "requested once, two ranks on a host": (4, ONCE),
}


def expected_different(table, num_ids):
    """How many different rows so many ids of the power law are expected to name."""
    shares = [share_of_ids(table, (row, row + 1)) for row in range(table.num_rows)]
    return sum(-math.expm1(-num_ids * share) for share in shares)


def sent(hosts) -> tuple[int, int]:
    """The payload that each host has sent so far: without headers of packets, and without what TCP sent again."""
    payloads = []
    for index in range(2):
        lines = hosts[index].check(["cat", "/proc/net/dev"]).splitlines()
        words = next(line.split() for line in lines if line.split()[0] == "eth0:")
        tcp = [line.split() for line in hosts[index].check(["cat", "/proc/net/snmp"]).splitlines() if "Tcp:" in line]
        again = int(dict(zip(*tcp, strict=True))["RetransSegs"])
        payloads.append(int(words[9]) - HEADER_BYTES * int(words[10]) - SEGMENT_BYTES * again)
    return tuple(payloads)


@pytest.mark.parametrize("way", WAYS)
def test_bytes_on_the_network_are_as_predicted(tmp_path, way):
    """A run of many steps sends more than a run of 2 steps: what a start sends cancels out."""
    ranks, flags = WAYS[way]
    features = [Feature(f"cat_{i}", "int32", rows, alpha=1.05) for i, rows in enumerate(ROWS)]
    tf_raw_spec(features, splits=()).save(tmp_path / "feature_spec.yaml")
    program = [sys.executable, "-m", "dlrm_tf2.dlrm", "--cpu", "--dataset_path", tmp_path, *f"""--dataset_type synthetic
        --synthetic_dataset_train_batches {STEPS + 2} --embedding_dim {WIDTH} --bottom_mlp_dims {WIDTH}
        --top_mlp_dims 8,1 --batch_size {BATCH} --evals_per_epoch 0 --seed 1 --intra_op_parallelism 1
        --optimizer adagrad --learning_rate 0.01 --warmup_steps 0""".split(), *flags]  # fmt: skip
    found = []
    with Hosts(2) as hosts:
        for index in range(2):  # send nothing again only because an answer is late: that may be a part of a packet
            hosts[index].check(["sysctl", "-w", "net.ipv4.tcp_early_retrans=0"])
        for steps in (2, STEPS + 2):
            before, log = sent(hosts), tmp_path / f"{steps}.jsonl"
            done = hosts[0].run([*hosts.mpirun(ranks), *program, "--max_steps", steps, "--log_path", log])
            assert done.returncode == 0, done.stdout + done.stderr
            found.append([new - old for new, old in zip(sent(hosts), before, strict=True)])
    of_a_step = [(many - few) / STEPS for few, many in zip(*found, strict=True)]

    tables, local = [TableConfig(f"cat_{i}", rows, WIDTH) for i, rows in enumerate(ROWS)], BATCH // ranks
    threshold = 0 if "--data_parallel_threshold" in flags else None
    plan = make_plan(tables, ranks, optimizer="adagrad", batch_size=BATCH, data_parallel_threshold=threshold)
    assert bool(plan.replicated) == way.startswith("replicated")
    step = Step(
        BATCH,
        wire_bytes=2 if way == "16 bits" else 4,
        data_parallel_input=flags == ONCE,
        deduplicated=[table.name for table in tables] if flags == ONCE else (),
        different={table.name: expected_different(table, local) / local for table in tables},
        host_different={table.name: expected_different(table, BATCH / 2) / (BATCH / 2) for table in tables},
        ranks_per_host=ranks // 2,
    )
    of_ranks = [cost.sent_bytes for cost in cost_of(plan, tables, step)]
    dense = allreduce_bytes(DENSE_NUMBERS + TOTALS, ranks)
    predicted = [sum(of_ranks[: ranks // 2]) + dense, sum(of_ranks[ranks // 2 :]) + dense]
    assert of_a_step == pytest.approx(predicted, rel=0.05)
