"""What docs/embedding.md shows runs, block after block, and does what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/embedding.md"


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """The names that the blocks of the page leave, in a folder of their own."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    names, script = {}, tmp_path_factory.mktemp("page") / "page.py"
    script.write_text("\n".join(blocks))  # tf.function reads the source of what it compiles
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(script.parent)
        exec(compile(script.read_text(), script, "exec"), names)
    return names


def test_the_first_program_has_twelve_lines_and_trains(after):
    first = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)[1]
    assert len(first.replace("\n\n", "\n").splitlines()) == 12
    assert np.isfinite(after["step"].loss) and after["step"].gradients == []


def test_the_vectors_of_the_page(after):
    shapes = {name: tuple(part.shape) for name, part in after["vectors"].items()}
    assert shapes == {"title": (2, 16), "query": (2, 16), "site": (2, 8)}
    assert not after["vectors"]["title"].numpy()[1].any()  # a sample without ids


def test_the_step_of_the_page_learns_and_its_checkpoint_is_read(after):
    assert after["losses"][0] > after["losses"][1] > after["losses"][2]
    assert after["document"]["step"] == 3


def test_the_attention_of_the_page_learns(after):
    moved = after["attention"].numpy()
    assert len(set(moved)) == 3 and abs(moved.sum()) < 1e-6  # a softmax has no gradient along (1, 1, 1)


def test_the_visitor_of_the_page_is_stored_when_it_comes_twice(after):
    counters = after["layer_of_keys"].dynamic_tables["visitor"].counters()
    assert (counters["inserted"], counters["refused"]) == (1, 1)
    first, second, third = after["layer_of_keys"].exchange(after["unseen"]).numpy()[:, :8]
    assert not first.any() and second.any() and (second == third).all()
