"""What dynamic tables refuse, and what they only warn of."""

import numpy as np
import pytest
import tensorflow as tf

from dlrm_tf2.embedding import DistributedEmbedding, DynamicTableConfig, TableConfig, make_plan
from dlrm_tf2.embedding.dynamic.step_times import StepTimes
from dlrm_tf2.embedding.dynamic.tiers import Tiers
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess


def layer(capacity=2, optimizer=True, score="no_eviction", **settings):
    tables = [DynamicTableConfig("d", capacity, embedding_dim=2, score=score), TableConfig("s", 9, 2)]
    return DistributedEmbedding(
        tables,
        make_plan(tables, 1),
        comm=SingleProcess(),
        seed=0,
        optimizer=Optimizer("sgd") if optimizer else None,
        **settings,
    )


def ids(embedding, keys):
    return embedding.ids({"d": np.asarray(keys), "s": np.zeros(len(keys), np.int32)})


@pytest.mark.parametrize("settings, reason", [
    ({"embedding_op": "tensorflow"}, "'d': it is dynamic, and only the native ops have dynamic tables"),
    ({"dtype": "float64"}, "they have no float64 tables. Build the ops with"),
    ({"safe_check": "ignore"}, "safe_check 'ignore'; it must be one of error, warn, count"),
])  # fmt: skip
def test_a_layer_that_cannot_be(settings, reason):
    with pytest.raises(ValueError, match=reason):
        layer(**settings)


def test_a_rank_with_a_gpu_has_no_tiers(monkeypatch, tmp_path):
    monkeypatch.setattr("dlrm_tf2.embedding.layer.tf.config.get_visible_devices", lambda kind: [kind])
    monkeypatch.setattr("dlrm_tf2.embedding.layer.choose_op", lambda *_, **__: ("native", "as if there were a GPU"))
    with pytest.raises(ValueError, match="'d': found tiers on a rank with a GPU.* Leave tiers out, or hide the GPU"):
        layer(tiers=Tiers(1000, str(tmp_path)))


def test_training_needs_the_step():
    embedding = layer()
    packed = ids(embedding, [1])
    with pytest.raises(ValueError, match="step is missing: the dynamic table 'd' needs the number of the step"):
        embedding.lookup(packed)
    with pytest.raises(ValueError, match="step is missing"):
        embedding.train_step(packed, lambda vectors: vectors["d"][:, 0], learning_rate=0.1)
    embedding.lookup(packed, training=False)
    layer(optimizer=False).lookup(packed)  # it cannot train
    assert embedding.dynamic_tables["d"].size() == 0


def test_scores_are_for_tables_with_custom_scores():
    embedding = layer(score="custom")
    with pytest.raises(ValueError, match=r"table 'd': its score is 'custom'; give lookup scores=\{'d': ...\}"):
        embedding.lookup(ids(embedding, [1]), step=1)
    for one, name in ((embedding, "s"), (layer(), "d")):
        with pytest.raises(ValueError, match=f"scores of '{name}': no dynamic table with score 'custom' has this name"):
            one.lookup(ids(one, [1]), step=1, scores={name: 3})


def test_keys_are_integers_of_any_type_and_size():
    embedding = layer(capacity=9)
    with pytest.raises(ValueError, match="feature 'd': ids of type float64; they must be integers"):
        ids(embedding, [1.5])
    for keys in (np.array([-1], np.int8), np.array([2**63 - 1]), np.array([2**64 - 2], np.uint64)):
        embedding.lookup(ids(embedding, keys), step=1)
    counters = embedding.dynamic_tables["d"].counters()
    assert (counters["inserted"], counters["missed"]) == (3, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature 's': its ids must be from 0 to 8"):
        embedding.ids({"d": [1], "s": [9]})


@pytest.mark.parametrize("score, why", [
    ("no_eviction", "all rows of their buckets are taken\\."),
    ("lfu", "all rows of their buckets are taken by other keys of the same batch\\."),
])  # fmt: skip
def test_a_key_without_room_is_an_error(score, why):
    embedding = layer(score=score)
    embedding.lookup(ids(embedding, [1, 2, 1]), step=1)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=f"(?s)table 'd': keys of a batch found no room,.*because {why}"
    ):
        embedding.lookup(ids(embedding, [3, 4, 5]), step=2)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_key_without_room_is_warned_of_once(compiled, capfd):
    embedding = layer(safe_check="warn")
    lookup = embedding.lookup
    if compiled:
        lookup = tf.function(lambda ids, step: embedding.lookup(ids, step=step).vectors, autograph=False)
    for step in (1, 2):
        packed, step = ids(embedding, [1, 2, 3]), tf.constant(step, tf.int64)
        lookup(packed, step=step)
    assert capfd.readouterr().err.count("warning: table 'd': keys of a batch found no room") == 1
    assert embedding.dynamic_tables["d"].counters()["not_insertable"] == 2


def test_keys_without_room_that_are_only_counted(capfd):
    embedding = layer(safe_check="count")
    vectors = embedding.exchange(embedding.lookup(ids(embedding, [1, 2, 3, 4]), step=1)).numpy()
    assert np.count_nonzero(np.abs(vectors[:, :2]).sum(axis=1)) == 2  # the others have the default vector, zeros
    assert embedding.dynamic_tables["d"].counters()["not_insertable"] == 2
    assert "warning" not in capfd.readouterr().err


def test_seconds_as_steps():
    times = StepTimes(10_000)
    assert times.last_step(50) is None
    for time, step in ((1_000, 1), (1_004, 2), (5_000, 3), (12_000, 4)):
        times.note(time, step)
    # Step 2 came within a thousandth of the period; what is not noted counts as made later.
    assert [times.last_step(time) for time in (999, 1_000, 4_999, 5_000, 20_000)] == [None, 1, 1, 3, 4]
    times.note(15_000, 5)
    assert times.notes[0] == (5_000, 3)  # older notes are not needed: 15,000 - 10,000
