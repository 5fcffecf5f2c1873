import numpy as np
import polars as pl

from criteo_prep.pages.id_counts import counted_parts


def test_any_number_of_parts_has_every_id_once():
    rng = np.random.default_rng(1)
    ids = {split: rng.integers(-(2**62), 2**62, 400)[rng.integers(0, 400, number)] for split, number in
           (("train", 5000), ("test", 700))}  # fmt: skip
    ids["train"][:3] = [-1, 2**63 - 1, -(2**63)]
    reads = []

    def read(split):
        reads.append(split)
        yield from np.array_split(ids[split], 7)

    for most_ids in (10**6, 300, 50):
        reads.clear()
        parts = list(counted_parts(read, ["train", "test"], most_ids=most_ids))
        found = pl.concat(parts)
        assert found["value"].is_unique().all() and len(reads) == 2 * len(parts)
        assert max(len(parts[0]), 1) <= most_ids and (len(parts) == 1) == (most_ids == 10**6)
        for split in ids:
            values, counts = np.unique(ids[split], return_counts=True)
            seen = found.filter(pl.col(split) > 0).sort("value")
            assert (seen["value"].to_list(), seen[split].to_list()) == (values.tolist(), counts.tolist())


def test_no_ids_at_all():
    (part,) = counted_parts(lambda split: iter([np.empty(0, np.int64)]), ["train"])
    assert part.columns == ["value", "train"] and len(part) == 0
