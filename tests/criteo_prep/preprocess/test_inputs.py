"""Which files are read, in which order, and which rows they are for."""

import os
from pathlib import Path

import pytest
from support.log_samples import check_split, make, plain_count, random_rows, write_rows

from criteo_prep.preprocess.input_files import list_inputs
from criteo_prep.preprocess.inputs import find_inputs
from criteo_prep.preprocess.parse.text_stream import InputError


def names_of(inputs):
    return [path.name for path in inputs.train], [path.name for path in inputs.evaluation]


def touch(folder, *names):
    """Makes the files; a name that ends in / is a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("a row\n")
    return folder


def test_which_files_are_what(tmp_path):
    touch(tmp_path, "day_0", "day_10", "day_2.gz", "readme.txt", ".hidden")
    assert names_of(find_inputs([tmp_path])) == (["day_0", "day_2.gz"], ["day_10"])
    assert [path.name for path in find_inputs([tmp_path]).ignored] == ["readme.txt"]
    given = [tmp_path / "day_10", tmp_path / "day_2.gz"]
    assert names_of(find_inputs(given)) == (["day_2.gz"], ["day_10"])
    assert names_of(find_inputs(given, test_file=tmp_path / "day_0")) == (["day_2.gz", "day_10"], ["day_0"])
    assert names_of(find_inputs(given, test_fraction=0.1)) == (["day_2.gz", "day_10"], [])
    assert names_of(find_inputs(given[:1])) == (["day_10"], [])
    touch(tmp_path, "alone/log.tsv", "alone/log.tsv.tmp", "alone/notes.pdf")
    assert names_of(find_inputs([tmp_path / "alone"])) == (["log.tsv"], [])


def test_only_known_names_are_days(tmp_path):
    """A half-copied day, a checksum and an array lie next to the days."""
    touch(tmp_path, "day_0.gz", "day_1", "day_2.parquet", "day_3.tmp", "day_0.npz", "day_0.gz.md5", "day_4.part/")
    inputs = find_inputs([tmp_path])
    assert names_of(inputs) == (["day_0.gz", "day_1"], ["day_2.parquet"])
    assert sorted(path.name for path in inputs.ignored) == ["day_0.gz.md5", "day_0.npz", "day_3.tmp", "day_4.part"]


def test_the_pieces_of_a_day_are_one_input_in_natural_order(tmp_path):
    touch(tmp_path, "day_0.00", "day_0.01", "day_0.02", "day_1/part-10.gz", "day_1/part-9.gz", "day_1/_SUCCESS",
          "day_1/.part-9.crc", "day_1/part-9.tmp", "day_2/b.tsv", "day_2/a.tsv", "day_3")  # fmt: skip
    inputs = find_inputs([tmp_path])
    train = ["day_0.00", "day_0.01", "day_0.02", "part-9.gz", "part-10.gz", "a.tsv", "b.tsv"]
    assert names_of(inputs) == (train, ["day_3"])
    assert [path.name for path in inputs.ignored] == ["part-9.tmp"]
    assert names_of(find_inputs([tmp_path], days="0-1")) == (train[:3], train[3:5])
    assert names_of(find_inputs([tmp_path / "day_2", tmp_path / "day_1"])) == (train[3:5], train[5:])
    assert names_of(find_inputs([tmp_path / "day_1"])) == (train[3:5], [])
    assert names_of(find_inputs([tmp_path / "day_3"], test_file=tmp_path / "day_1")) == (["day_3"], train[3:5])


def test_a_folder_that_spark_wrote_is_one_input(tmp_path):
    names = [f"part-0000{number}-1f-c000.snappy.parquet" for number in range(3)]
    touch(tmp_path, "_SUCCESS", "_metadata", ".part-0.crc", *reversed(names), "part-00003.tmp")
    assert names_of(find_inputs([tmp_path])) == (names, [])
    assert [path.name for path in find_inputs([tmp_path]).ignored] == ["part-00003.tmp"]
    touch(tmp_path, "more/part-0.zst")
    assert names_of(find_inputs([tmp_path / "more"], test_file=tmp_path)) == (["part-0.zst"], names)


def test_rows_of_pieces(tmp_path):
    """The last day is split in its middle, which lies in its second piece."""
    rows = {name: random_rows(number, 10) for number, name in enumerate(["day_0", "day_1/part-0", "day_1/part-1.gz"])}
    (tmp_path / "logs" / "day_1").mkdir(parents=True)
    for name, some in rows.items():
        write_rows(tmp_path / "logs" / name, some[:4] if name == "day_1/part-0" else some)
    make(tmp_path / "logs", tmp_path / "set", 0)
    train, first, second = rows["day_0"], rows["day_1/part-0"][:4], rows["day_1/part-1.gz"]
    ids_of = plain_count([*train, *first, *second], 0)
    check_split(tmp_path / "set", "train", train, ids_of)
    check_split(tmp_path / "set", "test", [*first, *second[:3]], ids_of)
    check_split(tmp_path / "set", "validation", second[3:], ids_of)


@pytest.mark.parametrize("names, message", [
    (["day_0.00", "day_0.02"], r"day_0\.00: piece 1 of its day is missing"),
    (["day_0.1", "day_0.3"], r"day_0\.1: piece 2 of its day is missing"),
    (["day_0.00", "day_0.0.gz"], r"is piece 0 of its day, as is"),
    (["day_0", "day_0.0"], r"is day 0, as is .*Name each day once"),
    (["day_0/", "day_1"], r"day_0: is a folder without part files \(part-\*\)"),
])  # fmt: skip
def test_pieces_that_are_not_whole(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        find_inputs([touch(tmp_path, *names)])


def test_a_piece_that_ends_in_the_middle_of_a_row(tmp_path):
    """As `split -b` makes them: the halves of the row could be read as two other rows."""
    touch(tmp_path, "day_0.0", "day_0.1")
    (tmp_path / "day_0.0").write_text("half a r")
    with pytest.raises(InputError, match=r"day_0\.0: ends in the middle of a row.*Join them"):
        find_inputs([tmp_path])


def test_a_day_that_cannot_be_read_is_an_error(tmp_path):
    """Left aside, it would make another day the evaluation day."""
    touch(tmp_path, "day_0", "day_1")
    (tmp_path / "day_2").symlink_to("elsewhere/day_2")
    with pytest.raises(InputError, match=r"day_2: is a link to elsewhere/day_2, which does not exist"):
        find_inputs([tmp_path])
    (tmp_path / "day_2").unlink()
    (tmp_path / "day_2").symlink_to("day_2")
    with pytest.raises(InputError, match=r"day_2: is a link to day_2, which does not exist"):
        find_inputs([tmp_path])
    (tmp_path / "day_2").unlink()
    os.mkfifo(tmp_path / "day_2")
    with pytest.raises(InputError, match=r"day_2: is a pipe; .* Write its text to a file"):
        find_inputs([tmp_path])


@pytest.mark.parametrize("path, message", [
    ("-", "standard input cannot be read, because a stopped run resumes"), ("/dev/null", "/dev/null: is a device"),
])  # fmt: skip
def test_paths_that_are_not_files(path, message):
    with pytest.raises(InputError, match=message):
        list_inputs([path])
    with pytest.raises(InputError, match=message):
        find_inputs([__file__], test_file=path)


@pytest.mark.parametrize("days, message", [
    ("5-3", r"--days 5-3: '5-3' ends before it begins\. Write 3-5"), ("0-2", r"no input is of day 2"),
    ("0-9999999999", r"no input is of day 2"), ("1,7", r"no input is of day 7"), ("0-", r"'0-' is neither a day"),
    ("-1", r"'-1' is neither"), ("", r"'' is neither"), ("0-1-2", r"is neither"), ("0-\u0663", r"is neither"),
])  # fmt: skip
def test_days_that_cannot_be_taken(tmp_path, days, message):
    with pytest.raises(InputError, match=message):
        find_inputs([touch(tmp_path, "day_0", "day_1", "day_3")], days=days)


def test_days_that_are_taken(tmp_path):
    touch(tmp_path, *(f"day_{number}" for number in range(12)))
    assert names_of(find_inputs([tmp_path], days=" 10 , 0-2,1 ")) == (["day_0", "day_1", "day_2"], ["day_10"])


@pytest.mark.parametrize(
    "paths, more, message",
    [
        (["a.tsv", "b.tsv"], {}, r"a\.tsv: is not named day_N, and there are 2 inputs.*--test_file.*--test_fraction"),
        (["day_0", "b.tsv"], {}, r"b\.tsv: is not named day_N"),
        (["a.tsv", "a.tsv"], {}, r"a\.tsv: is given twice"),
        (["day_0", "day_0.gz"], {}, r"day_0\.gz: is day 0, as is .*day_0\. Name each day once"),
        (["."], {}, r"holds 4 files, none of them named day_N"),
        (["empty"], {}, r"empty: holds no file that could be an input"),
        (["a.tsv", "empty"], {}, r"empty: is a folder without part files"),
        (["nowhere"], {}, r"nowhere: does not exist"),
        (["a.tsv"], {"test_file": "nowhere"}, r"nowhere: does not exist"),
        (["a.tsv"], {"test_file": "a.tsv"}, r"a\.tsv: is both an input and the test file"),
        (["a.tsv"], {"test_file": "b.tsv", "test_fraction": 0.1}, r"both say which rows are test"),
        (["a.tsv"], {"test_fraction": 1.0}, r"--test_fraction 1\.0: must be above 0 and below 1"),
        (["a.tsv"], {"test_fraction": float("nan")}, r"--test_fraction nan: must be above 0 and below 1"),
    ],
)
def test_inputs_that_make_no_sense(tmp_path, monkeypatch, paths, more, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "b.tsv", "c.tsv", "e.tsv"):
        Path(name).touch()
    Path("empty").mkdir()
    if any(name.startswith("day") for name in paths):
        Path("day_0").touch(), Path("day_0.gz").touch()
    with pytest.raises(InputError, match=message):
        find_inputs(paths, **more)
