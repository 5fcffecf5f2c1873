"""Mode inference: what is timed, on how many ranks, for which sizes of batches; and evaluation beside it."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from support.small_dataset import write_dataset

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import open_split
from dlrm_tf2.evaluation import inference
from dlrm_tf2.evaluation.evaluator import Evaluator
from dlrm_tf2.evaluation.inference import LatencyTimer, infer
from dlrm_tf2.evaluation.metrics import NotFinite
from dlrm_tf2.evaluation.predictions import PredictionsFile
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"), train=10)


def evaluator_of(spec, comm, log, **flags):
    """The configuration, and an evaluator of a model with first weights."""
    config = TrainConfig(**{
        "mode": "inference", "restore_checkpoint_path": "none", "dataset_path": str(spec.root), "embedding_dim": 4,
        "bottom_mlp_dims": (6, 4), "top_mlp_dims": (5, 1), **flags,
    })  # fmt: skip
    shape = ModelConfig.of(config, spec)
    model = Dlrm(shape, make_plan(shape.tables, comm.size), comm=comm, seed=1, settings=ComputeSettings(training=False))
    return config, Evaluator(
        config,
        model,
        log=log,
        data=open_split(config, spec, split="test", embedding=model.embedding, comm=comm),
    )


def measure(spec, comm, folder, **flags):
    """Runs inference; returns the log's records."""
    log = RunLog(str(folder / "log.json"), enabled=comm.rank == 0)
    config, evaluator = evaluator_of(spec, comm, log, **flags)
    with PredictionsFile(str(folder / "scores.parquet"), comm) as predictions:
        infer(config, evaluator, log=log, predictions=predictions)
    return [json.loads(line) for line in (folder / "log.json").read_text().splitlines()]


@pytest.mark.parametrize("world_size", [1, 3])
def test_valid_batch_size_as_a_list_measures_each(spec, tmp_path, run_ranks, capsys, world_size):
    flags = {"valid_batch_size": (1, 7, 100), "max_steps": 20}
    if world_size == 1:
        records = measure(spec, SingleProcess(), tmp_path, **flags)
    else:
        records = run_ranks(world_size, lambda comm: measure(spec, comm, tmp_path, **flags))[0]
    table = pq.read_table(tmp_path / "scores.parquet")  # of the last size, which scores all of the split
    scores, labels = table["score"].to_numpy(), table["label"].to_numpy()
    assert [record["batch_size"] for record in records] == [1, 7, 100]
    assert [record["num_samples"] for record in records] == [20, 140, 300] and len(scores) == 300
    for record in records:
        rows = record["num_samples"]
        assert record["auc"] == pytest.approx(roc_auc_score(labels[:rows], scores[:rows]), abs=1e-4)
        p50, p90, p95, p99 = (record[f"p{p}_inference_latency"] for p in (50, 90, 95, 99))
        assert 0 < p50 <= p90 <= p95 <= p99 and record["mean_inference_latency"] > 0
        assert record["mean_inference_throughput"] == pytest.approx(
            record["batch_size"] / record["mean_inference_latency"]
        )
    header, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:3] == ["batch", "batches", "samples/s"] and header[-1] == "AUC"
    assert [line[:2] for line in lines] == [["1", "20"], ["7", "20"], ["100", "3"]]


def test_without_max_steps_a_small_batch_does_not_score_the_whole_split(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "_MOST_BATCHES", 30)
    records = measure(spec, SingleProcess(), tmp_path, valid_batch_size=(2, 10, 100))
    assert [record["num_samples"] for record in records] == [60, 300, 300]


def batch_of(samples):
    return SimpleNamespace(global_batch=samples)


def test_a_latency_is_the_slowest_rank_s_after_the_warm_up(run_ranks, monkeypatch):
    """Rank r takes r seconds more than 1 for batches of 8, 100 for the very first call and 50 for a smaller batch."""
    clock = threading.local()
    monkeypatch.setattr(inference, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def of_rank(comm):
        clock.now, calls = 0.0, []

        def score(batch):
            clock.now += 100.0 if not calls else 50.0 if batch.global_batch < 8 else 1.0 + comm.rank
            calls.append(batch.global_batch)
            return np.full(2, len(calls))

        stopwatch = LatencyTimer(score, comm)
        assert [stopwatch(batch_of(samples))[0] for samples in [8] * 30 + [3]] == list(range(2, 33))
        return stopwatch.timed()

    for seconds, samples in run_ranks(3, of_rank):
        assert seconds.tolist() == [3.0] * 20 and samples.tolist() == [8] * 20  # 10 of 30 are the warm-up


@pytest.mark.parametrize("sizes, timed", [([5], [5]), ([5, 4], [5]), ([5, 5, 5], [5, 5]), ([4] * 25, [4] * 15)])
def test_the_warm_up_is_ten_batches_or_half(sizes, timed):
    stopwatch = LatencyTimer(lambda batch: np.zeros(batch.global_batch), SingleProcess())
    for samples in sizes:
        stopwatch(batch_of(samples))
    assert stopwatch.timed()[1].tolist() == timed


def test_no_rank_begins_before_all_are_done_with_the_batch_before(run_ranks):
    events = []

    def of_rank(comm):
        stopwatch = LatencyTimer(lambda number: (events.append(("begins", number.global_batch)),
                                              threading.Event().wait(0.01 * comm.rank),
                                              events.append(("ends", number.global_batch))), comm)  # fmt: skip
        for number in range(1, 5):
            stopwatch(batch_of(number))

    run_ranks(3, of_rank)
    for number in range(2, 5):
        begins = events.index(("begins", number))
        assert events[:begins].count(("ends", number - 1)) == (6 if number == 2 else 3)  # the first is scored twice


def test_auc_thresholds_bin_the_auc_and_max_steps_limits_evaluation(spec, tmp_path, run_ranks):
    def evaluate(comm, limit, **flags):
        log = RunLog(None, enabled=False)
        return evaluator_of(spec, comm, log, valid_batch_size=90, **flags)[1].evaluate(limit)

    exact, coarse = evaluate(SingleProcess(), -1), evaluate(SingleProcess(), -1, auc_thresholds=4)
    assert exact.loss == coarse.loss and 1e-6 < abs(exact.auc - coarse.auc) < 0.2
    assert evaluate(SingleProcess(), 2).num_samples == 180
    for found in run_ranks(7, lambda comm: evaluate(comm, -1)):
        assert found.num_samples == 300 and found.auc == pytest.approx(exact.auc, abs=1e-4)
        assert found.calibration == pytest.approx(exact.calibration, rel=1e-5)


def test_a_diverged_model_is_an_error_of_one_line_and_leaves_no_predictions(spec, tmp_path):
    config, evaluator = evaluator_of(spec, SingleProcess(), RunLog(None, enabled=False), valid_batch_size=100)
    with pytest.raises(NotFinite, match="100 of the logits of 300 samples are nan or infinite"):
        with PredictionsFile(str(tmp_path / "scores"), SingleProcess()) as predictions:
            first = iter([np.nan])
            evaluator.evaluate(
                -1, None, score=lambda batch: evaluator.score(batch) + next(first, 0.0), predictions=predictions
            )
    assert list(tmp_path.iterdir()) == []
