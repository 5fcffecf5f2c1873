"""The planner's command for the published models: its figures, and the balance they show."""

import re

import pytest

from dlrm_tf2 import synthetic_models
from dlrm_tf2.benchmarks.zoo import MODELS
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
    ([], "--plan_only is missing"),
    (["--plan_only", "--model", "huge"], "invalid choice: 'huge'"),
    (["--plan_only", "--world_size", "0"], "'0' is not a whole number of at least 1"),
    (["--plan_only", "--world", "4"], "unrecognized arguments: --world 4"),
])  # fmt: skip
def test_misuse_says_what_is_wrong(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        synthetic_models.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_plan_that_cannot_be_is_one_line(capsys):
    arguments = ["--plan_only", "--optimizer", "rowwise_adagrad", "--column_slice_threshold", "9"]
    assert synthetic_models.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("synthetic_models: ") and "needs the whole row" in said and said.count("\n") == 1
