"""Inputs on an S3 server: the bytes of a dataset of local files, through faults, changes, kills and resumes."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from support.log_samples import content, make, random_rows, write_rows
from support.remote_servers import SECRET_KEY, Bucket, FaultyProxy, s3_server

from criteo_prep import cli
from criteo_prep.manifest import load_manifest
from criteo_prep.preprocess.locations import location_of, open_location, size_of
from criteo_prep.preprocess.new_rows import encode
from criteo_prep.preprocess.parse import parse_files
from criteo_prep.preprocess.remote import fetch, object_store, read_ahead
from criteo_prep.preprocess.remote.errors import MissingError, RefusedError
from criteo_prep.preprocess.request import Resources
from criteo_prep.unchanged import ChangedError

ROOT = Path(__file__).parents[4]
ROWS = 500


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """A folder with a day as plain text, gzip, zstd and parquet, and one more plain day."""
    folder = tmp_path_factory.mktemp("days")
    write_rows(folder / "day_0", random_rows(0, ROWS))
    write_rows(folder / "day_1.gz", random_rows(1, ROWS))
    text = "".join(row + "\n" for row in random_rows(2, ROWS)).encode()
    (folder / "day_2.zst").write_bytes(zstandard.compress(text))
    fields = [row.split("\t") for row in random_rows(3, ROWS)]
    columns = {
        name: [field if number > 13 else int(field) if field else None for field in column]
        for number, (name, column) in enumerate(zip(NAMES, zip(*fields, strict=True), strict=True))
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "day_3.parquet", row_group_size=200)
    write_rows(folder / "day_4", random_rows(4, ROWS))
    return folder


NAMES = ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]


@pytest.fixture(scope="module")
def bucket(server, days):
    bucket = Bucket(server)
    for path in days.iterdir():
        bucket.put(path, f"logs/{path.name}")
    bucket.put(b"x", "logs/_SUCCESS")
    bucket.put(b"x", "logs/README")
    return bucket


@pytest.fixture(scope="module")
def expected(days, tmp_path_factory):
    """The files of the dataset that is made of the local files."""
    folder = tmp_path_factory.mktemp("local") / "set"
    make(days, folder)
    return data_of(folder)


@pytest.fixture(autouse=True)
def credentials(monkeypatch, server, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    through(monkeypatch, server[1])


def through(monkeypatch, port):
    """From now on, S3 is behind this port."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    object_store._store_of.cache_clear()


@pytest.fixture
def short_ranges(monkeypatch):
    """Small files have many ranges, and a failure costs no time."""
    monkeypatch.setattr(read_ahead, "FIRST_BYTES", 4 << 10)
    monkeypatch.setattr(read_ahead, "RANGE_BYTES", 16 << 10)
    monkeypatch.setattr(fetch, "LEAST_BYTES", 1 << 10)
    monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(object_store, "READ_TIMEOUT_S", 1)


def data_of(folder):
    """The files of a dataset without its manifest, whose inputs have ETags or times of change."""
    return {name: data for name, data in content(folder).items() if name != "manifest.json"}


def test_a_folder_with_every_form(bucket, expected, tmp_path, capfd):
    assert cli.main(["preprocess", f"{bucket.url}/logs/", "--output", f"{tmp_path}/set", "--threshold", "3"]) == 0
    said = capfd.readouterr().err
    assert "s3://criteo-logs/logs/README: was not read" in said and "_SUCCESS" not in said
    assert data_of(tmp_path / "set") == expected
    for entry in load_manifest(tmp_path / "set")["inputs"]:
        assert sorted(entry) == ["bytes", "etag", "name", "rows", "skipped"] and entry["rows"] == ROWS
    again = ["preprocess", f"{bucket.url}/logs", "--output", f"{tmp_path}/set", "--threshold", "3"]
    assert cli.main(again) == 0 and "already complete" in capfd.readouterr().out


def test_days_test_file_and_new_rows(bucket, days, tmp_path):
    make(days, tmp_path / "a", days="0-1,4")
    make(f"{bucket.url}/logs", tmp_path / "b", days="0-1,4")
    assert data_of(tmp_path / "a") == data_of(tmp_path / "b")
    make([days / "day_0", days / "day_1.gz"], tmp_path / "c", test_file=days / "day_4")
    make([f"{bucket.url}/logs/day_0", days / "day_1.gz"], tmp_path / "d", test_file=f"{bucket.url}/logs/day_4")
    assert data_of(tmp_path / "c") == data_of(tmp_path / "d")
    encode(tmp_path / "a", [days / "day_3.parquet"], destination=tmp_path / "e", resources=Resources(quiet=True))
    url = f"{bucket.url}/logs/day_3.parquet"
    encode(tmp_path / "a", [url], destination=tmp_path / "f", resources=Resources(quiet=True))
    assert data_of(tmp_path / "e") == data_of(tmp_path / "f")


