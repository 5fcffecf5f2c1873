"""The program of dynamicemb's benchmarks: its flags, and runs of tiny tables on one rank and on two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.programs import REPOSITORY, needs_horovod

from dlrm_tf2 import dynamic_benchmark
from dlrm_tf2.benchmarks import dynamic_collection, dynamic_tables
from dlrm_tf2.benchmarks.dynamic import COLLECTION_ROWS, PUBLISHED_TABLES
from dlrm_tf2.benchmarks.dynamic_config import CollectionConfig, TablesConfig
from dlrm_tf2.benchmarks.dynamic_keys import collection_batch
from dlrm_tf2.job.preflight import DoesNotFit
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.runtime.process import Launch

# 8 features of 10 ids, so that they compile fast.
SMALL = {
    "num_embeddings_per_feature": (300, 7, 50, 1, 90, 3, 20, 11), "multi_hot_sizes": (10,) * 8, "scale": 1.0,
    "num_iterations": 3, "embedding_dim": 4,
}  # fmt: skip


def test_published_defaults():
    tables, collection = dynamic_benchmark.parse(["tables"]), dynamic_benchmark.parse(["collection"])
    assert (tables.batch_size, tables.num_rows, tables.num_iterations, tables.seed) == (32, 1 << 20, 100, 42)
    assert (tables.optimizer_type, tables.learning_rate, tables.eps, tables.distribution) == (
        "adam",
        0.1,
        1e-3,
        "random",
    )
    assert (collection.batch_size, sum(collection.multi_hot_sizes), collection.num_iterations) == (8192, 260, 100)
    assert sum(collection.num_embeddings_per_feature) == sum(COLLECTION_ROWS) == 177_944_275
    assert not (collection.use_index_dedup or collection.use_dynamic_embedding)


def test_the_published_figures_are_complete():
    """24 rows; in each, train is forward + backward, up to its last digit, because backward is a difference."""
    assert len(PUBLISHED_TABLES) == 24 and len({row[:5] for row in PUBLISHED_TABLES}) == 24
    for row in PUBLISHED_TABLES:
        for _, forward, backward, train in (row.torchrec, row.dynamicemb):
            assert float(train) == pytest.approx(float(forward) + float(backward), abs=2e-4)


@pytest.mark.parametrize("arguments, message", [
    ([], "--help"),
    (["table"], "invalid choice: 'table'"),
    (["tables", "--caching"], "--caching: all rows are in one memory, without a cache in front of it. Leave it out."),
    (["tables", "--hbm-for-embeddings=4"], "--hbm_for_embeddings: all rows are in one memory"),
    (["tables", "--use_index_dedup"], "--use_index_dedup: on one rank no key travels. Use it with `collection`."),
    (["tables", "--emb_precision", "fp16"], "--emb_precision: invalid choice: 'fp16'"),
    (["tables", "--feature_distribution", "zipf"], "invalid choice: 'zipf'"),
    (["tables", "--alpha", "2"], "--alpha: only --feature_distribution pow-law has an exponent"),
    (["tables", "--rows", "9", "--num_embeddings_per_feature", "2"], "both give the rows of the table"),
    (["tables", "--rows", "1"], "1 rows: found, expected 2 to"),
    (["tables", "--optimizer_type", "sgd", "--eps", "1"], "this optimizer has no such constant"),
    (["tables", "--json", "no/such/folder/file"], "--json no/such/folder/file: it must be a file in a folder"),
    (["tables", "--iterations", "9"], "--iterations is not a flag of tables"),
    (["collection", "--epochs", "2"], "--epochs: does nothing in the published program either. Use --num_iterations."),
    (["collection", "--use_torch_opt"], "--use_torch_opt: the update of rows is always part of the step"),
    (["collection", "--weight_decay", "0"], "--weight_decay: no optimizer of tables has weight decay"),
    (["collection", "--multi_hot_sizes", "1,2"], "--num_embeddings_per_feature has 26 numbers and --multi_hot_sizes 2"),
    (["collection", "--use_index_dedup=perhaps"], "'perhaps' is neither true nor false"),
    (["collection", "--scale", "0"], "--scale 0.0: it must be above 0"),
])  # fmt: skip
def test_misuse_is_one_line(capsys, arguments, message):
    assert dynamic_benchmark.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("dynamic_benchmark: ") and message in said and said.count("\n") == 1


def test_a_table_that_does_not_fit_is_refused_before_it_is_made():
    with pytest.raises(DoesNotFit, match="a table of 1073741824 rows .* they need .* It fits with --rows "):
        dynamic_tables.run(TablesConfig(num_embeddings_per_feature=1024, embedding_dim=65536))


@pytest.fixture(scope="module")
def tables_run():
    """(configuration, record) of `tables`."""
    config = TablesConfig(
        batch_size=200, rows=3000, num_iterations=4, embedding_dim=8, optimizer_type="adam",
        feature_distribution="pow-law",
    )  # fmt: skip
    return config, dynamic_tables.run(config)


def test_tables_reports_every_phase_of_both_tables(tables_run):
    config, record = tables_run
    for table in ("static", "dynamic"):
        assert list(record["ms"][table]) == ["train", "forward", "backward", "eval"]
        for of in record["ms"][table].values():
            assert of["num_steps"] == 4 and 0 < of["p50_ms"] <= of["p95_ms"]
            assert of["samples_per_s"] == pytest.approx(1e3 * 200 / of["mean_ms"])
    assert record["hit_rate"] == 1.0 and 1 < record["unique_keys"] < 200 and record["published"] == []
    text = dynamic_tables.report(config, record)
    assert "| no      | -             | 200        | 3000 " in text and "hit rate 1.0000" in text


def test_the_published_rows_of_the_same_setting_are_shown(tables_run):
    config = TablesConfig(
        batch_size=65536, num_embeddings_per_feature=8, optimizer_type="sgd", feature_distribution="pow-law"
    )
    rows = [line for line in dynamic_tables.report(config, tables_run[1]).splitlines() if "8388608" in line]
    assert len(rows) == 4
    assert "0.2397 " not in rows[0] and rows[0].split("|")[-2].strip() == "1.2811" and "0.6056" in rows[2]


def test_filling_stores_every_key_and_training_changes_its_row():
    config = TablesConfig(batch_size=4, rows=50, embedding_dim=2, optimizer_type="sgd", learning_rate=1.0)
    bench = dynamic_tables.TableBench(config, dynamic=True)
    bench.fill()
    assert bench.layer.dynamic_tables["t_0"].size() == 50
    ids = bench.ids(np.array([3, 9, 3, 49]))
    before = bench.layer.exchange(bench.layer.lookup(ids, training=False)).numpy()
    bench.time("train", [ids])
    gradient = bench._gradient.numpy()
    both = gradient[0] + gradient[2]
    after = bench.layer.exchange(bench.layer.lookup(ids, training=False)).numpy()
    np.testing.assert_allclose(before - after, [both, gradient[1], both, gradient[3]], rtol=1e-3, atol=1e-7)
    assert bench.counters() == (4 * 3, 50)


def collection_run(dynamic: bool):
    config = CollectionConfig(**SMALL, batch_size=64, use_dynamic_embedding=dynamic)
    return config, dynamic_collection.run(config, Launch(), comm=SingleProcess())


@pytest.fixture(scope="module")
def dynamic_run():
    return collection_run(True)


def test_collection_trains_on_every_key_that_came(dynamic_run):
    config, record = dynamic_run
    assert record["ms"]["num_steps"] == 3 and len(record["losses"]) == 3
    assert record["losses"] == sorted(record["losses"], reverse=True)  # the sum of the vectors falls with each step
    came = [np.concatenate([ids.ravel() for ids in collection_batch(config, n).values()]) for n in range(13)]
    assert record["counters"]["inserted"] == len(np.unique(np.concatenate(came)))
    assert record["counters"]["found"] + record["counters"]["missed"] == sum(map(len, came))


def test_collection_of_static_tables_falls_as_fast(dynamic_run, capsys):
    """Adam moves every number that came by about the learning rate, for any first weights."""
    _, record = collection_run(False)
    falls, falls_of_dynamic = np.diff(record["losses"]), np.diff(dynamic_run[1]["losses"])
    np.testing.assert_allclose(falls, falls_of_dynamic, rtol=0.2)
    last = capsys.readouterr().out.splitlines()[-1].split("|")
    assert last[1].strip() == "Close dedup, batch 64" and float(last[3]) > 0 and not last[4].strip()


@needs_horovod
@pytest.mark.long
def test_the_published_command_on_two_ranks_has_the_loss_of_one(dynamic_run, tmp_path):
    """benchmark/*.sh, which divides the published batch by 8 ranks: 256 are 64 on two."""
    _, record = dynamic_run
    path = tmp_path / "run.json"
    numbers = {name: ",".join(map(str, SMALL[name])) for name in ("num_embeddings_per_feature", "multi_hot_sizes")}
    given = SMALL | numbers | {"json": path}
    flags = [f"--{name}={value}" for name, value in given.items()]
    binaries = str(Path(sys.executable).parent)
    environment = {"RANKS": "2", "PATH": f"{binaries}:{os.environ['PATH']}", "OMPI_ALLOW_RUN_AS_ROOT": "1",
                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
    script = "./benchmark/benchmark_embedding_collection.sh"
    run = subprocess.run(
        ["bash", script, "True", "True", "256", *flags],
        cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    of_two = json.loads(path.read_text())
    assert of_two["ranks"] == 2 and of_two["use_index_dedup"] and of_two["batch_size"] == 64
    np.testing.assert_allclose(of_two["losses"], record["losses"], rtol=2e-4)
    stored = {name: record["counters"].get(name) for name in ("inserted", "evicted")}
    assert {name: of_two["counters"].get(name) for name in stored} == stored
    assert "64 a rank" not in run.stdout and "32 a rank on 2 CPU ranks" in run.stdout
    assert "| Open dedup, batch 64 " in run.stdout
