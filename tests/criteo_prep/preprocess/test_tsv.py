"""The tokenizer against hand-written expectations and against a plain Python twin; the block reader."""

import gzip
import random

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.log_samples import plain_parse

from criteo_prep.preprocess.parse.text_blocks import MAX_LINE_BYTES, text_blocks
from criteo_prep.preprocess.parse.tsv import REASONS, parse

GOOD = ["0", *["1"] * 13, *["0000000a"] * 26]


def line(changes=None, end=b"\n", fields=None):
    """A good row with the fields of `changes` (number -> bytes) replaced."""
    row = [field.encode() for field in (fields or GOOD)]
    for field, content in (changes or {}).items():
        row[field] = content
    return b"\t".join(row) + end


def with_none(values, missing):
    return [None if is_missing else value for value, is_missing in zip(values.tolist(), missing, strict=True)]


def check_against_twin(text):
    rows, bad = plain_parse(text)
    parsed = parse(text)
    assert len(parsed) == len(rows)
    for row, (label, numbers, values) in enumerate(rows):
        assert parsed.label[row] == label
        absent = [bool(parsed.missing[row] >> np.uint64(field) & np.uint64(1)) for field in range(40)]
        assert with_none(parsed.numbers[row], absent[1:14]) == numbers
        assert with_none(parsed.values[:, row], absent[14:]) == values
    for column in range(26):
        assert parsed.zero_rows(column).tolist() == [row for row, (_, _, v) in enumerate(rows) if v[column] == 0]
    assert parsed.num_lines == text.count(b"\n")
    assert {reason: n for reason, n in zip(REASONS, parsed.num_bad.tolist(), strict=True) if n} == {
        reason: list(bad.values()).count(reason) for reason in bad.values()
    }
    assert {(first.line, REASONS[first.reason]) for first in parsed.first_bad} == {
        (min(number for number, other in bad.items() if other == reason), reason) for reason in bad.values()
    }


def test_a_row_of_every_kind_of_field():
    numbers = [b"0", b"-1", b"", b"5000000000", b"-999999999999999999", b"007", *[b""] * 7]
    values = [b"ffffffff", b"00000000", b"", b"a", b"DeadBeef", *[b""] * 21]
    rows = parse(b"\t".join([b"1", *numbers, *values]) + b"\n")
    assert rows.label.tolist() == [True]
    assert rows.numbers[0, [0, 1, 3, 4, 5]].tolist() == [0, -1, 5000000000, -999999999999999999, 7]
    assert rows.values[[0, 1, 3, 4], 0].tolist() == [0xFFFFFFFF, 0, 0xA, 0xDEADBEEF]
    missing = [field for field in range(40) if rows.is_missing(field)[0]]
    assert missing == [3, 7, 8, 9, 10, 11, 12, 13, 16, *range(19, 40)]  # 00000000, field 15, is there
    assert rows.num_zeros == 1 and rows.zero_rows(1).tolist() == [0] and rows.zero_rows(2).tolist() == []
    assert rows.num_bad.sum() == 0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        line(end=b"\r\n"),
        line({39: b""}, end=b"\r\n"),
        line({1: b"-0", 39: b""}),
        b"0" + b"\t" * 39 + b"\n",
        line() + line(end=b"\r\n") + line(),
    ],
    ids=["nothing", "crlf", "crlf after nothing", "minus zero", "all missing", "mixed ends"],
)
def test_awkward_but_good(text):
    assert len(parse(text)) == text.count(b"\n")
    check_against_twin(text)


@pytest.mark.parametrize(
    "text, reason, found",
    [
        (b"\n", "blank_line", "the line is empty"),
        (b"\r\n", "blank_line", "the line is empty"),
        (line(fields=GOOD[:39]), "too_few_fields", "found 39 fields; expected 40 fields"),
        (line(fields=[*GOOD, "1"]), "too_many_fields", "found 41 fields"),
        (line(end=b"\t\n"), "too_many_fields", "found 41 fields"),
        (line({0: b"2"}), "bad_label", "field 1 (label) is '2'; expected 0 or 1"),
        (line({0: b""}), "bad_label", "field 1 (label) is ''"),
        (line({0: b"01"}), "bad_label", "is '01'"),
        (line({0: b"-1"}), "bad_label", "is '-1'"),
        (line({1: b"+5"}), "bad_number", "field 2 (num_0) is '+5'; expected nothing, or an integer of at most 18"),
        (line({2: b" 5"}), "bad_number", "field 3 (num_1) is ' 5'"),
        (line({2: b"5 "}), "bad_number", "field 3 (num_1) is '5 '"),
        (line({13: b"1.5"}), "bad_number", "field 14 (num_12) is '1.5'"),
        (line({13: b"-"}), "bad_number", "is '-'"),
        (line({13: b"--1"}), "bad_number", "is '--1'"),
        (line({13: b"1e3"}), "bad_number", "is '1e3'"),
        (line({5: b"1" * 19}), "bad_number", "is '1111111111111111111'"),
        (line({5: b"0" * 400}), "bad_number", "is '" + "0" * 32 + "'..."),
        (line({14: b"123456789"}), "bad_value", "field 15 (cat_0) is '123456789'; expected nothing, or 1 to 8 hex"),
        (line({14: b"xyz"}), "bad_value", "field 15 (cat_0) is 'xyz'"),
        (line({39: b"0x1"}), "bad_value", "field 40 (cat_25) is '0x1'"),
        (line({39: b"1\r"}, end=b"\r\n"), "bad_value", "field 40 (cat_25) is '1\\r'"),
        (line({20: b"\x00"}), "bad_value", "field 21 (cat_6) is '\\x00'"),
        (line({20: b"\xff\xfe"}), "bad_value", "is '\\xff\\xfe'"),
        (b"label" + b"\tx" * 39 + b"\n", "bad_label", "is 'label'"),
        (b"1" * (3 << 20) + b"\n", "line_too_long", "more than 65536 bytes"),
        (line({39: b"0" * MAX_LINE_BYTES}), "line_too_long", "more than 65536 bytes"),
    ],
)
def test_bad_rows(text, reason, found):
    check_against_twin(line() + text + line())
    rows = parse(line() + text + line())
    assert len(rows) == 2, "the rows around a bad one are read"
    (bad,) = rows.first_bad
    assert (bad.line, REASONS[bad.reason]) == (1, reason)
    assert found in bad.found


