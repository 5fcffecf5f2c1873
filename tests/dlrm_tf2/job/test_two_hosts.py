"""A job on two hosts trains the model that two ranks on one host train, over mpi and over gloo."""

import json
import sys

import pytest
from support.hosts import Hosts, unavailable
from support.programs import needs_horovod
from support.small_dataset import write_dataset
from test_ranks import run

STEPS = 5
SAME_AS_RUN = """--cpu --embedding_dim 8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1 --batch_size 61 --seed 5
    --valid_batch_size 47 --learning_rate 0.5 --warmup_steps 0 --print_freq 1""".split()

pytestmark = [needs_horovod, pytest.mark.skipif(bool(unavailable()), reason=f"one host only: {unavailable()}")]


def test_two_hosts_train_the_model_of_one(tmp_path, run_ranks):
    """Over mpi, over gloo, and with two threads of this process as ranks: all three at the same time."""
    spec = write_dataset(tmp_path)
    flags = [*SAME_AS_RUN, "--max_steps", STEPS, "--dataset_path", tmp_path, "--log_path"]
    program = [sys.executable, "-m", "dlrm_tf2.dlrm", *flags]
    logs = {transport: tmp_path / f"{transport}.jsonl" for transport in ("mpi", "gloo")}
    with Hosts(2, rate="1gbit", loss="0.1%") as of_mpi, Hosts(2, rate="1gbit") as of_gloo:
        jobs = {
            of_mpi: of_mpi[0].start([*of_mpi.mpirun(2), *program, logs["mpi"]]),
            of_gloo: of_gloo[0].start([*of_gloo.horovodrun(2, "gloo"), *program, logs["gloo"]]),
        }
        expected, other_rank = run_ranks(2, lambda comm: run(tmp_path, spec, comm, max_steps=STEPS)[0])
        for hosts, job in jobs.items():
            output = job.communicate(timeout=300)
            assert job.returncode == 0, output
            # Both ranks hold tables, so each sends vectors and gradients to the other: 30 samples of float32 at least.
            assert min(hosts.link(0).sent_bytes, hosts.link(1).sent_bytes) > STEPS * 30 * 2 * 8 * 4
    assert len(expected) == STEPS and expected == other_rank
    for log in logs.values():
        losses = [record["loss"] for record in map(json.loads, log.read_text().splitlines()) if "loss" in record]
        assert losses == pytest.approx(expected, rel=1e-6)
