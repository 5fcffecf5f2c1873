"""YAML text as plain values: the same values and the same messages with libyaml and without it."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.damage import damage, damaged

from criteo_prep import plain_yaml
from criteo_prep.plain_yaml import PlainYamlError, load

needs_libyaml = pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")

BAD = {
    "a: [1, 2\nb: 3": "line 2: is not plain YAML: expected ',' or ']', but got ':'.",
    "a: 1\n\tb: 1": "line 2: is not plain YAML: found character '\\t' that cannot start any token.",
    "a: b: c": "line 1: is not plain YAML: mapping values are not allowed here.",
    "x: 1\na: *x\n": "line 2: is not plain YAML: found undefined alias 'x'.",
    "a: !foo 1": "line 1: is not plain YAML: could not determine a constructor for the tag '!foo'.",
    "a: 1\na: 2\n": "line 2: is not plain YAML: the mapping has 'a' twice.",
    "a: &x [*x]": "line 1: is not plain YAML: an alias stands inside its own value.",
    "a: 1\nb: 2020-99-99": "line 2: is not plain YAML: '2020-99-99' is not of the type 'timestamp'.",
    "- a\nb: 1": "line 2: is not plain YAML: expected <block end>, but found '?'.",
    "--- a\n--- b": "line 2: is not plain YAML: but found another document.",
    "[" * 101: "line 1: is not plain YAML: too many brackets within brackets.",
    "a: 1\nb:\n  " + "- " * 100_000: "line 3: is not plain YAML: too many brackets within brackets.",
    "a: 1\r" + "? " * 100_000: "line 1: is not plain YAML: too many brackets within brackets.",
    "\n".join(" " * depth + "a:" for depth in range(2500)):
        "line 1001: is not plain YAML: too many brackets within brackets.",
    "a: 'x": "line 1: is not plain YAML: found unexpected end of stream.",
}  # fmt: skip


@pytest.fixture(params=["libyaml", "PyYAML"])
def parser(request, monkeypatch):
    if request.param == "PyYAML":
        monkeypatch.setattr(yaml, "__with_libyaml__", False)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:15]))
def test_what_is_refused_and_where(parser, text):
    with pytest.raises(PlainYamlError) as error:
        load(text)
    assert str(error.value) == BAD[text]


def test_an_alias_bomb(parser):
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    with pytest.raises(PlainYamlError, match="line 9: .* its aliases stand for more than 16 MiB of text. Write the"):
        load("\n".join(lines))


def test_plain_values(parser):
    text = "a: [1, 0x10, 1_000, 2.5, .inf, null, yes, '7', 2020-01-02]\nb: |\n  two\n  lines\nd: &x {e: 1}\nf: *x\n"
    value = load(text)
    assert value["a"][:8] == [1, 16, 1000, 2.5, float("inf"), None, True, "7"]
    assert value["a"][8].isoformat() == "2020-01-02"
    assert value["b"] == "two\nlines\n" and value["f"] == value["d"] == {"e": 1}
    assert load("") is None


@needs_libyaml
def test_libyaml_parses_where_it_can(monkeypatch):
    """PyYAML's own parser, which takes five times as long, sees only what libyaml refuses."""
    monkeypatch.setattr(plain_yaml, "_Loader", None)
    assert load("a: [1, 2]") == {"a": [1, 2]}
    with pytest.raises(PlainYamlError, match="'a' twice"):
        load("a: 1\na: 2")
    with pytest.raises(TypeError):
        load("a: [1")


SPEC = yaml.safe_dump({
    "feature_spec": {f"cat_{n}": {"dtype": "int32", "cardinality": 10 * n + 1} for n in range(4)},
    "source_spec": {"train": [{"type": "split_binary", "features": ["cat_0"], "files": ["train/cat_0.bin"]}]},
    "metadata": {"text": "two\nlines", "number": 1.5, "none": None},
})  # fmt: skip


@needs_libyaml
@given(st.lists(damage, min_size=1, max_size=3))
def test_damaged_text_has_one_meaning(changes):
    content = SPEC.encode()
    for change in changes:
        content = damaged(content, *change)
    text = content.decode("utf-8", "replace")
    outcomes = []
    with pytest.MonkeyPatch.context() as patch:
        for with_libyaml in (True, False):
            patch.setattr(yaml, "__with_libyaml__", with_libyaml)
            try:
                outcomes.append(repr(load(text)))
            except PlainYamlError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
