"""YAML text as plain values, without what a feature spec never needs: these are errors, with their line.

- A mapping has the same key twice. (YAML keeps the last value.)
- An alias stands inside its own value, or all aliases together stand for a very large document.
- A scalar does not fit its type, as in `2020-99-99`.
- Values are nested very deep.

libyaml parses the text where PyYAML has it, which takes a fifth of the time. Text that libyaml refuses is parsed again
by PyYAML's own parser, so that messages are the same everywhere; and text with tabs, of which libyaml accepts more.
"""

import re

import yaml
from yaml.composer import ComposerError
from yaml.parser import ParserError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from criteo_prep.messages import shown

_DEEPEST = 100  # brackets within brackets; a feature spec has fewer than 10
_LONGEST_BEGINNING = 1000  # spaces at the beginning of a line, each of which may be a level
_LARGEST_EXPANDED = 16 << 20  # characters, if each alias is replaced by its value
_DEEP_LINE = re.compile(
    rf"(?:\A|[\n\r\x85\u2028\u2029])(?: *(?:[-?:][ \t]+){{{_DEEPEST}}}| {{{_LONGEST_BEGINNING}}} *\S)"
)
_OF_SYNTAX = (ReaderError, ScannerError, ParserError, ComposerError)


class PlainYamlError(ValueError):
    """Text is not plain YAML. The message is one line, and begins with "line 7: " where the line is known."""


def load(text: str) -> object:
    """The value of a YAML document. Raises PlainYamlError."""
    _check_depth(text)
    try:
        if not yaml.__with_libyaml__ or "\t" in text:
            return yaml.load(text, _Loader)
        try:
            return yaml.load(text, _FastLoader)
        except _OF_SYNTAX:
            return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise PlainYamlError(f"{line}is not plain YAML: {getattr(error, 'problem', error)}.") from None
    except RecursionError:
        raise PlainYamlError("is not plain YAML: too many brackets within brackets.") from None


def _check_depth(text: str) -> None:
    """Raises PlainYamlError for deep values. PyYAML's time grows with the square of the depth; libyaml's stack ends."""
    depth, too_deep = 0, _DEEP_LINE.search(text)
    for bracket in re.finditer(r"[\[\]{}]", text):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > _DEEPEST:
            too_deep = bracket
            break
    if too_deep:
        line = text.count("\n", 0, too_deep.end()) + 1
        raise PlainYamlError(f"line {line}: is not plain YAML: too many brackets within brackets.")


class _Checks:
    """What is checked while a loader makes values; a base class before a loader of PyYAML."""

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None:
            _expanded_size(node, {})
        return node

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # raised by int(), date(), ...
            kind = node.tag.rpartition(":")[2]
            raise _error(f"{shown(node.value)} is not of the type {shown(kind)}", node) from None

    def construct_mapping(self, node, deep=False):
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    raise _error(f"the mapping has {shown(key.value)} twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Loader(_Checks, yaml.SafeLoader):
    """By PyYAML's own parser."""


if yaml.__with_libyaml__:

    class _FastLoader(_Checks, yaml.CSafeLoader):
        """By libyaml."""


def _expanded_size(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """The characters below a node if each alias is replaced by its value.

    Args:
      node: the node.
      sizes: results for all nodes so far, by id(); None while a node is being visited.
    """
    size = sizes.get(id(node), 0)
    if size is None:
        raise _error("an alias stands inside its own value", node)
    if size:
        return size
    sizes[id(node)] = None
    if isinstance(node, yaml.ScalarNode):
        size = 1 + len(node.value)
    else:
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        size = 1 + sum(_expanded_size(part, sizes) for part in parts)
    if size > _LARGEST_EXPANDED:
        raise _error(
            f"its aliases stand for more than {_LARGEST_EXPANDED >> 20} MiB of text. Write the values out", node
        )
    sizes[id(node)] = size
    return size


def _error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
