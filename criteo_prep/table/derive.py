"""A finished dataset -> the same samples under higher thresholds, without parsing.

Values are ranked by count, so a higher threshold keeps the first ids and drops the others. An id that is dropped
becomes 0, and the dtype may shrink. Everything else gets a second name in the new folder (a hard link) instead of a
copy. Every file of the finished dataset is checked against its checksum meanwhile.
"""

import dataclasses
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.durable import force_tree
from criteo_prep.feature_spec import Feature, FeatureSpec, minimal_dtype, tf_raw_spec
from criteo_prep.intact import check_file
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.columns.encoder import write_ids
from criteo_prep.preprocess.columns.vocabulary import cut_vocabulary
from criteo_prep.preprocess.derive import checked_ids, link
from criteo_prep.preprocess.request import Resources
from criteo_prep.table.request import FEATURE_SPEC, TableRequest
from criteo_prep.table.schema import Categorical


def derive(root: Path, dataset: Path, *, old: dict, request: TableRequest, resources: Resources) -> None:
    """Makes the wanted dataset in the staging folder, up to its manifest.

    Args:
      root: the staging folder.
      dataset: the folder of the finished dataset.
      old: its manifest.
      request: what to make: the same with higher thresholds.
      resources: threads and progress.

    Raises:
      DamagedError: a file of the finished dataset does not fit its checksum.
    """
    check_file(dataset / FEATURE_SPEC, old["files"][FEATURE_SPEC])
    spec = FeatureSpec.load(dataset / FEATURE_SPEC)
    for folder in ("vocabularies", *old["splits"]):
        (root / folder).mkdir()
    columns, features, files = request.schema.categorical, [], {}
    num_rows = sum(entry["num_samples"] for entry in old["splits"].values())
    with resources.progress("derive", num_rows * len(columns), "samples") as progress:
        made = in_order(
            lambda each: _derive_column(root, dataset, spec=spec, each=each, old=old),
            columns,
            workers=resources.memory.workers,
        )
        for feature, entries in made:
            features.append(feature)
            files |= entries
            progress.advance(num_rows)
    for name in old["files"]:
        if name not in files and name != FEATURE_SPEC:
            check_file(dataset / name, old["files"][name])
            link(dataset / name, root / name)
            files[name] = old["files"][name]
    names = [feature.name for feature in spec.numerical]
    tf_raw_spec(features, numerical_names=names, splits=tuple(old["splits"])).save(root / FEATURE_SPEC)
    files[FEATURE_SPEC] = manifest.block_entry(root / FEATURE_SPEC)
    force_tree(root)
    document = {**old, "rules": request.wanted["rules"], "files": dict(sorted(files.items()))}
    (root / "work").rmdir()
    manifest.save_manifest(root, document)


def _derive_column(
    root: Path, dataset: Path, *, spec: FeatureSpec, each: Categorical, old: dict
) -> tuple[Feature, dict[str, dict]]:
    """Writes the vocabulary and the ids of a feature. Returns the feature, and the manifest's entries for the files."""
    name = f"vocabularies/{each.feature}.parquet"
    check_file(dataset / name, old["files"][name])
    cardinality = cut_vocabulary(dataset / name, root / name, each.threshold) + 1
    feature, dtype = spec.features[each.feature], np.dtype(minimal_dtype(cardinality))
    files = {name: manifest.block_entry(root / name)}
    for split, entry in old["splits"].items():
        file = spec.chunk_of(split, each.feature).files[0]
        ids = checked_ids(dataset / file, np.dtype(feature.dtype), entry=old["files"][file])
        blocks = (np.where(block < cardinality, block, 0).astype(dtype) for block in ids)
        files[file] = write_ids(root / file, blocks, num_rows=entry["num_samples"], dtype=dtype, seed=None)
    return dataclasses.replace(feature, cardinality=cardinality), files
