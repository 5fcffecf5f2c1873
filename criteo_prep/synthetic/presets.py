"""The published shapes of Criteo data: cardinality, hotness and power-law exponent of each categorical column.

T15, T3 and T0 are Criteo 1TB; values that occur fewer than 15, 3 and 0 times are id 0. The lists here are in natural
column order (cat_0 is the first categorical column of the TSV). The published T3 and T0 variants have the same numbers
in another order: their keys were sorted as text (cat_0, cat_1, cat_10, ..., cat_19, cat_2, ...). The presets with the
published names keep the published order.

The lists of TorchRec's example and of MLPerf, and multi-hot variants, have names of their own.

Source: NVIDIA's generate_feature_spec for DLRM (TensorFlow 2), unless a comment names another source.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.schema import CATEGORICAL, LABEL, NUMERICAL

ALPHA = 1.45  # Source: the published variants, every column

T15 = (
    7912889, 33823, 17139, 7339, 20046, 4, 7105, 1382, 63, 5554114, 582469, 245828, 11,
    2209, 10667, 104, 4, 968, 15, 8165896, 2675940, 7156453, 302516, 12022, 97, 35,
)  # fmt: skip
T3 = (
    45833188, 36747, 17246, 7414, 20244, 4, 7115, 1442, 63, 29275261, 1572176, 345139, 11,
    2209, 11268, 128, 4, 975, 15, 48937457, 11316796, 40094537, 452104, 12607, 105, 36,
)  # fmt: skip
T0 = (
    227605432, 39061, 17296, 7425, 20266, 4, 7123, 1544, 64, 130229467, 3067956, 405283, 11,
    2209, 11939, 155, 4, 977, 15, 292775614, 40790948, 187188510, 590152, 12974, 109, 37,
)  # fmt: skip
# Source: TorchRec's DLRM example. The MLPerf lists cap the ids of a column. No list has an id for missing values.
MLPERF_40M = (
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10,
    2209, 11938, 155, 4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36,
)  # fmt: skip
MLPERF_80M = (
    80000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 80000000, 3067956, 405282, 10,
    2209, 11938, 155, 4, 976, 14, 80000000, 40790948, 80000000, 590152, 12973, 108, 36,
)  # fmt: skip
TORCHREC_FULL = (
    227605432, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 130229467, 3067956, 405282, 10,
    2209, 11938, 155, 4, 976, 14, 292775614, 40790948, 187188510, 590152, 12973, 108, 36,
)  # fmt: skip
TORCHREC_T3 = (
    45833188, 36746, 17245, 7413, 20243, 3, 7114, 1441, 62, 29275261, 1572176, 345138, 10,
    2209, 11267, 128, 4, 974, 14, 48937457, 11316796, 40094537, 452104, 12606, 104, 35,
)  # fmt: skip

# Ids a sample in each column, natural order. Source: MLPerf's multi-hot DLRM-DCNv2.
MULTI_HOT = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)

SORTED_AS_TEXT = tuple(sorted(range(len(CATEGORICAL)), key=CATEGORICAL.__getitem__))  # 0, 1, 10, 11, ...


class PresetError(ValueError):
    """No preset has that name, or the scale is not a positive number."""


@dataclass(frozen=True)
class Preset:
    """The shape of a dataset; `categorical` is in table order, with the names cat_0, cat_1, ..."""

    name: str
    categorical: tuple[Feature, ...]


def _preset(
    name: str,
    cardinalities: tuple[int, ...],
    *,
    order: tuple[int, ...] = tuple(range(len(CATEGORICAL))),
    hotness: tuple[int, ...] = (1,) * len(CATEGORICAL),
) -> Preset:
    columns = zip(CATEGORICAL, order, hotness, strict=True)
    return Preset(
        name,
        tuple(
            Feature(column, "int32", cardinality=cardinalities[i], hotness=hot, alpha=ALPHA)
            for column, i, hot in columns
        ),
    )


PRESETS = {
    preset.name: preset
    for preset in (
        _preset("criteo_t15_synthetic", T15),
        _preset("criteo_t3_synthetic", T3, order=SORTED_AS_TEXT),
        _preset("criteo_t0_synthetic", T0, order=SORTED_AS_TEXT),
        _preset("criteo_t15", T15),
        _preset("criteo_t3", T3),
        _preset("criteo_t0", T0),
        _preset("criteo_t15_multi_hot", T15, hotness=MULTI_HOT),
        _preset("mlperf_40m", MLPERF_40M),
        _preset("mlperf_40m_multi_hot", MLPERF_40M, hotness=MULTI_HOT),
        _preset("mlperf_80m", MLPERF_80M),
        _preset("torchrec_full", TORCHREC_FULL),
        _preset("torchrec_t3", TORCHREC_T3),
    )
}


def preset(name: str) -> Preset:
    """The preset with this name. Raises PresetError, which lists all names."""
    if name not in PRESETS:
        raise PresetError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


def scaled(source: Preset, scale: float) -> Preset:
    """A preset in which each cardinality c becomes max(2, ceil(c * scale)), so that a large shape fits a small machine.

    The scale means its decimal digits (0.1 is exactly one tenth), so a whole product is not rounded up.

    Raises:
      PresetError: the scale is not a positive number.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise PresetError(f"scale {scale}: must be a positive number, such as 0.001.")
    factor = Fraction(str(scale))
    tables = tuple(
        replace(table, cardinality=max(2, math.ceil(table.cardinality * factor))) for table in source.categorical
    )
    return Preset(source.name, tables)


def published_spec(source: Preset) -> FeatureSpec:
    """The feature spec that the published generator writes for the preset: a shape without files.

    Every table is int32 and the label is int8. These are the types of a batch in memory; no file has them.
    """
    numerical = [Feature(name, "float16") for name in NUMERICAL]
    features = [*source.categorical, *numerical, Feature(LABEL, "int8")]
    return FeatureSpec(
        features={feature.name: feature for feature in features},
        channels={
            "categorical": tuple(feature.name for feature in source.categorical),
            "numerical": tuple(feature.name for feature in numerical),
            "label": (LABEL,),
        },
    )
