"""Training on raw keys by the flags: the same on any number of ranks, after interruptions, and for other capacities."""

import contextlib
import dataclasses
import itertools
import signal

import numpy as np
import pytest
import tensorflow as tf
from support import in_process
from support.key_dataset import keys_of, write_keys
from support.small_dataset import write_dataset

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.synthesize import Synthesis, synthesize
from dlrm_tf2 import ops
from dlrm_tf2.checkpoint import CheckpointError, open_checkpoint
from dlrm_tf2.config import ConfigError
from dlrm_tf2.job import start
from dlrm_tf2.job.program import reason_of
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.stopping import NEVER, Stopped

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no op library: {ops.why_unavailable()}")
CARDINALITIES = (60, 7, 300)  # cat_1 keeps its ids
COMMON = "--optimizer adagrad --learning_rate 0.1 --epochs 2 --evals_per_epoch 1".split()  # 16 steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders by name: the dataset with ids, and with keys in place of the ids of cat_0 and cat_2."""
    root = tmp_path_factory.mktemp("keys")
    spec = write_dataset(root / "ids", train=400, test=120, cardinalities=CARDINALITIES)
    write_keys(spec, root / "keys", ("cat_0", "cat_2"))
    return {"ids": root / "ids", "keys": root / "keys"}


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    """Tables of a hundred keys have several buckets. No run handles signals, as ranks in threads cannot."""
    monkeypatch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(NEVER))
    tables = ModelConfig.tables.fget
    smaller = lambda one: dataclasses.replace(one, bucket_capacity=20) if one.is_dynamic else one  # noqa: E731
    monkeypatch.setattr(ModelConfig, "tables", property(lambda shape: tuple(map(smaller, tables(shape)))))


def stored_in(checkpoint):
    """table -> slot -> array of a checkpoint's dynamic tables, in the order of the keys."""
    folder, manifest = open_checkpoint(checkpoint)
    found = {}
    for name in manifest.dynamic_tables:
        shards = sorted((one for one in manifest.shards if one.table == name), key=lambda one: one.rows)
        slots = {slot: [one for one in shards if one.slot == slot] for slot in {one.slot for one in shards}}
        arrays = {slot: np.concatenate([np.load(folder / one.file.path) for one in of]) for slot, of in slots.items()}
        of_keys = len(arrays["keys"])
        order = np.argsort(arrays["keys"])
        found[name] = {
            slot: array[order] if len(array) == of_keys else np.sort(array) for slot, array in arrays.items()
        }
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, slots in expected.items():
        assert found[name].keys() == slots.keys()
        for slot, array in slots.items():
            np.testing.assert_array_equal(found[name][slot], array, f"{name} {slot}")


def test_the_log_tells_what_happens_to_the_keys(data, tmp_path):
    run = in_process.run(data["keys"], tmp_path / "log.json", *COMMON, "--dynamic_capacity", "60,120")
    (stored, inserted, evicted, rates), last = (
        (run.column(key) for key in ("keys_stored", "keys_inserted", "keys_evicted", "hit_rate")),
        run.records[-2],
    )
    assert stored[-1][0] == inserted[-1][0] == len(np.unique(ids_of(data, "train", 0))) and evicted[-1][0] == 0
    assert evicted[-1][1] > 0 and inserted[-1][1] - evicted[-1][1] == stored[-1][1] <= 4 * 55  # rows of the buckets
    assert rates[0] == [0, 0] and rates[-1][0] == 1 > rates[-1][1] > 0
    is_stored = np.isin(keys_of(ids_of(data, "test", 2)), keys_in(run, "cat_2"))
    assert run.column("test_hit_rate")[-1][1] == pytest.approx(is_stored.mean())
    assert last["step"] == 16


def ids_of(data, split, number):
    return np.fromfile(data["ids"] / split / f"cat_{number}.bin", ("int8", "int8", "int16")[number])


def keys_in(run, table):
    return run.job.model.embedding.dynamic_tables[table].stored().keys


ADMITTED = "--dynamic_capacity 60,90 --evict lfu --admit_after 2 --shuffle window --shuffle_window 70".split()


SMALL_LEAVE = "--evict_below_norm 0.3 --checkpoint_every 5".split()  # after the steps 5, 10, 15 and 16


