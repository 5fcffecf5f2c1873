"""The layouts: READERS and WRITERS, two visible dicts.

A layout is a reader and a writer of the same shape. `Reader(root, spec, split)` has `num_samples` and
`batches(batch_size)`, which yields Batches. `Writer(root, spec, split)` has `write(batch)`, which is `prepare`, for any
thread, and then `append`, for one thread, in the order of the samples. Both are context managers. A third function
says which spec the features of a source get in a layout.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec, tf_raw_spec
from criteo_prep.synthetic import generator
from criteo_prep.transcribe import criteo_npy, record_binary, split_tfrecords, tf_raw
from criteo_prep.transcribe.layout_spec import check_layout_holds
from criteo_prep.transcribe.request import Request


def _read_synthetic(root: Path, spec: FeatureSpec, split: str, request: Request) -> generator.Reader:
    return generator.Reader(
        spec, split, num_samples=request.max_batches(split) * request.src_batch_size, seed=request.seed
    )


# pyarrow is imported when a dataset needs it: a trainer that reads tf_raw does not.


def _parquet():
    from criteo_prep.transcribe import parquet

    return parquet


def _csv():
    from criteo_prep.transcribe import csv

    return csv


# layout -> (root, spec, split, request) -> reader
READERS: dict[str, Callable] = {
    "tf_raw": lambda root, spec, split, request: tf_raw.Reader(root, spec, split=split),
    "record_binary": lambda root, spec, split, request: record_binary.Reader(root, spec, split=split),
    "criteo_npy": lambda root, spec, split, request: criteo_npy.Reader(root, spec, split=split),
    "split_tfrecords": lambda root, spec, split, request: split_tfrecords.Reader(root, spec, split),
    "parquet": lambda root, spec, split, request: _parquet().Reader(root, spec, split),
    "csv": lambda root, spec, split, request: _csv().Reader(root, spec, split),
    "synthetic": _read_synthetic,
}


def standard_tf_raw_spec(source: FeatureSpec, splits: tuple[str, ...]) -> FeatureSpec:
    """The standard tf_raw spec of a source's features.

    Categorical features keep their name (without the suffix `.bin` of published datasets), cardinality, hotness, alpha
    and ragged. Numericals and label get the standard names, in the same order.

    Raises:
      FeatureSpecError: a categorical feature has one of the standard names, or two features have the same name.
      LayoutError: the numericals are integers.
    """
    check_layout_holds("tf_raw", source)
    tables = [dataclasses.replace(feature, name=feature.name.removesuffix(".bin")) for feature in source.categorical]
    return tf_raw_spec(tables, len(source.numerical), splits=splits)


# layout -> ((source spec, splits) -> spec, (root, spec, split, request) -> writer)
WRITERS: dict[str, tuple[Callable, Callable]] = {
    "tf_raw": (standard_tf_raw_spec, lambda root, spec, split, request: tf_raw.Writer(root, spec, split)),
    "record_binary": (
        record_binary.record_binary_spec,
        lambda root, spec, split, request: record_binary.Writer(root, spec, split),
    ),
    "criteo_npy": (criteo_npy.criteo_npy_spec, lambda root, spec, split, request: criteo_npy.Writer(root, spec, split)),
    "split_tfrecords": (
        split_tfrecords.split_tfrecords_spec,
        lambda root, spec, split, request: split_tfrecords.Writer(
            root, spec, split=split, prebatch_size=request.dst_prebatch_size
        ),
    ),
    "parquet": (
        lambda source, splits: _parquet().parquet_spec(source, splits),
        lambda root, spec, split, request: _parquet().Writer(root, spec, split),
    ),
    "csv": (
        lambda source, splits: _csv().csv_spec(source, splits),
        lambda root, spec, split, request: _csv().Writer(root, spec, split),
    ),
}
