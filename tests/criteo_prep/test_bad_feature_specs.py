"""Feature specs that are refused: each message names where, what was found, what is expected."""

import copy

import pytest
import yaml
from support.shop_spec import SHOP, load

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError


def change(path, value):
    """A change to the example: puts `value` at the dotted path, or removes what is there for `...`."""

    def apply(document):
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            document = document[part]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return apply


@pytest.mark.parametrize(
    "path, value, reason",
    [
        (
            "more",
            {},
            r"the file: unknown key 'more'; the keys are \['feature_spec', 'channel_spec', 'source_spec', 'metad",
        ),
        ("feature_spec", ..., "has no feature_spec"),
        ("channel_spec", None, "channel_spec must be a mapping, not NoneType"),
        ("metadata", [], "metadata must be a mapping, not list"),
        ("feature_spec.store", "int8", "feature_spec: store must be a mapping, not str"),
        (
            "feature_spec.store.size",
            3,
            r"feature_spec: store: unknown key 'size'; the keys are \['dtype', 'cardinality'",
        ),
        ("feature_spec.store.dtype", ..., "feature_spec: store: has no dtype. Write one such as int32"),
        ("feature_spec.price.dtype", None, "feature_spec: price: has no dtype"),
        (
            "feature_spec.store.dtype",
            "int7",
            "feature_spec: store: dtype 'int7' is not a numpy dtype of numbers. Write one such",
        ),
        ("feature_spec.store.dtype", ",", "feature_spec: store: dtype ',' is not a numpy dtype"),
        ("feature_spec.store.dtype", 8, "feature_spec: store: dtype is 8; it must be text"),
        ("feature_spec.store.cardinality", "auto", "store: cardinality auto is for the source of a transcription"),
        ("feature_spec.store.cardinality", 5.0, "store: cardinality is 5.0; it must be a whole number"),
        ("feature_spec.store.cardinality", True, "store: cardinality is True; it must be a whole number"),
        ("feature_spec.store.cardinality", ..., "feature_spec: store: a categorical feature needs a cardinality"),
        ("feature_spec.store.cardinality", 0, "store: cardinality 0 is not positive"),
        (
            "feature_spec.store.cardinality",
            129,
            r"store: ids up to 128 do not fit int8 \(at most 127\). Use int16, or co",
        ),
        ("feature_spec.item.cardinality", 2**31 + 1, "item: ids up to 2147483648 do not fit int32 .* is too large"),
        (
            "feature_spec.store.dtype",
            "uint8",
            r"store: dtype uint8 cannot hold ids; use one of \['int8', 'int16', 'int32",
        ),
        ("feature_spec.store.dtype", "int64", "train: chunk 2: 'store' has dtype int64; use one of"),
        ("feature_spec.store.hotness", 0, "store: hotness 0 is not between 1 and 2147483647"),
        ("feature_spec.store.alpha", "steep", "store: alpha is 'steep'; it must be a number"),
        (
            "feature_spec.age.dtype",
            "float32",
            r"train: chunk 0: numericals have dtypes \['float16', 'float32'\]; they",
        ),
        ("feature_spec.bought.dtype", "int8", r"train: chunk 1: the label needs a file of its own and dtype bool"),
        ("feature_spec.new", {"dtype": "bool"}, "channel_spec: lacks 'new' of feature_spec"),
        ("channel_spec.more", [], r"channel_spec: unknown key 'more'; the keys are \['categorical', 'numerical"),
        ("channel_spec.label", ..., r"channel_spec: has \['categorical', 'numerical'\], must have exactly"),
        ("channel_spec.label", [], "channel_spec: lacks 'bought'"),
        ("channel_spec.label", ["bought", "age"], "channel_spec: names 'age' 2 times; it must name each feature once"),
        ("channel_spec.categorical", ["store", "item", "shop"], "channel_spec: 'shop' is not in feature_spec"),
        ("channel_spec.categorical", "store", "channel_spec: categorical: 'store' is not a list of names"),
        ("source_spec.validation", [], r"source_spec: unknown key 'validation'; the keys are \['train', 'test'\]"),
        ("metadata.source_spec", {"train": []}, r"metadata: source_spec: unknown key 'train'; the keys are \['val"),
        ("source_spec.train", None, "source_spec: train: must be a list of chunks"),
        ("source_spec.train.0", [], "source_spec: train: chunk 0 must be a mapping, not list"),
        ("source_spec.train.0.files", ..., "source_spec: train: chunk 0: has no files"),
        ("source_spec.train.0.type", 3, "chunk 0: type is 3; it must be text"),
        ("source_spec.train.0.file", "x", "chunk 0: unknown key 'file'"),
        ("source_spec.train.2.features", [], "train: chunk 2: names no features"),
        ("source_spec.train.2.features", ["shop"], "train: chunk 2: feature 'shop' is not in feature_spec"),
        (
            "source_spec.train.2.features",
            ["item"],
            "train: chunk 3: names feature 'item' a second time; 'train' must name it once",
        ),
        ("source_spec.train.2.features", ["store", "item"], "chunk 2: a categorical feature .'store'. needs a fi"),
        ("source_spec.train.0.features", ["age", "price"], "chunk 0: the numerical file must hold all numericals"),
        ("source_spec.train.0.features", ["price"], "chunk 0: the numerical file must hold all numericals"),
        ("source_spec.train.1.features", ["bought", "age"], "chunk 1: names feature 'age' a second time"),
        ("source_spec.test.3", ..., "source_spec: test: no chunk holds feature 'item'"),
        ("source_spec.test.3.files", ["a", "b"], "test: chunk 3: has 2 files; it must have exactly one file"),
        ("source_spec.test.3.files", ["../../secret"], "test: chunk 3: file '../../secret' leads out of the da"),
        ("source_spec.test.3.files", ["/etc/passwd"], "test: chunk 3: file '/etc/passwd' leads out of the dat"),
    ],
)
def test_misuse(tmp_path, path, value, reason):
    document = copy.deepcopy(yaml.safe_load(SHOP))
    change(path, value)(document)
    with pytest.raises(FeatureSpecError, match=reason) as raised:
        load(tmp_path, document)
    assert str(raised.value).startswith(f"{tmp_path / 'feature_spec.yaml'}: ")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "the file must be a mapping, not NoneType"),
        ("a: [1, 2", "line 1: is not plain YAML: expected ',' or ']'"),
        ("a: !!python/object:os.system {}", "line 1: is not plain YAML: could not determine a constructor"),
        (
            "feature_spec:\n  a: {dtype: int8}\n  a: {dtype: bool}",
            "line 3: is not plain YAML: the mapping has 'a' twice",
        ),
        ("{a: " * 5_000, "is not plain YAML: too many brackets within brackets"),
        ("a: 1\nb: !!int ''", "line 2: is not plain YAML: '' is not of the type 'int'"),
        ("day: 2020-99-99", "line 1: is not plain YAML: '2020-99-99' is not of the type 'timestamp'"),
        ("a: !!timestamp x", "'x' is not of the type 'timestamp'"),
        ("a: !!bool x", "'x' is not of the type 'bool'"),
        ("!!map x", "expected a mapping node, but found scalar"),
        (f"a: {'9' * 5000}", "'999.*999' is not of the type 'int'"),
        ("a: &a [1, *a]", "line 1: is not plain YAML: an alias stands inside its own value"),
        ("a: &a {<<: *a}", "an alias stands inside its own value"),
        ("x" * (4 << 20) + "y", "has more than 4 MiB, so it is not a feature spec"),
        ('"two\\nlines \\e[31m": 1', r"unknown key 'two\\nlines \\x1b\[31m'"),
    ],
)
def test_text_that_is_not_a_spec(tmp_path, text, reason):
    with pytest.raises(FeatureSpecError, match=reason):
        load(tmp_path, text)


