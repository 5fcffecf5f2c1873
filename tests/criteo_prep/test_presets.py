"""The published shapes."""

import pytest

from criteo_prep.synthetic.presets import PRESETS, T0, T3, T15, PresetError, preset, published_spec, scaled


def cardinalities(name):
    return [feature.cardinality for feature in preset(name).categorical]


@pytest.mark.parametrize("shape, rows, largest", [
    (T15, 32_709_138, 8_165_896), (T3, 177_944_291, 48_937_457), (T0, 882_774_575, 292_775_614)])  # fmt: skip
def test_sums_and_largest_tables_are_the_published_ones(shape, rows, largest):
    assert (len(shape), sum(shape), max(shape)) == (26, rows, largest)


def test_a_lower_threshold_never_has_fewer_ids():
    assert all(a <= b <= c for a, b, c in zip(T15, T3, T0, strict=True))


def test_published_order():
    assert cardinalities("criteo_t15_synthetic") == list(T15)
    assert cardinalities("criteo_t3_synthetic")[:8] == [45833188, 36747, 1572176, 345139, 11, 2209, 11268, 128]
    assert cardinalities("criteo_t3_synthetic")[-8:] == [36, 7414, 20244, 4, 7115, 1442, 63, 29275261]
    assert cardinalities("criteo_t0_synthetic")[:8] == [227605432, 39061, 3067956, 405283, 11, 2209, 11939, 155]
    assert cardinalities("criteo_t0_synthetic")[-8:] == [37, 7425, 20266, 4, 7123, 1544, 64, 130229467]


@pytest.mark.parametrize("name, shape", [("criteo_t3", T3), ("criteo_t0", T0), ("criteo_t15", T15)])
def test_natural_order_under_own_names(name, shape):
    assert cardinalities(name) == list(shape)
    assert sorted(cardinalities(f"{name}_synthetic")) == sorted(shape)


def test_every_column_is_one_hot_with_the_published_exponent():
    for shape in PRESETS.values():
        assert {(table.dtype, table.hotness, table.alpha) for table in shape.categorical} == {("int32", 1, 1.45)}
        assert [feature.name for feature in shape.categorical] == [f"cat_{i}" for i in range(26)]


def test_scaled_rounds_up_and_keeps_two_ids():
    small = [feature.cardinality for feature in scaled(preset("criteo_t15"), 0.001).categorical]
    assert small[:6] == [7913, 34, 18, 8, 21, 2]
    assert small[12] == 2  # 11 * 0.001
    # 2209 * 0.1 is 220.9; 63 * 0.1 is 6.3; a whole product stays: 0.1 is one tenth, not its nearest double.
    assert scaled(preset("criteo_t3"), 0.1).categorical[11].cardinality == 34514
    assert scaled(preset("criteo_t0"), 1).categorical == preset("criteo_t0").categorical
    assert scaled(scaled(preset("criteo_t15"), 100), 0.01).categorical == preset("criteo_t15").categorical


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(scale):
    with pytest.raises(PresetError, match="must be a positive number"):
        scaled(preset("criteo_t15"), scale)


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(PresetError, match="no preset 't15'; the presets are criteo_t15_synthetic, .*criteo_t0"):
        preset("t15")


def test_published_spec_is_a_shape_without_files():
    spec = published_spec(preset("criteo_t15_synthetic"))
    spec.validate()
    assert spec.splits == ()
    assert (len(spec.categorical), len(spec.numerical), spec.label.dtype) == (26, 13, "int8")
