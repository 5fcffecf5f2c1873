"""docs/architecture.md lists every file of the two packages, one line each."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def listed_files() -> list[str]:
    """Paths of the Python files in the list of rooms, which shows folders by indentation; in the order of the list."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = text[text.index("## Rooms") :].split("```")[1]
    folders, found = [], []
    for line in rooms.splitlines():
        if match := re.match(r"( *)(\S+)", line):
            depth, name = len(match[1]) // 2, match[2]
            folders[depth:] = [name]
            if name.endswith(".py"):
                found.append("".join(folders))
    return found


def test_every_file_has_its_line():
    files = [*ROOT.glob("criteo_prep/**/*.py"), *ROOT.glob("dlrm_tf2/**/*.py")]
    existing = {str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"}
    lines = [path for path in listed_files() if path.startswith(("criteo_prep/", "dlrm_tf2/"))]
    listed = set(lines)
    listed.discard("dlrm_tf2/ops/__init__.py")
    assert existing - listed == set(), "files without a line in docs/architecture.md"
    assert listed - existing == set(), "lines of docs/architecture.md without a file"
    assert {path for path in listed if lines.count(path) > 1} == set(), "files with two lines in docs/architecture.md"


def test_every_file_that_a_path_names_exists():
    """The paths below the list of rooms, such as `embedding/lookup.py`: of one package or of the repository."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:\w+/)+\w+\.py\b", text[text.index("## Who may enter") :])
    roots = (ROOT, ROOT / "criteo_prep", ROOT / "dlrm_tf2")
    missing = {path for path in named if not any((root / path).is_file() for root in roots)}
    assert len(named) > 10 and missing == set(), "paths in docs/architecture.md that lead to no file"