def test_ranks_train_the_model_that_one_trains(data, tmp_path, run_ranks):
    command = [*COMMON, *ADMITTED, "--expire_after_steps", "5", *SMALL_LEAVE]

    def work(comm):
        folder = tmp_path / str(comm.size)
        return in_process.run(
            data["keys"], folder / "log.json", *command, "--save_checkpoint_path", folder / "saved", comm=comm
        )

    one, others = run_ranks(1, work)[0], {size: run_ranks(size, work)[0] for size in (3,)}
    saved = {size: stored_in(tmp_path / str(size) / "saved") for size in (1, 3)}
    for size, run in others.items():
        np.testing.assert_allclose(run.column("loss"), one.column("loss"), rtol=1e-4)
        for key in (
            "keys_stored",
            "keys_refused",
            "keys_evicted",
            "keys_expired",
            "keys_erased",
            "hit_rate",
            "test_hit_rate",
        ):
            assert run.column(key) == one.column(key), key
        for name, slots in saved[1].items():
            for slot, array in slots.items():
                np.testing.assert_allclose(saved[size][name][slot], array, rtol=1e-3, atol=1e-5)
    for key in ("keys_expired", "keys_refused", "keys_erased"):
        assert one.column(key)[-1][1] > 0


class AskedAt:
    """A StopRequest of a run that is asked to stop after some steps."""

    signal = signal.SIGTERM

    def __init__(self, looks):
        self._looks = itertools.count(-looks)

    @property
    def asked(self):
        return next(self._looks) >= 0


@pytest.mark.parametrize("more", [
    ["--expire_after_steps", "5", *SMALL_LEAVE],
    ["--admission_counter", "sketch", "--checkpoint_async", "--checkpoint_every", "3"],
    ["--table_dtype", "bfloat16", "--evict", "lru", "--admit_after", "1", "--admit_probability", "0.6"],
], ids=["expiry", "sketch", "bfloat16"])  # fmt: skip
def test_a_resumed_run_is_the_run_without_an_interruption(data, tmp_path, monkeypatch, more):
    def train(name):
        folder = tmp_path / name
        command = [*COMMON, *ADMITTED, *more, "--save_checkpoint_path", folder / "saved"]
        return in_process.run(data["keys"], folder / "log.json", *command)

    whole = train("whole")
    with monkeypatch.context() as patch:
        patch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(AskedAt(7)))
        with pytest.raises(Stopped):
            train("parts")
    resumed = train("parts")
    for key in (
        "loss",
        "auc",
        "keys_stored",
        "keys_inserted",
        "keys_refused",
        "keys_evicted",
        "keys_expired",
        "keys_erased",
    ):
        assert resumed.column(key) == whole.column(key), key
    assert_equal(stored_in(tmp_path / "parts/saved"), stored_in(tmp_path / "whole/saved"))


def test_small_keys_leave_before_a_checkpoint_and_its_evaluation(data, tmp_path, monkeypatch):
    """And not before the checkpoint of a run that is stopped between two such steps."""
    command = [*COMMON, "--dynamic_capacity", "400", "--save_checkpoint_path", tmp_path / "c"]
    run = in_process.run(data["keys"], tmp_path / "log.json", *command, *SMALL_LEAVE)
    erased = [sum(of_tables) for of_tables in run.column("keys_erased")]  # after the steps 1, 2, ... 16
    assert {step for step in range(2, 17) if erased[step - 1] > erased[step - 2]} == {5, 10, 15, 16}
    for name, slots in stored_in(tmp_path / "c").items():
        assert np.linalg.norm(slots["weights"], axis=1).min() >= 0.3, name
    is_stored = np.isin(keys_of(ids_of(data, "test", 2)), stored_in(tmp_path / "c")["cat_2"]["keys"])
    assert run.column("test_hit_rate")[-1][1] == pytest.approx(is_stored.mean()) and is_stored.mean() < 1
    monkeypatch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(AskedAt(7)))
    with pytest.raises(Stopped):
        in_process.run(data["keys"], tmp_path / "log.json", *command, *SMALL_LEAVE)
    assert np.linalg.norm(stored_in(tmp_path / "c")["cat_2"]["weights"], axis=1).min() < 0.3
    with pytest.raises(CheckpointError, match="evict_below_norm was 0.3, is 0.2; --checkpoint_every was 5, is 4"):
        in_process.run(
            data["keys"], tmp_path / "log.json", *command, "--evict_below_norm", 0.2, "--checkpoint_every", 4
        )


def test_a_checkpoint_is_restored_onto_other_ranks_and_another_capacity(data, tmp_path, run_ranks, capsys):
    train = in_process.run(
        data["keys"],
        tmp_path / "log.json",
        *COMMON,
        "--dynamic_capacity",
        "400",
        "--save_checkpoint_path",
        tmp_path / "c",
    )
    auc, saved = train.records[-1]["auc"], stored_in(tmp_path / "c")["cat_2"]

    def work(comm, capacity, *more):
        log = tmp_path / f"{capacity}_{comm.size}.json"
        from_it = ["--restore_checkpoint_path", tmp_path / "c", "--dynamic_capacity", capacity]
        return in_process.run(data["keys"], log, *COMMON, *from_it, *more, comm=comm)

    for size, capacity in ((1, 400), (2, 400), (2, 700)):
        runs = run_ranks(size, lambda comm: work(comm, capacity, "--mode", "eval"))  # noqa: B023
        assert runs[0].records[-1]["auc"] == pytest.approx(auc, abs=1e-6)
        assert runs[0].records[-1]["test_hit_rate"] == train.column("test_hit_rate")[-1]
    capsys.readouterr()
    kept = keys_in(run_ranks(1, lambda comm: work(comm, 30, "--mode", "eval"))[0], "cat_2")
    assert f"table 'cat_2': 30 of its {len(saved['keys'])} keys find room" in capsys.readouterr().err
    highest = np.sort(saved["scores"])[-30]
    assert len(kept) == 30 and {*saved["keys"][saved["scores"] > highest]} <= {*kept.tolist()}


