"""Every reader of a document gets wrong types, cuts and damage. It answers with an error for users, not a traceback."""

import copy
import dataclasses
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.damage import damage, damaged
from support.layout_samples import ONE_HOT, to_layout, write_tf_raw

from criteo_prep import cli
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import MANIFEST, block_entry, differences, file_entry, load_manifest, save_manifest
from criteo_prep.transcribe.run import Request, transcribe_dataset
from criteo_prep.verify import verify

SPEC = "feature_spec.yaml"
SYNTHETIC = {"src_dataset_type": "synthetic", "src_batch_size": 3, "max_batches_train": 1, "max_batches_test": 1}
FOR_USERS = (ValueError, OSError)  # what a program turns into one line and exit code 1

numbers = st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), True])
texts = st.sampled_from(["", "auto", "..", "/", "/etc/passwd", "a" * 5000, "\0", "\n", "i4,f4", "O", "é\ud800", "int8"])
leaves = st.none() | numbers | texts | st.dates()
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def places(document, path=()):
    """The paths of all values in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(document, where, value):
    """A copy of a document with another value at a share `where` of its paths, or with the value removed for `...`."""
    document, paths = copy.deepcopy(document), list(places(document))
    *parents, last = paths[int(where * (len(paths) - 1))]
    inner = document
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


changes = st.tuples(st.floats(0, 1), st.just(...) | values)


def without_dates(value):
    """A value as JSON can hold it."""
    if isinstance(value, dict):
        return {str(key): without_dates(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_dates(inner) for inner in value]
    return value if value is ... or value is None or isinstance(value, bool | int | float | str) else str(value)


def attempt(function, *arguments):
    """Calls a reader. What it raises must be for users, on one line."""
    try:
        return function(*arguments)
    except FOR_USERS as error:
        assert "\n" not in str(error) and len(str(error)) < 5000, error
        return None


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_tf_raw(tmp_path_factory.mktemp("documents") / "raw", ONE_HOT[:2], {"train": 6, "test": 2})


@pytest.fixture(scope="module", params=["tf_raw", "parquet", "record_binary", "csv", "criteo_npy", "split_tfrecords"])
def dataset(request, raw, tmp_path_factory):
    return to_layout(raw, "tf_raw", tmp_path_factory.mktemp(request.param) / "set", request.param), request.param


def read_spec(root, layout):
    attempt(FeatureSpec.load, root / SPEC, True)
    if report := attempt(verify, root, 1, True):
        assert report.text().count("\n") == len(report.checks)
    source = Request(root, layout, dst_dataset_path=root.parent / "out", dst_dataset_type="tf_raw", overwrite=True)
    attempt(transcribe_dataset, source, True)
    attempt(transcribe_dataset, dataclasses.replace(source, **SYNTHETIC), True)


@settings(max_examples=12)
@given(changes)
def test_a_feature_spec_with_another_type(dataset, change):
    root, layout = dataset
    whole = (root / SPEC).read_bytes()
    try:
        (root / SPEC).write_text(yaml.safe_dump(changed(yaml.safe_load(whole), *change)))
        read_spec(root, layout)
    finally:
        (root / SPEC).write_bytes(whole)


@settings(max_examples=10)
@given(damage)
def test_a_damaged_feature_spec(dataset, change):
    root, layout = dataset
    whole = (root / SPEC).read_bytes()
    try:
        (root / SPEC).write_bytes(damaged(whole, *change))
        read_spec(root, layout)
    finally:
        (root / SPEC).write_bytes(whole)


@pytest.fixture(scope="module")
def with_manifest(tmp_path_factory):
    root = write_tf_raw(tmp_path_factory.mktemp("with_manifest") / "set", ONE_HOT[:1], {"train": 6})
    names = [SPEC, "train/numerical.bin", "train/label.bin", "train/store.bin"]
    document = {
        "made_by": "criteo-prep preprocess",
        "versions": {"numpy": "2"},
        "inputs": [{"name": "day_0", "bytes": 3, "rows": 6}],
        "rules": {"threshold": [1, 2], "shuffle": None},
        "splits": {"train": {"num_samples": 6}},
        "files": {name: (file_entry if "bin" in name else block_entry)(root / name) for name in names},
    }
    save_manifest(root, document)
    return root


def read_manifest(root, wanted):
    document = attempt(load_manifest, root)
    if document:
        assert all(line.isprintable() for line in differences(document, wanted) + differences(wanted, document))
    if report := attempt(verify, root, 1, True):
        assert report.text().count("\n") == len(report.checks)


@settings(max_examples=40)
@given(changes, st.booleans())
def test_a_manifest_with_another_type(with_manifest, change, sealed):
    """`sealed`: the manifest has the right checksum for its wrong content."""
    path = with_manifest / MANIFEST
    whole = path.read_bytes()
    wanted = json.loads(whole)
    where, value = change
    document = changed({key: wanted[key] for key in wanted if key != "checksum"}, where, without_dates(value))
    try:
        if sealed and set(document) == set(wanted) - {"checksum"}:
            save_manifest(with_manifest, document)
        else:
            path.write_text(json.dumps(document))
        read_manifest(with_manifest, wanted)
    finally:
        path.write_bytes(whole)


@settings(max_examples=40)
@given(damage)
def test_a_damaged_manifest(with_manifest, change):
    path = with_manifest / MANIFEST
    whole = path.read_bytes()
    try:
        path.write_bytes(damaged(whole, *change))
        read_manifest(with_manifest, json.loads(whole))
        assert path.read_bytes() == whole or not verify(with_manifest, 1, True).good
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"{a: " * 1_000, b"[" * 100_000, b'{"format": 1, "files": {"": 1}}', b"1"]
)
def test_programs_end_with_one_line(with_manifest, tmp_path, capsys, content):
    transcribe = ["transcribe", "--src_dataset_path", with_manifest, "--dst_dataset_path", tmp_path / "out"]
    for name, command in ((MANIFEST, ["verify", with_manifest]), (SPEC, ["verify", with_manifest]), (SPEC, transcribe)):
        path = with_manifest / name
        whole = path.read_bytes()
        try:
            path.write_bytes(content)
            assert cli.main([str(word) for word in command]) == 1
        finally:
            path.write_bytes(whole)
        assert "Traceback" not in capsys.readouterr().err
