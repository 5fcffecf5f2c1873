"""preprocess over existing files: a finished dataset or a stopped run, of the same or of other inputs and rules."""

import errno
import os

import pytest
from support.log_samples import content, kept_in, make, random_rows, write_rows

from criteo_prep.destination import new_dataset
from criteo_prep.guard import DestinationError
from criteo_prep.manifest import ManifestError
from criteo_prep.preprocess import arrange
from criteo_prep.preprocess.columns import encoder
from criteo_prep.preprocess.parse import parse_files
from criteo_prep.preprocess.request import Resources
from criteo_prep.preprocess.rules import make_rules
from criteo_prep.preprocess.run import DifferentDatasetError, preprocess


@pytest.mark.parametrize("stage", ["parse", "arrange", "encode"])
def test_an_interrupt_keeps_the_finished_work_and_the_same_command_resumes_it(tmp_path, monkeypatch, stage):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 50)) for day in range(3)]
    make(days, tmp_path / "at_once")
    times = iter(range(100))

    def interrupted(original):
        def late(*arguments, **named):
            if next(times) == 2:
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return late

    room, name = {"parse": (parse_files, "_parse_text"), "arrange": (arrange, "_rows_of"),
                  "encode": (encoder.ColumnEncoder, "_encode")}[stage]  # fmt: skip
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(room, name, interrupted(getattr(room, name)))
        make(days, tmp_path / "set", workers=1)
    assert kept_in(tmp_path) == [".set.partial", "at_once"]
    parsed_again = []
    monkeypatch.setattr(parse_files, "text_blocks", lambda path, *more: parsed_again.append(path.name) or iter(()))
    if stage == "parse":
        monkeypatch.undo()
    make(days, tmp_path / "set")
    assert parsed_again == [] and content(tmp_path / "set") == content(tmp_path / "at_once")


def test_other_rules_over_an_unfinished_run_redo_only_what_they_must(tmp_path, monkeypatch, capsys):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 50)) for day in range(3)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder.ColumnEncoder, "_do_column", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        make(days, tmp_path / "set", 2)
    rules, said = make_rules(5), []
    monkeypatch.setattr(Resources, "say", lambda self, line: said.append(line))
    monkeypatch.setattr(parse_files, "text_blocks", None)  # nothing is parsed
    preprocess(days, tmp_path / "set", rules=rules, resources=Resources(quiet=True))
    monkeypatch.undo()
    assert any("150 rows need not be parsed again:\n  threshold: existing 2, requested 5" in line for line in said)
    make(days, tmp_path / "at_once", 5)
    assert content(tmp_path / "set") == content(tmp_path / "at_once")


@pytest.mark.parametrize("shuffle", ["none", "global"])
@pytest.mark.parametrize("keep_raw", [False, True])
def test_a_higher_threshold_over_a_finished_dataset_needs_no_parsing(tmp_path, monkeypatch, keep_raw, shuffle):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 300)) for day in range(3)]
    for threshold in (2, "9,cat_1:4"):
        make(days, tmp_path / f"direct{threshold}", threshold, keep_raw=keep_raw, shuffle=shuffle)
    make(days, tmp_path / "set", 2, keep_raw=keep_raw, shuffle=shuffle)
    monkeypatch.setattr(parse_files, "text_blocks", None)
    made = make(days, tmp_path / "set", "9,cat_1:4", shuffle=shuffle)
    assert content(tmp_path / "set") == content(tmp_path / "direct9,cat_1:4") and not made.already_complete
    assert made.manifest["rules"]["threshold"] == "9,cat_1:4"
    if keep_raw:
        make(days, tmp_path / "set", 2, shuffle=shuffle)
        assert content(tmp_path / "set") == content(tmp_path / "direct2")


@pytest.mark.parametrize(
    "before, after",
    [((5, {}), (2, {})), (("5,cat_3:9", {}), ("5,cat_3:8", {})), ((2, {"max_cardinality": 4}), (9, {})),
     ((2, {}), (3, {"max_cardinality": 4})), ((2, {}), (2, {"vocabulary_days": "train"}))],
)  # fmt: skip
def test_other_ids_that_cannot_be_derived_are_parsed_for_again(tmp_path, monkeypatch, capsys, before, after):
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 60)) for day in range(3)]
    make(days, tmp_path / "direct", after[0], **after[1])
    make(days, tmp_path / "set", before[0], **before[1])
    old = content(tmp_path / "set")
    original = encoder.ColumnEncoder._do_column
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            encoder.ColumnEncoder,
            "_do_column",
            lambda *a: original(*a) if a[1] < 5 else (_ for _ in ()).throw(KeyboardInterrupt),
        )
        make(days, tmp_path / "set", after[0], workers=1, **after[1])
    assert content(tmp_path / "set") == old
    assert kept_in(tmp_path) == [".set.partial", "direct", "set"]
    assert "set.partial: is left from another run" in make(days, tmp_path / "set", before[0], **before[1]).warnings[0]
    monkeypatch.setattr(parse_files, "text_blocks", None)  # parsed already, before the interrupt
    preprocess(days, tmp_path / "set", rules=make_rules(after[0], **after[1]), resources=Resources())
    said = capsys.readouterr().err
    assert "set is made again from the inputs, which are parsed again" in said and "requested" in said
    assert content(tmp_path / "set") == content(tmp_path / "direct")
    assert kept_in(tmp_path) == ["direct", "set"]


