"""A terminal that cannot be written ends no work, and no exit status changes."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from dlrm_tf2.runtime import terminal
terminal.open_standard_streams()
for number in range(3):
    terminal.say(f"line {number}")
terminal.warn(f"is a terminal: {terminal.is_terminal()}")
sys.exit(7)
"""


@pytest.mark.parametrize("redirection, warnings", [
    (">/dev/full", ["standard output: cannot be written: No space left on device. The run continues without it."]),
    (">&-", []),
    (">/dev/full 2>/dev/full", None),
    ("2>&-", None),
    ("| true; exit ${PIPESTATUS[0]}", None),
])  # fmt: skip
def test_lines_that_cannot_be_printed(redirection, warnings):
    run = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, PROGRAM],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 7 and "Traceback" not in run.stderr
    if warnings is not None:
        assert run.stderr.splitlines() == [*warnings, "is a terminal: False"]


def test_a_closed_stream_is_not_taken_by_the_next_file(tmp_path):
    program = (
        "import os; from dlrm_tf2.runtime import terminal; terminal.open_standard_streams(); "
        f"print(os.open({str(tmp_path / 'data')!r}, os.O_CREAT | os.O_WRONLY) > 2, file=open('/dev/stderr', 'w'))"
    )
    run = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >&- <&-', sys.executable, program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.stderr == "True\n"
