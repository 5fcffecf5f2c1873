"""--tensorboard: the scalars in the event file are the numbers of the log."""

import in_process
import pytest
import tensorflow as tf
from small_dataset import write_dataset

from dlrm_tf2.run_log import RunLog


def scalars(folder):
    """Name -> [(step, value)], as TensorBoard reads them."""
    found = {}
    [path] = folder.iterdir()
    for serialized in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(serialized)
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return found


def test_tensorboard_shows_what_the_log_holds(tmp_path):
    write_dataset(tmp_path / "data")
    run = in_process.run(tmp_path / "data", tmp_path / "log.json", "--tensorboard", tmp_path / "events",
                         "--eval_every", 10)  # fmt: skip
    shown = scalars(tmp_path / "events")
    assert {"loss", "learning_rate", "samples_per_s", "data_wait_ms", "auc", "test_loss"} < set(shown)
    assert "step" not in shown and "throughput" not in shown
    for key in shown.keys() - {"memory_gib/0", "exchange_ms_of_ranks/0"}:
        logged = [(record["step"], record[key]) for record in run.records if key in record and "step" in record]
        assert shown[key] == [(step, float(tf.constant(value, tf.float32))) for step, value in logged], key
    assert [step for step, _ in shown["auc"]] == [10, 20]
    assert all(0 < gib < 100 for _, gib in shown["memory_gib/0"])


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"--tensorboard {tmp_path}/file: File exists"):
        RunLog(None, enabled=True, tensorboard=str(tmp_path / "file"))
    RunLog(None, enabled=False, tensorboard=str(tmp_path / "file"))  # the other ranks do not write
