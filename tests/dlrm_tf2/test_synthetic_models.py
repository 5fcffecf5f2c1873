"""The program of the published models: the plans' figures and balance, a training's figures, and its messages."""

import json
import re

import numpy as np
import pytest
from support.programs import horovodrun, needs_horovod, start

from dlrm_tf2 import synthetic_models
from dlrm_tf2.benchmarks.zoo import MODELS
from dlrm_tf2.sharding.cost import Imbalance, Step, cost_of
from dlrm_tf2.sharding.plan import make_plan

PROGRAM = ("-m", "dlrm_tf2.synthetic_models")


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


def test_a_model_that_does_not_fit_ends_before_it_is_made():
    run = start(["--model", "large", "--cpu"], program=PROGRAM)
    assert run.returncode == 1 and run.stdout == ""
    assert re.fullmatch(
        r"synthetic_models: large does not fit on this machine: it needs \d+ bytes \(.* of them tables with the "
        r"state of sgd\), and \d+ bytes \(.*\) are available\. It fits with --scale \S+\.\n",
        run.stderr,
    ), run.stderr


FLAGS = "--model tiny --scale 0.001 --batch_size 96 --num_data_batches 2 --num_steps 7 --optimizer adagrad".split()


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=needs_horovod)])
def trained(request, tmp_path_factory):
    """(standard output, records of the log) of a training on 1 or 2 ranks."""
    log = tmp_path_factory.mktemp("synthetic_models") / "log.json"
    dp_input = ["--dp_input"] if request.param == 2 else []
    launcher = horovodrun(2) if request.param == 2 else ()
    run = start([*FLAGS, "--cpu", "--log_path", log, *dp_input], launcher, program=PROGRAM)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout, [json.loads(line) for line in log.read_text().splitlines()]


# One after the other: the fixture's first ranks fill it.
LOSSES = {}


def test_a_run_prints_and_logs_its_figures(trained):
    text, (setting, *steps, figures) = trained
    assert setting["mode"] == "synthetic_models" and setting["batch_size"] == 96 and setting["device"] == "cpu"
    assert [step["step"] for step in steps] == list(range(6, 13))  # after five steps of warm-up
    step_ms = [step["step_ms"] for step in steps]
    assert figures["num_steps"] == 7 and figures["mean_ms"] == pytest.approx(sum(step_ms) / 7)
    assert figures["samples_per_s"] == pytest.approx(96e3 / figures["mean_ms"])
    assert sorted(step_ms)[3] == pytest.approx(figures["p50_ms"]) and figures["p50_ms"] <= figures["p99_ms"]
    assert figures["last_loss"] == steps[-1]["loss"]
    for name in ("lookup_ms", "exchange_ms", "dense_ms", "update_ms", "one_batch_ms", "floor_ms", "floor_share"):
        assert figures[name] > 0
    assert (figures["sent_bytes"] > 0) == (setting["world_size"] == 2)
    assert re.search(rf"{figures['mean_ms']:.3f} ms per iteration over 7 steps \(p50 ", text)
    for line in ("warm-up: a forward pass and 5 steps", "one repeated batch would show", "phases, each on its own"):
        assert line in text
    assert re.search(r"published +\| 8 A100 +\| 1 +\| adagrad +\| 65536 \| 5\.537", text)
    assert re.search(rf"this run +\| .*CPU threads +\| 0\.001 +\| adagrad +\| 96 +\| {figures['mean_ms']:.3f}", text)


def test_losses_do_not_depend_on_the_number_of_ranks(trained):
    _, (setting, *steps, _) = trained
    LOSSES[setting["world_size"]] = [step["loss"] for step in steps]
    assert len(set(LOSSES[setting["world_size"]])) == 7
    np.testing.assert_allclose(LOSSES[setting["world_size"]], LOSSES[1], rtol=1e-4)
