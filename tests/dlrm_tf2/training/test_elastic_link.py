"""What a training does with the link to its supervisor: it makes room for hosts, and its log reports each restart."""

import json
import time

import pytest
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.checkpoint import read_document
from dlrm_tf2.runtime import elastic
from dlrm_tf2.training.step import TrainingStep

FLAGS = ["--elastic", "--checkpoint_every", 3, "--evals_per_epoch", 0]


class Told(elastic.Link):
    """A link without a supervisor: what it would hear, and what it would say."""

    def __init__(self, run="12345678abcdef00", restart=None, hosts=""):
        self.run, self.restart, self.hosts, self.said = run, restart, hosts, []
        self._regained = restart is None

    def _send(self, message):
        self.said.append(message)


def restart_at(step, began, number=1):
    return elastic.Restart(
        number, "rank 1 on host b is gone", lost=("rank 1 on host b",), lost_step=step, seconds_before=2.5,
        detect_s=0.25, stop_s=1.5, began=began, ended=began + 1.75,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """`run(link, *flags)`: a training of 9 steps in a folder; whole() is the lines of its log."""
    write_dataset(tmp_path / "data", train=420, test=100, cardinalities=(20, 7))

    def run(link, *flags):
        save = ["--save_checkpoint_path", tmp_path / "saved"]
        return in_process.run(tmp_path / "data", tmp_path / "log", *FLAGS, *save, *flags, link=link)

    return run


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


@pytest.mark.parametrize("flags", [[], ["--checkpoint_async"]])
def test_hosts_that_wait_are_taken_in_after_the_next_checkpoint(run, tmp_path, flags):
    link = Told(hosts="a:2,b:1")
    with pytest.raises(elastic.HostsJoin, match="^step 3 is saved; the next start has a:2,b:1$"):
        run(link, *flags)
    assert read_document(tmp_path / "saved")["step"] == 3
    assert link.said == [{"name_of_run": link.run}]
    began = time.monotonic() - 20
    link = Told(link.run, restart_at(3, began))
    run(link, *flags)
    [config, *_, summary] = lines(tmp_path)
    assert config["run"] == link.run and "throughput" in summary
    steps = [line["step"] for line in lines(tmp_path) if "loss" in line]
    assert steps == [*range(1, 10)]
    [restart] = [line for line in lines(tmp_path) if "reason" in line]
    assert 18.25 < restart.pop("start_s") < 18.25 + time.monotonic() - began - 20
    assert restart == {
        "restart": 1, "reason": "rank 1 on host b is gone", "lost": ["rank 1 on host b"], "lost_after_step": 3,
        "world_size": 1, "detect_s": 0.25, "stop_s": 1.5, "seconds_lost_before": 2.5,
    }  # fmt: skip
    [regained] = [line for line in lines(tmp_path) if "seconds_lost" in line]
    assert regained["step"] == 4 and 20 < regained["seconds_lost"] < time.monotonic() - began
    assert {"finished": True} in link.said and {"regained_s": regained["seconds_lost"]} in link.said


def test_a_job_that_is_lost_before_its_first_checkpoint_begins_again_with_its_seed_and_its_log(
    run, tmp_path, monkeypatch
):
    without_seed = [word for word in in_process.TINY if word not in ("--seed", "3")]
    monkeypatch.setattr(in_process, "TINY", without_seed)
    step_of = TrainingStep.__call__

    def stops(self, *batch, step, **others):
        if step == 3:
            raise KeyboardInterrupt
        return step_of(self, *batch, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        run(Told())
    before = lines(tmp_path)
    assert [line["step"] for line in before if "loss" in line] == [1, 2]
    monkeypatch.undo()
    monkeypatch.setattr(in_process, "TINY", without_seed)
    run(Told(restart=restart_at(2, time.monotonic())))
    after = lines(tmp_path)
    assert [line["run"] for line in after if "run" in line] == [
        Told().run,
        Told().run,
    ]  # the first line, the resumption
    assert after[1]["resumed_step"] == 0 and after[2]["lost_after_step"] == 2
    losses = [(line["step"], line["loss"]) for line in after if "loss" in line]
    assert [step for step, _ in losses] == [*range(1, 10)]
    assert losses[:2] == [(line["step"], line["loss"]) for line in before if "loss" in line]
