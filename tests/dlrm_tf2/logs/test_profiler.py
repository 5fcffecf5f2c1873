"""--profiler_start_step, --profiled_rank and --profiler_path: a trace of the right steps on the right rank."""

import pytest
import tensorflow as tf
from support import in_process
from support.small_dataset import write_dataset

from dlrm_tf2.config import ConfigError, TrainConfig
from dlrm_tf2.logs import profiler
from dlrm_tf2.logs.profiler import Profiler


def traces(folder):
    return sorted(folder.rglob("*.xplane.pb"))


@pytest.mark.parametrize("profiled_rank", [0, 1])
def test_only_the_profiled_rank_leaves_a_trace(tmp_path, profiled_rank):
    for rank in range(2):
        config = TrainConfig(dataset_path="data", profiler_start_step=2, profiled_rank=profiled_rank,
                             profiler_path=str(tmp_path / f"of_{rank}"))  # fmt: skip
        of_rank = Profiler(config, rank)
        for step in (1, 2, 3):
            of_rank.begin(step)
            tf.square(3.0)
            of_rank.end(step)
        of_rank.stop()  # the run ends before step 100
        of_rank.stop()
    assert traces(tmp_path / f"of_{profiled_rank}")
    assert not (tmp_path / f"of_{1 - profiled_rank}").exists()


@pytest.mark.parametrize(
    "first, last, profiled",
    [
        (1, 400, (150, 249)),
        (1, 200, (150, 200)),
        (200, 400, (200, 249)),  # resumed within them
        (1, 149, None),
        (250, 400, None),
    ],
)
def test_steps(monkeypatch, first, last, profiled):
    seen = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda path: seen.append(step))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: seen.append(step))
    of_rank = Profiler(TrainConfig(dataset_path="data", profiler_start_step=150), rank=0)
    for step in range(first, last + 1):
        of_rank.begin(step)
        of_rank.end(step)
    of_rank.stop()
    assert seen == list(profiled or ())


@pytest.mark.parametrize("world_size, ranks", [(1, "rank 0 is the only one"), (2, "the ranks are 0 to 1")])
def test_a_profiled_rank_that_is_not_there_is_refused(world_size, ranks):
    config = TrainConfig(dataset_path="data", profiler_start_step=1, profiled_rank=2)
    with pytest.raises(ConfigError, match=f"--profiled_rank is 2; {ranks}"):
        profiler.check_profiler_flags(config, world_size)
    profiler.check_profiler_flags(config, 3)
    profiler.check_profiler_flags(TrainConfig(dataset_path="data", profiled_rank=2), world_size)  # nothing is profiled


def test_training_leaves_a_trace_where_profiler_path_says(tmp_path):
    write_dataset(tmp_path / "data")
    arguments = ["--profiler_start_step", 3, "--profiler_path", tmp_path / "profile", "--evals_per_epoch", 0]
    in_process.run(tmp_path / "data", tmp_path / "log.json", *arguments)
    [trace] = traces(tmp_path / "profile")
    assert trace.stat().st_size > 0
    with pytest.raises(ConfigError, match="--profiled_rank is 1"):
        in_process.run(tmp_path / "data", tmp_path / "log.json", *arguments, "--profiled_rank", 1)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_place_of_profiler_path_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    config = TrainConfig(dataset_path="data", profiler_start_step=1, profiler_path=str(tmp_path / name))
    with pytest.raises(ConfigError, match="is a file, or lies in one"):
        profiler.check_profiler_flags(config, 1)


def test_a_profile_that_cannot_be_written_does_not_end_the_training(tmp_path, capsys):
    (tmp_path / "file").touch()
    of_rank = Profiler(TrainConfig(dataset_path="data", profiler_start_step=1, profiler_path=str(tmp_path / "file")), 0)
    of_rank.begin(1)
    of_rank.stop()
    assert "no profile was written" in capsys.readouterr().err
    tf.profiler.experimental.start(str(tmp_path / "another"))  # TensorFlow has released the lost profile
    tf.profiler.experimental.stop(save=False)
