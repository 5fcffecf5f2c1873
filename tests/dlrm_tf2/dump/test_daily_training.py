"""examples/daily_training.py does what docs/dynamic_embeddings.md says it prints, on any number of ranks."""

import re

import pytest
from support.programs import REPOSITORY, horovodrun, needs_horovod, start

from dlrm_tf2 import ops

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"no native ops: {ops.why_unavailable()}")
DAY = re.compile(r"day \d: loss [\d.]+; \d+ articles and \d+ readers are stored and served")


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=[pytest.mark.long, needs_horovod])])
def test_a_serving_process_follows_the_training(tmp_path, ranks):
    """The example itself compares the served vectors with the trained ones, and fails where they differ."""
    program, launcher = (str(REPOSITORY / "examples/daily_training.py"),), horovodrun(ranks) if ranks > 1 else ()
    run = start(["--folder", tmp_path / "days"], launcher, program, PYTHONPATH=str(REPOSITORY))
    assert run.returncode == 0, run.stdout + run.stderr
    printed = DAY.findall(run.stdout)
    expected = DAY.findall((REPOSITORY / "docs/dynamic_embeddings.md").read_text(encoding="utf-8"))
    assert len(printed) == 4 and len(expected) == 2 and set(expected) <= set(printed)
