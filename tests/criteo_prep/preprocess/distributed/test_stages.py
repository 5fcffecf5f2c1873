"""Tasks on a cluster make the bytes of the local engine: any logs, any rules, any sizes of tasks, tasks run twice."""

import gzip
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.any_logs import FILES, PACK, RULES, text_of
from support.in_process_cluster import UnkindCluster, start_here
from support.log_samples import content, make, random_rows, write_rows
from support.remote_servers import web_server

from criteo_prep.preprocess import shuffle
from criteo_prep.preprocess.distributed.cluster import ClusterError
from criteo_prep.preprocess.distributed.task_sizes import TaskSizes
from criteo_prep.preprocess.parse.text_stream import InputError, TruncatedError
from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.preprocess.run import DifferentDatasetError

SMALL = TaskSizes(split_bytes=3000, part_rows=7, task_rows=20, bucket_rows=16)
SIZES = st.builds(
    TaskSizes,
    split_bytes=st.sampled_from([300, 1000, 1 << 20]),
    part_rows=st.sampled_from([3, 10, 1000]),
    task_rows=st.sampled_from([10, 1000]),
    bucket_rows=st.sampled_from([10, 1000]),
)
ANY_RUN = (FILES, RULES, SIZES, st.sampled_from([100, 1000, 1 << 20]), st.sampled_from([None, 0.5]), st.booleans())


def outcome_of(paths, destination, **more):
    """(bytes of every file, warnings), or (type of the error, its message)."""
    try:
        outcome = make(paths, destination, **more)
    except ValueError as error:
        return type(error), str(error)
    return content(destination), outcome.warnings


def check_equal(paths, folder, *, sizes=SMALL, block_bytes=1000, **more):
    """Both engines give the same; returns what they give."""
    local = outcome_of(paths, folder / "local", block_bytes=block_bytes, **more)
    spread = outcome_of(
        paths, folder / "spread", block_bytes=block_bytes, task_sizes=sizes, start_cluster=start_here(), **more
    )
    assert spread == local
    return local


def check_any_logs(files, rules, sizes, *, block_bytes, test_fraction, keep_raw):
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"day_{number}" for number in range(len(files))]
        for path, (rows, pack, last_newline) in zip(paths, files, strict=True):
            path.write_bytes(PACK[pack](text_of(rows, last_newline)))
        check_equal(paths, Path(folder), sizes=sizes, block_bytes=block_bytes, test_fraction=test_fraction,
                    keep_raw=keep_raw, **rules)  # fmt: skip


@settings(max_examples=8)
@given(*ANY_RUN)
def test_any_logs(files, rules, sizes, block_bytes, test_fraction, keep_raw):
    check_any_logs(files, rules, sizes, block_bytes=block_bytes, test_fraction=test_fraction, keep_raw=keep_raw)


@pytest.mark.long
@settings(max_examples=100)
@given(*ANY_RUN)
def test_many_more_logs(files, rules, sizes, block_bytes, test_fraction, keep_raw):
    check_any_logs(files, rules, sizes, block_bytes=block_bytes, test_fraction=test_fraction, keep_raw=keep_raw)


@pytest.fixture
def days(tmp_path):
    """Three days, the second as gzip; some values are 00000000, some are missing."""
    texts = [random_rows(day, 60) for day in range(3)]
    texts[0][5] = texts[0][5].rsplit("\t", 3)[0] + "\t00000000\t\t0"
    names = ("day_0", "day_1.gz", "day_2")
    return [write_rows(tmp_path / name, rows) for name, rows in zip(names, texts, strict=True)]


@pytest.mark.parametrize(
    "rules",
    [
        {"threshold": "2,cat_3:5,cat_25:0", "max_cardinality": "9,cat_2:4"},
        {"vocabulary_days": "train", "shuffle": "global", "seed": 7, "keep_raw": True},
        {"ids": "raw", "threshold": None},
        {"ids": "raw", "threshold": None, "shuffle": "global"},
    ],
    ids=str,
)
def test_rules(days, tmp_path, rules):
    files, _ = check_equal(days, tmp_path, **rules)
    assert "manifest.json" in files


def test_a_shuffle_of_many_buckets(days, tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "BUCKET_ROWS", 13)
    files, _ = check_equal(days, tmp_path, shuffle="global")
    in_order, _ = outcome_of(days, tmp_path / "in_order")
    assert files["train/cat_20.bin"] != in_order["train/cat_20.bin"]


