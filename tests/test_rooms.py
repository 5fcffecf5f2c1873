"""The walls between the rooms of docs/architecture.md, checked by reading the imports of every file.

Each wall is one constant below and one function that returns a line for every import that goes through it.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# criteo_prep has never heard of the trainer. The trainer may enter these rooms of criteo_prep, from anywhere ...
BRIDGE = (
    "criteo_prep.feature_spec", "criteo_prep.machine", "criteo_prep.splitmix64", "criteo_prep.compiled",
    "criteo_prep.plain_file", "criteo_prep.split_bin.dataset_spec",
)  # fmt: skip
# ... and the page of a training log is made as the card of a dataset is ...
MAKES_PAGES = ("dlrm_tf2.report", "dlrm_tf2.report_page")
BRIDGE_OF_PAGES = ("criteo_prep.pages.charts", "criteo_prep.pages.numbers", "criteo_prep.pages.page")
# ... and these from the files that read samples.
READS_SAMPLES = ("dlrm_tf2.data.batches", "dlrm_tf2.data.day_files", "dlrm_tf2.data.torchrec_data",
                 "dlrm_tf2.data.sample_parts", "dlrm_tf2.data.provided", "dlrm_tf2.benchmarks.zoo_data")  # fmt: skip
BRIDGE_OF_SAMPLES = (
    "criteo_prep.transcribe", "criteo_prep.synthetic", "criteo_prep.parallel", "criteo_prep.batch",
)  # fmt: skip

# Programs read sys.argv, and nobody imports them: what two programs need has a room of its own.
PROGRAMS = (
    "dlrm_tf2.dlrm", "dlrm_tf2.dcnv2", "dlrm_tf2.synthetic_models", "dlrm_tf2.sok_benchmark",
    "dlrm_tf2.torchrec_example", "dlrm_tf2.dynamic_benchmark", "dlrm_tf2.report",
    "dlrm_tf2.export.__main__", "dlrm_tf2.elastic.__main__",
)  # fmt: skip
COMMANDS = ("criteo_prep.cli", "criteo_prep.preprocess_verbs", "criteo_prep.generate_feature_spec")
MAKES_PARSERS = ("criteo_prep.flags", "dlrm_tf2.flags", "dlrm_tf2.torchrec_flags", "dlrm_tf2.job.program")

# A library that only these modules may import.
ONLY_IN = {
    "horovod": ("dlrm_tf2.runtime.comm",),
    "pyspark": ("criteo_prep.preprocess.spark_engine",),
    "argparse": (*PROGRAMS, *COMMANDS, *MAKES_PARSERS),
    "criteo_prep.cli": (),
    "dlrm_tf2.dlrm": (),
    "bench": (),
    "tests": (),
}

# Planning is tested in milliseconds, so these rooms do not start TensorFlow, and nothing that they import does.
NO_TENSORFLOW = ("dlrm_tf2.sharding", "dlrm_tf2.config", "dlrm_tf2.benchmarks.zoo", "dlrm_tf2.benchmarks.zoo_config",
                 "dlrm_tf2.benchmarks.zoo_memory", "dlrm_tf2.benchmarks.timing", "dlrm_tf2.model.config",
                 "dlrm_tf2.benchmarks.dynamic", "dlrm_tf2.benchmarks.dynamic_config",
                 "dlrm_tf2.benchmarks.dynamic_keys", "dlrm_tf2.benchmarks.dynamic_memory",
                 "dlrm_tf2.unused_flags", "dlrm_tf2.job.planning", "dlrm_tf2.job.preflight",
                 "dlrm_tf2.report")  # fmt: skip

TOUCHES_ENVIRONMENT = ("dlrm_tf2.runtime.process", "criteo_prep.preprocess.remote.object_store")
LOADS_OP_LIBRARY = "dlrm_tf2.ops"
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "misc"}

# criteo_prep from the ground up: a module imports only from its own floor and from the floors before it.
FLOORS = (
    (
        "criteo_prep.schema",
        "criteo_prep.parallel",
        "criteo_prep.machine",
        "criteo_prep.compiled",
        "criteo_prep.splitmix64",
        "criteo_prep.messages",
    ),
    ("criteo_prep.feature_spec",),
    ("criteo_prep.batch", "criteo_prep.manifest"),
    ("criteo_prep.synthetic",),
    ("criteo_prep.transcribe",),
    ("criteo_prep.preprocess", "criteo_prep.split_bin", "criteo_prep.verify", "criteo_prep.synthesize"),
    ("criteo_prep.table", "criteo_prep.pages"),
    ("criteo_prep.preprocess_verbs",),
    ("criteo_prep.cli",),
)


def read_modules(root: Path) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every module of the two packages; a package goes by the name of its folder."""
    modules = {}
    for package in ("criteo_prep", "dlrm_tf2"):
        for path in root.glob(f"{package}/**/*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            modules[name] = ast.parse(path.read_text(encoding="utf-8"), path)
    return modules


def imports_of(tree: ast.Module) -> set[str]:
    """Full names of everything that a module imports, also inside functions: `a.b` for `from a import b`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute in this project"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_in(name: str, room: str) -> bool:
    """Whether `name` is `room` or something inside it."""
    return name == room or name.startswith(room + ".")


def is_in_any(name: str, rooms: tuple[str, ...]) -> bool:
    return any(is_in(name, room) for room in rooms)


def buildings(module: str, name: str) -> str | None:
    if is_in(module, "criteo_prep") and is_in_any(name, ("dlrm_tf2", "tensorflow")):
        return "criteo_prep has never heard of the trainer"
    bridge = BRIDGE + (BRIDGE_OF_SAMPLES if module in READS_SAMPLES else ())
    bridge += BRIDGE_OF_PAGES if module in MAKES_PAGES else ()
    if is_in(module, "dlrm_tf2") and is_in(name, "criteo_prep") and not is_in_any(name, bridge):
        return f"the bridge is {', '.join(bridge)}"
    return None


def reserved_imports(module: str, name: str) -> str | None:
    for room, allowed in ONLY_IN.items():
        if is_in(name, room) and not is_in(module, room) and not is_in_any(module, allowed):
            if not module.endswith(".__main__") and not (room == "dlrm_tf2.dlrm" and module == "dlrm_tf2.dcnv2"):
                return f"only {', '.join(allowed) or 'nobody'} may"
    return None


def floors(module: str, name: str) -> str | None:
    own, other = ([floor for floor, rooms in enumerate(FLOORS) if is_in_any(n, rooms)] for n in (module, name))
    return "an upper floor" if own and other and other[0] > own[0] else None


def reaches_tensorflow(start: str, modules: dict[str, ast.Module]) -> bool:
    """Whether importing `start` starts TensorFlow, itself or through our modules; imports in functions do not count."""
    waiting, seen = [start], set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        top_level = ast.Module([node for node in modules[module].body], [])
        names = imports_of(_without_functions(top_level))
        if any(is_in(name, "tensorflow") for name in names):
            return True
        # Importing a.b runs a/__init__.py too.
        names |= {module.rpartition(".")[0]}
        waiting += [other for other in modules if other not in seen and _imports_module(names, other)]
    return False


def _without_functions(tree: ast.Module) -> ast.Module:
    """The imports of a module as it is imported: not those in functions, and not those for type checkers alone."""
    kept = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.If | ast.Try)]
    return ast.Module([node for node in kept if "TYPE_CHECKING" not in ast.unparse(getattr(node, "test", node))], [])


def _imports_module(names: set[str], module: str) -> bool:
    """Whether one of the imported names is the module, is defined in it, or lies below it."""
    return any(name == module or name.rpartition(".")[0] == module or is_in(name, module) for name in names if name)


def uses(tree: ast.Module) -> set[str]:
    """Last parts of all attributes and imports: `environ` for os.environ and for `from os import environ`."""
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return attributes | {name.rpartition(".")[2] for name in imports_of(tree)}


def violations(modules: dict[str, ast.Module]) -> list[str]:
    """One line for every wall that a module goes through."""
    broken = [
        f"{module} starts TensorFlow"
        for module in modules
        if is_in_any(module, NO_TENSORFLOW) and reaches_tensorflow(module, modules)
    ]
    for module, tree in modules.items():
        for name in sorted(imports_of(tree)):
            for wall in (buildings, reserved_imports, floors):
                if why := wall(module, name):
                    broken.append(f"{module} imports {name}: {why}")
        used = uses(tree)
        if used & {"environ", "getenv", "putenv"} and module not in TOUCHES_ENVIRONMENT:
            broken.append(f"{module} touches the environment: only {', '.join(TOUCHES_ENVIRONMENT)} may")
        if used & {"load_op_library", "load_library"} and module != LOADS_OP_LIBRARY:
            broken.append(f"{module} loads an op library: only {LOADS_OP_LIBRARY} may")
        if "argv" in used and module not in (*PROGRAMS, *COMMANDS, *MAKES_PARSERS) and not module.endswith(".__main__"):
            broken.append(f"{module} reads sys.argv: only a program may")
        if module.rpartition(".")[2] in NAMES_THAT_SAY_NOTHING:
            broken.append(f"{module}: the name says nothing")
    return broken


def test_no_wall_is_broken():
    modules = read_modules(ROOT)
    assert {"criteo_prep.schema", "criteo_prep.transcribe.tf_raw", "dlrm_tf2.runtime.comm"} <= set(modules)
    assert violations(modules) == []


def test_the_constants_name_modules_that_exist():
    modules = set(read_modules(ROOT))
    named = {*BRIDGE, *READS_SAMPLES, *BRIDGE_OF_SAMPLES, *MAKES_PAGES, *BRIDGE_OF_PAGES, *PROGRAMS, *COMMANDS,
             *MAKES_PARSERS, *NO_TENSORFLOW, *TOUCHES_ENVIRONMENT, LOADS_OP_LIBRARY,
             *(room for rooms in FLOORS for room in rooms)}  # fmt: skip
    assert named - modules == set()


def test_init_files_hold_names_only():
    for path in [*ROOT.glob("criteo_prep/**/__init__.py"), *ROOT.glob("dlrm_tf2/**/__init__.py")]:
        if path.parent.name != "ops":  # ops/__init__.py is the one module that loads the op library
            tree = ast.parse(path.read_text(encoding="utf-8"))
            logic = [n for n in tree.body if not isinstance(n, ast.Expr | ast.Import | ast.ImportFrom | ast.Assign)]
            assert not logic, f"{path.relative_to(ROOT)}, line {logic[0].lineno}: has logic; give it a module"


@pytest.mark.parametrize("module, source, complaint", [
    ("criteo_prep.schema", "def late():\n    import tensorflow as tf", "never heard of the trainer"),
    ("criteo_prep.batch", "from criteo_prep.transcribe import tf_raw", "an upper floor"),
    ("criteo_prep.verify", "from criteo_prep import cli", "only nobody may"),
    ("dlrm_tf2.model.dlrm", "from criteo_prep.transcribe.tf_raw import Reader", "the bridge is"),
    ("dlrm_tf2.model.dlrm", "from criteo_prep.pages.page import Page", "the bridge is"),
    ("dlrm_tf2.report_page", "from criteo_prep.pages.card import make_card", "the bridge is"),
    ("dlrm_tf2.training.trainer", "import horovod.tensorflow as hvd", "only dlrm_tf2.runtime.comm may"),
    ("dlrm_tf2.training.trainer", "from dlrm_tf2 import dlrm", "only nobody may"),
    ("dlrm_tf2.sharding.plan", "from dlrm_tf2.embedding import lookup", "starts TensorFlow"),
    ("dlrm_tf2.sharding.plan", "from dlrm_tf2.embedding.lookup import SlabLookup", "starts TensorFlow"),
    ("dlrm_tf2.model.mlp", "from os import environ", "touches the environment"),
    ("dlrm_tf2.model.mlp", "import sys\nprint(sys.argv)", "reads sys.argv"),
    ("dlrm_tf2.common", "", "the name says nothing"),
])  # fmt: skip
def test_a_planted_violation_is_found(module, source, complaint):
    modules = {"dlrm_tf2.embedding.lookup": ast.parse("import tensorflow as tf"), module: ast.parse(source)}
    assert any(line.startswith(module) and complaint in line for line in violations(modules)), violations(modules)


@pytest.mark.parametrize("package, stays_out", [
    ("criteo_prep", ["tensorflow", "numba", "polars", "pyarrow", "altair"]),
    ("dlrm_tf2", ["tensorflow", "horovod"]),
    ("criteo_prep.cli", ["tensorflow", "numba", "polars", "pyarrow", "altair"]),
    ("criteo_prep.pages.page", ["numpy", "polars", "altair", "vl_convert"]),
    ("dlrm_tf2.sharding.plan", ["tensorflow"]),
])  # fmt: skip
def test_importing_a_package_starts_nothing_heavy(package, stays_out):
    check = f"import sys, {package}; print([name for name in {stays_out} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
