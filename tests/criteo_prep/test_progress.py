import io
import json
import re
import subprocess
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
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("encode", 3000, unit="rows") as stage:
        clock.now += 0.4
        stage.advance(500)
        assert terminal.getvalue() == ""  # too early to say anything
        clock.now += 1.6
        stage.advance(500)
        first = without_codes(terminal.getvalue())
        clock.now += 2
        stage.advance(1000)
        second = without_codes(terminal.getvalue())[len(first) :]
        drawn = len(terminal.getvalue())
    assert first.count("encode") >= 1 and "33% 1.00 k rows, 500 rows/s" in first
    assert "67% 2.00 k rows, 500 rows/s 0:00:02" in second  # 1000 rows are left, at 500 rows a second
    last = terminal.getvalue()[drawn:]
    assert "\x1b[2K" in last and last.endswith("encode: 2.00 k rows in 4.0 s (500 rows/s)\n")  # the live line is gone


def test_a_terminal_without_a_known_end(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with pytest.raises(KeyboardInterrupt), Progress("[parse]", None, unit="rows") as stage:
        clock.now += 2
        stage.advance(500)
        assert "[parse]" in without_codes(terminal.getvalue()) and "500 rows, 250 rows/s" in terminal.getvalue()
        raise KeyboardInterrupt
    assert terminal.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K[parse]: 500 rows in 2.0 s (250 rows/s), stopped\n")


def without_codes(text):
    """What a terminal shows of a text, without the codes for colours and places."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_log_file_gets_a_line_now_and_then(clock, capsys):
    with Progress("read", None, unit="bytes") as stage:
        for _ in range(7):
            clock.now += 10
            stage.advance(5_000_000)
        lines = capsys.readouterr().err.splitlines()
    assert lines == ["read: 15.00 M bytes, 500.00 k bytes/s", "read: 30.00 M bytes, 500.00 k bytes/s"]


def test_a_file_gets_no_control_character_and_rich_is_not_imported(tmp_path):
    code = (
        "import sys\nfrom criteo_prep import progress\nprogress._REFRESH_IN_A_FILE_S = 0\n"
        "with progress.Progress('read', 4, unit='rows') as stage:\n    [stage.advance(1) for _ in range(4)]\n"
        "assert 'rich' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert run.returncode == 0 and run.stderr.count(b"\n") == 5, run.stderr
    assert not [byte for byte in run.stderr if byte < 32 and byte != 10]


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