def test_a_derivation_does_not_touch_the_dataset_that_it_is_made_of(tmp_path, monkeypatch):
    """The raw columns have two names during a derivation; a run with more inputs must not append to them."""
    days = [write_rows(tmp_path / f"day_{day}", random_rows(day, 60)) for day in range(3)]
    make(days[:2], tmp_path / "set", 2, keep_raw=True)
    old = content(tmp_path / "set")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder.ColumnEncoder, "_do_column", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        make(days[:2], tmp_path / "set", 5)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoder.ColumnEncoder, "_do_column", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        make(days, tmp_path / "set", 5, overwrite=True, test_fraction=0.1)
    assert content(tmp_path / "set") == old
    make(days, tmp_path / "set", 5, overwrite=True, test_fraction=0.1)
    make(days, tmp_path / "direct", 5, test_fraction=0.1)
    assert content(tmp_path / "set") == content(tmp_path / "direct")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV])
def test_a_derivation_on_a_file_system_without_hard_links(tmp_path, monkeypatch, number):
    path = write_rows(tmp_path / "day_0", random_rows(1, 50))
    make(path, tmp_path / "set", 2, keep_raw=True)

    def link(source, target):
        raise OSError(number, os.strerror(number), source, None, target)

    monkeypatch.setattr(os, "link", link)
    make(path, tmp_path / "set", 5)
    make(path, tmp_path / "direct", 5, keep_raw=True)
    assert content(tmp_path / "set") == content(tmp_path / "direct")


def test_raw_columns_that_were_not_kept_are_not_half_kept(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "day_0", random_rows(1, 50))
    make(path, tmp_path / "at_once", keep_raw=True)
    times = iter(range(100))
    original = encoder.ColumnEncoder._do_column
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            encoder.ColumnEncoder,
            "_do_column",
            lambda *a: original(*a) if next(times) < 5 else (_ for _ in ()).throw(KeyboardInterrupt),
        )
        make(path, tmp_path / "set")
    make(path, tmp_path / "set", keep_raw=True)
    assert content(tmp_path / "set") == content(tmp_path / "at_once")
    make(path, tmp_path / "plain")
    again = make(path, tmp_path / "plain", keep_raw=True)
    assert again.already_complete and "has no raw columns; add --overwrite" in again.warnings[0]


def test_running_again(tmp_path):
    path = write_rows(tmp_path / "rows.tsv", random_rows(10, 50))
    first = make(path, tmp_path / "set", 3)
    before = content(tmp_path / "set")
    again = make(path, tmp_path / "set", 3)
    assert (first.already_complete, again.already_complete) == (False, True)
    assert again.summary() == first.summary()
    with pytest.raises(DifferentDatasetError, match="split: existing 'the last floor.*0.1.*0.2.*\n.*add --overwrite"):
        make(path, tmp_path / "set", 3, test_fraction=0.2)
    with pytest.raises(DifferentDatasetError, match=r"threshold: existing 3, requested 2\n(?s:.*)shuffle: existing"):
        make(path, tmp_path / "set", 2, shuffle="global")
    assert content(tmp_path / "set") == before
    write_rows(path, random_rows(11, 51))
    with pytest.raises(DifferentDatasetError, match=r"input 1 \(rows.tsv\): bytes existing \d+, requested \d+"):
        make(path, tmp_path / "set", 3)
    assert make(path, tmp_path / "set", 4, overwrite=True).manifest["inputs"][0]["rows"] == 51
    assert sorted(os.listdir(tmp_path)) == ["rows.tsv", "set"]


def test_a_finished_dataset_that_lost_a_file_is_not_complete(tmp_path):
    path = write_rows(tmp_path / "rows.tsv", random_rows(10, 50))
    make(path, tmp_path / "set")
    (tmp_path / "set" / "train" / "cat_3.bin").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"train/cat_3\.bin: has 0 bytes; the manifest says \d+"):
        make(path, tmp_path / "set")


def test_a_folder_with_other_things_is_not_touched(tmp_path):
    path = write_rows(tmp_path / "rows.tsv", random_rows(10, 5))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    with pytest.raises(DestinationError, match="is not empty"):
        make(path, tmp_path / "set")
    assert content(tmp_path / "set") == {"thesis.txt": b"mine"}


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    path = write_rows(tmp_path / "day_0", random_rows(9, 50))
    with new_dataset(tmp_path / "set", resume=True), pytest.raises(DestinationError, match="another process"):
        make(path, tmp_path / "set")
