"""A job of two hosts trains the model that the same ranks on one host train, over mpi and over gloo."""

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


@pytest.mark.parametrize("transport", ["mpi", "gloo"])
def test_two_hosts_train_the_model_of_one(tmp_path, run_ranks, transport):
    log = tmp_path / "log"
    flags = [*SAME_AS_RUN, "--max_steps", STEPS, "--dataset_path", tmp_path, "--log_path", log]
    spec = write_dataset(tmp_path)
    with Hosts(2, rate="1gbit", loss="0.1%") as hosts:
        program = [sys.executable, "-m", "dlrm_tf2.dlrm", *flags]
        job = hosts[0].run([*hosts.horovodrun(2, transport), *program])
        assert job.returncode == 0, job.stdout + job.stderr
        # Both ranks hold tables, so each sends vectors and gradients to the other: 61 samples of float32.
        assert min(hosts.link(0).sent_bytes, hosts.link(1).sent_bytes) > STEPS * 61 * 8 * 4
    losses = [record["loss"] for record in map(json.loads, log.read_text().splitlines()) if "loss" in record]
    expected, *_ = run_ranks(2, lambda comm: run(tmp_path, spec, comm, max_steps=STEPS)[0])
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, rel=1e-6)
