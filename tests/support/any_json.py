"""JSON documents in which something is not as written: other types, odd numbers, missing and unknown keys, cuts."""

import copy
import json
import random

ODD_VALUES = (None, True, -1, 0, 3, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), "", "x",
              "\ud800", "a\0b", "x" * 5000, [], [1], [[1, 2], "x"], {}, {"a": {"b": [None]}})  # fmt: skip


def mutations(document, count, seed=0):
    """Yields `count` copies of a document; in each, one to three values are replaced, deleted or added at random."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(document)
        for _ in range(rng.randint(1, 3)):
            _change(rng, changed)
        yield changed


def _change(rng, node):
    """Changes one value below `node`, a dict or a list."""
    if not node:
        return
    key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    child = node[key]
    if isinstance(child, dict | list) and child and rng.random() < 0.8:
        _change(rng, child)
    elif rng.random() < 0.2:
        del node[key]
    elif rng.random() < 0.1 and isinstance(node, dict):
        node["unknown"] = rng.choice(ODD_VALUES)
    else:
        node[key] = rng.choice(ODD_VALUES)


def cuts(content, count, seed=0):
    """Yields bytes that are cut at random places, or have one bit changed."""
    rng = random.Random(seed)
    for number in range(count):
        place = rng.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        yield content[:place] if number % 2 else bytes(changed)


def deep(levels=100_000):
    """JSON text of a list in a list in a list ..."""
    return "[" * levels + "]" * levels


def dump(document):
    return json.dumps(document).encode()
