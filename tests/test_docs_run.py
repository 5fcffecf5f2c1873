"""Every block of shell or Python in docs/*.md runs as it stands, in a fresh folder.

A comment in the line before a block, which a reader of the page does not see, says otherwise:

    <!-- continues -->            runs in the folder that the block before has left
    <!-- not run: REASON -->      does not run here: it needs a GPU, several machines, a scheduler, hours

A block of `text` after a block is its expected output: every line is found in the output, its whole numbers as they are
and its fractions to 0.02.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<expected>.*?)^```\n)?",
    re.M | re.S,
)
_NUMBER = re.compile(r"\d+\.\d+|[\d,]*\d")


class Block(NamedTuple):
    where: str
    mark: str | None
    language: str
    code: str
    expected: str


def blocks_of(name: str, text: str) -> list[Block]:
    return [
        Block(f"{name}:{text.count(chr(10), 0, match.start('code'))}", *match.group("mark", "language", "code"),
              match["expected"] or "")
        for match in _BLOCK.finditer(text)
    ]  # fmt: skip


def chains_of(blocks: list[Block]) -> list[list[Block]]:
    """The blocks that run, each with the blocks that continue in its folder."""
    chains = []
    for block in blocks:
        if block.mark == "continues":
            chains[-1].append(block)
        elif block.mark is None:
            chains.append([block])
        else:
            assert re.fullmatch(r"not run: .{10,}", block.mark), f"{block.where}: unknown mark {block.mark!r}"
    return chains


def starts_tensorflow(chain: list[Block]) -> bool:
    return any(re.search(r"\bdlrm|tensorflow", block.code) for block in chain)


CHAINS = [chain for path in DOCS for chain in chains_of(blocks_of(path.name, path.read_text(encoding="utf-8")))]


def shows(output: str, line: str) -> bool:
    """Whether a line of the output has the words and whole numbers of `line`, and its fractions to 0.02."""

    def is_shown_by(other: str) -> bool:
        numbers, others = _NUMBER.findall(line), _NUMBER.findall(other)
        if _NUMBER.sub("#", line).strip() not in _NUMBER.sub("#", other) or len(numbers) != len(others):
            return False
        return all(
            a == b or ("." in a and abs(float(a) - float(b)) <= 0.02) for a, b in zip(numbers, others, strict=True)
        )

    return any(is_shown_by(other) for other in output.splitlines())


@pytest.mark.parametrize(
    "chain",
    [pytest.param(chain, marks=[pytest.mark.long] if starts_tensorflow(chain) else []) for chain in CHAINS],
    ids=lambda chain: chain[0].where,
)
def test_the_block_runs_as_it_stands(chain, tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    for block in chain:
        run = subprocess.run([*COMMANDS[block.language], block.code], cwd=tmp_path, env=environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)  # fmt: skip
        assert run.returncode == 0, f"{block.where}:\n{block.code}\n{run.stdout[-3000:]}"
        missing = [line for line in block.expected.splitlines() if not shows(run.stdout, line)]
        assert not missing, f"{block.where}: not in the output: {missing}\n{run.stdout[-3000:]}"


def test_marks_are_read_as_they_are_meant():
    page = (
        "```bash\none\n```\n\n```text\nAUC 0.5\n```\n\n<!-- continues -->\n```python\ntwo\n```\n"
        "<!-- not run: needs a GPU -->\n```bash\nthree\n```\n```\nno language\n```\n```bash\nfour\n```\n"
    )
    chains = chains_of(blocks_of("page", page))
    assert [[block.code.strip() for block in chain] for chain in chains] == [["one", "two"], ["four"]]
    assert chains[0][0].expected == "AUC 0.5\n"
    with pytest.raises(AssertionError, match="unknown mark 'skip'"):
        chains_of(blocks_of("page", "<!-- skip -->\n```bash\none\n```\n"))


@pytest.mark.parametrize(
    "output, line, is_shown",
    [
        ("step 7: AUC 0.791, 20 samples\n", "step 7: AUC 0.792, 20 samples", True),
        ("step 7: AUC 0.741, 20 samples\n", "step 7: AUC 0.792, 20 samples", False),
        ("step 8: AUC 0.792, 20 samples\n", "step 7: AUC 0.792, 20 samples", False),
        ("rows: 1,000\nother", "rows: 1,000", True),
        ("rows: 1,001", "rows: 1,000", False),
        ("", "rows: 1,000", False),
    ],
)
def test_expected_output_allows_for_the_last_digits(output, line, is_shown):
    assert shows(output, line) is is_shown
