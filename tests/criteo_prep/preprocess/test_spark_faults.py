"""A standalone Spark cluster of two workers: lost executors and workers, duplicate tasks, killed and interrupted
drivers leave no wrong byte, and no process."""

import os
import shutil
import signal

import pytest
from support.log_samples import content, make, random_rows, write_rows

pytest.importorskip("pyspark")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java, which is not installed", allow_module_level=True)

from support.spark_cluster import (
    SparkProcesses,
    kill,
    kill_tree,
    settings_as_flags,
    start_preprocess,
    wait_for_files,
)

pytestmark = pytest.mark.long

RULES = ("--threshold", "3", "--shuffle", "global", "--keep_raw")
PARTS, COLUMNS = "work/parts-*/split-*", "work/finished-*/*.json"
SPECULATION = settings_as_flags({
    "spark.speculation": "true", "spark.speculation.interval": "20ms", "spark.speculation.multiplier": "1.01",
    "spark.speculation.quantile": "0.1", "spark.speculation.minTaskRuntime": "1ms",
})  # fmt: skip


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """28 inputs, so that the parse has 28 tasks."""
    folder = tmp_path_factory.mktemp("days")
    return [write_rows(folder / f"day_{day}", random_rows(day, 1500)) for day in range(28)]


@pytest.fixture(scope="module")
def expected(days, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected") / "set"
    make(days, folder, shuffle="global", keep_raw=True)
    return content(folder)


@pytest.fixture
def cluster(tmp_path):
    with SparkProcesses(tmp_path / "cluster") as cluster:
        yield cluster


def end_of(process):
    output, error = process.communicate(timeout=500)
    assert process.returncode == 0, error
    return output


def test_lost_executors_and_duplicate_tasks(cluster, days, expected, tmp_path):
    process = start_preprocess(days, tmp_path / "set", *RULES, *cluster.flags(), *SPECULATION)
    killed = set()
    for pattern, number in ((PARTS, 4), (PARTS, 15), (COLUMNS, 1), (COLUMNS, 9)):
        assert wait_for_files(process, tmp_path / ".set.partial", pattern, number=number)
        if new := [pid for pid in cluster.executors() if pid not in killed]:
            kill(new[0])
            killed.add(new[0])
    end_of(process)
    assert content(tmp_path / "set") == expected
    assert len(killed) >= 2


def test_a_lost_worker(cluster, days, expected, tmp_path):
    process = start_preprocess(days, tmp_path / "set", *RULES, *cluster.flags())
    assert wait_for_files(process, tmp_path / ".set.partial", PARTS, number=5)
    kill_tree(cluster.workers[0].pid)
    assert wait_for_files(process, tmp_path / ".set.partial", COLUMNS, number=2)
    cluster.add_worker(2)
    end_of(process)
    assert content(tmp_path / "set") == expected


def test_a_killed_driver_is_resumed(cluster, days, expected, tmp_path):
    staging = tmp_path / ".set.partial"
    for pattern, number in ((PARTS, 6), (COLUMNS, 2)):
        process = start_preprocess(days, tmp_path / "set", *RULES, *cluster.flags())
        assert wait_for_files(process, staging, pattern, number=number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "set").exists()
    parts = {path: path.stat().st_mtime_ns for path in staging.glob(PARTS)}
    assert len(parts) == 28
    process = start_preprocess(days, tmp_path / "set", *RULES, *cluster.flags())
    assert wait_for_files(process, staging, COLUMNS, number=12)
    assert {path: path.stat().st_mtime_ns for path in staging.glob(PARTS)} == parts, "no part is made again"
    end_of(process)
    assert content(tmp_path / "set") == expected


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_the_application(cluster, days, expected, tmp_path, number, code):
    process = start_preprocess(days, tmp_path / "set", *RULES, *cluster.flags())
    assert wait_for_files(process, tmp_path / ".set.partial", PARTS, number=3)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in error and "java" not in error, error
    assert error.splitlines()[0].startswith("criteo-prep: the finished part of the work is kept in ")
    end_of(start_preprocess(days, tmp_path / "set", *RULES, *cluster.flags()))
    assert content(tmp_path / "set") == expected
