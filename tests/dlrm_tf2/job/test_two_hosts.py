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


@pytest.mark.parametrize("transport", ["mpi", pytest.param("gloo", marks=pytest.mark.long)])
def test_two_hosts_train_the_model_of_one(tmp_path, run_ranks, transport):
    """Two threads of this process are the ranks of one host, while the job runs."""
    spec, log = write_dataset(tmp_path), tmp_path / "log.jsonl"
    flags = [*SAME_AS_RUN, "--max_steps", STEPS, "--dataset_path", tmp_path, "--log_path", log]
    with Hosts(2, rate="1gbit", loss="0.1%" if transport == "mpi" else None) as hosts:
        launcher = hosts.mpirun(2) if transport == "mpi" else hosts.horovodrun(2, "gloo")
        job = hosts[0].start([*launcher, sys.executable, "-m", "dlrm_tf2.dlrm", *flags])
        expected, other_rank = run_ranks(2, lambda comm: run(tmp_path, spec, comm, max_steps=STEPS)[0])
        output = job.communicate(timeout=300)
        assert job.returncode == 0, output
        # Both ranks hold tables, so each sends vectors and gradients to the other: 30 samples of float32 at least.
        assert min(hosts.link(0).sent_bytes, hosts.link(1).sent_bytes) > STEPS * 30 * 2 * 8 * 4
    assert len(expected) == STEPS and expected == other_rank
    losses = [record["loss"] for record in map(json.loads, log.read_text().splitlines()) if "loss" in record]
    assert losses == pytest.approx(expected, rel=1e-6)
