"""The files of dumps and changes by hand, and what is wrong with them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dlrm_tf2.dump.apply import apply_changes
from dlrm_tf2.dump.arguments import (
    Arguments,
    DumpError,
    TableRows,
    read_arguments,
    write_arguments,
)
from dlrm_tf2.dump.changes import TableChanges, read_changes, set_folder, write_changes
from dlrm_tf2.dump.files import Part, PartWriter, parts_in, read_counts, read_part

KINDS = (
    "emb_keys", "emb_values", "emb_scores", "emb_opt_values", "emb_steps", "counter_keys", "counter_frequencies",
)  # fmt: skip


def rows(*keys, state=True):
    """A row for each key: score 10 * key, values (key, -key), state (key / 2), step 100 + key."""
    keys = np.array(keys, np.int64)
    values = np.stack([keys, -keys], axis=1).astype(np.float32)
    return TableRows(keys, 10 * keys, values=values, state=values[:, :1] / 2 if state else None, steps=100 + keys)


def arguments(next_step, score="step"):
    return Arguments.of(score, "adagrad", widths=(2, 1), next_step=next_step, time=1000)


def write(folder, *parts, next_step=5, score="step"):
    folder.mkdir()
    for rank, of_rank in enumerate(parts):
        with PartWriter(folder, Part("t", rank, world_size=len(parts)), arguments(next_step, score)) as writer:
            writer.write(of_rank)
            writer.write_counts(np.array([77 + rank]), np.array([3]))
    write_arguments(folder, "t", arguments(next_step, score))
    return folder


def changes(folder, first, next_step, changed, deleted=(), rank=0, world_size=1, table="t"):
    """Writes the changes of a rank; returns the folder of the set."""
    one = TableChanges(table, first, rows=changed, deleted=np.array(deleted, np.int64), arguments=arguments(next_step))
    in_set = set_folder(folder, first, next_step)
    in_set.mkdir(parents=True, exist_ok=True)
    write_changes(in_set, one, rank=rank, world_size=world_size)
    return in_set


def test_the_bytes_of_a_dump(tmp_path):
    folder = write(tmp_path / "dump", rows(-2), rows(3, 4), score="timestamp")
    read = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(read) == sorted(
        [f"t_{kind}.rank_{rank}.world_size_2" for rank in (0, 1) for kind in KINDS] + ["t_opt_args.json"]
    )
    assert read["t_emb_keys.rank_0.world_size_2"] == b"\xfe" + 7 * b"\xff"
    assert np.frombuffer(read["t_emb_values.rank_1.world_size_2"], "<f4").tolist() == [3, -3, 4, -4]
    assert np.frombuffer(read["t_emb_scores.rank_1.world_size_2"], "<i8").tolist() == [1000 - 30, 1000 - 40]  # ages
    assert np.frombuffer(read["t_emb_opt_values.rank_1.world_size_2"], "<f4").tolist() == [1.5, 2]
    assert np.frombuffer(read["t_emb_steps.rank_1.world_size_2"], "<i8").tolist() == [103, 104]
    assert json.loads(read["t_opt_args.json"]) == {
        "opt_type": "adagrad", "evict_strategy": "LRU", "score": "timestamp", "embedding_dim": 2, "state_dim": 1,
        "next_step": 5, "time": 1000, "dist_type": "buckets",
    }  # fmt: skip
    (first, second) = parts_in(folder)["t"]
    (block,) = read_part(folder, second, read_arguments(folder, "t"))
    for found, expected in zip(block, rows(3, 4), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert [part.tolist() for part in read_counts(folder, first)] == [[77], [3]]


def test_a_dump_as_dynamicemb_writes_it(tmp_path):
    """No steps, no embedding_dim; the ages of LRU are ages before the time 0 that the dump does not tell."""
    np.array([5, 6], "<i8").tofile(tmp_path / "t_emb_keys.rank_0.world_size_1")
    np.array([1, 2, 3, 4], "<f4").tofile(tmp_path / "t_emb_values.rank_0.world_size_1")
    np.array([70, 80], "<i8").tofile(tmp_path / "t_emb_scores.rank_0.world_size_1")
    np.array([9, 8, 7, 6], "<f4").tofile(tmp_path / "t_emb_opt_values.rank_0.world_size_1")
    (tmp_path / "t_opt_args.json").write_text('{"opt_type": "exact_adagrad", "evict_strategy": "EvictStrategy.LRU"}')
    found = read_arguments(tmp_path, "t", embedding_dim=2)
    assert (found.opt_type, found.score, found.evict_strategy) == ("adagrad", "timestamp", "LRU")
    (block,) = read_part(tmp_path, Part("t", 0, world_size=1), found)
    assert (block.keys.tolist(), block.scores.tolist(), block.steps) == ([5, 6], [-70, -80], None)
    assert (block.values.tolist(), block.state.tolist()) == ([[1, 2], [3, 4]], [[9, 8], [7, 6]])


def test_the_columns_of_changes(tmp_path):
    folder = changes(tmp_path, 5, 8, rows(3, -4), deleted=[9])
    assert folder == tmp_path / "steps_5_8"
    assert pq.read_table(folder / "t.rank_0.world_size_1.parquet").to_pylist() == [
        {"key": 3, "deleted": False, "score": 30, "step": 103, "values": [3, -3], "state": [1.5]},
        {"key": -4, "deleted": False, "score": -40, "step": 96, "values": [-4, 4], "state": [-2]},
        {"key": 9, "deleted": True, "score": None, "step": None, "values": None, "state": None},
    ]
    ((found,),) = (of_set.values() for of_set in read_changes(tmp_path))
    assert (found.first_step, found.arguments, found.deleted.tolist()) == (5, arguments(8), [9])
    for part, expected in zip(found.rows, rows(3, -4), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_changes_are_applied_in_the_order_of_their_steps(tmp_path):
    """5 is replaced, 2 deleted, 7 new and deleted again, 9 new; 1 stays."""
    dump = write(tmp_path / "dump", rows(5, 1), rows(2), next_step=5)
    newer = rows(5)._replace(values=np.array([[50, 51]], np.float32))
    changes(tmp_path / "c", 5, 8, rows(7), deleted=[2], rank=0, world_size=2)
    changes(tmp_path / "c", 5, 8, newer, rank=1, world_size=2)
    changes(tmp_path / "c", 8, 9, rows(9), deleted=[7])
    found = apply_changes(dump, [tmp_path / "c"], tmp_path / "new")["t"]
    assert found.rows.keys.tolist() == [1, 5, 9]
    assert found.rows.values.tolist() == [[1, -1], [50, 51], [9, -9]]
    one_by_one = [tmp_path / "c/steps_5_8", tmp_path / "c/steps_8_9"]
    assert apply_changes(dump, one_by_one, tmp_path / "again")["t"].rows.keys.tolist() == [1, 5, 9]
    assert found.arguments.next_step == 9
    (block,) = read_part(tmp_path / "new", Part("t", 0, world_size=1), found.arguments)
    assert block.keys.tolist() == [1, 5, 9]


def test_changes_that_are_applied_already_change_nothing(tmp_path):
    dump = write(tmp_path / "dump", rows(5), next_step=8)
    changes(tmp_path / "c", 5, 8, rows(6))
    assert apply_changes(dump, [tmp_path / "c"], tmp_path / "new")["t"].rows.keys.tolist() == [5]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: (f / "t_emb_keys.rank_1.world_size_2").unlink(),
            "has the files of rank 0 of 2, expected every",
        ),
        (lambda f: (f / "t_emb_scores.rank_1.world_size_2").unlink(), "t_emb_scores.* The dump is not complete"),
        (
            lambda f: (f / "t_emb_values.rank_0.world_size_2").write_bytes(b"x" * 12),
            "12 bytes, expected 8 for 1 keys",
        ),
        (lambda f: (f / "t_opt_args.json").write_text("[]"), "is not the arguments of a dumped table"),
        (lambda f: (f / "t_opt_args.json").unlink(), "t_opt_args.json: cannot be read"),
        (lambda f: np.array([2], "<i8").tofile(f / "t_emb_keys.rank_0.world_size_2"), "key 2 is in the dump twice"),
    ],
)
def test_a_damaged_dump_is_named(tmp_path, break_it, message):
    dump = write(tmp_path / "dump", rows(5), rows(2))
    break_it(dump)
    with pytest.raises(DumpError, match=message):
        apply_changes(dump, [], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_changes_that_do_not_fit_are_named(tmp_path):
    dump = write(tmp_path / "dump", rows(5), next_step=5)

    def refused(folder, message):
        with pytest.raises(DumpError, match=message):
            apply_changes(dump, [folder], tmp_path / "new")
        assert not (tmp_path / "new").exists()

    refused(tmp_path / "nothing", "holds no changes")
    changes(tmp_path / "gap", 7, 9, rows(5))
    refused(tmp_path / "gap", "begin at step 7, and the table ends before step 5: what changed between is missing")
    changes(tmp_path / "half", 5, 9, rows(5), rank=1, world_size=2)
    refused(tmp_path / "half", r"table 't' has the files of ranks \[1\], expected all ranks of one job of 2")
    path = changes(tmp_path / "cut", 5, 9, rows(5)) / "t.rank_0.world_size_1.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    refused(tmp_path / "cut", "is not a file of changes, or is damaged")
    changes(tmp_path / "tables", 5, 9, rows(5), table="u")
    refused(tmp_path / "tables", "changes of steps 5 to 8 have the tables u, and the dump has t. Give a dump and")
    changes(tmp_path / "name", 5, 9, rows(5)).rename(tmp_path / "name/steps_5_12")
    refused(tmp_path / "name", "has the changes before step 9, and the folder's name says 12. Give the folder its name")
    (tmp_path / "empty/steps_5_9").mkdir(parents=True)
    refused(tmp_path / "empty", "steps_5_9: holds no changes: no file is named TABLE.rank_R.world_size_W.parquet")
