"""What is measured of a run and shown on the terminal: exchanges inside a step, laps, memory, the live line."""

import io
import itertools
import re
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.evaluation.metrics import Evaluation
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.logs.step_clock import StepClock
from dlrm_tf2.runtime import memory
from dlrm_tf2.runtime.comm import HorovodComm, SingleProcess
from dlrm_tf2.runtime.exchange_timer import ExchangeTimer
from dlrm_tf2.training import progress
from dlrm_tf2.training.key_counters import KeyCounters
from dlrm_tf2.training.progress import TrainingProgress
from dlrm_tf2.training.run_length import RunLength


class Ticks:
    """A clock that only moves when somebody says so, in and out of graphs."""

    def __init__(self, monkeypatch):
        self.now, self._readings, self._read = 1000.0, 0, threading.Condition()

        def read() -> np.float64:
            with self._read:
                self._readings += 1
                self._read.notify_all()
                return np.float64(self.now)

        monkeypatch.setattr(tf, "timestamp", lambda: tf.numpy_function(read, [], tf.float64))

    def spend(self, value, ticks, after_measuring=False):
        """The value, after the clock has moved; with `after_measuring` when the clock was read for start and stop.

        In a graph, the reading for the stop and what uses the results may run in either order.
        """

        def move(array):
            with self._read:
                assert self._read.wait_for(lambda: not after_measuring or self._readings % 2 == 0, timeout=60)
                self.now += ticks
            return array

        moved = tf.numpy_function(move, [value], value.dtype)
        return tf.ensure_shape(moved, value.shape)


def test_overlapping_work_counts_once(monkeypatch):
    times = itertools.chain.from_iterable([(10, 12), (11, 15), (13, 14), (20, 21)])
    monkeypatch.setattr(tf, "timestamp", lambda: tf.constant(next(times), tf.float64))
    stopwatch, seconds = ExchangeTimer(), []
    for _ in range(4):
        stopwatch.time(lambda: [tf.constant(0)], [])
        seconds.append(stopwatch.seconds())
    assert seconds == [2, 5, 5, 6]


@pytest.mark.parametrize("as_function", [True, False])
def test_only_the_work_is_measured(monkeypatch, as_function):
    ticks, stopwatch = Ticks(monkeypatch), ExchangeTimer()

    def step(x):
        before = ticks.spend(x, 100)
        [result] = stopwatch.time(lambda: [ticks.spend(before, 7)], [before])
        return ticks.spend(result, 50, after_measuring=True)

    step = tf.function(step) if as_function else step
    assert [step(tf.constant([3.0])).numpy().tolist() for _ in range(2)] == [[3.0], [3.0]]
    assert stopwatch.seconds() == 14


class Hvd:
    """Horovod of one rank whose exchanges take time."""

    Sum = "sum"
    rank = local_rank = staticmethod(lambda: 0)
    size = local_size = staticmethod(lambda: 1)

    def __init__(self, ticks):
        self._ticks = ticks

    def alltoall(self, rows, splits, name):
        return self._ticks.spend(rows, 5), splits

    def grouped_allreduce(self, tensors, op, name):
        return [self._ticks.spend(tensors[0], 3), *tensors[1:]]


