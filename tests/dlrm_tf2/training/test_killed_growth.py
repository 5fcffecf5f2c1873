"""kill -9 at file operations of checkpoints while dynamic tables grow: the same command resumes the same training."""

import contextlib
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from support import in_process
from support.key_dataset import write_keys
from support.programs import REPOSITORY
from support.small_dataset import write_dataset

from dlrm_tf2 import ops
from dlrm_tf2.checkpoint import open_checkpoint
from dlrm_tf2.job import start
from dlrm_tf2.runtime.stopping import NEVER

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no op library: {ops.why_unavailable()}")
FLAGS = """--optimizer adagrad --learning_rate 0.1 --dynamic_capacity 4000 --max_steps 16 --evals_per_epoch 0
    --checkpoint_every 2 --keep_checkpoints 2""".split()  # a key of cat_0 or cat_1 is new more often than not


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("keys")
    write_keys(write_dataset(root / "ids", train=800, test=50, cardinalities=(3000, 2000)), root / "keys")
    return root / "keys"


class Command:
    """A training in this process, or in one that is killed at a file operation on its checkpoints."""

    def __init__(self, data, folder, *more):
        self.data, self.folder, self.log = data, folder / "checkpoints", folder / "log.json"
        self.folder.mkdir(parents=True)
        self.flags = [str(one) for one in (*FLAGS, "--save_checkpoint_path", self.folder / "saved", *more)]

    def run(self, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(start, "StopRequest", lambda: contextlib.nullcontext(NEVER))
            return in_process.run(self.data, self.log, *self.flags)

    def kill_at(self, number):
        """Returns whether it was killed; else it has finished."""
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
        process = subprocess.run(
            [sys.executable, "-m", "support.killed_at", str(number), self.folder, "dlrm_tf2.dlrm", "--dataset_path",
             self.data, *in_process.TINY, "--log_path", self.log, *self.flags],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert process.returncode in (0, -9), process.stderr
        return process.returncode == -9

    def stored(self):
        """table -> (keys, steps, weights), in the order of the keys."""
        folder, manifest = open_checkpoint(self.folder / "saved")
        found = {}
        for name in manifest.dynamic_tables:
            files = {one.slot: np.load(folder / one.file.path) for one in manifest.shards if one.table == name}
            order = np.argsort(files["keys"])
            found[name] = [files[slot][order] for slot in ("keys", "steps", "weights")]
        return found


def assert_same(found, expected):
    assert found.keys() == expected.keys() == {"cat_0", "cat_1"}
    for name, (keys, steps, weights) in expected.items():
        assert len(keys) > 400
        np.testing.assert_array_equal(found[name][0], keys)
        np.testing.assert_array_equal(found[name][1], steps)
        # The killed process is another process than this one; why its last bits differ was not found.
        np.testing.assert_allclose(found[name][2], weights, rtol=0, atol=1e-4)


def test_killed_in_a_checkpoint_of_growing_tables(data, tmp_path, monkeypatch):
    whole, parts = (Command(data, tmp_path / name) for name in ("whole", "parts"))
    number = random.randint(40, 90)  # the first checkpoint is complete after 32 operations
    assert parts.kill_at(number), number
    parts.run(monkeypatch)
    assert '"resumed_step"' in parts.log.read_text(), number
    whole.run(monkeypatch)
    assert_same(parts.stored(), whole.stored())
    assert sorted(os.listdir(parts.folder)) == sorted(os.listdir(whole.folder))


@pytest.mark.long
@pytest.mark.parametrize("more", [[], ["--checkpoint_async"], ["--evict_below_norm", "0.01"]])
def test_killed_in_many_checkpoints_of_growing_tables(data, tmp_path, monkeypatch, more):
    whole, parts = (Command(data, tmp_path / name, *more) for name in ("whole", "parts"))
    kills = 0
    while kills < 12 and parts.kill_at(random.randint(1, 150)):
        kills += 1
    parts.run(monkeypatch)
    whole.run(monkeypatch)
    assert_same(parts.stored(), whole.stored())
    assert sorted(os.listdir(parts.folder)) == sorted(os.listdir(whole.folder))
