"""Logs with a schema behind URLs: the samples of the local files, in every format."""

import polars
import pytest
from support.log_samples import content
from support.remote_servers import web_server

from criteo_prep import cli
from criteo_prep.manifest import load_manifest
from criteo_prep.preprocess.request import Resources
from criteo_prep.table.new_rows import encode_table
from criteo_prep.table.run import preprocess_table

SCHEMA = """
label: {column: click}
numerical: {price: {transform: log1p}}
categorical: {item: {threshold: 2}, tags: {separator: "|"}}
split: {test_fraction: 0.2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same rows in every format."""
    folder = tmp_path_factory.mktemp("logs")
    rows = [{"click": n % 3 // 2, "price": n % 50, "item": f"i{n * n % 97}", "tags": f"a|t{n % 7}"} for n in range(900)]
    frame = polars.DataFrame(rows)
    frame.write_csv(folder / "log.csv")
    frame.write_parquet(folder / "log.parquet", row_group_size=300)
    frame.write_ndjson(folder / "log.jsonl")
    frame.write_ipc(folder / "log.arrow", compat_level=polars.CompatLevel.oldest())
    (folder / "schema.yaml").write_text(SCHEMA)
    return folder


def made(folder, name, output):
    files = [name] if isinstance(name, str) else [folder / "log.csv"]
    preprocess_table(files, output, schema=folder / "schema.yaml", options={}, resources=Resources(quiet=True))
    return {name: data for name, data in content(output).items() if name != "manifest.json"}


@pytest.mark.parametrize("file", ["log.csv", "log.parquet", "log.jsonl", "log.arrow"])
def test_every_format(folder, tmp_path, file):
    expected = made(folder, str(folder / file), tmp_path / "local")
    with web_server(folder, signature="sig=HUSH") as (server, _):
        assert made(folder, f"{server}/{file}?sig=HUSH", tmp_path / "set") == expected
        new = {"destination": tmp_path / "new", "resources": Resources(quiet=True)}
        encode_table(tmp_path / "set", [f"{server}/{file}?sig=HUSH"], **new)
    entry = load_manifest(tmp_path / "set")["inputs"][0]
    assert entry["name"] == file and entry["bytes"] == (folder / file).stat().st_size and "etag" in entry
    assert not [name for name, data in content(tmp_path).items() if b"HUSH" in data]


def test_a_first_schema_a_pattern_and_a_missing_file(folder, tmp_path, capfd):
    with web_server(folder) as (server, _):
        assert cli.main(["schema", f"{server}/log.csv"]) == 0
        of_url = capfd.readouterr().out
        assert cli.main(["schema", f"{folder}/log.csv"]) == 0
        assert capfd.readouterr().out == of_url
        flags = ["--schema", f"{folder}/schema.yaml", "--output", f"{tmp_path}/set"]
        assert cli.main(["preprocess", f"{server}/*.csv", *flags]) == 1
        assert "is a pattern, and patterns are for local files" in capfd.readouterr().err
        assert cli.main(["preprocess", f"{server}/none.csv", *flags]) == 1
        assert "none.csv: does not exist" in capfd.readouterr().err
