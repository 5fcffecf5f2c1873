"""The memory check of a synthetic model: bytes by hand, and advice that holds."""

import dataclasses
import re

import pytest

from dlrm_tf2.benchmarks.zoo_config import ZooConfig
from dlrm_tf2.benchmarks.zoo_memory import check_memory
from dlrm_tf2.config import ConfigError
from dlrm_tf2.job.preflight import DoesNotFit, Memory

GIB = 2**30


def check(config, world_size, available):
    return check_memory(config, config.plan(world_size), Memory("this machine", range(world_size), available))


def refusal(config, world_size, available):
    with pytest.raises(DoesNotFit) as refused:
        check(config, world_size, available)
    return str(refused.value)


@pytest.mark.parametrize("optimizer, copies", [("sgd", 1), ("adagrad", 2), ("adam", 3)])
def test_bytes_needed_and_available_are_named(optimizer, copies):
    config = ZooConfig(model="tiny", optimizer=optimizer, batch_size=4)
    text = refusal(config, 1, 3 * GIB)
    needed, available = map(int, re.findall(r"(\d+) bytes \(", text))
    tables = copies * 4 * 1_123_681_280  # elements of tiny, with the optimizer's state
    assert tables + 900 * 2**20 < needed < tables + 920 * 2**20  # a process, and little for a batch of 4
    assert available == 3 * GIB
    assert check(config, 1, needed).startswith("memory: about ")
    assert refusal(config, 1, needed - 1)


@pytest.mark.parametrize("model, optimizer, world_size, available, batch_size", [
    ("tiny", "adagrad", 1, 4 * GIB, 4),
    ("tiny", "sgd", 2, 5 * GIB, 1024),
    ("medium", "adam", 1, 16 * GIB, 4),
])  # fmt: skip
def test_the_scale_that_fits_fits_and_is_close_to_the_largest(model, optimizer, world_size, available, batch_size):
    config = ZooConfig(model=model, optimizer=optimizer, batch_size=batch_size)
    scale = float(re.search(r"It fits with --scale (\S+)\.$", refusal(config, world_size, available))[1])
    check(dataclasses.replace(config, scale=scale), world_size, available)
    assert refusal(dataclasses.replace(config, scale=1.2 * scale), world_size, available)


def test_a_batch_that_does_not_fit_at_any_scale():
    text = refusal(ZooConfig(model="small", batch_size=10_000_000), 1, 16 * GIB)
    assert text.endswith("Use a smaller --batch_size or --num_data_batches.")


@pytest.mark.parametrize("flags, message", [
    ({"batch_size": 0}, "--batch_size 0: it must be at least 1"),
    ({"alpha": -0.1}, "--alpha -0.1: it must be 0 (all ids equally often) or more"),
    ({"scale": 0.0}, "--scale 0.0: it must be above 0"),
    ({"model": "colossal", "scale": 2.0}, "the largest table of colossal would have 4000000000 rows"),
    ({"world_size": 2}, "--world_size 2: only --plan_only plans for any number of ranks"),
    ({"seed": -1}, "--seed -1: it must be from 0"),
])  # fmt: skip
def test_values_that_are_refused(flags, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        ZooConfig(**flags)


def test_defaults_are_the_published_ones_but_for_the_batches():
    config = ZooConfig()
    assert (config.model, config.optimizer, config.global_batch, config.alpha) == ("tiny", "sgd", 4, 1.05)
    assert (config.num_steps, config.dp_input, config.amp, config.column_slice_threshold) == (100, False, False, None)
    assert config.num_data_batches == 10 and ZooConfig(plan_only=True).global_batch == 65536