def test_part_files(bucket, days, tmp_path):
    for number, day in enumerate(("day_0", "day_1.gz")):
        bucket.put(days / day, f"parts/part-0000{number}{Path(day).suffix}")
    make(f"{bucket.url}/parts/", tmp_path / "set")
    assert sum(entry["rows"] for entry in load_manifest(tmp_path / "set")["inputs"]) == 2 * ROWS


@pytest.mark.parametrize("faults", [
    [("drop", 10_000)] * 12,
    [("drop", 0), ("busy",), ("drop", 200), ("drop", 40_000)] * 4,
    pytest.param([("stall", 40_000), ("stall", 100)], marks=pytest.mark.long),
], ids=["drop", "busy", "stall"])  # fmt: skip
def test_faults_of_the_connection(bucket, expected, tmp_path, monkeypatch, server, short_ranges, faults):
    with FaultyProxy(server, faults) as proxy:
        through(monkeypatch, proxy.port)
        make(f"{bucket.url}/logs/", tmp_path / "set")
        assert proxy.num_faults == len(faults)
    assert data_of(tmp_path / "set") == expected


@pytest.mark.parametrize("cut", [1, 50, 100, 200, 300, 400])
def test_an_answer_that_is_cut_off_in_its_header_brings_no_wrong_bytes(
    bucket, days, monkeypatch, server, short_ranges, cut
):
    data = (days / "day_0").read_bytes()
    with FaultyProxy(server, [("drop", cut), None] * 4) as proxy:
        through(monkeypatch, proxy.port)
        with open_location(location_of(f"{bucket.url}/logs/day_0")) as file:
            assert file.read() == data
        assert proxy.num_faults


def test_a_connection_that_stays_away(bucket, expected, tmp_path, monkeypatch, server, short_ranges, capfd):
    command = ["preprocess", f"{bucket.url}/logs/", "--output", f"{tmp_path}/set", "--threshold", "3", "--quiet"]
    with FaultyProxy(server) as proxy, monkeypatch.context() as patch:
        through(monkeypatch, proxy.port)
        text_blocks = parse_files.text_blocks

        def losing(path, *more, **named):
            for number, block in enumerate(text_blocks(path, 20_000, **named)):
                yield block
                if path.name == "day_4" and number == 2:
                    proxy.lose_everything()

        patch.setattr(parse_files, "text_blocks", losing)
        assert cli.main(command) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and "is kept in" in said[0]
    assert said[1].startswith("criteo-prep: s3://criteo-logs/logs/day_4: could not be read at byte ")
    assert "in 5 attempts: " in said[1] and not (tmp_path / "set").exists()
    through(monkeypatch, server[1])
    command.remove("--quiet")
    assert cli.main(command) == 0
    assert data_of(tmp_path / "set") == expected
    resumed = capfd.readouterr().err
    assert "resuming" in resumed and f"{4 * ROWS:,}"[0] in resumed


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_file_that_changes(bucket, days, tmp_path, monkeypatch, change):
    url = bucket.put(days / "day_0", f"changes/{change}_0")
    text_blocks = parse_files.text_blocks

    def changing(path, *more, **named):
        yield from text_blocks(path, *more, **named)
        if change == "deleted":
            bucket.delete(f"changes/{change}_0")
        else:
            bucket.put(days.joinpath("day_0").read_bytes()[::-1], f"changes/{change}_0")

    monkeypatch.setattr(parse_files, "text_blocks", changing)
    expected = "changed while it was read .its bytes were written" if change == "replaced" else "disappeared while"
    with pytest.raises(ChangedError, match=f"{change}_0: {expected}"):
        make(url, tmp_path / "set")
    assert not (tmp_path / "set").exists()


CHILD = """
import os, signal, sys
from criteo_prep.preprocess.parse.row_writer import Checkpoints
from support.log_samples import make
left, save = int(sys.argv[1]), Checkpoints.save
def killed_after(checkpoints):
    global left
    save(checkpoints)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
Checkpoints.save = killed_after
make(sys.argv[3:], sys.argv[2], block_bytes=20_000, checkpoint_bytes=0)
"""


@pytest.mark.parametrize("checkpoints", [(6,), pytest.param((3, 9, 7), marks=pytest.mark.long)])
def test_killed_and_resumed(bucket, days, expected, tmp_path, checkpoints):
    urls = [f"{bucket.url}/logs/{path.name}" for path in days.iterdir()]
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    for checkpoint in (*checkpoints, 1000):
        command = [sys.executable, "-c", CHILD, str(checkpoint), str(tmp_path / "set"), *urls]
        run = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
        assert run.returncode == (0 if checkpoint == 1000 else -signal.SIGKILL), run.stderr
    assert data_of(tmp_path / "set") == expected


