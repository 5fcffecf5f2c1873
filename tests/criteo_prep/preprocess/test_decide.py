"""The decision of `preprocess`: each row of the table "Running again" of docs/criteo.md, and the rules behind it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from criteo_prep.preprocess.decide import IDS, RAW, Action, Existing, Unfinished, decide
from criteo_prep.preprocess.inputs import FRACTION, Inputs
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.request import DatasetRequest
from criteo_prep.preprocess.rules import make_rules

DOCS = Path(__file__).resolve().parents[3] / "docs" / "criteo.md"
DAY_0, DAY_1, DAY_2 = ({"name": f"day_{day}", "bytes": 10, "modified_ns": day} for day in range(3))


def request(threshold=5, inputs=(DAY_0, DAY_1), keep_raw=False, split="by days", **rules):
    rules = make_rules(threshold, **rules)
    paths = tuple(Path(entry["name"]) for entry in inputs)
    wanted = {
        "made_by": "criteo-prep preprocess",
        "inputs": list(inputs),
        "rules": {**rules.document(), "split": split},
    }
    return DatasetRequest(Inputs(paths, (), rule=FRACTION), rules, wanted=wanted, keep_raw=keep_raw)


def existing(made=None, folded=()):
    """The finished dataset of a request."""
    made = made or request()
    inputs = [{**entry, "rows": 10, "skipped": {}} for entry in made.wanted["inputs"]]
    files = {"raw/cat_0.raw": {}} if made.keep_raw else {}
    return Existing({**made.wanted, "inputs": inputs, "files": files}, frozenset(folded))


def stopped(made=None, source=None, raw_rows=20, is_arranged=False, finished_files=2):
    """A run that was stopped after it parsed two files of 10 rows."""
    made = made or request()
    files = [ParsedFile(f"day_{n}", 10, finished=n < finished_files) for n in range(2)]
    journal = Journal(Path("work"), made.wanted, files, parsed=finished_files == 2, source=source)
    return Unfinished(journal, raw_rows, is_arranged=is_arranged)


LACKS_NAME = Unfinished(None, finished=existing().manifest)

# The beginning of a row of the docs -> situations that it describes, as (existing, unfinished, wanted).
SITUATIONS = {
    "nothing": [(None, None, request())],
    "a finished dataset of the same inputs and rules": [
        (existing(), None, request()),
        (existing(), stopped(), request()),
    ],
    "a stopped run of the same inputs and rules": [
        (None, stopped(), request()),
        (None, stopped(finished_files=1, raw_rows=10), request()),
        (None, stopped(raw_rows=0, is_arranged=True), request()),
    ],
    "a stopped run that lacks only the renaming": [(None, LACKS_NAME, request())],
    "a stopped run of other rules or inputs, whose parsed files are still usable": [
        (None, stopped(), request(threshold=9)),
        (None, stopped(), request(split="by share")),
        (None, stopped(), request(on_truncated="keep")),
        (None, stopped(), request(inputs=(DAY_0, DAY_2))),
        (None, stopped(), request(inputs=(DAY_0, DAY_1, DAY_2))),
        (None, stopped(is_arranged=True), request(vocabulary_days="train")),
        (None, stopped(is_arranged=True), request(None, ids="raw")),
    ],
    "a stopped run of other rules for parsing, of other splits after they were made": [
        (None, stopped(), request(on_bad_row="skip")),
        (None, stopped(is_arranged=True), request(split="by share")),
        (None, stopped(is_arranged=True), request(shuffle="global")),
        (None, stopped(is_arranged=True), request(inputs=(DAY_0,))),
        (None, stopped(raw_rows=0), request(threshold=9)),
        (None, stopped(), request(inputs=(DAY_2, DAY_1))),
        (None, stopped(raw_rows=0), request(keep_raw=True)),
        (None, LACKS_NAME, request(keep_raw=True)),
    ],
    "a stopped run before a power cut": [(None, Unfinished(None), request())],
    "a finished dataset, and only `--threshold` is higher": [
        (existing(), None, request(threshold=6)),
        (existing(), None, request(threshold="5,cat_3:6")),
        (existing(request(0)), None, request(1)),  # both keep every value
        (existing(request(max_cardinality=4)), None, request(6, max_cardinality=4)),
        (existing(request(max_cardinality=4), folded=["cat_3"]), None, request("5,cat_4:6", max_cardinality=4)),
        (existing(), stopped(), request(threshold=6)),  # of another source
    ],
    "a finished dataset with `--keep_raw`": [
        (existing(request(keep_raw=True)), None, request(threshold=2)),
        (existing(request(keep_raw=True)), None, request(max_cardinality=4)),
        (existing(request(keep_raw=True)), None, request(None, ids="raw")),
        (existing(request(None, ids="raw", keep_raw=True)), None, request()),
        (existing(request(keep_raw=True)), stopped(request(7), source=RAW), request(vocabulary_days="train")),
    ],
    "a finished dataset without `--keep_raw`, and `--threshold` is lower": [
        (existing(), None, request(threshold=4)),
        (existing(), None, request(threshold="9,cat_3:4")),
        (existing(request(max_cardinality=4), folded=["cat_3"]), None, request(6, max_cardinality=4)),
        (existing(), None, request(threshold=6, keep_raw=True)),
    ],
    "a finished dataset without `--keep_raw`, and `--max_cardinality`": [
        (existing(), None, request(max_cardinality=4)),
        (existing(), None, request(vocabulary_days="train")),
        (existing(), None, request(threshold=6, vocabulary_days="train")),
        (existing(), None, request(None, ids="raw")),
        (existing(request(None, ids="raw")), None, request()),
    ],
    "a finished dataset and a stopped run": [
        (existing(request(9)), stopped(), request()),
        (existing(), stopped(request(6), source=IDS), request(6)),
        (existing(request(9, keep_raw=True)), stopped(source=RAW), request()),
        (existing(request(9)), LACKS_NAME, request()),
    ],
    "a finished dataset that differs in anything else": [
        (existing(), None, request(inputs=(DAY_0,))),
        (existing(), None, request(inputs=(DAY_0, DAY_1, DAY_2))),
        (existing(), None, request(inputs=(DAY_0, {**DAY_1, "bytes": 11}))),
        (existing(), None, request(split="by share")),
        (existing(), None, request(None, ids="raw", shuffle="global")),
        (existing(), None, request(threshold=6, shuffle="global")),
        (existing(), None, request(on_bad_row="skip")),
        (existing(request(keep_raw=True)), None, request(on_bad_row="skip")),
        (existing(), stopped(request(on_bad_row="skip")), request(on_bad_row="skip")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("truncated, action", [({}, Action.RESUME), ({"truncated": 1}, Action.REBUILD)])
def test_a_truncated_file_is_used_only_as_long_as_the_user_wants_it(truncated, action):
    unfinished = stopped(request(on_truncated="keep"))
    unfinished.journal.files[0].skipped |= truncated
    assert decide(None, unfinished, request()).action == action


def rows_of_docs():
    """(what is found, the decision) of each row of the table."""
    section = DOCS.read_text(encoding="utf-8").partition("## Running again\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\| ([^|]+) \| (\w+) \| [^|]+ \|$", section, re.MULTILINE)
    return [row for row in table if row[0] != "found"]


ROWS = rows_of_docs()


def test_every_row_of_the_docs_has_situations():
    assert len(ROWS) == len(SITUATIONS)
    assert {decision for _, decision in ROWS} == {action.value for action in Action}


@pytest.mark.parametrize("found, decision", ROWS, ids=[re.sub(r"\W+", "_", found) for found, _ in ROWS])
def test_the_decision_of_a_row(found, decision):
    # The longest name, because one row's text may begin with the text of another.
    name = max((name for name in SITUATIONS if found.startswith(name)), key=len)
    actions = [decide(*situation).action.value for situation in SITUATIONS[name]]
    assert actions == [decision] * len(actions)


def test_what_a_dataset_is_derived_from():
    assert decide(existing(), None, request(6)).source == IDS
    assert decide(existing(request(keep_raw=True)), None, request(6)).source == RAW
    assert decide(existing(), None, request(4)).source is None


def test_differences_are_listed():
    decision = decide(existing(), stopped(request(9)), request(4))
    assert any("threshold" in line and "5" in line for line in decision.differences)
    assert any("threshold" in line and "9" in line for line in decision.outdated)


@pytest.mark.parametrize(
    "unfinished, wanted, kept",
    [
        (stopped(), request(9), 2),
        (stopped(), request(inputs=(DAY_0, DAY_2)), 1),
        (stopped(finished_files=1, raw_rows=15), request(9), 0),  # the second file says 10 rows, the columns hold 5
        (stopped(finished_files=1, raw_rows=20), request(9), 2),
        (stopped(finished_files=1, raw_rows=10), request(inputs=(DAY_0, DAY_1, DAY_2)), 1),
    ],
)
def test_parsed_files_that_are_kept(unfinished, wanted, kept):
    assert len(decide(None, unfinished, wanted).kept_files) == kept


def test_a_dataset_of_another_verb_is_refused():
    wanted = request(6)
    other = replace(wanted, wanted={**wanted.wanted, "made_by": "criteo-prep encode"})
    assert decide(existing(), None, other).action is Action.REFUSE
    assert decide(None, stopped(), other).action is Action.REBUILD
