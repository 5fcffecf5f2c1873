"""Spelling of flags, and how a command ends: exit codes and single lines, never a traceback."""

import argparse
import signal
import subprocess
import sys

import pytest

from criteo_prep.flags import exit_code, run_program, with_underscores


def test_hyphens_are_underscores_in_flags_only():
    argv = ["--test-file", "a-b", "--dst-path=c-d", "-x-y", "--slot-size-array", "[1, -2]"]
    assert with_underscores(argv) == ["--test_file", "a-b", "--dst_path=c-d", "-x-y", "--slot_size_array", "[1, -2]"]


@pytest.mark.parametrize("error, code, line", [
    (ValueError("a.bin: row 3: no number"), 1, "prog: a.bin: row 3: no number"),
    (FileNotFoundError(2, "No such file", "a.bin"), 1, "prog: [Errno 2] No such file: 'a.bin'"),
    (MemoryError("Unable to allocate 5. GiB"), 1, "prog: out of memory. Unable to allocate 5. GiB"),
    (MemoryError(), 1, "prog: out of memory."),
    (KeyboardInterrupt(), 130, "prog: interrupted; nothing half-written is left"),
])  # fmt: skip
def test_what_ends_a_command(capsys, error, code, line):
    def run():
        raise error

    assert exit_code("prog", run) == code
    assert capsys.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_like_ctrl_c(capsys, number, code):
    removed, before = [], signal.signal(number, signal.SIG_DFL)  # under nohup, SIGHUP is ignored

    def run():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGTERM)  # another signal does not stop the removing
            removed.append("its files")

    try:
        assert exit_code("prog", run) == code and removed
        assert capsys.readouterr().err == f"prog: ended by {number.name}; nothing half-written is left\n"
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert exit_code("prog", lambda: signal.raise_signal(signal.SIGHUP) or 7) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_defect_of_ours_is_not_hidden():
    def run():
        raise AssertionError

    with pytest.raises(AssertionError):
        exit_code("prog", run)


def test_a_whole_command(capsys):
    def add(parser: argparse.ArgumentParser):
        parser.add_argument("--some_number", type=int)

    def run(arguments):
        return arguments.some_number

    assert run_program("prog", "What it does.", add_arguments=add, run=run, argv=["--some-number", "7"]) == 7
    for argv, code in ((["--help"], 0), (["--some"], 2), (["--some_number", "x"], 2)):
        with pytest.raises(SystemExit) as end:
            run_program("prog", "What it does.", add_arguments=add, run=run, argv=argv)
        assert end.value.code == code
    heard = capsys.readouterr()
    assert "usage: prog" in heard.out and "What it does." in heard.out


def test_a_reader_that_goes_away():
    program = "import sys; from criteo_prep.flags import exit_code; sys.exit(exit_code('prog', lambda: print('x')))"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141
    process.stderr.close()
