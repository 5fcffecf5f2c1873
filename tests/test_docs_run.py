"""Every block of shell or Python in README.md and docs/*.md runs as it stands, in a fresh folder.

A comment in the line before a block, which a reader of the page does not see, says otherwise:

    <!-- continues -->            runs in the folder that the block before has left
    <!-- after: COMMAND -->       runs after a command that makes what the page presupposes, such as a log of the reader
    <!-- smaller: SED -->         runs with what the sed script makes of it, because its sizes or paths fit no test
    <!-- continues, smaller: SED -->
    <!-- not run: REASON -->      does not run here: it needs a GPU, several machines, a scheduler, hours

A block of `text` after a block is its expected output: every line is found in the output, its whole numbers as they are
and its fractions to 0.02.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<expected>.*?)^```\n)?",
    re.M | re.S,
)
_MARK = re.compile(r"(?P<continues>continues)?(?:, )?(?:after: (?P<after>.+)|smaller: (?P<smaller>.+))?")
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
        if re.fullmatch(r"not run: .{10,}", block.mark or ""):
            continue
        mark = _MARK.fullmatch(block.mark or "")
        assert mark, f"{block.where}: unknown mark {block.mark!r}"
        if mark["after"]:
            block = block._replace(code=f"{mark['after']}\n{block.code}")
        if mark["smaller"]:
            block = block._replace(code=smaller(block.code, mark["smaller"]))
        if mark["continues"]:
            chains[-1].append(block)
        else:
            chains.append([block])
    return chains


def smaller(code: str, script: str) -> str:
    """What a sed script makes of a block. Every command of the script must have an effect."""
    for command in script.split("; "):
        changed = subprocess.run(["sed", "-E", command], input=code, capture_output=True, text=True, check=True).stdout
        assert changed != code, f"{command!r} changes nothing in\n{code}"
        code = changed
    return code


def starts_ranks(chain: list[Block]) -> bool:
    return any("horovodrun" in block.code for block in chain)


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
    if starts_ranks(chain) and importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not installed, so there is only one rank")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
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


def test_a_block_is_prepared_and_made_smaller_as_its_mark_says():
    page = (
        "<!-- after: touch log -->\n```bash\nread log\n```\n"
        "<!-- continues, smaller: s|/data/|data/|; s/1000/4/ -->\n```bash\nmake /data/set 1000\n```\n"
    )
    assert [[block.code for block in chain] for chain in chains_of(blocks_of("page", page))] == [
        ["touch log\nread log\n", "make data/set 4\n"]
    ]
    with pytest.raises(AssertionError, match="'s/2000/4/' changes nothing"):
        chains_of(blocks_of("page", page.replace("s/1000/", "s/2000/")))


def test_the_readme_runs_but_for_what_sets_up_the_machine():
    blocks = blocks_of("README.md", (ROOT / "README.md").read_text(encoding="utf-8"))
    not_run = [block.code.split()[0] for block in blocks if (block.mark or "").startswith("not run")]
    assert not_run == ["make"] and len(blocks) > 5


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
