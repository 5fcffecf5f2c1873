"""Records split into three files and joined again, against plain slices of an array."""

import fcntl
import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.damage import damage, damaged

from criteo_prep import cli
from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.guard import DestinationError
from criteo_prep.split_bin import files
from criteo_prep.split_bin.__main__ import main
from criteo_prep.split_bin.files import join, split
from criteo_prep.split_bin.record import RecordForm, SplitBinError
from criteo_prep.split_bin.to_tf_raw import split_to_tf_raw
from criteo_prep.transcribe.tf_raw import Reader
from criteo_prep.unchanged import ChangedError

SLOTS = [200 + i for i in range(26)]
MULTI_HOT = tuple([3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1])


def records(path, rows, hotness=(1,) * 26, dtype=np.int32):
    """Random records in a file. Returns them as [rows, words]."""
    rng = np.random.default_rng(3)
    words = rng.integers(0, 200, (rows, 14 + sum(hotness))).astype(np.int32)
    words[:, 0] = rng.integers(0, 2, rows)
    words[:, 1:14] -= 5
    if dtype == np.float32:
        words[:, :14] = words[:, :14].astype(np.float32).view(np.int32)
    words.tofile(path)
    return words


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("rows", [0, 1, 5, 2048, 40_000])
def test_the_published_files(tmp_path, rows):
    words = records(tmp_path / "train.bin", rows)
    assert split(tmp_path / "train.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True) == SLOTS
    assert files_of(tmp_path / "out") == {
        "label.bin": words[:, :1].tobytes(), "dense.bin": words[:, 1:14].tobytes(),
        "category.bin": words[:, 14:].tobytes(),
        "metadata.json": (
            '{"vocab_sizes": [' + ", ".join(map(str, SLOTS)) + '], "label_raw_type": "int32", '
            '"dense_raw_type": "int32", "category_raw_type": "int32", "dense_log": true}').encode()}  # fmt: skip
    assert join(tmp_path / "out", tmp_path / "again.bin", quiet=True) == rows
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "train.bin").read_bytes()


def test_records_of_912_bytes(tmp_path):
    words = records(tmp_path / "in.bin", 3000, MULTI_HOT, np.float32)
    assert words[0].nbytes == 912
    form = RecordForm("float32", "float32", "uint32", MULTI_HOT, False)
    split(tmp_path / "in.bin", tmp_path / "out", form=form, quiet=True)
    document = json.loads((tmp_path / "out/metadata.json").read_text())
    assert document["hotness_per_table"] == list(MULTI_HOT) and document["dense_log"] is False
    first = np.cumsum((14, *MULTI_HOT))
    assert document["vocab_sizes"] == [int(words[:, a:b].max()) + 1 for a, b in zip(first, first[1:], strict=False)]
    assert (tmp_path / "out/category.bin").read_bytes() == words[:, 14:].tobytes()
    join(tmp_path / "out", tmp_path / "again.bin", quiet=True)
    assert (tmp_path / "again.bin").read_bytes() == words.tobytes()


def test_sizes_that_are_not_given_are_found_and_said_aloud(tmp_path, capsys):
    words = records(tmp_path / "in.bin", 500)
    assert main([str(tmp_path / "in.bin"), str(tmp_path / "out"), "--quiet"]) == 0
    found = [int(largest) + 1 for largest in words[:, 14:].max(axis=0)]
    assert f"vocab_sizes are the largest id + 1 found in {tmp_path}/in.bin, not" in (heard := capsys.readouterr().out)
    assert str(found) in heard and "500 records" in heard
    assert json.loads((tmp_path / "out/metadata.json").read_text())["vocab_sizes"] == found


@pytest.mark.parametrize("dense, log", [("int32", "True"), ("float32", "false"), ("float32", "True")])
def test_the_layout_to_train_on(tmp_path, dense, log):
    words = records(tmp_path / "in.bin", 700, dtype=np.dtype(dense).type)
    argv = [str(tmp_path / "in.bin"), str(tmp_path / "out"), "--layout=tf_raw", f"--dense_type={dense}",
            f"--dense-log={log}", f"--label_type={dense}", "--quiet", "--slot_size_array", str(SLOTS)]  # fmt: skip
    assert main(argv) == 0
    spec = FeatureSpec.load(tmp_path / "out/feature_spec.yaml")
    assert [feature.cardinality for feature in spec.categorical] == SLOTS
    with Reader(tmp_path / "out", spec, split="train") as reader:
        batch = reader.read(0, 700)
    numbers = words[:, 1:14].view(dense).astype(np.float64)
    expected = np.log(np.maximum(numbers, -2) + 3) * (numbers > -3) if log == "True" else numbers
    assert batch.numerical.tolist() == expected.astype(np.float16).tolist()
    assert batch.label.tolist() == (words[:, 0].view(dense) == 1).tolist()
    for i, ids in enumerate(batch.categorical.values()):
        assert ids.values.tolist() == words[:, 14 + i].tolist()