@pytest.mark.parametrize("timed, exchange_seconds", [(True, 13), (False, None)])
def test_alltoalls_of_both_directions_and_sums_are_exchanges(monkeypatch, timed, exchange_seconds):
    ticks = Ticks(monkeypatch)
    comm = HorovodComm(Hvd(ticks), timed)

    @tf.custom_gradient
    def exchange(rows):  # as the embedding's do
        splits = tf.shape(rows)[:1]
        return comm.alltoall(rows, splits, "there")[0], lambda gradient: comm.alltoall(gradient, splits, "back")[0]

    @tf.function
    def step(rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            loss = tf.reduce_sum(exchange(ticks.spend(rows, 1000)) ** 2)
        gradient = tape.gradient(loss, rows)
        return comm.allreduce_sum([loss, gradient], "sum")

    # numpy functions have no gradient, so what comes before the exchange is given one that passes it on.
    spend = ticks.spend
    ticks.spend = lambda value, amount: tf.grad_pass_through(lambda x: spend(x, amount))(value)
    loss, gradient = step(tf.constant([1.0, 2.0]))
    assert (float(loss), gradient.numpy().tolist()) == (5.0, [2.0, 4.0])
    assert comm.exchange_seconds() == exchange_seconds


def test_one_process_exchanges_nothing():
    assert SingleProcess().exchange_seconds() == 0


def test_a_lap_leaves_out_pauses_and_their_exchanges(monkeypatch):
    now, exchanged = [0.0], [0.0]
    monkeypatch.setattr("dlrm_tf2.logs.step_clock.time.perf_counter", lambda: now[0])

    def batches():
        for _ in range(4):
            now[0] += 0.25
            yield "batch"

    clock = StepClock(2, lambda: exchanged[0])
    for step, _ in enumerate(clock.waiting_for(batches()), 1):
        now[0] += step
        exchanged[0] += 0.5
        clock.count(10)
        with clock.paused():
            now[0] += 100
            exchanged[0] += 60
    assert clock.mean() == (20 / 7.5, 3750, 250, 500)  # steps 3 and 4
    assert clock.lap() == (40 / 11, 2750, 250, 500)
    assert StepClock(1, lambda: None).lap().exchange_ms is None


def test_resident_memory(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n")
    assert memory.resident_bytes(tmp_path / "status") == (1 << 20, 2 << 20)
    before, _ = memory.resident_bytes()
    block = np.ones(64 << 20, np.uint8)
    now, peak = memory.resident_bytes()
    assert before + 0.9 * block.nbytes < now <= peak


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "50")
    return sys.stdout


def test_a_live_line_gives_way_to_what_is_said(monkeypatch):
    terminal = use_terminal(monkeypatch)
    log = RunLog(None, enabled=True)
    log.live("at work")
    log.say("done")
    log.live("x" * 80)
    log.close()
    assert terminal.getvalue() == f"\rat work\x1b[K\r\x1b[Kdone\n\r{'x' * 49}\x1b[K\r\x1b[K"


@pytest.mark.parametrize("enabled, live", [(False, True), (True, False)])
def test_no_live_lines_on_other_ranks_and_under_a_launcher(monkeypatch, enabled, live):
    terminal = use_terminal(monkeypatch)
    log = RunLog(None, enabled=enabled, live=live)
    log.live("at work")
    log.close()
    assert not log.shows_live and terminal.getvalue() == ""


def test_no_live_lines_in_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    log = RunLog(None, enabled=True)
    log.live("at work")
    assert not log.shows_live and sys.stdout.getvalue() == ""


def test_the_live_line_is_refreshed_a_few_times_a_second(monkeypatch):
    terminal, now = use_terminal(monkeypatch), [0.0]
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    log = RunLog(None, enabled=True)
    config = TrainConfig(dataset_path="data", print_freq=10)
    with TrainingProgress(
        config,
        SingleProcess(),
        log=log,
        length=RunLength(1, 1000, steps_per_epoch=1000, evaluate_after=frozenset(), notes=()),
        step=0,
        keys=KeyCounters(SimpleNamespace(tables=(), dynamic_tables={}, has_caches=False), SingleProcess()),
    ) as watch:
        for step, _ in enumerate(watch.batches(iter([SimpleNamespace()] * 100)), 1):
            now[0] += 0.01
            watch.step_done(step, 64, loss=0.25)
            if step == 50:
                watch.evaluated(Evaluation(0.75, 0.5, normalized_entropy=0.9, calibration=1.0, num_samples=10))
    shown = re.findall(r"\r(step \d+/1000[^\x1b]*)", terminal.getvalue())
    assert 2 <= len(shown) <= 4  # in a second
    assert re.fullmatch(r"step 3\d/1000: 6,400 samples/s, 10 s left, loss 0.25000", shown[0])
    assert re.fullmatch(r"step 9\d/1000: 6,400 samples/s, 9 s left, loss 0.25000, AUC 0.75000", shown[-1])
