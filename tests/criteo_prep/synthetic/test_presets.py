"""The published shapes."""

import pytest

from criteo_prep.synthetic.presets import (
    MULTI_HOT,
    PRESETS,
    T0,
    T3,
    T15,
    PresetError,
    preset,
    published_spec,
    scaled,
)


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


@pytest.mark.parametrize("name, rows, largest", [
    ("mlperf_40m", 204_184_588, 40_000_000), ("mlperf_80m", 364_975_536, 80_000_000),
    ("torchrec_full", 882_774_559, 292_775_614), ("torchrec_t3", 177_944_275, 48_937_457)])  # fmt: skip
def test_the_lists_of_torchrec_and_mlperf(name, rows, largest):
    assert (sum(cardinalities(name)), max(cardinalities(name))) == (rows, largest)
    # Natural order: no list has more ids in a column than T0, whose id for missing values it does not have.
    if name != "mlperf_80m":
        assert all(a <= b for a, b in zip(cardinalities(name), T0, strict=True))


def test_every_column_has_the_published_exponent_and_only_multi_hot_ones_several_ids():
    for name, shape in PRESETS.items():
        assert {(table.dtype, table.alpha) for table in shape.categorical} == {("int32", 1.45)}
        assert [feature.name for feature in shape.categorical] == [f"cat_{i}" for i in range(26)]
        hotness = [feature.hotness for feature in shape.categorical]
        assert hotness == (list(MULTI_HOT) if name.endswith("_multi_hot") else [1] * 26)
    assert sum(MULTI_HOT) == 214
    assert cardinalities("mlperf_40m_multi_hot") == cardinalities("mlperf_40m")
    assert [table.hotness for table in scaled(preset("criteo_t15_multi_hot"), 0.01).categorical] == list(MULTI_HOT)


def test_scaled_rounds_up_and_keeps_two_ids():
    small = [feature.cardinality for feature in scaled(preset("criteo_t15"), 0.001).categorical]
    assert small[:6] == [7913, 34, 18, 8, 21, 2]
    assert small[12] == 2  # 11 * 0.001
    # 2209 * 0.1 is 220.9; 63 * 0.1 is 6.3; a whole product stays: 0.1 is one tenth, not its nearest double.
    assert scaled(preset("criteo_t3"), 0.1).categorical[11].cardinality == 34514
    assert scaled(preset("criteo_t0"), 1).categorical == preset("criteo_t0").categorical
    assert scaled(scaled(preset("criteo_t15"), 100), 0.01).categorical == preset("criteo_t15").categorical


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_is_not_a_positive_number_is_refused(scale):
    with pytest.raises(PresetError, match="must be a positive number"):
        scaled(preset("criteo_t15"), scale)


def test_an_unknown_preset_lists_all_names():
    with pytest.raises(PresetError, match="no preset 't15'; the presets are criteo_t15_synthetic, .*criteo_t0"):
        preset("t15")


def test_published_spec_is_a_shape_without_files():
    spec = published_spec(preset("criteo_t15_synthetic"))
    spec.validate()
    assert spec.splits == ()
    assert (len(spec.categorical), len(spec.numerical), spec.label.dtype) == (26, 13, "int8")
