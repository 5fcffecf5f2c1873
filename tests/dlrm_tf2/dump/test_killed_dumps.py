"""kill -9 at each file operation of a dump: a reader finds the old state or the new one; the same command resumes."""

import json
import os
import random
import subprocess
import sys

import pytest
from support.programs import REPOSITORY
from test_dump_tables import content

from dlrm_tf2 import ops
from dlrm_tf2.dump.apply import apply_changes


def run(*arguments):
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, timeout=250,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    process = run("support.killed_dumps", tmp_path_factory.mktemp("killed"))
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize(
    ("case", "old", "folders"),
    [
        ("dump", "none", ["dump"]),
        ("dump again", [[1], [1]], ["dump"]),
        ("changes", [[1], [1]], ["changes", "changes/steps_5_8", "dump"]),
        ("changes again", [[1], [1]], ["changes", "changes/steps_5_8", "dump"]),
    ],
)
def test_a_killed_dump_is_the_old_one_or_the_new_one(outcomes, case, old, folders):
    """Between the two renames of a replacement, there is neither: no dump, or no such changes."""
    new, between = [[2], [2]], {"dump again": "none", "changes again": [[0], [0]]}.get(case)
    found = [one[1] for one in outcomes[case]]
    assert len(found) > 5 and found[0] == old
    assert all(one in (old, new, between) for one in found), found
    assert found.count(between) == (1 if between else 0)
    assert found == sorted(found, key=[old, between, new].index)  # once there, it stays
    for _, _, after, names in outcomes[case]:
        assert (after, names) == (new, folders)


@pytest.mark.long
@pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
def test_a_training_that_dumps_is_killed_at_many_points(tmp_path):
    """Keys keep coming, leave and return; checkpoints, a dump and changes are written in turn, behind the training."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("support.dumping_training", whole).returncode == 0
    kills = 0
    while kills < 40:
        process = run("support.killed_at", random.randint(1, 60), parts, "support.dumping_training", parts)
        if process.returncode == 0:
            break
        assert process.returncode == -9, process.stderr
        kills += 1
        if (parts / "dump").exists():  # what there is can be read
            changes = [parts / "changes"] if any((parts / "changes").glob("steps*")) else []
            apply_changes(parts / "dump", changes, tmp_path / f"read_{kills}")
    assert process.returncode == 0 and kills > 3
    for one in (whole, parts):
        apply_changes(one / "dump", [one / "changes"], one / "followed")
    assert content(parts / "followed") == content(whole / "followed")
    names = [[name for name in sorted(os.listdir(one / "changes")) if name[0] != "."] for one in (whole, parts)]
    assert names[0] == names[1] and len(names[0]) == 7
