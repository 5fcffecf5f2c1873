"""The datasets of small_dataset.py with keys in place of ids."""

import shutil
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec


def keys_of(ids: np.ndarray) -> np.ndarray:
    """A key, int64, for each id: another for another id, far apart and of either sign."""
    return (ids.astype(np.int64) + 1) * np.int64(-7046029254386353131)  # odd, so that no two products are equal


def write_keys(source: FeatureSpec, root: Path, features: tuple[str, ...] | None = None) -> FeatureSpec:
    """Writes a tf_raw dataset once more, in `root`, with keys for the ids of some features, or of all."""
    chosen = features or tuple(feature.name for feature in source.categorical)
    made = [Feature(one.name, "int64", key=True) if one.name in chosen else one for one in source.categorical]
    spec = tf_raw_spec(made, num_numerical=len(source.numerical), splits=tuple(source.sources))
    for split in source.sources:
        (root / split).mkdir(parents=True)
        for path in (source.root / split).iterdir():
            if path.stem in chosen:
                keys_of(np.fromfile(path, source.features[path.stem].dtype)).tofile(root / split / path.name)
            else:
                shutil.copyfile(path, root / split / path.name)
    spec.save(root / "feature_spec.yaml")
    return FeatureSpec.load(root / "feature_spec.yaml")