@pytest.mark.parametrize("id_type", ["int32", "uint32"])
def test_cardinalities_of_the_layout_to_train_on_are_found(tmp_path, id_type):
    words = records(tmp_path / "in.bin", 100)
    argv = [str(tmp_path / "in.bin"), str(tmp_path / "out"), "--layout=tf_raw", f"--category_type={id_type}", "--quiet"]
    assert main(argv) == 0
    spec = FeatureSpec.load(tmp_path / "out/feature_spec.yaml")
    assert [table.cardinality for table in spec.categorical] == (words[:, 14:].max(axis=0) + 1).tolist()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 300), st.integers(1, 9000))
def test_any_form_survives(tmp_path_factory, hotness, rows, block_bytes):
    folder = tmp_path_factory.mktemp("split")
    words = records(folder / "in.bin", rows, hotness)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK_BYTES", block_bytes)
        split(folder / "in.bin", folder / "out", form=RecordForm(hotness=tuple(hotness)), quiet=True)
        join(folder / "out", folder / "again.bin", quiet=True)
    assert (folder / "out/dense.bin").read_bytes() == words[:, 1:14].tobytes()
    assert (folder / "again.bin").read_bytes() == words.tobytes()


@pytest.mark.parametrize("table, row, bad, limits", [(0, 0, -1, SLOTS), (3, 2999, 203, SLOTS), (25, 2048, -7, None)])
def test_an_id_out_of_range_is_named_and_nothing_is_made(tmp_path, table, row, bad, limits):
    words = records(tmp_path / "in.bin", 3000)
    words[row, 14 + table] = bad
    words.tofile(tmp_path / "in.bin")
    limit = limits[table] if limits else 2**31
    offset = row * 160 + 56 + 4 * table
    reason = rf"in.bin: record {row}, byte {offset}: id {bad} of table {table} is not in \[0, {limit}\)"
    with pytest.raises(SplitBinError, match=reason):
        split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=limits, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.bin"]


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFF800000])
def test_a_dense_number_that_is_none_is_named(tmp_path, bits):
    form, words = RecordForm("float32", "float32"), records(tmp_path / "in.bin", 3000, dtype=np.float32)
    split(tmp_path / "in.bin", tmp_path / "good", form=form, slot_sizes=SLOTS, quiet=True)
    words[2900, 13] = np.uint32(bits).view(np.int32)
    words.tofile(tmp_path / "in.bin")
    words[:, 1:14].tofile(tmp_path / "good/dense.bin")
    with pytest.raises(FeatureSpecError, match="in.bin: row 2900: 'num_12' is (nan|-inf)"):
        split(tmp_path / "in.bin", tmp_path / "out", form=form, slot_sizes=SLOTS, quiet=True)
    with pytest.raises(FeatureSpecError, match="dense.bin: row 2900: 'num_12' is (nan|-inf)"):
        join(tmp_path / "good", tmp_path / "out", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "in.bin"]


@pytest.mark.parametrize("argv, reason", [
    (["none.bin", "out"], "none.bin: there is no such file"),
    (["full", "out"], "full: is a folder. Name a file of records"),
    (["/dev/null", "out"], "/dev/null: is not a file that can be read again, but a pipe or a device"),
    (["loop.bin", "out", "--layout=tf_raw"], "loop.bin: is a link that leads to no file"),
    (["short.bin", "out"], "short.bin: 330 bytes is not a multiple of 160, the size of a record"),
    (["in.bin", "out", "--slot_size_array=[1, 2]"], "--slot_size_array has 2 sizes, a record has 26 tables"),
    (["in.bin", "out", "--slot_size_array=__import__('os').system('true')"], "--slot_size_array: must be a list"),
    (["in.bin", "out", "--slot_size_array=[1, true]"], "must be a list of positive integers"),
    (["in.bin", "out", "--slot_size_array=" + "[" * 100_000], "must be a list of positive integers"),
    (["in.bin", "out", "--hotness_per_table=[0]"], "--hotness_per_table: must be a list of positive integers"),
    (["in.bin", "out", f"--hotness_per_table={[2**31 - 1] * 26}"], "makes records of 223338299344 bytes"),
    (["in.bin", "."], "holds in.bin, which is read and would be lost"),
    (["in.bin", "full"], "full: is not empty"),
    (["--join", "full", "new.bin"], "full/metadata.json: there is no such file"),
])  # fmt: skip
def test_misuse_leaves_everything_as_it_was(tmp_path, monkeypatch, capsys, argv, reason):
    monkeypatch.chdir(tmp_path)
    records(tmp_path / "in.bin", 4)
    (tmp_path / "short.bin").write_bytes(bytes(330))
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept").write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    assert main([*argv, "--quiet"]) == 1
    assert reason in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_is_there_is_replaced_on_request_only(tmp_path):
    records(tmp_path / "in.bin", 4)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    with pytest.raises(DestinationError, match="is not empty"):
        split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    with pytest.raises(DestinationError, match="in.bin: exists already. .* --overwrite"):
        join(tmp_path / "out", tmp_path / "in.bin", quiet=True)
    records(tmp_path / "in.bin", 2)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, overwrite=True, quiet=True)
    assert (tmp_path / "out/label.bin").stat().st_size == 8
    join(tmp_path / "out", tmp_path / "in.bin", overwrite=True, quiet=True)


