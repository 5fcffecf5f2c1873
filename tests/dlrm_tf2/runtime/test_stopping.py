"""SIGTERM, Ctrl-C and SIGUSR1 end a training after its current step, with a checkpoint from which it is resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.in_process import run
from support.small_dataset import write_dataset

from dlrm_tf2 import dlrm
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.runtime.stopping import Stopped, StopRequest
from dlrm_tf2.sharding.plan import make_plan
from dlrm_tf2.training.step import TrainingStep
from dlrm_tf2.training.trainer import Trainer

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    write_dataset(root, train=600, test=80)  # 12 steps of 50 samples
    return root


def test_a_signal_stops_training_and_the_same_command_resumes_it(dataset, tmp_path, monkeypatch):
    whole = run(dataset, tmp_path / "whole").column("loss")
    step_of = TrainingStep.__call__

    def signalled(self, batch, learning_rate, *, step, **others):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        return step_of(self, batch, learning_rate, step=step, **others)

    monkeypatch.setattr(TrainingStep, "__call__", signalled)
    flags = ["--save_checkpoint_path", tmp_path / "checkpoint"]
    with pytest.raises(Stopped) as stopped:
        run(dataset, tmp_path / "log", *flags)
    assert 5 <= stopped.value.step == stopped.value.saved_step <= 7
    assert stopped.value.signal == signal.SIGTERM and stopped.value.status == 143
    assert run(dataset, tmp_path / "log", *flags).column("loss") == whole


class AskedAt:
    """A StopRequest that is asked when `asked` is read for the n-th time."""

    def __init__(self, at):
        self.looks, self._at = 0, at

    @property
    def asked(self):
        self.looks += 1
        return self.looks >= self._at

    @property
    def signal(self):
        return signal.SIGTERM if self.looks >= self._at else None


def test_all_ranks_stop_after_the_same_step_when_one_is_asked(dataset, run_ranks):
    def work(comm):
        config = TrainConfig(
            dataset_path=str(dataset), embedding_dim=4, bottom_mlp_dims=(6, 4), top_mlp_dims=(5, 1), batch_size=50,
            evals_per_epoch=0, log_path=None,
        )  # fmt: skip
        shape = ModelConfig.of(config, spec)
        model = Dlrm(shape, make_plan(shape.tables, comm.size), comm=comm, seed=3)
        stop = AskedAt(4 if comm.rank == 1 else 1000)
        with pytest.raises(Stopped) as stopped:
            Trainer(config, spec, model=model, log=RunLog(None, enabled=False)).train(stop)
        return stopped.value.step, stopped.value.saved_step, stopped.value.signal

    spec = dlrm.FeatureSpec.load(dataset / "feature_spec.yaml")
    assert run_ranks(2, work) == [(5, None, signal.SIGTERM)] * 2


@pytest.mark.parametrize(
    "saved_step, line",
    [
        (120, "stopped by SIGUSR1 after step 120; saved /there: the same command resumes from there"),
        (None, "stopped by SIGUSR1 after step 120; nothing saved: no --save_checkpoint_path"),
    ],
)
def test_the_program_says_what_is_saved_and_exits_as_the_signal_would(dataset, monkeypatch, capsys, saved_step, line):
    def stopped(*_):
        raise Stopped(120, saved_step, signals=[None, signal.SIGUSR1], checkpoint="/there")

    monkeypatch.setattr(dlrm, "_run", stopped)
    assert dlrm.main(["--dataset_path", str(dataset), "--save_checkpoint_path", "/there"]) == 128 + signal.SIGUSR1
    assert capsys.readouterr().err == f"dlrm: {line}\n"


def test_a_second_ctrl_c_ends_a_process_that_hangs():
    """The main thread waits in C code, as in an exchange with a rank that hangs, so Python runs no signal handler."""
    program = """if True:
        import ctypes, signal
        from dlrm_tf2.runtime.stopping import StopRequest
        with StopRequest() as stop:
            print("ready", flush=True)
            while True:
                ctypes.CDLL(None).sleep(60)
        """
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "stopping after this step; Ctrl-C again stops at once\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.readline() == "stopped at once\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_asks_inside_and_does_what_it_did_before_outside(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        time.sleep(0.2)
        assert stop.asked and stop.signal == number
    assert signal.getsignal(number) == before


def test_signals_that_do_not_ask_are_left_alone():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.2)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [signal.SIGUSR2]
