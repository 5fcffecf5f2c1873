"""Hypothesis strategies: any logs, with rows that are awkward in many ways, and any rules."""

import gzip
import random
import re

import zstandard
from hypothesis import strategies as st

NUMBERS = ["", "0", "5", "5", "-2", "-3", "-70", "12345678", "00009", "9" * 18]
VALUES = ["", "0", "00000000", "a", "A", "a", "b", "ffffffff", "DEADBEEF", "1234567"]
AWKWARD = {
    "nothing": lambda row: row,
    "CR LF": lambda row: row + "\r",
    "two fields are missing": lambda row: row.rsplit("\t", 2)[0],  # with one missing it may be a row without label
    "a field more": lambda row: row + "\t",
    "no row": lambda row: "",
    "label": lambda row: "2" + row[1:],
    "19 digits": lambda row: re.sub(r"\t[^\t]*", "\t" + "1" * 19, row, count=1),
    "sign": lambda row: re.sub(r"\t[^\t]*", "\t+1", row, count=1),
    "minus alone": lambda row: re.sub(r"\t[^\t]*", "\t-", row, count=1),
    "hexadecimal": lambda row: row + "g",
    "9 digits": lambda row: row + "123456789",
    "NUL": lambda row: row + "\0",
    "not UTF-8": lambda row: row + "\udcff",
    "very long": lambda row: row + " " * 70_000,
}
ROWS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["nothing"] * 12 + [*AWKWARD])), max_size=25)
PACK = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}
FILES = st.lists(st.tuples(ROWS, st.sampled_from([*PACK]), st.booleans()), min_size=1, max_size=3)
RULES = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([0, 1, 2, 3, "2,cat_1:0", "0,15:3,cat_25:2"]),
        "max_cardinality": st.sampled_from([None, None, 2, 4, "5,14:3"]),
        "vocabulary_days": st.sampled_from(["all", "train"]),
        "on_bad_row": st.sampled_from(["error", "skip", "skip"]),
        "shuffle": st.sampled_from(["none", "global"]),
        "seed": st.integers(0, 3),
    }
)


def text_of(rows, last_newline):
    lines = []
    for seed, kind in rows:
        source = random.Random(seed)
        fields = [source.choice("01"), *source.choices(NUMBERS, k=13), *source.choices(VALUES, k=26)]
        lines.append(AWKWARD[kind]("\t".join(fields)))
    text = "\n".join(lines) + "\n" * (last_newline and len(lines) > 0)
    return text.encode("utf-8", "surrogateescape")
