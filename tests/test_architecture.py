"""docs/architecture.md lists every file of the two packages, one line each."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def listed_files() -> set[str]:
    """Paths of the Python files in the list of rooms, which shows folders by indentation."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = text[text.index("## Rooms") :].split("```")[1]
    folders, found = [], set()
    for line in rooms.splitlines():
        if match := re.match(r"( *)(\S+)", line):
            depth, name = len(match[1]) // 2, match[2]
            folders[depth:] = [name]
            if name.endswith(".py"):
                found.add("".join(folders))
    return found


def test_every_file_has_its_line():
    files = [*ROOT.glob("criteo_prep/**/*.py"), *ROOT.glob("dlrm_tf2/**/*.py")]
    existing = {str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"}
    listed = {path for path in listed_files() if path.startswith(("criteo_prep/", "dlrm_tf2/"))}
    listed.discard("dlrm_tf2/ops/__init__.py")
    assert existing - listed == set(), "files without a line in docs/architecture.md"
    assert listed - existing == set(), "lines of docs/architecture.md without a file"
