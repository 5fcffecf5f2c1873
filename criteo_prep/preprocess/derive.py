"""A finished dataset -> one with other thresholds, without parsing where that is possible.

Ids are ranked by count, so a higher threshold keeps the first ids and leaves the others out: id > K becomes 0, and
the dtype may shrink. Any other threshold is made from the raw columns, where the dataset kept them; else the inputs
are parsed again. Files that stay as they are get a second name in the new folder instead of a copy.
"""

import os
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.durable import force_tree
from criteo_prep.feature_spec import FeatureSpec, minimal_dtype
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.arrange import label_file, numerical_file
from criteo_prep.preprocess.columns import vocabulary
from criteo_prep.preprocess.columns.encoder import write_ids
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.parse.row_writer import FORCE_BYTES, OUTPUT_ROW_BYTES
from criteo_prep.preprocess.rules import per_column
from criteo_prep.preprocess.stages import FEATURE_SPEC, DatasetRequest, Resources, begin_again
from criteo_prep.schema import CATEGORICAL

FROM_RAW, FROM_IDS, FROM_INPUTS = "the raw columns in it", "the ids in it", "the inputs"
_ABOUT_COLUMNS = {"threshold", "max_cardinality", "cap", "vocabulary_days"}
_BLOCK_IDS = 1 << 18


def source_for(dataset: Path, existing_manifest: dict, request: DatasetRequest) -> str | None:
    """What the wanted dataset can be made from: FROM_RAW, FROM_IDS, or FROM_INPUTS where these would do but for what
    the dataset has not kept; None if it is another dataset, of other inputs or rules that are not about ids.

    Args:
      dataset: a finished dataset; there: its manifest.
    """
    old, new = existing_manifest["rules"], request.wanted["rules"]
    changed = {key for key in {**old, **new} if old.get(key) != new.get(key)}
    inputs = [
        {key: entry[key] for key in wanted}
        for entry, wanted in zip(existing_manifest["inputs"], request.wanted["inputs"], strict=False)
    ]
    if (
        inputs != request.wanted["inputs"]
        or len(existing_manifest["inputs"]) != len(inputs)
        or not changed <= _ABOUT_COLUMNS
    ):
        return None
    if existing_manifest["made_by"] != request.wanted["made_by"]:
        return None
    if has_raw(existing_manifest):
        return FROM_RAW
    if changed != {"threshold"}:
        return FROM_INPUTS
    caps = per_column("max_cardinality", old.get("max_cardinality"))
    for name, before, after, cap in zip(
        CATEGORICAL, per_column("threshold", old["threshold"]), request.rules.thresholds, caps, strict=True
    ):
        folded = cap is not None and vocabulary.num_kept(_vocabulary(dataset, name)) + 1 > cap
        if after != before and (max(after, 1) < max(before, 1) or folded):
            return FROM_INPUTS
    return FROM_IDS


def has_raw(existing_manifest: dict) -> bool:
    """Whether a dataset, by its manifest, kept its raw columns."""
    return f"raw/{CATEGORICAL[0]}.raw" in existing_manifest["files"]


def begin_derivation(
    root: Path, dataset: Path, *, existing_manifest: dict, request: DatasetRequest, resources: Resources
) -> None:
    """Fills `root` with what the stages of make.make would find done, unless an earlier run did.

    Args:
      order: its source is FROM_RAW or FROM_IDS.
    """
    journal = Journal.load(root / "work")
    if journal and journal.source == request.source and not manifest.differences(journal.wanted, request.wanted):
        return
    journal, spec = begin_again(root, request), request.layout
    for folder in ("raw", "vocabularies", *existing_manifest["splits"]):
        (root / folder).mkdir()
    for split in existing_manifest["splits"]:
        for file in (label_file(spec, split), numerical_file(spec, split)):
            _link(dataset / file, root / file)
    raw = [file for file in existing_manifest["files"] if file.startswith("raw/")]
    for file in raw:
        _link(dataset / file, root / file)
    zeros = [existing_manifest["files"][f"raw/{name}.zeros"]["bytes"] // 8 if raw else 0 for name in CATEGORICAL]
    journal.files = [
        ParsedFile(entry["name"], entry["rows"], entry["skipped"], finished=True, num_zeros=zeros)
        for entry in existing_manifest["inputs"]
    ]
    journal.parsed = True
    if request.source == FROM_IDS:
        old = FeatureSpec.load(dataset / FEATURE_SPEC)
        num_rows = sum(split["num_samples"] for split in existing_manifest["splits"].values())
        with resources.progress("derive", num_rows * len(CATEGORICAL), "ids") as progress:

            def do(column: int) -> None:
                document = _derive_column(
                    root,
                    dataset,
                    old=old,
                    existing_manifest=existing_manifest,
                    threshold=request.rules.thresholds[column],
                    column=column,
                )
                journal.finish_column(CATEGORICAL[column], document)

            for _ in in_order(do, range(len(CATEGORICAL)), resources.memory.workers):
                progress.advance(num_rows)
    if journal.num_rows * OUTPUT_ROW_BYTES >= FORCE_BYTES:
        force_tree(root)
        journal.forced = True
    journal.save()


def _derive_column(
    root: Path, dataset: Path, *, old: FeatureSpec, existing_manifest: dict, threshold: int, column: int
) -> dict:
    """Writes vocabulary and ids of a column under a threshold that is not lower. Returns what the journal says."""
    name = CATEGORICAL[column]
    path = _vocabulary(root, name)
    kept = vocabulary.cut_vocabulary(_vocabulary(dataset, name), path, threshold)
    cardinality = min(kept + 1, old.features[name].cardinality)
    dtype = np.dtype(minimal_dtype(cardinality))
    files = {f"vocabularies/{name}.parquet": manifest.block_entry(path)}
    for split in existing_manifest["splits"]:
        file = old.chunk_of(split, name).files[0]
        blocks = _cut_ids(dataset / file, np.dtype(old.features[name].dtype), new=dtype, cardinality=cardinality)
        files[file] = write_ids(
            root / file, blocks, num_rows=existing_manifest["splits"][split]["num_samples"], dtype=dtype, seed=None
        )
    return {"cardinality": cardinality, "files": files}


def _cut_ids(path: Path, old: np.dtype, *, new: np.dtype, cardinality: int):
    """Yields the ids of a file, with 0 for those that are not below the cardinality."""
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_BLOCK_IDS * old.itemsize):
            ids = np.frombuffer(data, old)
            yield np.where(ids < cardinality, ids, 0).astype(new)


def _vocabulary(dataset: Path, name: str) -> Path:
    return dataset / "vocabularies" / f"{name}.parquet"


def _link(source: Path, target: Path) -> None:
    os.link(source, target)
