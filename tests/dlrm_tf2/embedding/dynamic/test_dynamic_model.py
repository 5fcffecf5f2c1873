"""Small random batches against a dict: the stored keys, their scores and weights, on one rank and on two."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.dynamic_case import RankOfSetup, Setup
from support.numpy_embedding import Sample

from dlrm_tf2.embedding import DynamicTableConfig
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.buckets import hash_of
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSteps, Initializer

BATCH, HOTNESS, FIRST, DEFAULT = 4, 3, 0.5, 0.125  # powers of two, so that sums are exact


class Model:
    """A dynamic table of one column as a dict, trained with sgd on the sum of all vectors over BATCH."""

    def __init__(self, config):
        self.config, self.rows, self.seen = config, {}, Counter()  # key -> [score, step, weight]

    def hash(self, key):
        return int(hash_of(np.array([key], np.int64))[0])

    def bucket(self, key):
        return int(self.config.buckets.bucket_of(np.array([key], np.int64))[0])

    def train(self, keys, step, custom):
        """One step; returns the loss before it."""
        counts = Counter(keys)
        for key in sorted(counts, key=self.hash):
            if key in self.rows:
                self.touch(key, counts[key], step, custom)
        for key in sorted(counts, key=self.hash):
            if key not in self.rows and self.is_admitted(key, counts[key]) and self.makes_room(key, counts):
                self.rows[key] = [0, step, FIRST]
                self.touch(key, counts[key], step, custom)
        loss = sum(self.rows[key][2] if key in self.rows else DEFAULT for key in keys) / BATCH
        for key in counts.keys() & self.rows.keys():
            self.rows[key][2] -= counts[key] / BATCH
        return loss

    def touch(self, key, count, step, custom):
        score = {"lfu": self.rows[key][0] + count, "step": step, "custom": custom, "no_eviction": 0}
        self.rows[key][:2] = score[self.config.score], step

    def is_admitted(self, key, count):
        self.seen[key] += count
        if self.config.admission and self.seen[key] < self.config.admission.threshold:
            return False
        del self.seen[key]
        return True

    def makes_room(self, key, touched):
        neighbours = [other for other in self.rows if self.bucket(other) == self.bucket(key)]
        if len(neighbours) < self.config.buckets.rows_per_bucket:
            return True
        leaving = [other for other in neighbours if other not in touched]
        if self.config.score == "no_eviction" or not leaving:
            return False
        del self.rows[min(leaving, key=lambda other: (self.rows[other][0], self.hash(other)))]
        return True

    def expire(self, step):
        if self.config.expiry:
            self.rows = {key: row for key, row in self.rows.items() if row[1] > step - self.config.expiry.steps}


@st.composite
def drawn(draw):
    # Under admission every key of a batch finds room: what is counted of a key without room is not promised.
    admission = draw(st.sampled_from([None, AfterCount(2)]))
    score = draw(st.sampled_from(["lfu", "step", "custom"] if admission else ["lfu", "step", "custom", "no_eviction"]))
    config = DynamicTableConfig(
        "t", draw(st.integers(12 if admission else 2, 24)), embedding_dim=1, combiner="sum", default=DEFAULT,
        initializer=Initializer("constant", FIRST), score=score, admission=admission,
        expiry=draw(st.sampled_from([None, AfterSteps(2)])),
        bucket_capacity=100 if admission else draw(st.sampled_from([3, 100])),
    )  # fmt: skip
    key = st.integers(-12, 12) | st.sampled_from([-(2**63), 2**63 - 1])
    batches = draw(st.lists(st.lists(key, min_size=BATCH * HOTNESS, max_size=BATCH * HOTNESS), min_size=1, max_size=5))
    return config, batches, draw(st.lists(st.integers(-5, 5), min_size=5, max_size=5)), draw(st.booleans())


def trained(comm, config, batches, customs, data_parallel_input):
    """(losses, what the table stores) of a rank."""
    case = Setup(
        (config,), {"t": HOTNESS}, optimizer=Optimizer("sgd"), data_parallel_input=data_parallel_input,
        settings={"safe_check": "count"},
    )  # fmt: skip
    rank, losses = RankOfSetup(case, comm), []
    for step, (keys, custom) in enumerate(zip(batches, customs, strict=False), 1):
        sample = Sample(np.array(keys, np.int64), np.full(BATCH, HOTNESS))
        made = rank.embedding.train_step(
            rank.ids({"t": sample}), lambda vectors: vectors["t"][:, 0], learning_rate=1.0, step=step,
            scores={"t": custom} if config.score == "custom" else None,
        )  # fmt: skip
        losses.append(float(made.loss))
        rank.embedding.expire(step)
    return losses, rank.stored("t")


@pytest.mark.parametrize("world_size", [1, 2])
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=drawn())
def test_the_table_is_the_dict(run_ranks, world_size, case):
    config, batches, customs, data_parallel_input = case
    model, losses = Model(config), []
    for step, (keys, custom) in enumerate(zip(batches, customs, strict=False), 1):
        losses.append(model.train(keys, step, custom))
        model.expire(step)

    def run(comm):
        return trained(comm, config, batches, customs, data_parallel_input)

    ranks = [run(SingleProcess())] if world_size == 1 else run_ranks(world_size, run)
    stored = {}
    for rank in ranks:
        if isinstance(rank, BaseException):
            raise rank
        assert rank[0] == losses
        stored |= rank[1]
    compared = slice(1 if config.score == "no_eviction" else 0, 2)
    assert {key: (entry[compared], float(entry[2]["weights"][0])) for key, entry in stored.items()} == {
        key: (tuple(row[compared]), row[2]) for key, row in model.rows.items()
    }
