"""The walls between the rooms of docs/architecture.md, checked by reading the imports of every file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = {f"dlrm_tf2.{name}" for name in ("dlrm", "dcnv2", "export", "synthetic_models", "report")}
READS_ARGUMENTS = PROGRAMS | {f"criteo_prep.{name}" for name in ("cli", "flags", "generate_feature_spec", "split_bin")}
PLANNING = ("tables", "placement", "blocks", "plan", "cost", "slabs", "plan_report")
NO_TENSORFLOW = {"dlrm_tf2.config", "dlrm_tf2.zoo", *(f"dlrm_tf2.sharding.{name}" for name in PLANNING)}
ONLY = {  # who alone may import it, beside the package itself
    "horovod": {"dlrm_tf2.comm"}, "pyspark": {"criteo_prep.preprocess.spark_engine"},
    "bench": set(), "tests": set(), "criteo_prep.cli": {"criteo_prep.__main__"},
    "argparse": READS_ARGUMENTS | {"dlrm_tf2.flags"}, **{program: {"dlrm_tf2.dcnv2"} for program in PROGRAMS}}
ROOMS = "schema < feature_spec < batch manifest < synthetic < transcribe < preprocess split_bin verify report < cli"
LAYER = {f"criteo_prep.{name}": layer for layer, names in enumerate(ROOMS.split("<")) for name in names.split()}


def read_tree(root: Path) -> dict[str, ast.Module]:
    """Every module of the two packages, by dotted name; a package goes by its folder's name."""
    paths = [*root.glob("criteo_prep/**/*.py"), *root.glob("dlrm_tf2/**/*.py")]
    return {".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text(), path) for path in paths}


def imports(module: str, tree: ast.Module) -> set[str]:
    """Full names of all that a module imports, those inside functions included: `a.b` for `from a import b`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) + "." if node.level else ""
            found |= {f"{base}{node.module + '.' if node.module else ''}{alias.name}" for alias in node.names}
    return found


def within(name: str, room: str) -> bool:
    """Whether `name` is `room` or something in it."""
    return name == room or name.startswith(room + ".")


def reaches(start: str, target: str, modules: dict[str, ast.Module]) -> bool:
    """Whether importing `start` imports `target`, through whatever modules of ours."""
    waiting, seen = [start], set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        names = imports(module, modules[module])
        if any(within(name, target) for name in names):
            return True
        names |= {".".join(module.split(".")[:-1]) + ".__init__"}  # importing a.b runs a/__init__.py
        waiting += [m for m in modules if m not in seen and any(within(n, m.removesuffix(".__init__")) for n in names)]
    return False


def why_not(module: str, name: str) -> str | None:
    """Why `module` may not import `name`; None where it may."""
    if module.startswith("criteo_prep.") and (within(name, "dlrm_tf2") or within(name, "tensorflow")):
        return "dataset preparation knows no trainer"
    bridge = ["feature_spec"] + (["transcribe", "synthetic"] if module == "dlrm_tf2.data" else [])
    if module.startswith("dlrm_tf2.") and within(name, "criteo_prep"):
        return None if any(within(name, f"criteo_prep.{room}") for room in bridge) else f"the bridge is {bridge}"
    for room, allowed in ONLY.items():
        main = room == "argparse" and module.endswith(".__main__")
        if within(name, room) and module not in allowed and not within(module, room) and not main:
            return f"only {sorted(allowed) or 'nobody'} may"
    own, other = ([layer for room, layer in LAYER.items() if within(m, room)] for m in (module, name))
    return "a later room" if own and other > own else None


def violations(modules: dict[str, ast.Module]) -> list[str]:
    """One line for every wall that a module goes through."""
    broken = [f"{m} starts TensorFlow" for m in NO_TENSORFLOW & set(modules) if reaches(m, "tensorflow", modules)]
    for module, tree in modules.items():
        imported = imports(module, tree)
        broken += [f"{module} imports {n}: {why_not(module, n)}" for n in sorted(imported) if why_not(module, n)]
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {name.split(".")[-1] for name in imported}
        if used & {"environ", "getenv", "putenv"} and module != "dlrm_tf2.runtime":
            broken.append(f"{module} touches the environment: only dlrm_tf2.runtime may")
        if used & {"load_op_library", "load_library"} and module != "dlrm_tf2.ops.__init__":
            broken.append(f"{module} loads an op library: only dlrm_tf2.ops may")
        if "argv" in used and not (module in READS_ARGUMENTS or module.endswith(".__main__")):
            broken.append(f"{module} reads sys.argv")
        if module.split(".")[-1] in {"utils", "util", "common", "helpers", "misc"}:
            broken.append(f"{module}: the name says nothing")
    return broken


def test_no_wall_is_broken():
    modules = read_tree(ROOT)
    assert {"criteo_prep.schema", "criteo_prep.transcribe.tf_raw", "dlrm_tf2.comm"} <= set(modules)
    assert violations(modules) == []


@pytest.mark.parametrize("module, source, complaint", [
    ("criteo_prep.schema", "def late():\n    import tensorflow as tf", "knows no trainer"),
    ("criteo_prep.batch", "from .transcribe import tf_raw", "a later room"),
    ("criteo_prep.verify", "from criteo_prep import cli", "only ['criteo_prep.__main__'] may"),
    ("dlrm_tf2.model", "from criteo_prep.transcribe.tf_raw import Reader", "the bridge is"),
    ("dlrm_tf2.trainer", "import horovod.tensorflow as hvd", "only ['dlrm_tf2.comm'] may"),
    ("dlrm_tf2.trainer", "from . import dlrm", "may"),
    ("dlrm_tf2.sharding.plan", "from dlrm_tf2.embedding import lookup", "starts TensorFlow"),
    ("dlrm_tf2.mlp", "from os import environ", "touches the environment"),
    ("dlrm_tf2.mlp", "import sys\nprint(sys.argv)", "reads sys.argv"),
    ("dlrm_tf2.common", "", "the name says nothing"),
])
def test_a_planted_violation_is_found(module, source, complaint):
    modules = {"dlrm_tf2.embedding.lookup": ast.parse("import tensorflow as tf"), module: ast.parse(source)}
    assert any(line.startswith(module) and complaint in line for line in violations(modules)), violations(modules)


@pytest.mark.parametrize("package, stays_out", [
    ("criteo_prep", ["tensorflow", "numba", "polars", "pyarrow"]), ("dlrm_tf2", ["tensorflow", "horovod"]),
    ("criteo_prep.cli", ["tensorflow"]), ("dlrm_tf2.sharding.plan", ["tensorflow"]),
])
def test_importing_a_package_starts_nothing_heavy(package, stays_out):
    check = f"import sys, {package}; print([name for name in {stays_out} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
