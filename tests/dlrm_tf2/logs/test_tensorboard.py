"""--tensorboard: TensorBoard's own reader finds the numbers of the log."""

import resource
import signal

import pytest
import tensorflow as tf
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.logs.run_log import RunLog

reader = pytest.importorskip(
    "tensorboard.backend.event_processing.plugin_event_accumulator", reason="TensorFlow came without TensorBoard"
)


def scalars(folder):
    """Name -> [(step, value)], as TensorBoard shows them."""
    found = reader.EventAccumulator(str(folder), size_guidance={reader.TENSORS: 0}).Reload()
    tags = found.Tags()[reader.TENSORS]
    assert {found.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags} == {"scalars"}
    return {
        tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in found.Tensors(tag)] for tag in tags
    }


def test_tensorboard_shows_what_the_log_holds(tmp_path):
    write_dataset(tmp_path / "data")
    run = in_process.run(
        tmp_path / "data", tmp_path / "log.json", "--tensorboard", tmp_path / "events", "--eval_every", 10
    )
    shown = scalars(tmp_path / "events")
    assert {"loss", "learning_rate", "samples_per_s", "data_wait_ms", "auc", "test_loss"} < set(shown)
    assert "step" not in shown and "throughput" not in shown
    for key in shown.keys() - {"memory_gib/0", "exchange_ms_of_ranks/0"}:
        logged = [(record["step"], record[key]) for record in run.records if key in record and "step" in record]
        assert shown[key] == [(step, float(tf.constant(value, tf.float32))) for step, value in logged], key
    assert [step for step, _ in shown["auc"]] == [10, 20]
    assert all(0 < gib < 100 for _, gib in shown["memory_gib/0"])


def log_steps(folder, first, last, loss, resumed=None):
    """A run that logs some steps, and is killed."""
    log = RunLog(None, enabled=True, resumed=resumed, tensorboard=str(folder))
    for step in range(first, last + 1):
        log.record({"step": step, "loss": loss})
        if step % 3 == 0:
            log.record({"step": step, "auc": loss / 10})


def test_a_run_that_was_killed_twice_is_one_curve(tmp_path):
    log_steps(tmp_path, 1, 8, 5.0)
    log_steps(tmp_path, 6, 12, 6.0, ("abc", 5))
    log_steps(tmp_path, 11, 14, 7.0, ("abc", 10))
    expected = [(step, 5.0 if step <= 5 else 6.0 if step <= 10 else 7.0) for step in range(1, 15)]
    shown = scalars(tmp_path)
    assert shown["loss"] == expected
    assert [step for step, _ in shown["auc"]] == [3, 6, 9, 12]


def test_a_new_run_in_the_folder_replaces_the_one_before(tmp_path):
    log_steps(tmp_path, 1, 8, 5.0)
    log_steps(tmp_path, 1, 2, 6.0)
    assert scalars(tmp_path) == {"loss": [(1, 6.0), (2, 6.0)], "auc": []}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"--tensorboard {tmp_path}/file: File exists"):
        RunLog(None, enabled=True, tensorboard=str(tmp_path / "file"))
    RunLog(None, enabled=False, tensorboard=str(tmp_path / "file"))  # other ranks do not write


def test_a_full_disk_is_named_once_and_ends_nothing(tmp_path, capsys):
    log = RunLog(None, enabled=True, tensorboard=str(tmp_path))
    log.record({"step": 1, "loss": 5.0})
    event_file = next(tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (event_file.stat().st_size, limits[1]))
    try:
        log.record({"step": 2, "loss": 4.0})
        log.record({"step": 3, "loss": 3.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    log.close()
    error = capsys.readouterr().err
    assert error.startswith(f"{event_file}: cannot be written: ") and error.count("without TensorBoard") == 1
    assert scalars(tmp_path)["loss"] == [(1, 5.0)]
