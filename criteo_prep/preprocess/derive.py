"""A finished dataset -> the same samples with other ids, without parsing.

From ids: values are ranked by count, so a higher threshold keeps the first ids and drops the others. An id that is
dropped becomes 0, and the dtype may shrink.

From raw columns: label and numericals stay as they are, and the columns are encoded again from their raw values.

A file that stays as it is gets a second name in the new folder (a hard link) instead of a copy. Every file of the
finished dataset is checked against its checksum: ids while they are read, linked files for the new manifest.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.durable import force_tree
from criteo_prep.feature_spec import FeatureSpec, minimal_dtype
from criteo_prep.intact import Check, check_file
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.arrange import label_file, numerical_file
from criteo_prep.preprocess.columns import vocabulary
from criteo_prep.preprocess.columns.encoder import write_ids
from criteo_prep.preprocess.decide import IDS, Existing, has_raw
from criteo_prep.preprocess.finished import PREPROCESS, load_finished, rules_of
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.parse.row_writer import FORCE_BYTES, OUTPUT_ROW_BYTES
from criteo_prep.preprocess.request import FEATURE_SPEC, DatasetRequest, Resources
from criteo_prep.preprocess.unfinished import start_over
from criteo_prep.schema import CATEGORICAL

_BLOCK_IDS = 1 << 18
_NO_HARD_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


def read_existing(dataset: Path) -> Existing | None:
    """The finished dataset in a folder; None where the folder has no manifest.

    Raises:
      ManifestError: the manifest is damaged, or a file is missing or has another size.
    """
    if not (dataset / manifest.MANIFEST).exists():
        return None
    document = load_finished(dataset)
    manifest.check_files(dataset, document)
    if document["made_by"] != PREPROCESS:
        return Existing(document)
    caps = rules_of(dataset, document).caps
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

    Raises:
      DamagedError: a file of the finished dataset does not fit its checksum.
    """
    journal, old = start_over(root, request, source), existing.manifest
    for folder in ("raw", "vocabularies", *old["splits"]):
        (root / folder).mkdir()
    linked = [file_of(request.layout, split) for split in old["splits"] for file_of in (label_file, numerical_file)]
    linked += [file for file in old["files"] if file.startswith("raw/")]
    for file in linked:
        link(dataset / file, root / file)
    journal.linked = {file: old["files"][file] for file in linked}
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
    check_file(dataset / FEATURE_SPEC, existing.manifest["files"][FEATURE_SPEC])
    spec = FeatureSpec.load(dataset / FEATURE_SPEC)
    num_samples = {split: entry["num_samples"] for split, entry in existing.manifest["splits"].items()}
    num_rows = sum(num_samples.values())
    thresholds = dict(zip(CATEGORICAL, request.rules.thresholds, strict=True))
    with resources.progress("derive", num_rows * len(CATEGORICAL), "ids") as progress:

        def derive(name: str) -> None:
            column = _derive_column(
                root, dataset, spec=spec, name=name, threshold=thresholds[name], old=existing.manifest
            )
            journal.finish_column(name, column)

        for _ in in_order(derive, CATEGORICAL, workers=resources.memory.workers):
            progress.advance(num_rows)


def _derive_column(root: Path, dataset: Path, *, spec: FeatureSpec, name: str, threshold: int, old: dict) -> dict:
    """Writes the vocabulary and the ids of a column under a threshold that is not lower.

    Args:
      root: the staging folder.
      dataset: the folder of the finished dataset.
      spec: the feature spec of the finished dataset.
      name: the column.
      threshold: the new threshold of the column.
      old: the manifest of the finished dataset.

    Returns:
      The column's entry in the journal.
    """
    path = _vocabulary(root, name)
    check_file(_vocabulary(dataset, name), old["files"][f"vocabularies/{name}.parquet"])
    num_kept = vocabulary.cut_vocabulary(_vocabulary(dataset, name), path, threshold)
    cardinality = min(num_kept + 1, spec.features[name].cardinality)
    old_dtype, dtype = np.dtype(spec.features[name].dtype), np.dtype(minimal_dtype(cardinality))
    files = {f"vocabularies/{name}.parquet": manifest.block_entry(path)}
    for split, entry in old["splits"].items():
        file = spec.chunk_of(split, name).files[0]
        ids = checked_ids(dataset / file, old_dtype, entry=old["files"][file])
        blocks = (np.where(block < cardinality, block, 0).astype(dtype) for block in ids)
        files[file] = write_ids(root / file, blocks, num_rows=entry["num_samples"], dtype=dtype, seed=None)
    return {"cardinality": cardinality, "files": files}


def checked_ids(path: Path, dtype: np.dtype, *, entry: dict) -> Iterator[np.ndarray]:
    """Yields the ids of a file. Raises DamagedError at the end of a file that does not fit its entry."""
    check = Check(path, entry)
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_BLOCK_IDS * dtype.itemsize):
            check.update(data)
            yield np.frombuffer(data, dtype)
    check.finish()


def link(source: Path, target: Path) -> None:
    """Gives a file a second name; copies it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        shutil.copyfile(source, target)


def _vocabulary(dataset: Path, name: str) -> Path:
    return dataset / "vocabularies" / f"{name}.parquet"
