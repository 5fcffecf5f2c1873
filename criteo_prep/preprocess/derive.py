"""A finished dataset -> the same samples with other ids, without parsing.

From ids: values are ranked by count, so a higher threshold keeps the first ids and drops the others. An id that is
dropped becomes 0, and the dtype may shrink.

From raw columns: label and numericals stay as they are, and the columns are encoded again from their raw values.

A file that stays as it is gets a second name in the new folder (a hard link) instead of a copy.
"""

import os
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.durable import force_tree
from criteo_prep.feature_spec import FeatureSpec, minimal_dtype
from criteo_prep.parallel import in_parallel
from criteo_prep.preprocess.arrange import label_file, numerical_file
from criteo_prep.preprocess.columns import vocabulary
from criteo_prep.preprocess.columns.encoder import write_ids
from criteo_prep.preprocess.decide import IDS, Existing, has_raw
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.parse.row_writer import FORCE_BYTES, OUTPUT_ROW_BYTES
from criteo_prep.preprocess.request import FEATURE_SPEC, DatasetRequest, Resources
from criteo_prep.preprocess.rules import per_column
from criteo_prep.preprocess.unfinished import start_over
from criteo_prep.schema import CATEGORICAL

_BLOCK_IDS = 1 << 18


def read_existing(dataset: Path) -> Existing | None:
    """The finished dataset in a folder; None where the folder has no manifest.

    Raises:
      ManifestError: the manifest is damaged, or a file is missing or has another size.
    """
    if not (dataset / manifest.MANIFEST).exists():
        return None
    document = manifest.load_manifest(dataset)
    manifest.check_files(dataset, document)
    caps = per_column("max_cardinality", document["rules"].get("max_cardinality"))
    folded = {
        name
        for name, cap in zip(CATEGORICAL, caps, strict=True)
        if cap is not None and vocabulary.num_kept(_vocabulary(dataset, name)) + 1 > cap
    }
    return Existing(document, frozenset(folded))


def begin_derivation(
    root: Path,
    dataset: Path,
    *,
    existing: Existing,
    request: DatasetRequest,
    source: str,
    resources: Resources,
) -> Journal:
    """Fills the staging folder with everything that can be taken from a finished dataset.

    Args:
      root: the staging folder.
      dataset: the folder of the finished dataset.
      existing: the finished dataset.
      request: what to make.
      source: RAW or IDS.
      resources: threads and progress.

    Returns:
      The journal: everything is parsed, and from IDS every column is finished too.
    """
    journal, old = start_over(root, request, source), existing.manifest
    for folder in ("raw", "vocabularies", *old["splits"]):
        (root / folder).mkdir()
    linked = [file_of(request.layout, split) for split in old["splits"] for file_of in (label_file, numerical_file)]
    linked += [file for file in old["files"] if file.startswith("raw/")]
    for file in linked:
        os.link(dataset / file, root / file)
    is_raw = has_raw(old)
    zeros = [old["files"][f"raw/{name}.zeros"]["bytes"] // 8 if is_raw else 0 for name in CATEGORICAL]
    journal.files = [
        ParsedFile(entry["name"], entry["rows"], entry["skipped"], finished=True, num_zeros=zeros)
        for entry in old["inputs"]
    ]
    journal.parsed = True
    if source == IDS:
        _derive_columns(root, dataset, existing=existing, request=request, journal=journal, resources=resources)
    if journal.num_rows * OUTPUT_ROW_BYTES >= FORCE_BYTES:
        force_tree(root)
        journal.forced = True
    journal.save()
    return journal


def _derive_columns(
    root: Path,
    dataset: Path,
    *,
    existing: Existing,
    request: DatasetRequest,
    journal: Journal,
    resources: Resources,
) -> None:
    spec = FeatureSpec.load(dataset / FEATURE_SPEC)
    num_samples = {split: entry["num_samples"] for split, entry in existing.manifest["splits"].items()}
    num_rows = sum(num_samples.values())
    thresholds = dict(zip(CATEGORICAL, request.rules.thresholds, strict=True))
    with resources.progress("derive", num_rows * len(CATEGORICAL), "ids") as progress:

        def derive(name: str) -> None:
            column = _derive_column(
                root, dataset, spec=spec, name=name, threshold=thresholds[name], num_samples=num_samples
            )
            journal.finish_column(name, column)
            progress.advance(num_rows)

        in_parallel(derive, list(CATEGORICAL), resources.memory.workers)


def _derive_column(
    root: Path, dataset: Path, *, spec: FeatureSpec, name: str, threshold: int, num_samples: dict[str, int]
) -> dict:
    """Writes the vocabulary and the ids of a column under a threshold that is not lower.

    Args:
      root: the staging folder.
      dataset: the folder of the finished dataset.
      spec: the feature spec of the finished dataset.
      name: the column.
      threshold: the new threshold of the column.
      num_samples: split -> samples.

    Returns:
      The column's entry in the journal.
    """
    path = _vocabulary(root, name)
    num_kept = vocabulary.cut_vocabulary(_vocabulary(dataset, name), path, threshold)
    cardinality = min(num_kept + 1, spec.features[name].cardinality)
    old, new = np.dtype(spec.features[name].dtype), np.dtype(minimal_dtype(cardinality))
    files = {f"vocabularies/{name}.parquet": manifest.block_entry(path)}
    for split, rows in num_samples.items():
        file = spec.chunk_of(split, name).files[0]
        blocks = _cut_ids(dataset / file, old, new=new, cardinality=cardinality)
        files[file] = write_ids(root / file, blocks, num_rows=rows, dtype=new, seed=None)
    return {"cardinality": cardinality, "files": files}


def _cut_ids(path: Path, old: np.dtype, *, new: np.dtype, cardinality: int):
    """Yields the ids of a file as another dtype, with 0 in place of every id that is not below the cardinality."""
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_BLOCK_IDS * old.itemsize):
            ids = np.frombuffer(data, old)
            yield np.where(ids < cardinality, ids, 0).astype(new)


def _vocabulary(dataset: Path, name: str) -> Path:
    return dataset / "vocabularies" / f"{name}.parquet"
