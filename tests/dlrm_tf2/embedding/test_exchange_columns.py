"""The planning of the exchange by hand, and as a property: numpy carries it out as the ranks would."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlrm_tf2.embedding.exchange_columns import ExchangeColumns
from dlrm_tf2.embedding.result_layout import Piece
from dlrm_tf2.sharding.plan import Shard


def piece(start, width):
    return Piece("f", None, shard=Shard("t", 0, rows=(0, 1), columns=(0, width)), start=start)


def test_the_drawing():
    """Tables a and c on rank 0, b on rank 1, each of width 2."""
    columns = ExchangeColumns.of([[piece(0, 2), piece(4, 2)], [piece(2, 2)]], own=[], width=6)
    assert (columns.grain, columns.num_grains, columns.grains_of.tolist()) == (2, 3, [2, 1, 0])
    assert [part.tolist() for part in columns.targets] == [[0, 2], [1], []]
    assert (columns.source.tolist(), columns.column.tolist()) == ([0, 1, 0], [0, 0, 1])
    assert not columns.has_sums and not columns.is_identity


def test_a_table_cut_by_rows_is_added_up():
    columns = ExchangeColumns.of([[piece(0, 3)], [piece(0, 3)]], own=[], width=3)
    assert (columns.grain, columns.num_grains, columns.target.tolist()) == (3, 1, [0, 0])
    assert columns.has_sums


def test_columns_before_the_vectors_are_whole_grains():
    """The drawing with 4 columns before the vectors: 2 grains, each a copy of the first that was received."""
    sources = [[piece(0, 2), piece(4, 2)], [piece(2, 2)]]
    columns = ExchangeColumns.of(sources, own=[], width=6, leading_columns=4)
    assert (columns.leading, columns.num_grains) == (2, 5)
    assert [part.tolist() for part in columns.targets] == [[2, 4], [3], []]
    assert (columns.source.tolist(), columns.column.tolist()) == ([0, 0, 0, 1, 0], [0, 0, 0, 0, 1])
    assert columns.target.tolist() == [0, 1, 2, 3, 4]
    assert ExchangeColumns.of(sources, own=[], width=6, leading_columns=3).leading == 0


def test_widths_without_a_common_divisor_move_number_by_number():
    columns = ExchangeColumns.of([[piece(0, 2)], [piece(2, 3)]], own=[], width=5)
    assert (columns.grain, columns.grains_of.tolist()) == (1, [2, 3, 0])


def test_grains_next_to_each_other_are_one_run():
    """The drawing with d of width 4 after c on rank 0, and a cut by rows: rank 1 has some of its rows too."""
    sources = [[piece(0, 2), piece(4, 2), piece(6, 4)], [piece(2, 2), piece(0, 2)]]
    copied, added = ExchangeColumns.of(sources, own=[], width=10, leading_columns=2).runs
    assert copied == [(0, 0, 2, 2), (1, 0, 4, 2), (0, 2, 6, 6)]
    assert added == [(1, 2, 2, 2)]


def test_one_rank_in_order_needs_no_exchange_and_in_another_order_does():
    assert ExchangeColumns.of([[piece(0, 2), piece(2, 2)]], own=[], width=4).is_identity
    assert not ExchangeColumns.of([[piece(2, 2), piece(0, 2)]], own=[], width=4).is_identity
    assert not ExchangeColumns.of([[piece(0, 2)]], own=[piece(2, 2)], width=4).is_identity


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=8), st.integers(0, 3))
def test_every_column_of_the_result_is_the_sum_of_its_pieces(widths_and_sources, twice):
    """Pieces of these widths on sources 0 to 2, or own (3); the first `twice` pieces on rank 0 once more."""
    sources, start, pieces = [[], [], [], []], 0, []
    for width, source in widths_and_sources:
        pieces.append(piece(start, width))
        sources[source].append(pieces[-1])
        start += width
    for again in pieces[:twice]:
        sources[0].append(again)
    columns = ExchangeColumns.of(sources[:3], own=sources[3], width=start)
    # Each number is its column of the result, and 100 for each source that makes it.
    made = [np.array([c + 100 for p in of_source for c in range(p.start, p.start + p.width)]) for of_source in sources]
    result = np.zeros(start)
    for source, column, target in zip(columns.source, columns.column, columns.target, strict=True):
        grain = made[source].reshape(-1, columns.grain)[column]
        result.reshape(-1, columns.grain)[target] += grain
        assert columns.targets[source][column] == target
    expected = np.zeros(start)
    for numbers in made:
        for number in numbers:
            expected[number - 100] += number
    np.testing.assert_array_equal(result, expected)
    assert columns.target[: columns.num_grains].tolist() == list(range(columns.num_grains))
