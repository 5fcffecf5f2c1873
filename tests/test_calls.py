"""Calls name what they pass: what a reader of a call must know stands in the call.

A function with four parameters or more takes the third and the following by name only; a call of our own functions and
classes passes at most three arguments by position; a function has at most six parameters. The exceptions stand here,
each with its reason. Compiled functions (numba) are left out: numba's dispatch is by position.
"""

import ast
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("criteo_prep/**/*.py"), *ROOT.glob("dlrm_tf2/**/*.py")])
COMPILED = ("compiled", "njit", "intrinsic", "custom_gradient", "overload")

# Function -> why it is called by position.
BY_POSITION = {
    "_read_synthetic": "a reader in READERS, which all are called as (root, spec, split, request)",
    "_address": "is called like the code generators of numba intrinsics, whose signature numba defines",
    "generate": "the code generator of a numba intrinsic, whose signature numba defines",
    "_step": "a tf.function with an input signature, which allows no keyword-only parameter",
    "__exit__": "the signature of a context manager",
}
# Function or class -> why it has more than six parameters.
MORE_THAN_SIX: dict[str, str] = {
    "DistributedEmbedding": "the public layer: each is one independent choice of its user",
    "make_plan": "the published thresholds and strategies of a plan",
    "preprocess": "one parameter for each documented flag of the verb",
    "encode": "one parameter for each documented flag of the verb",
    "encode_table": "one parameter for each documented flag of the verb",
    "make_rules": "one parameter for each documented flag about rows and ids",
}


class Definition(NamedTuple):
    where: str
    name: str
    by_position: int
    by_name: int
    is_data: bool
    is_compiled: bool


def definitions_in(path: Path) -> list[Definition]:
    found = []

    def visit(node: ast.AST, in_class: bool) -> None:
        for child in ast.iter_child_nodes(node):
            where = f"{path.relative_to(ROOT)}:{getattr(child, 'lineno', 0)}"
            if isinstance(child, ast.ClassDef):
                fields = [part for part in child.body if isinstance(part, ast.AnnAssign)]
                has_init = any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in child.body)
                if not has_init:
                    found.append(Definition(where, child.name, len(fields), 0, True, False))
                visit(child, True)
            elif isinstance(child, ast.FunctionDef):
                decorators = " ".join(ast.unparse(decorator) for decorator in child.decorator_list)
                own = in_class and "staticmethod" not in decorators  # self or cls
                name = node.name if child.name == "__init__" and isinstance(node, ast.ClassDef) else child.name
                by_position = len(child.args.posonlyargs) + len(child.args.args) - own
                is_compiled = any(word in decorators for word in COMPILED)
                found.append(Definition(where, name, by_position, len(child.args.kwonlyargs), False, is_compiled))
                visit(child, False)
            else:
                visit(child, in_class)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


DEFINITIONS = [definition for path in FILES for definition in definitions_in(path)]


def test_functions_with_four_parameters_take_the_third_by_name():
    wrong = [
        f"{d.where} {d.name}: put `*` after the second parameter"
        for d in DEFINITIONS
        if not (d.is_data or d.is_compiled or d.name in BY_POSITION)
        and d.by_position + d.by_name >= 4
        and d.by_position > 2
    ]
    assert wrong == []


def test_functions_have_six_parameters_at_most():
    wrong = [
        f"{d.where} {d.name}: {d.by_position + d.by_name} parameters; make one record of what travels together"
        for d in DEFINITIONS
        if not (d.is_data or d.is_compiled or d.name in MORE_THAN_SIX) and d.by_position + d.by_name > 6
    ]
    assert wrong == []


def test_calls_pass_three_arguments_by_position_at_most():
    ours = defaultdict(list)
    for definition in DEFINITIONS:
        ours[definition.name].append(definition)
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) <= 3:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            candidates = [d for d in ours.get(name, []) if d.by_position + d.by_name >= len(node.args)]
            if candidates and not any(d.is_compiled for d in candidates) and name not in BY_POSITION:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}: name the arguments after the second")
    assert wrong == []


def test_every_exception_is_needed():
    names = {definition.name for definition in DEFINITIONS}
    many = {d.name for d in DEFINITIONS if d.by_position + d.by_name > 6}
    assert set(BY_POSITION) <= names and set(MORE_THAN_SIX) <= many
