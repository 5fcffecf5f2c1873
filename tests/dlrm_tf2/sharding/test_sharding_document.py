"""What docs/sharding.md shows runs, and does what it says."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/sharding.md"


def examples():
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)


def test_a_plan_from_python(capsys):
    exec(examples()[0], {})
    printed = capsys.readouterr().out
    assert re.fullmatch(r"\(Shard\(table='user'.*\) imbalance: memory \S+ gather \S+ output \S+\n", printed)
