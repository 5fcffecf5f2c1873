"""Small datasets for the tests of the layouts."""

import dataclasses

import numpy as np
import yaml

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, tf_raw_spec
from criteo_prep.transcribe import tf_raw
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset

ONE_HOT = (Feature("store", "", 90, alpha=1.1), Feature("item", "", 300), Feature("user", "", 2**31 - 2))
FIXED = (Feature("store", "", 90), Feature("tags", "", 40_000, hotness=3, alpha=1.2), Feature("words", "", 70_000, 2))
RAGGED = (Feature("store", "", 90), Feature("tags", "", 40_000, hotness=3, ragged=True))


def samples(features, rows, num_numerical=2, seed=0):
    """Random samples, in which every feature has its smallest and its largest id."""
    rng = np.random.default_rng(seed)
    categorical = {}
    for feature in features:
        lengths = None
        if feature.ragged:
            lengths = rng.integers(0, 4, rows).astype(np.int32)
        elif feature.hotness > 1:
            lengths = np.full(rows, feature.hotness, np.int32)
        ids = rng.integers(0, feature.cardinality, rows if lengths is None else int(lengths.sum())).astype(np.int32)
        ids[:1], ids[-1:] = 0, feature.cardinality - 1
        categorical[feature.name] = Ids(ids, lengths)
    numerical = rng.normal(size=(rows, num_numerical)).astype(np.float16) if num_numerical else None
    return Batch(rng.random(rows) < 0.5, numerical, categorical)


def write_tf_raw(folder, features=ONE_HOT, splits=None, num_numerical=2):
    """A tf_raw dataset: split -> number of samples. Returns its folder."""
    splits = {"train": 23, "test": 7, "validation": 5} if splits is None else splits
    spec = tf_raw_spec(features, num_numerical, splits=splits)
    for seed, (split, rows) in enumerate(splits.items()):
        with tf_raw.Writer(folder, spec, split) as writer:
            writer.write(samples(features, rows, num_numerical, seed))
    spec.save(folder / "feature_spec.yaml")
    return folder


def to_layout(source, source_layout, destination, layout, **change):
    """Transcribes. Returns the destination."""
    request = Request(source, source_layout, src_batch_size=4, dst_dataset_path=destination, dst_dataset_type=layout,
                      dst_prebatch_size=6)  # fmt: skip
    transcribe_dataset(dataclasses.replace(request, **change), quiet=True)
    return destination


def drop_checksums(folder):
    """Removes the checksums from a feature spec that transcribe wrote, before a test changes the files by hand."""
    path = folder / "feature_spec.yaml"
    document = yaml.safe_load(path.read_text())
    del document["metadata"]["files"]
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def files_of(folder):
    """Every file but the feature spec: path -> bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "feature_spec.yaml"}  # fmt: skip
