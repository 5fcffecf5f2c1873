"""Elastic trainings: ranks and hosts are lost and come back, and the training resumes by itself at the right sample."""

import shutil
import signal
import subprocess

import pytest
from support.elastic_job import ElasticJob
from support.hosts import Hosts, unavailable
from support.programs import REPOSITORY, horovodrun, needs_horovod
from support.small_dataset import write_dataset

pytestmark = needs_horovod
needs_hosts = pytest.mark.skipif(bool(unavailable()), reason=f"one host only: {unavailable()}")
PATIENCE_S = 280


@pytest.fixture
def start():
    """Starts commands in sessions of their own, which end with the test."""
    started = []

    def start(command):
        started.append(subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE_S)


def by_hand(job, tmp_path, step, ranks):
    """The losses of a run on `ranks` ranks that a user begins with a copy of the checkpoint of a step."""
    folder = tmp_path / "by_hand"
    folder.mkdir()
    (folder / "data").symlink_to(job.folder / "data")
    kept = [path for path in (job.folder / f"c.step-{step}", job.folder / "c") if path.exists()]
    shutil.copytree(kept[0], folder / "c")
    trainer = ElasticJob(folder, steps=job.steps, every=job.every).trainer
    launcher = [*horovodrun(ranks)[:3], "--gloo"]
    done = subprocess.run([*map(str, (*launcher, *trainer))], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ElasticJob(folder, steps=job.steps, every=job.every)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.long)])
def test_the_other_ranks_continue_where_one_is_lost(tmp_path, start, ranks):
    write_dataset(tmp_path / "data")  # 1000 samples, 10 steps a pass
    job = ElasticJob(tmp_path, steps=130, every=20)
    process = start(job.command("-H", f"localhost:{ranks}"))
    job.reach(process, 45)
    job.strike(0)  # the rank that writes the log and the checkpoints
    assert process.wait(timeout=PATIENCE_S) == 0, job.output.read_text()
    [restart] = job.restarts()
    assert restart["lost"] == ["rank 0 on localhost"] and restart["world_size"] == ranks - 1
    [resumed] = [record["resumed_step"] for record in job.records() if "resumed_step" in record]
    assert resumed >= 40 and resumed % 20 == 0 and restart["lost_after_step"] >= max(resumed, 45)
    assert [step for step, _ in job.losses()] == [*range(1, 131)]  # each step once
    assert job.data_position() == [13, 0]  # 130 steps of 100 samples: 13 passes
    [regained] = [record for record in job.records() if "seconds_lost" in record]
    assert regained["step"] == max(restart["lost_after_step"], resumed + 1) and regained["seconds_lost"] > 0
    if ranks == 3:
        same = by_hand(job, tmp_path, resumed, 2)
        assert same.losses() == [(step, loss) for step, loss in job.losses() if step > resumed]  # the same bits
        assert same.data_position() == job.data_position()


@pytest.mark.parametrize("launcher", [(), "horovodrun"])
def test_elastic_without_the_supervisor_is_refused(tmp_path, launcher):
    write_dataset(tmp_path / "data")
    trainer = [*map(str, ElasticJob(tmp_path, steps=1, every=1).trainer), "--elastic"]
    done = subprocess.run(
        [*(launcher and [*horovodrun(2)[:3], "--gloo"]), *trainer], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "--elastic: no supervisor has started this process, and a launcher alone does not start" in done.stderr


@needs_hosts
@pytest.mark.long
@pytest.mark.parametrize("lost, fault, heal", [
    (1, lambda hosts: hosts[1].power_off(), lambda hosts: hosts[1].power_on()),  # the host of rank 0
    (2, lambda hosts: hosts.link(2).cut(), lambda hosts: hosts.link(2).restore()),
    (2, lambda hosts: hosts[2].kill_processes(), lambda hosts: hosts[2].start_sshd()),
], ids=["power", "link", "processes"])  # fmt: skip
def test_a_host_is_lost_and_comes_back(tmp_path, lost, fault, heal):
    write_dataset(tmp_path / "data")
    job = ElasticJob(tmp_path, steps=100_000, every=50)
    with Hosts(3) as hosts:
        process = hosts[0].start(job.command(
            "-H", "host1:1,host2:1,host0:1", "--silence_s", "8", "--blacklist_cooldown_range", "5", "5",
            "--launcher", "horovodrun --gloo --gloo-timeout-seconds 600 --network-interface eth0 --disable-cache",
        ))  # fmt: skip
        job.reach(process, 60)
        fault(hosts)
        job.reach(process, 60, restarts=1)
        heal(hosts)
        job.reach(process, 60, restarts=2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 128 + signal.SIGINT, job.output.read_text()
    loss, join = job.restarts()
    assert (loss["lost"], loss["world_size"]) == ([f"rank {lost - 1} on host{lost}"], 2)
    assert (join["lost"], join["world_size"]) == ([], 3) and "host1:1" in join["reason"] and "host2:1" in join["reason"]
    steps = [step for step, _ in job.losses()]
    assert steps == [*range(1, len(steps) + 1)]
    assert job.data_position() == [len(steps) // 10, len(steps) % 10 * 100]