def changed(words, row, column, value):
    words = words.copy()
    words[row, column] = value
    return words.tobytes()


@pytest.mark.parametrize("content", [
    lambda words: b"my only copy\n", lambda words: words.tobytes()[:-1], lambda words: b"x" * words.nbytes,
    lambda words: changed(words, 0, 0, 2), lambda words: changed(words, 9_999, 39, 225),
    lambda words: changed(words, 9_999, 14, -1),
], ids=["text", "half a record", "no labels", "another label", "a last id too large", "a negative id"])  # fmt: skip
def test_a_file_that_does_not_hold_such_records_is_never_replaced(tmp_path, content):
    words = records(tmp_path / "in.bin", 10_000)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    (tmp_path / "new.bin").write_bytes(content(words))
    with pytest.raises(DestinationError, match="new.bin: does not hold what .* is not replaced. Name another file, or"):
        join(tmp_path / "out", tmp_path / "new.bin", overwrite=True, quiet=True)
    assert (tmp_path / "new.bin").read_bytes() == content(words) and not (tmp_path / ".new.bin.partial").exists()
    for replaceable in (changed(words, 9_999, 39, 224), b""):  # the largest id, and a file in which nothing is lost
        (tmp_path / "new.bin").write_bytes(replaceable)
        assert join(tmp_path / "out", tmp_path / "new.bin", overwrite=True, quiet=True) == 10_000
        assert (tmp_path / "new.bin").read_bytes() == words.tobytes()


