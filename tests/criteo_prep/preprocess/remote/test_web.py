"""Inputs on a web server: ranges, signed URLs whose signature appears nowhere, faults, and servers without ranges."""

import http.server
from pathlib import Path

import pytest
from support.log_samples import content, make, random_rows, write_rows
from support.remote_servers import FaultyProxy, PlainHandler, web_server

from criteo_prep import cli
from criteo_prep.preprocess.locations import location_of, open_location, size_of
from criteo_prep.preprocess.parse import parse_files
from criteo_prep.preprocess.remote import fetch, read_ahead, web
from criteo_prep.unchanged import ChangedError

SIGNATURE = "X-Amz-Credential=AKIAEXAMPLE&X-Amz-Signature=f00dfacef00dface"


@pytest.fixture
def days(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    write_rows(folder / "day_0", random_rows(0, 300))
    write_rows(folder / "day_1.gz", random_rows(1, 300))
    return folder


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch):
    monkeypatch.setattr(read_ahead, "FIRST_BYTES", 4 << 10)
    monkeypatch.setattr(read_ahead, "RANGE_BYTES", 16 << 10)
    monkeypatch.setattr(fetch, "LEAST_BYTES", 1 << 10)
    monkeypatch.setattr(fetch, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(web, "READ_TIMEOUT_S", 1)
    monkeypatch.delenv("http_proxy", raising=False)


def without_manifest(folder):
    return {name: data for name, data in content(folder).items() if name != "manifest.json"}


def test_signed_urls_give_the_same_bytes_and_the_signature_appears_nowhere(days, tmp_path, capfd):
    make([days / "day_0", days / "day_1.gz"], tmp_path / "local")
    secrets = [b"f00dface", b"AKIAEXAMPLE"]
    with web_server(days, signature=SIGNATURE) as (server, requests):
        urls = [f"{server}/{name}?{SIGNATURE}" for name in ("day_0", "day_1.gz")]
        flags = ["--threshold", "3", "--log_json", f"{tmp_path}/log.json"]
        assert cli.main(["preprocess", *urls, "--output", f"{tmp_path}/set", *flags]) == 0
        assert without_manifest(tmp_path / "set") == without_manifest(tmp_path / "local")
        assert max(path for path, _ in requests) == "/day_1.gz" and None not in [each for _, each in requests]
        for wrong in (
            [urls[0].replace("f00dface", "baddface")],
            [urls[0].replace("day_0", "day_7")],
            [urls[0], urls[0]],
            [f"{server}/?{SIGNATURE}"],
            [f"https://AKIAEXAMPLE:f00dface@{server.removeprefix('http://')}/day_0"],
            [urls[0].replace(server, "http://127.0.0.1:9")],
        ):
            assert cli.main(["preprocess", *wrong, "--output", f"{tmp_path}/other", *flags]) == 1
            assert len(capfd.readouterr().err.splitlines()) <= 20
        write_rows(days / "day_1.gz", [*random_rows(0, 20), "a bad row"])
        assert cli.main(["preprocess", *urls, "--output", f"{tmp_path}/bad", *flags]) == 1
        said = capfd.readouterr().err
        assert f"{server}/day_1.gz: line 21: found 1 fields" in said
        partial = (tmp_path / ".bad.partial" / "work" / "journal.json").read_text()
        assert f"{server}/day_0" in partial
        skip = ["--on_bad_row", "skip"]
        assert cli.main(["preprocess", *urls, "--output", f"{tmp_path}/bad", *flags, *skip]) == 0
        said += "".join(capfd.readouterr())
    outputs = {**content(tmp_path), "said": said.encode()}
    assert len(outputs) > 60
    assert not [name for name, data in outputs.items() if any(secret in data for secret in secrets)]


@pytest.mark.parametrize("query, change, complaint", [
    ("bad=f00d", {}, "permission denied .HTTP status 403.. Give credentials by ~/.netrc, or make a new signed URL"),
    (SIGNATURE, {"day_0": "day_7"}, "day_7: does not exist .HTTP status 404."),
])  # fmt: skip
def test_what_is_wrong(days, query, change, complaint):
    with web_server(days, signature=SIGNATURE) as (server, _):
        url = f"{server}/day_0?{query}"
        for old, new in change.items():
            url = url.replace(old, new)
        with pytest.raises(OSError, match=complaint) as error:
            size_of(location_of(url))
        assert "f00d" not in str(error.value)


@pytest.mark.parametrize("faults", [
    [("drop", 3000)] * 12,
    [("busy",), ("busy",), ("drop", 0), None] * 4,
    [("drop", 100), None] * 5,
    [("stall", 6000)],
], ids=["drop", "busy", "header", "stall"])  # fmt: skip
def test_faults_of_the_connection(days, faults):
    data = (days / "day_0").read_bytes()
    with web_server(days) as (server, _):
        port = int(server.rpartition(":")[2])
        with FaultyProxy(("127.0.0.1", port), faults) as proxy:
            with open_location(location_of(f"http://127.0.0.1:{proxy.port}/day_0")) as file:
                assert file.read() == data
            assert proxy.num_faults == sum(fault is not None for fault in faults)


def test_a_server_without_ranges_is_refused(days, tmp_path, capfd):
    with web_server(days, handler=PlainHandler) as (server, _):
        assert cli.main(["preprocess", f"{server}/day_0", "--output", f"{tmp_path}/set", "--threshold", "3"]) == 1
    assert "/day_0: the server does not answer requests for ranges of bytes" in capfd.readouterr().err


def test_a_file_that_changes_between_two_ranges(days, tmp_path, monkeypatch):
    text_blocks = parse_files.text_blocks

    def changing(path, *more, **named):
        for block in text_blocks(path, 5000, **named):
            yield block
            write_rows(days / "day_0", random_rows(9, 300))

    monkeypatch.setattr(parse_files, "text_blocks", changing)
    with web_server(days) as (server, _), pytest.raises(ChangedError, match="day_0: changed while it was read"):
        make(f"{server}/day_0", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_empty_file(days):
    (days / "day_2").touch()
    with web_server(days) as (server, _):
        assert size_of(location_of(f"{server}/day_2")) == 0
        with open_location(location_of(f"{server}/day_2")) as file:
            assert file.read() == b""


def test_a_redirection_to_a_signed_address(days):
    with web_server(days, signature=SIGNATURE) as (server, _):

        class Redirecting(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(302)
                self.send_header("Location", f"{server}{self.path}?{SIGNATURE}")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        from support.remote_servers import serve

        front = serve(Redirecting)
        url = f"http://127.0.0.1:{front.server_address[1]}"
        with open_location(location_of(f"{url}/day_0")) as file:
            assert file.read() == Path(days / "day_0").read_bytes()
        with pytest.raises(OSError, match="does not exist") as error:
            size_of(location_of(f"{url}/day_9"))
        assert "Signature" not in str(error.value)
        front.shutdown()
        front.server_close()
