"""The published shapes of Criteo data: cardinality, hotness and power-law exponent of each categorical column.

T15, T3 and T0 are Criteo 1TB with values seen fewer than 15, 3 and 0 times folded into id 0. They are stored in natural
column order (cat_0 is the first categorical column of the TSV). The published T3 and T0 variants list the same numbers
in another order, and keep it here under their published names: they were once read back from a file whose keys were
sorted as text (cat_0, cat_1, cat_10, ..., cat_19, cat_2, ...), T15 was not.

Source: NVIDIA's generate_feature_spec for DLRM (TensorFlow 2).
"""

import math
from dataclasses import dataclass
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

SORTED_AS_TEXT = tuple(sorted(range(len(CATEGORICAL)), key=CATEGORICAL.__getitem__))  # 0, 1, 10, 11, ...


class PresetError(ValueError):
    """There is no such preset, or it cannot be scaled so."""


@dataclass(frozen=True)
class Preset:
    """The shape of a dataset; `categorical` is in table order, named cat_0, cat_1, ... in that order."""

    name: str
    categorical: tuple[Feature, ...]


def _preset(name: str, cardinalities: tuple[int, ...], order: tuple[int, ...] | None = None) -> Preset:
    ordered = cardinalities if order is None else tuple(cardinalities[i] for i in order)
    columns = zip(CATEGORICAL, ordered, strict=True)
    return Preset(name, tuple(Feature(column, "int32", rows, hotness=1, alpha=ALPHA) for column, rows in columns))


PRESETS = {
    preset.name: preset
    for preset in (
        _preset("criteo_t15_synthetic", T15),
        _preset("criteo_t3_synthetic", T3, SORTED_AS_TEXT),
        _preset("criteo_t0_synthetic", T0, SORTED_AS_TEXT),
        _preset("criteo_t15", T15),
        _preset("criteo_t3", T3),
        _preset("criteo_t0", T0),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name. Raises PresetError, listing the names there are."""
    if name not in PRESETS:
        raise PresetError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


def scaled(source: Preset, scale: float) -> Preset:
    """The preset with each cardinality c made max(2, ceil(c * scale)), so that a large shape fits a small machine.

    The scale is taken as the decimal that was written (0.1 is one tenth), so a whole product is not rounded up.

    Raises:
      PresetError: the scale is not a positive number.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise PresetError(f"scale {scale}: must be a positive number, such as 0.001.")
    factor = Fraction(str(scale))
    tables = tuple(
        Feature(table.name, table.dtype, max(2, math.ceil(table.cardinality * factor)), table.hotness, table.alpha)
        for table in source.categorical
    )
    return Preset(source.name, tables)


def published_spec(source: Preset) -> FeatureSpec:
    """The feature spec that the published generator writes for the preset: a shape without files.

    Every table is declared int32 and the label int8: these are the types of a batch in memory, no file has them.
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
