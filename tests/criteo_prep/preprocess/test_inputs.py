"""Which files are read, in which order, and what they are for."""

from pathlib import Path

import pytest

from criteo_prep.preprocess.inputs import find_inputs
from criteo_prep.preprocess.parse.text_stream import InputError


def names_of(inputs):
    return [path.name for path in inputs.train], inputs.evaluation and inputs.evaluation.name


def test_which_files_are_what(tmp_path):
    for name in ("day_0", "day_10", "day_2.gz", "readme.txt", ".hidden"):
        (tmp_path / name).touch()
    assert names_of(find_inputs([tmp_path])) == (["day_0", "day_2.gz"], "day_10")
    assert [path.name for path in find_inputs([tmp_path]).ignored] == ["readme.txt"]
    given = [tmp_path / "day_10", tmp_path / "day_2.gz"]
    assert names_of(find_inputs(given)) == (["day_2.gz"], "day_10")
    assert names_of(find_inputs(given, test_file=tmp_path / "day_0")) == (["day_2.gz", "day_10"], "day_0")
    assert names_of(find_inputs(given, test_fraction=0.1)) == (["day_2.gz", "day_10"], None)
    assert names_of(find_inputs(given[:1])) == (["day_10"], None)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "log.tsv").touch()
    assert names_of(find_inputs([tmp_path / "alone"])) == (["log.tsv"], None)


@pytest.mark.parametrize(
    "paths, more, message",
    [
        (["a.tsv", "b.tsv"], {}, r"a\.tsv: is not named day_N, and there are 2 files.*--test_file.*--test_fraction"),
        (["day_0", "b.tsv"], {}, r"b\.tsv: is not named day_N"),
        (["a.tsv", "a.tsv"], {}, r"a\.tsv: is given twice"),
        (["day_0", "day_0.gz"], {}, r"day_0\.gz: is day 0, as is .*day_0\. Name each day once"),
        (["."], {}, r"holds 4 files, none of them named day_N"),
        (["empty"], {}, r"empty: holds no file"),
        (["a.tsv", "empty"], {}, r"empty: is a folder"),
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
