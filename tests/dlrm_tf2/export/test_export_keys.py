"""Dynamic tables for other programs: keys next to rows, and a SavedModel that finds keys in plain TensorFlow ops."""

import numpy as np
import pytest
import tensorflow as tf
from support import in_process
from support.key_dataset import write_keys
from support.small_dataset import write_dataset

from dlrm_tf2 import ops
from dlrm_tf2.embedding.slab import WEIGHTS
from dlrm_tf2.export import __main__ as program
from dlrm_tf2.export.__main__ import ExportError, export

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no op library: {ops.why_unavailable()}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training on cat_0 and cat_2 with keys, some of which found no room; (root, run)."""
    root = tmp_path_factory.mktemp("export")
    write_keys(
        write_dataset(root / "ids", train=150, test=60, cardinalities=(30, 7, 50)), root / "set", ("cat_0", "cat_2")
    )
    full = ["--dynamic_capacity", 20, "--evict", "none", "--safe_check", "count"]
    run = in_process.run(root / "set", root / "log.json", *full, "--save_checkpoint_path", root / "saved")
    return root, run


def test_npy_files_have_the_keys_next_to_their_rows(trained, tmp_path):
    root, run = trained
    contents = export(root / "saved", tmp_path / "plain")
    assert [entry.get("keys") for entry in contents["features"]] == ["feature_0.keys.npy", None, "feature_2.keys.npy"]
    for number in (0, 2):
        table = run.job.model.embedding.dynamic_tables[f"cat_{number}"]
        stored, keys = table.stored(), np.load(tmp_path / f"plain/feature_{number}.keys.npy")
        assert keys.tolist() == sorted(stored.keys.tolist()) and len(keys) == 20
        rows = table.read(stored.rows[np.argsort(stored.keys)], WEIGHTS)
        np.testing.assert_array_equal(np.load(tmp_path / f"plain/feature_{number}.npy"), rows)


def test_a_served_model_finds_keys_and_has_zeros_for_others(trained, tmp_path, monkeypatch):
    root, run = trained
    monkeypatch.setattr(program.process, "set_up_process", lambda *_, **__: None)  # TensorFlow runs here already
    export(root / "saved", tmp_path / "served", "saved_model")
    answer = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    test = root / "set/test"
    columns = [
        np.fromfile(test / f"cat_{i}.bin", dtype).astype(np.int64) for i, dtype in enumerate(["<i8", "i1", "<i8"])
    ]
    columns[0][:3] = -(2**63), 2**63 - 1, 12345  # stored by nobody
    numerical = np.fromfile(test / "numerical.bin", np.float16).reshape(60, 13).astype(np.float32)
    ids = np.stack(columns, axis=1)
    found = answer(numerical_features=tf.constant(numerical), categorical_features=tf.constant(ids))["logits"]
    model = run.job.model
    by_name = {f"cat_{i}": column for i, column in enumerate(columns)}
    expected = model.logits(tf.constant(numerical), model.lookup(model.embedding.ids(by_name, {}, global_batch=60)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_no_published_reader_knows_keys(trained, tmp_path):
    with pytest.raises(ExportError, match="no published reader knows raw keys, which cat_0, cat_2 have"):
        export(trained[0] / "saved", tmp_path / "published", "published")
    assert not (tmp_path / "published").exists()