def test_parquet_by_row_groups(tmp_path):
    rows = [row.split("\t") for row in random_rows(4, 90)]
    rows[50][0] = "2"
    columns = [[row[field] for row in rows] for field in range(40)]
    integers = [[int(x) if x else None for x in column] for column in columns[:14]]
    table = pyarrow.table([*integers, *columns[14:]], names=[f"_c{field}" for field in range(40)])
    pyarrow.parquet.write_table(table, tmp_path / "day_0.parquet", row_group_size=17)
    pyarrow.parquet.write_table(table.slice(0, 30), tmp_path / "day_1.parquet", row_group_size=30)
    days = [tmp_path / "day_0.parquet", tmp_path / "day_1.parquet"]
    kind, message = check_equal(days, tmp_path)
    assert kind is BadRowError and "day_0.parquet: line 51: field 1 (label)" in message
    files, warnings = check_equal(days, tmp_path, on_bad_row="skip")
    assert files and any("line 51" in warning for warning in warnings)


def test_inputs_by_url(days, tmp_path, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    served = tmp_path / "served"
    served.mkdir()
    for path in days:
        shutil.copy(path, served / path.name)
    with web_server(served, signature="X-Amz-Signature=f00dface") as (server, requests):
        urls = [f"{server}/{path.name}?X-Amz-Signature=f00dface" for path in days]
        files, _ = check_equal(urls, tmp_path, shuffle="global")
    assert {path for path, _ in requests} == {"/day_0", "/day_1.gz", "/day_2"}
    assert not any(b"f00dface" in data for data in files.values())


def test_long_lines_and_empty_files(tmp_path):
    row = random_rows(1, 1)[0]
    texts = ["", f"{row}\r\n{row}{' ' * 200_000}\n\n{row}", "\n"]
    days = [tmp_path / f"day_{day}" for day in range(3)]
    for path, text in zip(days, texts, strict=True):
        path.write_bytes(text.encode())
    _, warnings = check_equal(days, tmp_path, on_bad_row="skip")
    assert f"{days[0]}: holds no row" in warnings
    assert any("day_1: line 2: the line has more than 65536 bytes" in warning for warning in warnings)


def test_the_first_bad_row_of_all_is_reported(days, tmp_path):
    rows = random_rows(0, 60)
    rows[40], rows[55] = rows[40] + "\t", "2" + rows[55][1:]
    write_rows(days[0], rows)
    kind, message = check_equal(days, tmp_path)
    assert kind is BadRowError and f"{days[0]}: line 41: found 41 fields" in message
    assert not (tmp_path / "spread").exists()


def test_truncated_gzip(days, tmp_path):
    whole = gzip.compress(("\n".join(random_rows(9, 400)) + "\n").encode())
    days[1].write_bytes(whole[: len(whole) // 2])
    kind, message = check_equal(days, tmp_path)
    assert kind is TruncatedError and "day_1.gz: the gzip stream ends early" in message
    files, warnings = check_equal(days, tmp_path, on_truncated="keep")
    assert files and any("the file ends early, after line" in warning for warning in warnings)


def test_rows_without_labels_are_refused(tmp_path):
    day = write_rows(tmp_path / "day_0", [row[2:] for row in random_rows(1, 5)])
    kind, message = check_equal([day], tmp_path)
    assert kind is InputError and "criteo-prep encode" in message


class StoppedCluster(UnkindCluster):
    """Fails at its n-th job. It has many cores, so all columns are made at a time, in few jobs."""

    parallelism = 30

    def __init__(self, left):
        super().__init__()
        self._left = left

    def run(self, function, tasks):
        self._count()
        return super().run(function, tasks)

    def exchange(self, *arguments, **more):
        self._count()
        return super().exchange(*arguments, **more)

    def _count(self):
        self._left -= 1
        if self._left < 0:
            raise ClusterError("the cluster is gone")


@pytest.mark.parametrize("shuffled", ["none", pytest.param("global", marks=pytest.mark.long)])
def test_stopped_at_every_job_and_resumed(days, tmp_path, shuffled):
    expected, _ = outcome_of(days, tmp_path / "local", shuffle=shuffled, keep_raw=True, block_bytes=1000)
    num_parsed = []
    for stop in range(1, 100, 2):
        run = dict(shuffle=shuffled, keep_raw=True, block_bytes=1000, task_sizes=SMALL)
        found = outcome_of(days, tmp_path / "spread", start_cluster=start_here(StoppedCluster(stop)), **run)
        if found[0] is not ClusterError:
            break
        assert not (tmp_path / "spread").exists()
        cluster = UnkindCluster()
        found, _ = outcome_of(days, tmp_path / "spread", start_cluster=start_here(cluster), **run)
        assert found == expected
        num_parsed.append(sum(name == "parse_split" for name, _ in cluster.tasks))
        shutil.rmtree(tmp_path / "spread")
    assert num_parsed[0] > 10 and num_parsed[-1] == 0, "finished splits are not parsed again"
    assert len(num_parsed) > 3


def stop_after(jobs, days, destination, **rules):
    """Leaves the unfinished work of a run on a cluster."""
    found = outcome_of(days, destination, task_sizes=SMALL, start_cluster=start_here(StoppedCluster(jobs)), **rules)
    assert found[0] is ClusterError


def test_parts_are_kept_for_other_ids_and_not_for_other_rules_of_parsing(days, tmp_path):
    for rules, is_kept in (({"threshold": 9}, True), ({"shuffle": "global"}, True), ({"on_bad_row": "skip"}, False)):
        destination, cluster = tmp_path / "spread", UnkindCluster()
        stop_after(5, days, destination)
        expected, _ = outcome_of(days, tmp_path / "local", **rules, overwrite=True)
        found, _ = outcome_of(days, destination, task_sizes=SMALL, start_cluster=start_here(cluster), **rules)
        assert found == expected
        assert (sum(name == "parse_split" for name, _ in cluster.tasks) == 0) == is_kept
        shutil.rmtree(destination)


def test_the_engines_do_not_take_over_the_work_of_each_other(days, tmp_path, capfd):
    expected, _ = outcome_of(days, tmp_path / "local")
    stop_after(5, days, tmp_path / "first")
    from criteo_prep.preprocess.request import Resources
    from criteo_prep.preprocess.rules import make_rules
    from criteo_prep.preprocess.run import preprocess

    preprocess(days, tmp_path / "first", rules=make_rules(3))
    assert content(tmp_path / "first") == expected
    assert "was made by --engine spark; all of it is made again" in capfd.readouterr().err
    work = tmp_path / ".second.partial" / "work"
    work.mkdir(parents=True)
    (work / "journal.json").write_text("{}")
    preprocess(days, tmp_path / "second", rules=make_rules(3), start_cluster=start_here(),
               resources=Resources(task_sizes=SMALL))  # fmt: skip
    assert content(tmp_path / "second") == expected
    assert "was made by --engine local; all of it is made again" in capfd.readouterr().err


def test_a_finished_dataset_needs_no_cluster(days, tmp_path):
    make(days, tmp_path / "set")

    def start():
        raise AssertionError("no cluster is needed")

    assert make(days, tmp_path / "set", start_cluster=start).already_complete
    assert not make(days, tmp_path / "set", threshold=5, start_cluster=start).already_complete  # derived from its ids
    with pytest.raises(DifferentDatasetError):
        make(days[:2], tmp_path / "set", threshold=5, start_cluster=start)


def test_a_machine_that_does_not_see_the_output(days, tmp_path):
    class Elsewhere(UnkindCluster):
        def run(self, function, tasks):
            (probe,) = tmp_path.glob(".set.partial/work/probe")
            probe.unlink()
            return super().run(function, tasks)

    with pytest.raises(ClusterError, match="does not see this folder. --output must be on a file system that all"):
        make(days, tmp_path / "set", start_cluster=start_here(Elsewhere()))


def test_an_input_that_changes_during_the_run(days, tmp_path):
    class Touching(UnkindCluster):
        def run(self, function, tasks):
            if self.tasks:
                days[2].write_text(days[2].read_text() + "\n")
            return super().run(function, tasks)

    with pytest.raises(ValueError, match="day_2: changed while it was read"):
        make(days, tmp_path / "set", start_cluster=start_here(Touching()))


def test_counts_beyond_32_bits_are_not_cut():
    from criteo_prep.preprocess.distributed.counts import add_counts

    many = np.array([3 << 31, 1], np.int64)
    values, counts = add_counts([(np.array([5, 9], np.uint32), many), (np.array([5], np.uint32), many[:1])])
    assert values.tolist() == [5, 9] and counts.tolist() == [6 << 31, 1]
