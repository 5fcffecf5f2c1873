"""What the image is built from, as far as it can be checked without a container engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import criteo_prep

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
COPIES = [line.split()[1:] for line in re.findall(r"^COPY .*", DOCKERFILE, re.M)]  # each: sources, then the destination
IGNORED = re.findall(r"^[^#\s].*", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.M)


def is_sent(path: str) -> bool:
    """Whether an engine sends a path to the build: the last pattern that names it, or a folder above it, decides."""
    sent = True
    for pattern in IGNORED:
        words = re.split(r"(\*\*/|\*)", pattern.removeprefix("!"))
        expression = "".join({"**/": "(?:.*/)?", "*": "[^/]*"}.get(word, re.escape(word)) for word in words)
        if re.fullmatch(f"{expression}(?:/.*)?", path):
            sent = pattern.startswith("!")
    return sent


def git(*arguments: str) -> list[str]:
    """The paths that a git command prints; skips the test where there is no clone, as in the image."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the files that git tracks are known in a clone only")
    command = ["git", "ls-files", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def run(folder: Path, *command: str) -> str:
    """The output of a command that must succeed, in an environment without this project's paths."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture
def before_sources(tmp_path):
    """The folder in the image when set-up runs first: what is copied before everything is."""
    for *sources, destination in COPIES[:-1]:
        folder = tmp_path / destination
        for source in sources:
            if (ROOT / source).is_dir():  # an engine copies what is in a folder, not the folder
                shutil.copytree(ROOT / source, folder)
            else:
                folder.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, folder)
    return tmp_path


def test_what_git_tracks_is_sent_to_the_build():
    tracked = git()
    assert len(tracked) > 500
    assert [path for path in tracked if not is_sent(path)] == []


def test_what_git_ignores_is_not_sent_to_the_build():
    ignored = git("--others", "--ignored", "--exclude-standard", "--directory")
    assert [path for path in ignored if is_sent(path.rstrip("/"))] == []


@pytest.mark.parametrize("path", [
    ".git/config", ".venv/bin/python", ".env", "data/day_0", "log.tsv", "wheels/a.whl", "demo_data/days/day_0",
    "dlrm_tf2/ops/lib/libdlrm_ops.so", "tests/dlrm_tf2/__pycache__/test_flags.pyc",
])  # fmt: skip
def test_what_lies_in_a_clone_is_not_sent_to_the_build(path):
    assert not is_sent(path)


def test_what_is_copied_exists_and_is_sent():
    assert COPIES[-1] == [".", "."] and len(COPIES) > 2
    for *sources, _ in COPIES[:-1]:
        for source in sources:
            assert (ROOT / source).exists() and is_sent(source.rstrip("/")), source


def test_the_make_targets_exist_before_the_sources_are_there(before_sources):
    targets = re.findall(r"\bmake (\w+)", "\n".join(re.findall(r"^RUN .*", DOCKERFILE, re.M)))
    assert set(targets) == {"setup"} and len(targets) == 2
    assert run(before_sources, "make", "-n", "setup") == "bash setup/set_up.sh\n"


def test_pip_finds_this_project_before_the_sources_are_there(before_sources):
    run(before_sources, sys.executable, "setup.py", "-q", "egg_info")
    found = before_sources / "criteo_dlrm.egg-info"
    assert f"\nVersion: {criteo_prep.__version__}\n" in (found / "PKG-INFO").read_text()
    assert (found / "top_level.txt").read_text().split() == ["criteo_prep", "dlrm_tf2"]
    assert "criteo-prep = criteo_prep.cli:main" in (found / "entry_points.txt").read_text().splitlines()


def test_the_op_library_is_left_for_the_set_up_after_the_sources(before_sources):
    (before_sources / ".venv/bin").mkdir(parents=True)
    (before_sources / ".venv/bin/python").symlink_to(sys.executable)
    settings = "tensorflow_package=a TENSORFLOW=b python_is=3.11.2"
    script = f"set -euo pipefail; {settings}; . setup/progress.sh; . setup/ops.sh; build_ops"
    assert "are not here yet" in run(before_sources, "bash", "-c", script)
    assert not (before_sources / ".venv/ops_done").exists()
    (before_sources / "dlrm_tf2/ops").mkdir()
    (before_sources / "dlrm_tf2/ops/build.py").write_text("print('built')\nprint()\n")
    assert run(before_sources, "bash", "-c", script) == "set-up: building the op library, half a minute\n"
    assert run(before_sources, "bash", "-c", script) == ""  # nothing is left to do


@pytest.mark.parametrize("arguments, base", [
    ("GPU=", "debian:12-slim"),
    ("GPU=1", "nvidia/cuda:12.6.3-devel-ubuntu24.04"),  # devel: with nvcc
    ("BASE=mine", "mine"),
    ("GPU=1 BASE=mine", "mine"),
])  # fmt: skip
def test_the_base_is_chosen_by_the_build_arguments(arguments, base):
    """The substitutions of a Dockerfile are those of a shell, so a shell expands them here."""
    default = re.search(r"^ARG BASE=(.*)", DOCKERFILE, re.M)[1]
    chosen = re.search(r"^FROM (.*)", DOCKERFILE, re.M)[1]
    assert run(ROOT, "bash", "-c", f'{arguments}; : "${{BASE={default}}}"; echo "{chosen}"') == f"{base}\n"


def test_the_programs_run_as_an_ordinary_user_who_can_write_at_home():
    users = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)  # numbers: an orchestrator cannot look up names
    assert users and "0" not in users[-1]
    home = re.search(r"^ENV HOME=(\S+)", DOCKERFILE, re.M)[1]
    assert home in re.search(r"chmod 1777 (.*)", DOCKERFILE)[1].split()
