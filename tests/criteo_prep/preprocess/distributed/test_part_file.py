"""A part returns what was written, and a part that is not whole is no part."""

import numpy as np
from support.log_samples import random_rows

from criteo_prep.preprocess.distributed import part_file
from criteo_prep.preprocess.distributed.part_file import PartFacts, read_facts, write_part
from criteo_prep.preprocess.parse.numerical import log_numbers
from criteo_prep.preprocess.parse.row_writer import ParsedBlock
from criteo_prep.preprocess.parse.tsv import parse


def block_of(rows):
    parsed = parse("".join(row + "\n" for row in rows).encode())
    zero_rows = [parsed.zero_rows(column) for column in range(26)]
    return ParsedBlock(parsed, log_numbers(parsed.numbers, parsed.missing), zero_rows)


def test_round_trip(tmp_path):
    rows = random_rows(5, 7)
    rows[2] = rows[2].rsplit("\t", 1)[0] + "\t00000000"
    rows[6] = rows[6].rsplit("\t", 1)[0] + "\t0"
    first, second = block_of(rows[:4]), block_of(rows[4:])
    num_zeros = tuple(len(first.zero_rows[c]) + len(second.zero_rows[c]) for c in range(26))
    facts = PartFacts(3, 1, num_rows=7, num_lines=9, skipped={"bad_label": 2}, first_skipped={"bad_label": (1, "no")},
                      num_zeros=num_zeros, lost_bytes=None, last=True)  # fmt: skip
    write_part(tmp_path, facts, [first, second])
    assert [path.name for path in tmp_path.iterdir()] == ["split-000003-00001.part"]
    path, whole = tmp_path / facts.name, block_of(rows)
    assert read_facts(path) == facts
    assert part_file.read_label(path, 7).tolist() == whole.rows.label.tolist()
    assert part_file.read_numerical(path, 7).tobytes() == whole.numerical.tobytes()
    for column in range(26):
        assert part_file.read_values(path, 7, column).tolist() == whole.rows.values[column].tolist()
        zero_rows = part_file.read_zero_rows(path, 7, num_zeros=num_zeros, column=column)
        assert zero_rows.tolist() == whole.zero_rows[column].tolist()
    assert part_file.read_zero_rows(path, 7, num_zeros=num_zeros, column=25).tolist() == [2, 6]
    assert np.array_equal(part_file.read_sample(path, 7, num_zeros), whole.rows.values)


def test_a_cut_part_is_no_part(tmp_path):
    facts = PartFacts(0, 0, num_rows=3, num_lines=3, last=True)
    write_part(tmp_path, facts, [block_of(random_rows(1, 3))])
    data = (tmp_path / facts.name).read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        (tmp_path / facts.name).write_bytes(data[:size])
        assert read_facts(tmp_path / facts.name) is None
    assert read_facts(tmp_path / "nothing") is None