def test_a_file_that_is_replaced_between_two_runs_is_parsed_again(bucket, days, tmp_path, capfd):
    for day in ("day_0", "day_4"):
        bucket.put(days / day, f"between/{day}")
    command = ["preprocess", f"{bucket.url}/between/", "--output", f"{tmp_path}/set", "--threshold", "3"]
    assert cli.main(command) == 0
    bucket.put(days / "day_0", "between/day_4")
    assert cli.main(command) == 1
    assert "input 2 (day_4): etag existing" in capfd.readouterr().err


def test_what_is_wrong_is_said_in_one_line(bucket, monkeypatch, tmp_path, capfd):
    def said(*inputs):
        assert cli.main(["preprocess", *inputs, "--output", f"{tmp_path}/set", "--threshold", "3"]) == 1
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and not (tmp_path / "set").exists()
        return lines[0]

    assert "s3://criteo-logs/logs/day_9: does not exist" in said(f"{bucket.url}/logs/day_9")
    assert "s3://no-such-bucket/day_0: there is no bucket no-such-bucket" in said("s3://no-such-bucket/day_0")
    assert "is given twice" in said(f"{bucket.url}/logs/day_0", f"{bucket.url}/logs/day_0")
    monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.001)
    through(monkeypatch, 9)
    line = said(f"{bucket.url}/logs/day_0")
    assert "in 5 attempts: " in line and "Could not connect" in line


@pytest.mark.parametrize("error, complaint", [
    ("When reading: AWS Error ACCESS_DENIED during HeadObject operation: No response body.", "permission denied, or"),
    ("When getting: AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No response body. Looks like the "
     "configured region is 'us-east-1' while the bucket is located in 'eu-west-1'.", "Set AWS_REGION=eu-west-1 in"),
    ("Unable to load libjvm: dlopen failed", "HDFS needs Hadoop's client"),
    ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", "does not exist"),
])  # fmt: skip
def test_errors_after_which_another_attempt_does_not_help(monkeypatch, error, complaint):
    class Store:
        num_calls = 0

        def open_input_file(self, path):
            self.num_calls += 1
            raise OSError(error)

        def get_file_info(self, path):
            raise OSError(error)

    store = Store()
    monkeypatch.setattr(object_store, "_store_of", lambda scheme, place: store)
    with pytest.raises((RefusedError, MissingError), match=complaint) as raised:
        size_of(location_of("gs://bucket/day_0"))
    assert store.num_calls == (2 if raised.type is MissingError else 1) and str(raised.value).startswith(
        "gs://bucket/day_0: "
    )


@pytest.mark.parametrize("url, path", [
    ("gs://bucket/logs/day_0", "bucket/logs/day_0"),
    ("gs://anonymous@bucket/logs/day_0", "bucket/logs/day_0"),
    ("abfs://container@account.dfs.core.windows.net/logs/day_0", "container/logs/day_0"),
    ("abfss://account.dfs.core.windows.net/container/logs/day_0", "container/logs/day_0"),
    ("hdfs://node:8020/logs/day_0", "/logs/day_0"),
])  # fmt: skip
def test_other_stores_are_asked_for_the_right_path(monkeypatch, tmp_path, url, path):
    """The stores themselves are not here: a folder stands for each."""
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    file = tmp_path / path.lstrip("/")
    file.parent.mkdir(parents=True)
    write_rows(file, random_rows(0, 50))
    store = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    monkeypatch.setattr(object_store, "_store_of", lambda scheme, place: store)
    location = location_of(url)
    with open_location(location) as opened:
        assert opened.read() == file.read_bytes()
    make(url.rpartition("/")[0], tmp_path / "set")
    entry = load_manifest(tmp_path / "set")["inputs"][0]
    assert entry["name"] == "day_0" and entry["bytes"] == file.stat().st_size
    assert entry["modified_ns"] == file.stat().st_mtime_ns


def test_another_process_opens_a_pickled_location(bucket, days):
    location = pickle.loads(pickle.dumps(location_of(f"{bucket.url}/logs/day_0")))
    assert size_of(location) == (days / "day_0").stat().st_size
    with open_location(location) as file:
        file.seek(1000)
        assert file.read(20) == (days / "day_0").read_bytes()[1000:1020] and file.tell() == 1020


def test_no_secret_is_in_any_output(bucket, tmp_path, capfd, monkeypatch):
    log, flags = tmp_path / "log.json", ["--output", f"{tmp_path}/set", "--threshold", "3", "--log_json"]
    assert cli.main(["preprocess", f"{bucket.url}/logs/", *flags, str(log)]) == 0
    assert cli.main(["preprocess", f"{bucket.url}/nothing", *flags, str(log)]) == 1
    said = capfd.readouterr()
    outputs = [said.out.encode(), said.err.encode(), *content(tmp_path).values()]
    assert len(outputs) > 30 and not [data for data in outputs if SECRET_KEY.encode() in data or b"AKIA" in data]
