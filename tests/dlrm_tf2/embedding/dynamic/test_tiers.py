"""A table with a part in a file is, bit for bit, the table in memory."""

import numpy as np
import pytest
from support.dynamic_case import RankOfSetup, Setup

from dlrm_tf2 import ops
from dlrm_tf2.embedding import DynamicTableConfig, TableConfig
from dlrm_tf2.embedding.dynamic.tiers import Tiers
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import SingleProcess

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")

WIDTH = 256


def setup(dtype, **settings):
    """9 MiB of weights in float32, and as much of state; one slab with a static table."""
    tables = DynamicTableConfig("d", 8000, embedding_dim=WIDTH, bucket_capacity=1000), TableConfig("s", 1000, WIDTH)
    optimizer = Optimizer("adagrad", initial_accumulator=0.1)
    return Setup(tables, {"d": 2, "s": 1}, optimizer=optimizer, dtype=dtype, settings=settings)


@pytest.mark.parametrize(("dtype", "memory_bytes"), [("bfloat16", 0), ("float32", 6 << 20)])
def test_the_same_bits_with_and_without_tiers(tmp_path, dtype, memory_bytes):
    tiers = Tiers(memory_bytes, str(tmp_path))
    ranks = [RankOfSetup(setup(dtype, **of), SingleProcess()) for of in ({}, {"tiers": tiers})]
    for number in range(1, 5):
        rng = np.random.default_rng(number)
        batch = ranks[0].setup.batch(rng, 1500, lambda f, n, rng=rng: rng.integers(0, 1000 if f == "s" else 2**50, n))
        in_memory, in_tiers = (rank.train(batch, number) for rank in ranks)
        assert in_memory == in_tiers
        np.testing.assert_array_equal(*(rank.evaluate(batch) for rank in ranks))
    assert ranks[1].embedding.dynamic_tables["d"].counters()["evicted"] > 2000
    expected, found = (rank.stored("d") for rank in ranks)
    assert found.keys() == expected.keys()
    for key, (score, step, slots) in expected.items():
        assert found[key][:2] == (score, step)
        for slot, row in slots.items():
            np.testing.assert_array_equal(found[key][2][slot], row)
    (shard,) = ranks[0].embedding.plan.of_table("s")
    for slot in ranks[0].embedding.slots:
        np.testing.assert_array_equal(*(r.embedding.read_rows(shard, slot, start=0, stop=1000) for r in ranks))


def test_what_is_refused(tmp_path):
    for tiers, message in (
        (Tiers(-1, str(tmp_path)), "memory_bytes -1; it must be 0 or more"),
        (Tiers(0, str(tmp_path / "nowhere")), "nowhere: is not a folder that can be written"),
    ):
        with pytest.raises(ValueError, match=message):
            RankOfSetup(setup("float32", tiers=tiers), SingleProcess())
