"""What docs/sharding.md shows runs, and does what it says."""

import re
from pathlib import Path

import numpy as np

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/sharding.md"


def examples():
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)


def test_a_plan_from_python(capsys):
    exec(examples()[0], {})
    printed = capsys.readouterr().out
    assert re.fullmatch(r"\(Shard\(table='user'.*\) imbalance: memory \S+ gather \S+ output \S+\n", printed)


def test_the_layer_on_its_own():
    names = {}
    exec(examples()[1], names)
    vectors, layer = names["vectors"], names["layer"]
    assert {name: tuple(part.shape) for name, part in vectors.items()} == {"title": (2, 16), "query": (2, 16)}
    assert not vectors["title"].numpy()[1].any()  # an empty bag
    lookup = layer.lookup(layer.ids(of_mine=names["ids"]))
    after = layer.split(layer.exchange(lookup))
    # The gradients of the first pair pull its vectors together.
    products = [np.sum(both["title"].numpy()[0] * both["query"].numpy()[0]) for both in (vectors, after)]
    assert products[1] > products[0]