def alias_bomb(levels):
    """A YAML list in a few lines that stands for 9 ** levels names."""
    lines = ["l0: &l0 [" + "name, " * 9 + "]"]
    return "\n".join(lines + [f"l{i}: &l{i} [{f'*l{i - 1}, ' * 9}]" for i in range(1, levels)])


@pytest.mark.parametrize("place", ["metadata:\n{}", "channel_spec:\n{}", "{}"])
def test_aliases_that_stand_for_a_huge_document(tmp_path, place):
    text = place.format("\n".join(f"  {line}" if place != "{}" else line for line in alias_bomb(40).splitlines()))
    assert len(text) < 7000
    with pytest.raises(FeatureSpecError, match="its aliases stand for more than 16 MiB of text. Write the values out"):
        load(tmp_path, text)


def test_aliases_as_yaml_writers_make_them(tmp_path):
    """Published tools share a list of names between channel_spec and source_spec, and PyYAML writes it as an alias."""
    document = yaml.safe_load(SHOP)
    numericals = document["channel_spec"]["numerical"]
    for split in ("train", "test"):
        document["source_spec"][split][0]["features"] = numericals
    assert "*id001" in yaml.safe_dump(document)
    assert load(tmp_path, document).chunk_of("test", "age").features == ("price", "age")


