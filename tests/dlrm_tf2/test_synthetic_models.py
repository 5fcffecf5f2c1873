"""The program of the published models: the plans' figures and balance, a training's figures, and its messages."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
from support.programs import horovodrun, needs_horovod, start

from dlrm_tf2 import synthetic_models
from dlrm_tf2.benchmarks import zoo_benchmark
from dlrm_tf2.benchmarks.timing import StepTimes
from dlrm_tf2.benchmarks.zoo import MODELS
from dlrm_tf2.benchmarks.zoo_config import ZooConfig
from dlrm_tf2.job.preflight import DoesNotFit
from dlrm_tf2.runtime import process
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.cost import Imbalance, Step, cost_of
from dlrm_tf2.sharding.plan import make_plan


def printed(capsys, *arguments):
    assert synthetic_models.main([str(argument) for argument in ("--plan_only", *arguments)]) == 0
    return capsys.readouterr().out


def imbalances(text):
    return [float(x) for x in re.search(r"imbalance: memory (\S+) gather (\S+) output (\S+)\n", text).groups()]


@pytest.mark.parametrize("model, world_size", [
    ("tiny", 8), ("small", 8), ("small", 32), ("medium", 32), ("medium", 128), ("large", 128), ("jumbo", 128),
])  # fmt: skip
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_every_load_is_balanced(capsys, model, world_size, optimizer):
    flags = ("--model", model, "--world_size", world_size, "--batch_size", 65536, "--optimizer", optimizer)
    text = printed(capsys, *flags)
    assert max(imbalances(text)) <= 1.16
    lines = text[text.index("rank  shards") :].splitlines()
    assert len(lines) == 1 + world_size + 1
    zoo = MODELS[model]
    plan = make_plan(zoo.tables, world_size, hotness=zoo.hotness, optimizer=optimizer, batch_size=65536)
    held = [plan.bytes_of(rank) for rank in range(world_size)]
    assert [int(line.split()[2]) for line in lines[1:-1]] == held
    assert [int(line.split()[3]) for line in lines[1:-1]] == [bytes_ * (optimizer == "adagrad") for bytes_ in held]


@pytest.mark.parametrize("model, optimizer", [("jumbo", "sgd"), ("colossal", "adagrad")])
def test_every_load_is_balanced_on_1024_ranks(model, optimizer):
    zoo = MODELS[model]
    plan = make_plan(zoo.tables, 1024, hotness=zoo.hotness, optimizer=optimizer, batch_size=65536)
    costs = cost_of(plan, zoo.tables, Step(65536, zoo.hotness, optimizer=optimizer))
    found, sent = Imbalance.of(costs), [cost.sent_bytes for cost in costs]
    assert max(found.memory, found.gather, found.output, max(sent) * 1024 / sum(sent)) <= 1.16


def test_counts_and_sizes_are_printed(capsys):
    text = printed(capsys, "--model", "tiny", "--world_size", 8)
    assert text.startswith("tiny: balanced, 8 ranks, batch 65536, sgd; 58 features, 85 ids a sample\n")
    assert "tables: 55, 4.186 GiB (4494725120 bytes)" in text
    assert re.search(r"19 tables +1000000 +16 +1 +1\.132  ", text)


def test_bytes_by_hand(capsys):
    # criteo on 2 ranks: 13 tables of 100,000 x 128 each. A step of 10 samples: every rank looks up 13 vectors of 128
    # for each of them, sends those of the other's 5 samples, and returns 13 gradients for each of its own 5.
    text = printed(capsys, "--model", "criteo", "--world_size", 2, "--batch_size", 10)
    for rank in range(2):
        line = text.splitlines()[-3 + rank].split()
        assert line[:4] == [str(rank), "13", str(13 * 100_000 * 128 * 4), "0"]
        assert line[-2:] == [str(10 * 13 * 128), str(2 * 5 * 13 * 128 * 4)]
    sixteen = printed(capsys, "--model", "criteo", "--world_size", 2, "--batch_size", 10, "--table_dtype", "bfloat16")
    assert sixteen.splitlines()[-2].split()[2] == str(13 * 100_000 * 128 * 2)
    # With data-parallel input the ids of 5 samples go to the other rank too, in 4 bytes; under amp vectors take half.
    text = printed(capsys, "--model", "criteo", "--world_size", 2, "--batch_size", 10, "--dp_input", "--amp")
    assert text.splitlines()[-2].split()[-1] == str(5 * 13 * 128 * 4 + 5 * 13 * 4)


@pytest.mark.parametrize("arguments, message", [
    (["--model", "huge"], "invalid choice: 'huge'"),
    (["--world_size", "0", "--plan_only"], "--world_size 0: it must be at least 1"),
    (["--world", "4"], "'--world' is not a flag of this program"),
    (["--batch_size", "many"], "--batch_size: invalid int value: 'many'"),
    (["--use_model_fit"], "--use_model_fit is a flag of the published program that this program does not have: there"),
    (["--nouse_model_fit"], "Leave it out: the program times its own loop"),
    (["--embedding_device=/GPU:0"], "--embedding_device is a flag of the published program"),
    (["--embedding_api", "tfde"], "there is one embedding layer, DistributedEmbedding (published name: tfde)"),
])  # fmt: skip
def test_misuse_is_one_line(capsys, arguments, message):
    assert synthetic_models.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("synthetic_models: ") and message in said and said.count("\n") == 1


def test_a_plan_that_cannot_be_is_one_line(capsys):
    arguments = ["--plan_only", "--optimizer", "rowwise_adagrad", "--column_slice_threshold", "9"]
    assert synthetic_models.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("synthetic_models: ") and "needs the whole row" in said and said.count("\n") == 1


def test_booleans_are_spelled_as_published(capsys):
    travelling = []
    for words in (["--dp_input"], ["--dp_input=true"], ["--nodp_input"], ["--dp_input=false"], []):
        text = printed(capsys, "--model", "criteo", "--world_size", 2, "--batch_size", 10, *words)
        travelling.append(int(text.splitlines()[-2].split()[-1]))
    vectors = 2 * 5 * 13 * 128 * 4
    assert travelling == [vectors + 5 * 13 * 4] * 2 + [vectors] * 3


# criteo, because its 26 tables are the fastest to compile.
SMALL = {
    "model": "criteo", "scale": 0.001, "batch_size": 96, "num_data_batches": 2, "num_steps": 7, "optimizer": "adagrad",
}  # fmt: skip
CPU = process.Runtime("cpu", "float32", threads=2, notes=())


def run_here(**flags):
    """Standard output of a training on one rank, in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        zoo_benchmark.run(ZooConfig(**flags), process.Launch(), device=CPU, comm=SingleProcess())
    return printed.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(standard output, records of the log) of a training on one rank."""
    log = tmp_path_factory.mktemp("synthetic_models") / "log.json"
    text = run_here(**SMALL, log_path=str(log))
    return text, [json.loads(line) for line in log.read_text().splitlines()]


def test_a_run_prints_and_logs_its_figures(trained):
    text, (setting, *steps, figures) = trained
    assert setting["mode"] == "synthetic_models" and setting["batch_size"] == 96 and setting["device"] == "cpu"
    assert [step["step"] for step in steps] == list(range(6, 13))  # after five steps of warm-up
    step_ms = [step["step_ms"] for step in steps]
    assert figures["num_steps"] == 7 and figures["mean_ms"] == pytest.approx(sum(step_ms) / 7)
    assert figures["samples_per_s"] == pytest.approx(96e3 / figures["mean_ms"])
    assert sorted(step_ms)[3] == pytest.approx(figures["p50_ms"]) and figures["p50_ms"] <= figures["p99_ms"]
    assert figures["last_loss"] == steps[-1]["loss"] and figures["sent_bytes"] == 0
    for name in ("lookup_ms", "exchange_ms", "dense_ms", "update_ms", "one_batch_ms", "floor_ms", "floor_share"):
        assert figures[name] > 0
    assert re.search(rf"{figures['mean_ms']:.3f} ms per iteration over 7 steps \(p50 ", text)
    for line in ("warm-up: a forward pass and 5 steps", "one repeated batch would show", "phases, each on its own"):
        assert line in text
    assert text.splitlines()[-1].replace(" ", "") == (
        f"|thisrun|1x2CPUthreads|0.001|adagrad|96|{figures['mean_ms']:.3f}|"
    )


@needs_horovod
@pytest.mark.long
def test_two_ranks_have_the_losses_of_one(trained, tmp_path):
    words = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    arguments = [*words, "--cpu", "--dp_input", "--log_path", tmp_path / "log.json"]
    run = start(arguments, horovodrun(2), program=("-m", "dlrm_tf2.synthetic_models"))
    assert run.returncode == 0, run.stdout + run.stderr
    *steps, figures = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()][1:]
    losses = [step["loss"] for step in steps]
    assert len(set(losses)) == 7
    np.testing.assert_allclose(losses, [step["loss"] for step in trained[1][1:-1]], rtol=1e-5)
    assert figures["sent_bytes"] > 0 and "2 ranks on CPU, data-parallel input" in run.stdout


def test_one_batch_is_named_as_such():
    assert "every step had the same batch" in run_here(**SMALL | {"num_data_batches": 1, "num_steps": 1})


def test_a_model_that_does_not_fit_ends_before_it_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr("dlrm_tf2.job.memories.available_memory_bytes", lambda: 1 << 30)
    monkeypatch.setattr(zoo_benchmark, "SyntheticModel", None)  # making one would be an error of another type
    log = tmp_path / "log.json"
    with pytest.raises(DoesNotFit, match=r"tiny does not fit on this machine: .* It fits with --scale \S+\.$"):
        run_here(model="tiny", log_path=str(log))
    assert not log.exists()


def test_the_published_figures_are_in_the_table():
    times = StepTimes.of([0.001], 4)
    table = zoo_benchmark.table_with_published(ZooConfig(model="medium"), times, comm=SingleProcess(), device=CPU)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    published = [row for row in rows if row[0] == "published"]
    assert [(row[1], float(row[-1])) for row in published] == [
        ("8 A100", 63.393), ("16 A100", 46.636), ("32 A100", 37.732), ("128 A100", 27.329),
    ]  # fmt: skip
    assert rows[-1] == ["this run", "1 x 2 CPU threads", "1", "sgd", "4", "1.000"]
