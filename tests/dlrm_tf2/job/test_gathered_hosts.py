"""Jobs on two hosts with disks of their own: --checkpoint_gather, over mpi and over gloo."""

import json

import numpy as np
import pytest
from support.host_job import HostJob
from support.hosts import Hosts, unavailable
from support.programs import needs_horovod
from support.small_dataset import write_dataset

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    needs_horovod,
    pytest.mark.skipif(bool(unavailable()), reason=f"one host only: {unavailable()}"),
]
STEPS = 60


def losses_of(log):
    """step -> loss; of a step that was trained again, the last one."""
    records = map(json.loads, log.read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def arrays_of(checkpoint):
    return {str(path.relative_to(checkpoint)): np.load(path) for path in checkpoint.rglob("*.npy")}


@pytest.mark.parametrize("launcher", ["mpi", "gloo"])
def test_a_job_whose_hosts_share_no_disk(tmp_path, launcher):
    """It is refused without the flag. With it, it is killed and resumes, and is the run of hosts that share a disk."""
    for name in ("shared", "own"):
        (tmp_path / name / "log").mkdir(parents=True)
        write_dataset(tmp_path / name / "data")
    (tmp_path / "shared" / "shared").mkdir()
    with Hosts(2) as hosts:
        for host in hosts:
            host.private_folder(tmp_path / "own" / "shared", "64m")

        def job(folder, *more):
            more = ("--stall_timeout_s", 120, *more)  # the machine may have other work
            return HostJob(hosts, tmp_path / folder, launcher=launcher, steps=STEPS, more=more)

        def end_of(started):
            started.start()
            end = started.end(started.began)
            assert end.all_s is not None, end.output
            return end

        shared = job("shared")
        assert end_of(shared).status == 0
        refused = end_of(job("own"))
        assert refused.status != 0
        assert "or give --checkpoint_gather" in refused.line(r"rank 1 on host1: .*rank 0 wrote"), refused.output

        gathered = job("own", "--checkpoint_gather", "--checkpoint_async", "--keep_checkpoints", 2)
        on_host0, on_host1 = (host.seen(gathered.checkpoint) for host in hosts)
        gathered.start()
        assert gathered.reach(lambda: gathered.steps() >= 30 and on_host0.exists()), gathered.output
        gathered.kill()
        resumed = end_of(gathered)
        assert resumed.status == 0 and "resumed " in resumed.output, resumed.output
        assert "lies on the disk of host0 alone, and is written there for rank 1 on host1 too" in resumed.output
        found, expected = losses_of(gathered.log), losses_of(shared.log)
        assert list(expected) == list(range(1, STEPS + 1)) and sorted(found) == list(expected)
        assert [found[step] for step in expected] == pytest.approx(list(expected.values()), rel=1e-6)
        of_own, of_shared = arrays_of(on_host0), arrays_of(shared.checkpoint)
        assert of_own.keys() == of_shared.keys()
        for name, array in of_shared.items():
            np.testing.assert_allclose(of_own[name], array, rtol=1e-5, atol=1e-7)
        names = {path.name for path in on_host0.parent.iterdir()}
        assert names == {"checkpoint", f"checkpoint.step-{STEPS - 20}"} and not list(on_host1.parent.iterdir())

        # Evaluation and inference, which only read.
        begin = ("--restore_checkpoint_path", gathered.checkpoint, "--mode")
        refused = end_of(job("own", *begin, "eval"))
        assert refused.status != 0
        assert refused.line(r"rank 1 on host1: .*rank 0 sees a checkpoint here.*--checkpoint_gather"), refused.output
        for mode in ("eval", "inference"):
            done = end_of(job("own", *begin, mode, "--checkpoint_gather"))
            assert done.status == 0 and f"restored {gathered.checkpoint}" in done.output, done.output

        # The next run begins on a full disk of host 0; the checkpoint of this one stays.
        filled = on_host0.parent / "fill"
        hosts[0].run(["dd", "if=/dev/zero", f"of={gathered.checkpoint.parent / 'fill'}", "bs=64k"])
        full = end_of(job("own", "--checkpoint_gather"))
        assert full.status != 0 and full.line(r"rank 1 on host1: .*No space left.*\(on the disk of rank 0\)"), (
            full.output
        )
        filled.unlink()
        assert {name: array.tobytes() for name, array in arrays_of(on_host0).items()} == {
            name: array.tobytes() for name, array in of_own.items()
        }