@pytest.mark.parametrize("path, value, reason", [
    ("feature_spec.store.cardinality", 2**63, "store: cardinality is 9223372036854775808; the largest is"),
    ("feature_spec.store.hotness", 2**31, "store: hotness 2147483648 is not between 1 and 2147483647"),
    ("feature_spec.store.alpha", float("nan"), "store: alpha nan is not a finite number"),
    ("feature_spec.store.alpha", 10**400, "store: alpha is 10000.*00000; the largest"),
    ("feature_spec.price.dtype", "S8", "price: dtype 'S8' is not a numpy dtype of numbers"),
    ("feature_spec.price.dtype", ">f2", "price: dtype '>f2' is not a numpy dtype of numbers"),
    ("feature_spec.price.dtype", "float128", "price: dtype 'float128' is not a numpy dtype of numbers"),
    ("channel_spec.label", {"a": list(range(500))}, r"label: {'a': \[0, 1, 2, 3, 4, 5, ...\]} is not a list"),
])  # fmt: skip
def test_values_that_no_spec_needs(tmp_path, path, value, reason):
    document = copy.deepcopy(yaml.safe_load(SHOP))
    change(path, value)(document)
    with pytest.raises(FeatureSpecError, match=reason):
        load(tmp_path, document)


def test_a_message_is_one_short_line():
    message = str(FeatureSpecError("feature_spec.yaml: " + "a\n\x1b[31m" * 10_000 + " Write a name."))
    assert message.isprintable() and len(message) < 620
    assert message.startswith("feature_spec.yaml: a") and message.endswith("Write a name.")


def test_files_that_are_not_a_spec(tmp_path):
    with pytest.raises(FeatureSpecError, match=r"none.yaml: there is no such file\. Name a folder that"):
        FeatureSpec.load(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FeatureSpecError, match="binary: is not text in UTF-8"):
        FeatureSpec.load(tmp_path / "binary")


def test_a_missing_split_or_feature(tmp_path):
    spec = load(tmp_path, SHOP)
    with pytest.raises(FeatureSpecError, match=r"split 'validation' has no chunk with .* splits are"):
        spec.path_of("validation", "age")
    with pytest.raises(FeatureSpecError, match=r"there is no split 'validation'; the splits are"):
        spec.validate_files("validation")
    spec.sources["evening"] = spec.sources["train"]
    with pytest.raises(FeatureSpecError, match=r"'evening' is not one of \['train', 'test', 'validation'\]"):
        spec.validate()
