"""A small version of bench/faults_preprocess.py: kill -9 at random moments, and resuming."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from criteo_prep.preprocess.parse import parse_files
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import preprocess

ROOT = Path(__file__).parents[3]
# Each write and each rename is a moment to be killed at; the child counts them down.
CHILD = """
import os, signal, sys
from criteo_prep.preprocess.parse import raw_columns
from criteo_prep.preprocess.run import preprocess
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
left = int(sys.argv[1])
def counted(original):
    def call(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **more)
    return call
for name in ("rename", "replace", "truncate", "unlink", "rmdir", "mkdir", "pwrite", "link"):
    setattr(os, name, counted(getattr(os, name)))
raw_columns.append = local_append = counted(raw_columns.append)
from criteo_prep.preprocess import arrange
from criteo_prep.preprocess.columns import encoder
from criteo_prep.preprocess.parse import row_writer
encoder.append = row_writer.append = arrange.append = local_append
resources = Resources(workers=2, quiet=True, block_bytes=2000, checkpoint_bytes=0)
preprocess(sys.argv[4:], sys.argv[2], rules=make_rules(2, shuffle=sys.argv[3]), resources=resources)
print("left", left)
"""


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def child(left, output, shuffle, days):
    command = [sys.executable, "-c", CHILD, str(left), str(output), shuffle, *map(str, days)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("shuffle, points", [("none", 2), ("global", 1)])
def test_killed_at_any_moment_and_resumed(tmp_path, shuffle, points):
    source = random.Random(shuffle)
    days = [tmp_path / f"day_{day}" for day in range(2)]
    for path in days:
        rows = ["\t".join([str(source.randrange(2)), *["3"] * 13, *[f"{source.randrange(5):x}" for _ in range(26)]])
                for _ in range(40)]  # fmt: skip
        path.write_text("\n".join(rows))
    preprocess(days, tmp_path / "good", rules=make_rules(2, shuffle=shuffle), resources=Resources(quiet=True))
    whole = child(1 << 30, tmp_path / "whole", shuffle, days)
    assert whole.returncode == 0, whole.stderr
    moments = (1 << 30) - int(whole.stdout.split()[-1])
    assert moments > 100 and contents(tmp_path / "whole") == contents(tmp_path / "good")
    output = tmp_path / "set"
    for number, left in enumerate([moments - 2, *source.sample(range(moments), points)][:points]):
        output = tmp_path / f"set{number}"
        died = child(left, output, shuffle, days)
        assert died.returncode == -9, died.stderr
        assert not output.exists() or contents(output) == contents(tmp_path / "good")
        child(source.randrange(moments), output, shuffle, days)  # killed again, or not
        assert child(1 << 30, output, shuffle, days).returncode == 0
        assert contents(output) == contents(tmp_path / "good"), left
    names = ["day_0", "day_1", "good", "whole", *(f"set{n}" for n in range(points))]
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_what_is_behind_the_last_checkpoint_is_cut_off(tmp_path, monkeypatch):
    """A kill leaves files of different lengths, longer than the journal says."""
    rows = "".join("\t".join(["1", *["3"] * 13, *[f"{n:x}"] * 26]) + "\n" for n in range(50))
    (tmp_path / "day_0").write_text(rows), (tmp_path / "day_1").write_text(rows)
    days, resources = (
        [tmp_path / "day_0", tmp_path / "day_1"],
        Resources(quiet=True, block_bytes=500, checkpoint_bytes=0),
    )
    preprocess(days, tmp_path / "good", rules=make_rules(2), resources=resources)
    original = parse_files._parse_file

    def first_file_only(path, **more):
        if path.name == "day_1":
            raise KeyboardInterrupt
        original(path, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(parse_files, "_parse_file", first_file_only)
        preprocess(days, tmp_path / "set", rules=make_rules(2), resources=resources)
    for number, path in enumerate(sorted((tmp_path / ".set.partial").rglob("*.raw"))):
        with open(path, "ab") as file:
            file.write(b"x" * number)
    preprocess(days, tmp_path / "set", rules=make_rules(2), resources=resources)
    assert contents(tmp_path / "set") == contents(tmp_path / "good")
