"""The published models against the published counts and sizes."""

import pytest

from dlrm_tf2.benchmarks.zoo import MODELS


@pytest.mark.parametrize("name, tables, features, ids, rows, elements, gib, width, fetched, mlp_input, weights, ops", [
    ("criteo", 26, 26, 26, 2_600_000, 332_800_000, 1.240, 3_328, 3_328, 3_341, 1_875_457, 3_749_120),
    ("tiny", 55, 58, 85, 70_260_160, 1_123_681_280, 4.186, 672, 1_032, 682, 207_873, 414_976),
    ("small", 107, 116, 377, 220_630_300, 7_058_084_800, 26.293, 2_512, 8_544, 2_522, 1_456_129, 2_910_464),
    ("medium", 311, 337, 1_611, 664_860_800, 55_349_145_600, 206.192, 17_280, 101_952, 2_494, 3_244_033, 6_484_224),
    ("large", 612, 669, 6_312, 2_846_001_000, 207_712_032_000, 773.788, 36_608, 404_096, 4_676,
     12_333_057, 24_658_432),
    ("jumbo", 1022, 1_097, 16_022, 5_722_001_000, 834_688_032_000, 3_109.455, 118_400, 2_054_272, 6_120,
     15_290_369, 30_573_056),
    ("colossal", 2002, 2_153, 47_302, 23_824_001_000, 5_993_472_032_000, 22_327.423, 336_768, 8_067_712, 11_726,
     59_179_009, 118_342_144),
])  # fmt: skip
def test_counts_and_sizes(name, tables, features, ids, rows, elements, gib, width, fetched, mlp_input, weights, ops):
    model = MODELS[name]
    assert len(model.tables) == tables
    assert len(model.hotness) == features == sum(len(table.features) for table in model.tables)
    assert sum(model.hotness.values()) == ids
    assert sum(table.num_rows for table in model.tables) == rows
    assert sum(table.num_elements for table in model.tables) == elements
    assert 4 * sum(table.num_elements for table in model.tables) / 2**30 == pytest.approx(gib, abs=5e-4)
    assert model.output_width == width
    assert model.mlp_input_width == mlp_input
    assert model.num_dense_weights == weights
    assert model.forward_operations == ops
    assert (
        sum(model.hotness[feature] * table.embedding_dim for table in model.tables for feature in table.features)
        == fetched
    )


def test_features_and_tables_are_in_the_order_of_the_inputs():
    tiny = MODELS["tiny"]
    assert [table.features for table in tiny.tables[:4]] == [
        ("cat_0", "cat_1"), ("cat_2", "cat_3"), ("cat_4", "cat_5"), ("cat_6",),
    ]  # fmt: skip
    assert list(tiny.hotness.items())[:7] == [
        ("cat_0", 1), ("cat_1", 10), ("cat_2", 1), ("cat_3", 10), ("cat_4", 1), ("cat_5", 10), ("cat_6", 1),
    ]  # fmt: skip
    assert tiny.tables[-1].name == "table_54" and tiny.tables[-1].features == ("cat_57",)
    assert {table.combiner for table in tiny.tables} == {"sum"}


def test_a_scaled_model_has_the_rows_of_the_scale_and_all_else_as_before():
    tiny, scaled = MODELS["tiny"], MODELS["tiny"].scaled(0.0001)
    assert tiny.scaled(1) is tiny
    assert [table.num_rows for table in scaled.tables[:5]] == [2, 100, 2500, 2500, 2]  # 10 rows become 2, not 1
    assert scaled.hotness == tiny.hotness and scaled.output_width == tiny.output_width