FIELD = st.one_of(
    st.sampled_from([b"", b"0", b"1", b"-3", b"ffffffff", b"123456789", b"0" * 19, b"\r", b" ", b"-", b"g"]),
    st.binary(max_size=10),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(st.integers(0, 39), FIELD, max_size=3), st.sampled_from([b"\n", b"\r\n"]))))
def test_changed_rows_are_read_as_the_twin_reads_them(rows):
    check_against_twin(b"".join(line(changes, end) for changes, end in rows))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_rows_with_damaged_bytes_are_read_as_the_twin_reads_them(seed, num_changes):
    text = bytearray(line() + line({3: b"", 15: b""}) + line({39: b""}, b"\r\n") + line())
    source = random.Random(seed)
    for _ in range(num_changes):
        text[source.randrange(len(text))] = source.choice([source.randrange(256), *b"\t\n\r-0f"])
    check_against_twin(bytes(text) + b"\n")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
@example(b"1")
@example(b"\r")
@example(b"0\t-")
def test_any_bytes_are_read_as_the_twin_reads_them(text):
    check_against_twin(text + b"\n")


def two_frames(text):
    return zstandard.compress(text[:9]) + zstandard.compress(text[9:])


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, two_frames])
def test_blocks_are_the_lines_of_the_file(tmp_path, block_bytes, pack):
    text = b"first\n\nsecond\r\n" + b"x" * 100 + b"\nlast without newline"
    path = tmp_path / "day_0"
    path.write_bytes(pack(text))
    read = []
    blocks = [(bytes(block), stop) for block, stop in text_blocks(path, block_bytes, on_read=read.append)]
    assert b"".join(block for block, _ in blocks) == text + b"\n"
    assert all(block.endswith(b"\n") for block, _ in blocks)
    for number, (_, stop) in enumerate(blocks):  # a run may resume at every end
        rest = [bytes(block) for block, _ in text_blocks(path, block_bytes, skip_bytes=stop)]
        assert b"".join(rest) == b"".join(block for block, _ in blocks[number + 1 :])
    assert sum(read) <= path.stat().st_size


@pytest.mark.parametrize("block_bytes", [1, 7, 64])
def test_as_many_blocks_as_asked_for_stay_as_they_are(tmp_path, block_bytes):
    path = tmp_path / "day_0"
    path.write_bytes(b"".join(b"%d" % number * (number % 9) + b"\n" for number in range(200)))
    whole = [bytes(block) for block, _ in text_blocks(path, block_bytes)]
    last = []
    for number, (block, _) in enumerate(text_blocks(path, block_bytes, num_buffers=3)):
        last = [*last, block][-3:]
        assert [bytes(block) for block in last] == whole[max(0, number - 2) : number + 1]


def test_rows_without_labels_are_those_with_labels():
    text = line({1: b"-12", 3: b"", 15: b""}) + line({39: b"a"}, b"\r\n") + line({5: b"123456789"}) + line() * 3
    with_labels, without = parse(text), parse(b"".join(row[2:] for row in text.splitlines(keepends=True)), False)
    for name in ("numbers", "values", "missing"):
        assert np.array_equal(getattr(with_labels, name), getattr(without, name))
    assert len(without) == 6 and not without.label.any()


def test_an_empty_file_has_no_block(tmp_path):
    (tmp_path / "day_0").write_bytes(b"")
    assert list(text_blocks(tmp_path / "day_0")) == []


@pytest.mark.parametrize("length", [MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 2_000_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_what_is_too_long_does_not_depend_on_the_block_size(tmp_path, length, end):
    path = tmp_path / "day_0"
    path.write_bytes(b"x" * length + end)
    seen = set()
    for block_bytes in (1000, 70_000, 1 << 24):
        ((block, stop),) = text_blocks(path, block_bytes)
        assert stop == path.stat().st_size
        assert len(block) <= MAX_LINE_BYTES + 2 + block_bytes
        (bad,) = parse(block).first_bad
        seen.add(REASONS[bad.reason])
    assert seen == {"line_too_long" if length + (end == b"\r\n") > MAX_LINE_BYTES else "too_few_fields"}
