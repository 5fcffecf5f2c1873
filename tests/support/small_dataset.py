"""Writes small tf_raw datasets for the trainer's tests: random ids, labels that depend on them."""

from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, tf_raw_spec
from criteo_prep.transcribe.tf_raw import Writer

CARDINALITIES = (50, 7, 400, 3, 90)


def write_dataset(
    root: Path,
    train: int = 1000,
    test: int = 300,
    *,
    validation: int = 0,
    cardinalities=CARDINALITIES,
    seed: int = 0,
    num_numerical: int = 13,
) -> FeatureSpec:
    """Makes the dataset in `root` and returns its spec, loaded. With no validation rows there is no such split."""
    sizes = {"train": train, "test": test} | ({"validation": validation} if validation else {})
    features = [Feature(f"cat_{i}", "int32", rows) for i, rows in enumerate(cardinalities)]
    spec = tf_raw_spec(features, num_numerical=num_numerical, splits=tuple(sizes))
    rng = np.random.default_rng(seed)
    effects = [rng.normal(size=rows) for rows in cardinalities]
    for split, rows in sizes.items():
        ids = [rng.integers(0, high, rows) for high in cardinalities]
        numerical = rng.normal(size=(rows, num_numerical)).astype(np.float16)
        logits = sum(effect[column] for effect, column in zip(effects, ids, strict=True)) + numerical[:, :1].sum(axis=1)
        label = rng.random(rows) < 1 / (1 + np.exp(-logits))
        with Writer(root, spec, split) as writer:
            writer.write(Batch(label, numerical, {f"cat_{i}": Ids(column) for i, column in enumerate(ids)}))
    spec.save(root / "feature_spec.yaml")
    return FeatureSpec.load(root / "feature_spec.yaml")
