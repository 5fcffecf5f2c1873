"""What dynamicemb's benchmarks need in memory, by hand, and what is refused before anything is allocated."""

import re

import pytest

from dlrm_tf2.benchmarks import dynamic_memory
from dlrm_tf2.benchmarks.dynamic_config import CollectionConfig, TablesConfig
from dlrm_tf2.job.preflight import PROCESS_BYTES, DoesNotFit

GIB = 1 << 30


@pytest.mark.parametrize("optimizer, numbers_a_weight", [("sgd", 1), ("adam", 3)])
def test_the_dynamic_table_decides(optimizer, numbers_a_weight):
    # 8 Mi keys: 256 buckets of 32,768 keys, with room for 4.5 standard deviations more: 33,583 rows.
    rows = 256 * 33_583
    table = rows * (512 * numbers_a_weight + 48)
    config = TablesConfig(batch_size=1, num_embeddings_per_feature=8, num_iterations=1, optimizer_type=optimizer)
    need = table + PROCESS_BYTES + 7 * 512 + 60 + 16
    dynamic_memory.check_tables(config, need)
    with pytest.raises(DoesNotFit, match=f"they need {need} bytes .* and {need - 1} bytes .* It fits with --rows "):
        dynamic_memory.check_tables(config, need - 1)


def test_the_rows_that_are_advised_fit():
    config = TablesConfig(num_embeddings_per_feature=64)
    with pytest.raises(DoesNotFit) as refused:
        dynamic_memory.check_tables(config, 20 * GIB)
    advised = int(re.search(r"--rows (\d+)", str(refused.value))[1])
    assert 8 << 20 < advised < 64 << 20
    dynamic_memory.check_tables(TablesConfig(rows=advised), 20 * GIB)


def test_a_batch_that_does_not_fit_is_the_reason():
    with pytest.raises(DoesNotFit, match="Use a smaller --batch_size or --num_iterations"):
        dynamic_memory.check_tables(TablesConfig(batch_size=1 << 26, rows=100), GIB)
    with pytest.raises(DoesNotFit, match="Use a smaller --batch_size or more machines"):
        dynamic_memory.scaled_to_fit(CollectionConfig(), [0], world_size=1, available_bytes=2 * GIB)


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_largest_power_of_two_that_fits(dynamic):
    config = CollectionConfig(use_dynamic_embedding=dynamic)
    # 177,944,275 rows x 1,536 bytes are 255 GiB; 1/16 of them, 16 GiB, fit next to 5 GiB for the batch, 1/8 do not.
    assert dynamic_memory.scaled_to_fit(config, [0], world_size=1, available_bytes=22 * GIB) == 1 / 16
    assert dynamic_memory.scaled_to_fit(config, range(2), world_size=2, available_bytes=1 << 40) == 1


def test_a_given_scale_is_not_changed():
    config = CollectionConfig(scale=0.5)
    with pytest.raises(DoesNotFit, match="Use a smaller --scale, or leave it out"):
        dynamic_memory.scaled_to_fit(config, [0], world_size=1, available_bytes=22 * GIB)