@pytest.mark.parametrize("dataset, arguments, message", [
    ("keys", [], "cat_0, cat_2 hold raw keys.*Give --dynamic_capacity N, or make the dataset with --ids vocabulary"),
    ("ids", ["--dynamic_capacity", "9"], "has no feature with raw keys, and ids need no dynamic table"),
    ("keys", ["--dynamic_capacity", "9,9,9"], "--dynamic_capacity has 3 numbers, the dataset 2 features with raw keys"),
    ("keys", ["--dynamic_capacity", "9", "--dataset_type", "synthetic"], "makes ids, and the features cat_0, cat_2"),
    ("keys", ["--dynamic_capacity", "0"], "--dynamic_capacity is 0; it must be at least 1"),
    ("keys", ["--dynamic_capacity", "9", "--embedding_op", "tensorflow"], "only the native ops have dynamic tables"),
    ("keys", ["--admit_after", "2", "--admit_probability", "0.5"], "by chance or by its count"),
    ("keys", ["--evict_below_norm", "0"], "--evict_below_norm is 0.0; it must be a number above 0"),
    ("keys", ["--admit_probability", "0"], "--admit_probability is 0.0; it must be above 0 and at most 1"),
    ("keys", ["--admit_after", "65536", "--admission_counter", "sketch"], "a sketch counts to 65535"),
])  # fmt: skip
def test_misuse_says_what_is_wrong(data, tmp_path, dataset, arguments, message):
    with pytest.raises(ConfigError, match=message):
        in_process.run(data[dataset], tmp_path / "log.json", *arguments)
    assert not (tmp_path / "log.json").exists()


def test_a_key_without_room_ends_the_run_unless_it_is_only_counted(data, tmp_path, capfd):
    full = ["--dynamic_capacity", "60,30", "--evict", "none", "--evals_per_epoch", "0"]
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        in_process.run(data["keys"], tmp_path / "log.json", *full)
    said = reason_of(error.value.message, "")
    assert said == (
        "TensorFlow stopped: table 'cat_2': keys of a batch found no room, because all rows of their buckets are "
        "taken. They got the default vector. Give the table a larger capacity than 30, or set safe_check "
        "to 'warn' or 'count'."
    )
    for safe_check, warnings in (("warn", 1), ("count", 0)):
        run = in_process.run(data["keys"], tmp_path / "log.json", *full, "--safe_check", safe_check)
        assert run.column("keys_stored")[-1][1] == 30 and run.column("keys_not_insertable")[-1][1] > 0
        assert capfd.readouterr().err.count("warning: table 'cat_2'") == warnings


@pytest.mark.long
def test_a_training_with_room_for_all_keys_learns_what_one_on_ids_learns(tmp_path):
    flags = """--embedding_dim 8 --bottom_mlp_dims 32,8 --top_mlp_dims 32,1 --batch_size 512 --valid_batch_size 10000
        --optimizer adagrad --learning_rate 0.03 --warmup_steps 50 --print_freq 200 --shuffle full""".split()
    aucs, capacities = {}, []
    for kind in ("vocabulary", "raw"):
        request = Synthesis("criteo_t15", 300_000, scale=1e-4, seed=1, labels="teacher", ids=kind)
        synthesize(request, tmp_path / kind, quiet=True)
        spec = FeatureSpec.load(tmp_path / kind / "feature_spec.yaml")
        capacities += [str(feature.cardinality) for feature in spec.categorical if not feature.key]
        more = ["--dynamic_capacity", ",".join(capacities)] if kind == "raw" else []
        runs = [
            in_process.run(tmp_path / kind, tmp_path / f"{kind}_{seed}.json", *flags, *more, "--seed", seed)
            for seed in (3, 4, 5, 6)  # one seed moves the AUC by 0.003
        ]
        aucs[kind] = np.mean([run.records[-1]["auc"] for run in runs])
    assert aucs["vocabulary"] > 0.79 and aucs["raw"] == pytest.approx(aucs["vocabulary"], abs=0.002)
