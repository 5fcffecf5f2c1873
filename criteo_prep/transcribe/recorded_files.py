"""The files of a dataset against what was recorded when they were written: sizes, checksums, and no change meanwhile.

`transcribe` records files in the feature spec's metadata, `preprocess` and `synthesize` in manifest.json. A dataset of
another program has no record, and nothing of it is checked here.
"""

import os
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import MANIFEST, block_entry, file_entry, load_manifest
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.layout_spec import LayoutError


def files_of_split(spec: FeatureSpec, split: str) -> list[str]:
    """The files of a split, as the spec names them; none of a synthetic source."""
    return [file for chunk in spec.sources.get(split, ()) for file in chunk.files]


def check_sizes(spec: FeatureSpec, files: list[str]) -> None:
    """Raises LayoutError for a file, as the spec names it, that does not have its recorded size.

    Nothing else finds a file that was cut between two samples, before it is read.
    """
    entries, record = _entries(spec)
    for file in files:
        expected = entries.get(file, {}).get("bytes")
        if type(expected) is int and (size := (spec.root / file).stat().st_size) != expected:
            raise _changed(spec, file, f"has {size} bytes, but {expected} were written", record)


def check_checksums(spec: FeatureSpec, files: list[str]) -> None:
    """As check_sizes, for the recorded checksums. Reads the files."""
    entries, record = _entries(spec)
    files = [file for file in files if file in entries]
    for file, right in zip(
        files, in_order(lambda file: _is_right(spec.root / file, entries[file]), files), strict=True
    ):
        if not right:
            raise _changed(spec, file, "does not have the checksum that was written", record)


def file_states(paths: list[Path]) -> dict[Path, tuple[int, int, int]]:
    """What changes when somebody writes a file: path -> (inode, size, time of the last change)."""
    return {path: _state_of(path) for path in paths}


def check_unchanged(states: dict[Path, tuple[int, int, int]]) -> None:
    """Raises LayoutError for the first file whose state is another one now."""
    for path, state in states.items():
        if _state_of(path) != state:
            raise LayoutError(f"{path}: was changed while it was read. Wait until it is complete, and start again.")


def _state_of(path: Path) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _entries(spec: FeatureSpec) -> tuple[dict[str, dict], str]:
    """(file -> what was recorded of it, name of the file with the record)."""
    files, record = None, MANIFEST
    if isinstance(spec.metadata, dict) and "files" in spec.metadata:
        files, record = spec.metadata["files"], spec.path.name
    elif (spec.root / MANIFEST).is_file():
        files = load_manifest(spec.root)["files"]
    if not isinstance(files, dict):
        return {}, record
    return {file: entry for file, entry in files.items() if isinstance(entry, dict)}, record


def _is_right(path: Path, entry: dict) -> bool:
    if "xxh3_64" in entry:
        found = block_entry(path)
        return found["block_bytes"] != entry.get("block_bytes") or found["xxh3_64"] == entry["xxh3_64"]
    return "crc32" not in entry or file_entry(path)["crc32"] == entry["crc32"]


def _changed(spec: FeatureSpec, file: str, fault: str, record: str) -> LayoutError:
    return LayoutError(
        f"{spec.root / file}: {fault}, says {record}. Copy or make it again; if you changed the file on purpose, "
        f"remove its entry from {'metadata: files' if record != MANIFEST else 'the manifest'}."
    )
