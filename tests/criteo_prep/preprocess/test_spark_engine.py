"""`--engine spark` on this machine (local[2]): the bytes of the local engine, and errors in one line."""

import contextlib
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from support.any_logs import FILES, PACK, RULES, text_of
from support.log_samples import content, make, random_rows, write_rows

from criteo_prep import cli
from criteo_prep.preprocess.distributed.cluster import ClusterError
from criteo_prep.preprocess.distributed.task_sizes import TaskSizes
from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.preprocess.spark_engine import spark_cluster

pytest.importorskip("pyspark")

SIZES = TaskSizes(split_bytes=8000, part_rows=30, task_rows=100, bucket_rows=100)


@pytest.fixture(scope="module")
def spark():
    try:
        with spark_cluster("local[2]") as cluster:
            yield cluster
    except ClusterError as error:
        pytest.skip(str(error))


def on_spark(spark, paths, destination, **more):
    return make(paths, destination, start_cluster=lambda: contextlib.nullcontext(spark), task_sizes=SIZES, **more)


@pytest.fixture
def days(tmp_path):
    """Three days with zeros and missing values, CR LF and a bad row; the second is gzip."""
    texts = [random_rows(day, 50) for day in range(3)]
    texts[0][5] = texts[0][5].rsplit("\t", 3)[0] + "\t00000000\t\t0\r"
    texts[2][7] += "\t"
    names = ("day_0", "day_1.gz", "day_2")
    return [write_rows(tmp_path / name, rows) for name, rows in zip(names, texts, strict=True)]


@pytest.mark.parametrize(
    "rules",
    [{"threshold": "2,cat_3:5", "keep_raw": True}, {"shuffle": "global", "vocabulary_days": "train"}],
    ids=str,
)
def test_the_bytes_of_the_local_engine(spark, days, tmp_path, rules):
    local = make(days, tmp_path / "local", on_bad_row="skip", **rules)
    spread = on_spark(spark, days, tmp_path / "spread", on_bad_row="skip", **rules)
    assert content(tmp_path / "spread") == content(tmp_path / "local")
    assert spread.warnings == local.warnings and len(local.warnings) == 1


def check_any_logs(spark, folder, files, rules):
    folder.mkdir()
    paths = [folder / f"day_{number}" for number in range(len(files))]
    for path, (rows, pack, last_newline) in zip(paths, files, strict=True):
        path.write_bytes(PACK[pack](text_of(rows, last_newline)))
    found = []
    for name, run in (("local", make), ("spread", lambda *paths, **more: on_spark(spark, *paths, **more))):
        try:
            run(paths, folder / name, **rules)
            found.append(content(folder / name))
        except ValueError as error:
            found.append((type(error), str(error)))
    assert found[0] == found[1]


@pytest.mark.long
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=[Phase.generate])
@given(FILES, RULES)
def test_any_logs(spark, tmp_path, files, rules):
    check_any_logs(spark, tmp_path / str(len(list(tmp_path.iterdir()))), files, rules)


def test_a_bad_row_is_the_error_of_the_local_engine(spark, days, tmp_path):
    with pytest.raises(BadRowError) as local:
        make(days, tmp_path / "local")
    with pytest.raises(BadRowError) as spread:
        on_spark(spark, days, tmp_path / "spread")
    assert str(spread.value) == str(local.value)
    assert str(spread.value).startswith(f"{days[2]}: line 8: found 41 fields")
    assert not (tmp_path / "spread").exists()


def test_an_error_of_the_disk_is_one_line(spark):
    with pytest.raises(ClusterError) as error:
        spark.run(os.listdir, ["/proc/nothing/there"])
    assert str(error.value) == "[Errno 2] No such file or directory: '/proc/nothing/there'"


def test_a_fault_of_the_program_is_one_line(spark):
    with pytest.raises(ClusterError, match=r"^ValueError: invalid literal for int\(\) with base 10: 'five'$"):
        spark.run(int, ["five"])


def command(*more, days, output):
    words = ["preprocess", "--input", *map(str, days), "--output", str(output), "--threshold", "2"]
    return [*words, "--engine", "spark", *more]


def test_missing_pyspark_is_one_line(days, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    assert cli.main(command("--quiet", days=days, output=tmp_path / "set")) == 1
    error = capsys.readouterr().err
    assert error == (
        "criteo-prep: pyspark is not installed, which --engine spark needs. Run: pip install 'criteo-dlrm[spark]'.\n"
    )
    assert sorted(os.listdir(tmp_path)) == ["day_0", "day_1.gz", "day_2"]


def test_missing_java_is_one_line(days, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"}
    folder = tmp_path / "programs"  # everything that spark-submit calls, but Java
    folder.mkdir()
    for program in ("bash", "env", "dirname", "basename", "uname", "cat", "ps", "nice", "ls", "date", "sed", "python3"):
        for place in ("/usr/bin", "/bin"):
            if os.path.exists(f"{place}/{program}") and not (folder / program).exists():
                (folder / program).symlink_to(f"{place}/{program}")
    words = command("--quiet", days=days, output=tmp_path / "set")
    run = subprocess.run([sys.executable, "-m", "criteo_prep", *words], env=environment | {"PATH": str(folder)},
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 1 and "Traceback" not in run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("criteo-prep: Spark cannot be started. It needs Java 17 or later;"), line


@pytest.mark.parametrize("flags, complaint", [
    (["--engine", "spark", "--workers", "2"], "--workers has no effect with --engine spark"),
    (["--engine", "spark", "--memory_limit", "2G"], "--memory_limit has no effect with --engine spark"),
    (["--engine", "spark", "--conf", "spark.speculation"], "--conf spark.speculation: is not a setting KEY=VALUE"),
    (["--master", "local[2]"], "--master needs --engine spark"),
    (["--engine", "spark", "--schema", "s.yaml"], "a log with a schema has no --engine spark"),
])  # fmt: skip
def test_flags_of_the_other_engine_are_refused(days, tmp_path, flags, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["preprocess", "--input", *map(str, days), "--output", str(tmp_path / "set"), "--threshold", "2", *flags]
        )
    assert end.value.code == 2 and complaint in capsys.readouterr().err
