import io
import json
import sys

import pytest

from criteo_prep import progress
from criteo_prep.progress import Progress, progress_log


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when a test moves it."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_one_line_at_the_end(clock, capsys):
    with Progress("parse", 4000, unit="rows") as stage:
        for _ in range(4):
            clock.now += 0.5
            stage.advance(1000)
    assert capsys.readouterr().err == "parse: 4.00 k rows in 2.0 s (2.00 k rows/s)\n"


def test_a_terminal_sees_rate_and_time_left(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("encode", 3000, unit="rows") as stage:
        clock.now += 0.4
        stage.advance(500)
        assert terminal.getvalue() == ""  # too early to say anything
        clock.now += 1.6
        stage.advance(500)
    assert terminal.getvalue() == (
        "\rencode: 1.00 k rows, 500 rows/s, 33 %, 4 s left\x1b[K\r\x1b[Kencode: 1.00 k rows in 2.0 s (500 rows/s)\n"
    )


def test_a_log_file_gets_a_line_now_and_then(clock, capsys):
    with Progress("read", None, unit="bytes") as stage:
        for _ in range(7):
            clock.now += 10
            stage.advance(5_000_000)
        lines = capsys.readouterr().err.splitlines()
    assert lines == ["read: 15.00 M bytes, 500.00 k bytes/s", "read: 30.00 M bytes, 500.00 k bytes/s"]


def test_an_exception_is_reported(clock, capsys):
    with pytest.raises(KeyboardInterrupt), Progress("parse", 10, unit="rows"):
        clock.now += 1
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "parse: 0 rows in 1.0 s (0 rows/s), stopped\n"


def test_quiet_says_nothing(clock, capsys, monkeypatch):
    with Progress("parse", 10, unit="rows", quiet=True) as stage:
        clock.now += 100
        stage.advance(10)
    assert capsys.readouterr().err == "" and stage.done == 10


def test_no_time_at_all_is_no_division_by_zero(clock, capsys):
    with Progress("parse", 0, unit="rows") as stage:
        stage.advance(0)
    assert capsys.readouterr().err == "parse: 0 rows in 0.0 s (- rows/s)\n"


def test_a_log_is_appended_to_and_nothing_else_is(tmp_path):
    for _ in range(2):
        with (
            progress_log(str(tmp_path / "log")) as log,
            Progress("parse", 3, unit="rows", quiet=True, log=log) as stage,
        ):
            stage.advance(3)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["stage"], line["state"], line["done"]) for line in lines] == [("parse", "done", 3)] * 2
    (tmp_path / "empty").touch()
    with progress_log(str(tmp_path / "empty")) as log:
        print("{}", file=log)
    assert (tmp_path / "empty").read_text() == "{}\n"
    for content in (b"1\t2\t3\n", b'{"format": 1}\n', b"\x80"):
        (tmp_path / "rows.tsv").write_bytes(content)
        with pytest.raises(ValueError, match="--log_json .*rows.tsv: is not a log of progress. Name another file"):
            with progress_log(str(tmp_path / "rows.tsv")):
                pass
        assert (tmp_path / "rows.tsv").read_bytes() == content
    with progress_log("-") as log:
        assert log is sys.stderr
    with progress_log(None) as log:
        assert log is None