def test_a_pipe_and_a_file_of_a_dataset_are_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records("in.bin", 4)
    split("in.bin", "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    split_to_tf_raw("in.bin", "set", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    arguments = ["--src_dataset_type", "tf_raw", "--src_dataset_path", "set", "--dst_dataset_path", "records"]
    assert cli.main(["transcribe", *arguments, "--dst_dataset_type", "record_binary"]) == 0
    part = next(path for path in (tmp_path / "records").rglob("*") if path.is_file() and path.suffix != ".yaml")
    before = part.read_bytes()
    os.mkfifo("pipe")
    for path, reason in ((part, "is a part of a dataset, which would be lost"), ("pipe", "is a pipe or a device")):
        with pytest.raises(DestinationError, match=reason):
            join("out", path, overwrite=True, quiet=True)
    assert part.read_bytes() == before


@pytest.mark.parametrize("name, content, reason", [
    ("label.bin", bytes(12), "the files have different numbers of records"),
    ("dense.bin", bytes(53), "dense.bin: 53 bytes is not a multiple of 52"),
    ("metadata.json", b"{", "metadata.json: is not JSON"),
    ("metadata.json", b"[" * (1 << 23), "is not JSON: it has more than"),
    ("metadata.json", b"[]", "must be a mapping"),
    ("metadata.json", b'{"vocab_sizes": [5]}', "category.bin: 416 bytes is not a multiple|different numbers"),
    ("metadata.json", b'{"vocab_sizes": "5"}', "vocab_sizes: must be a list"),
    ("metadata.json", b'{"vocab_sizes": [5], "dense_raw_type": "object"}', "dense_raw_type is 'object'; int32 or"),
    ("metadata.json", b'{"vocab_sizes": [5], "hotness_per_table": [1000000000]}', "makes records of 4000000056"),
    ("category.bin", b"\xff" * 416, "category.bin: record 0, byte 0: id -1 of table 0 is not in"),
])  # fmt: skip
def test_parts_that_do_not_fit(tmp_path, name, content, reason):
    records(tmp_path / "in.bin", 4)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(SplitBinError, match=reason):
        join(tmp_path / "out", tmp_path / "new.bin", quiet=True)
    assert not list(tmp_path.glob("*new*"))


@pytest.fixture
def while_it_is_read(monkeypatch):
    """A function that makes another one be called when the first records are done, of many blocks."""

    def arrange(act):
        monkeypatch.setattr(files, "_BLOCK_BYTES", 160)
        monkeypatch.setattr(files.Progress, "advance", lambda progress, amount: act())

    return arrange


def use(folder, name):
    """Splits in.bin into `new`, or joins the parts of `out`, of which `name` is one."""
    if name == "in.bin":
        split(folder / "in.bin", folder / "new", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    else:
        join(folder / "out", folder / "new", quiet=True)


@pytest.mark.parametrize("name, width", [("label.bin", 4), ("dense.bin", 52), ("category.bin", 104), ("in.bin", 160)])
def test_a_file_that_shrinks_while_it_is_read(tmp_path, while_it_is_read, name, width):
    records(tmp_path / "in.bin", 500)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    path = next(tmp_path.rglob(name))
    while_it_is_read(lambda: os.truncate(path, 5 * width + 2))
    with pytest.raises(FeatureSpecError, match=rf"{name}: ends at byte \d+, before sample \d+. It shrank"):
        use(tmp_path, name)
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize("name", ["in.bin", "label.bin"])
def test_a_file_that_grows_while_it_is_read(tmp_path, while_it_is_read, name):
    records(tmp_path / "in.bin", 50)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    path = next(tmp_path.rglob(name))
    while_it_is_read(lambda: path.open("ab").write(bytes(160)))
    with pytest.raises(SplitBinError, match="grew while it was read|different numbers of records"):
        use(tmp_path, name)
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize("name", ["in.bin", "dense.bin"])
def test_a_file_that_is_rewritten_while_it_is_read(tmp_path, while_it_is_read, name):
    records(tmp_path / "in.bin", 50)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    path = next(tmp_path.rglob(name))
    while_it_is_read(lambda: os.utime(path, ns=(0, 0)))
    with pytest.raises(
        ChangedError, match=f"{name}: changed while it was read .its bytes were written.. Wait until it is complete"
    ):
        use(tmp_path, name)
    assert not list(tmp_path.glob("*new*"))


def test_a_joined_file_is_none_of_the_parts(tmp_path):
    records(tmp_path / "in.bin", 4)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    before = files_of(tmp_path / "out")
    for name in ("label.bin", "new.bin"):
        with pytest.raises(DestinationError, match=f"{name}: lies in .*out, which is read"):
            join(tmp_path / "out", tmp_path / "out" / name, overwrite=True, quiet=True)
    assert files_of(tmp_path / "out") == before


def test_two_that_join_into_one_file_do_not_meet(tmp_path):
    words = records(tmp_path / "in.bin", 4)
    split(tmp_path / "in.bin", tmp_path / "out", form=RecordForm(), slot_sizes=SLOTS, quiet=True)
    partial = tmp_path / ".new.bin.partial"
    partial.write_bytes(bytes(10_000))  # what a killed one left is no obstacle, and not part of the result
    with open(partial, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DestinationError, match="new.bin: another process is writing this destination. Wait for it"):
            join(tmp_path / "out", tmp_path / "new.bin", quiet=True)
        assert partial.stat().st_size == 10_000
    join(tmp_path / "out", tmp_path / "new.bin", quiet=True)
    assert (tmp_path / "new.bin").read_bytes() == words.tobytes() and not partial.exists()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder that split has made, with its source beside it."""
    folder = tmp_path_factory.mktemp("parts")
    records(folder / "in.bin", 9, (2, 1, 3))
    split(folder / "in.bin", folder / "out", form=RecordForm(hotness=(2, 1, 3)), slot_sizes=[200] * 3, quiet=True)
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["metadata.json", "label.bin", "dense.bin", "category.bin"]), st.lists(damage, min_size=1))
def test_damaged_parts(parts, name, damages):
    """An error message, or a file of as many records as the parts hold, which splits again; never anything else."""
    (parts / "joined.bin").unlink(missing_ok=True)
    copy = shutil.copytree(parts / "out", parts / "copy", dirs_exist_ok=True)
    for one in damages:
        (copy / name).write_bytes(damaged((copy / name).read_bytes(), *one))
    try:
        rows = join(copy, parts / "joined.bin", quiet=True)
    except ValueError as error:
        assert str(copy) in str(error) and not (parts / "joined.bin").exists()
    else:
        each = (parts / "joined.bin").stat().st_size // max(rows, 1)
        words = np.fromfile(parts / "joined.bin", np.int32).reshape(rows, each // 4 if rows else 20)
        assert words[:, :1].tobytes() == (copy / "label.bin").read_bytes()
        assert words[:, 14:].tobytes() == (copy / "category.bin").read_bytes()
        assert words[:, 14:].min(initial=0) == 0
