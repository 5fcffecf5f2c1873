"""Whether a folder holds only files that this program made, so that it may be replaced."""

import json
import os
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.plain_file import open_plain

_OURS = "criteo-prep "  # the beginning of "made_by"
_LARGEST_SPEC = 4 << 20  # bytes
# The files of split-bin, which published readers know by these names; metadata.json has no room for a list of files.
_SPLIT_BIN = {"label.bin", "dense.bin", "category.bin", "metadata.json"}


def foreign_file(folder: Path) -> str | None:
    """The first file in a folder, by its name, that this program did not make; None where it made all of them.

    This program made a file if a manifest, or the metadata of a feature spec, of its own lists the file.
    """
    ours = _listed(folder) | _split_bin_files(folder)
    names = [
        os.path.relpath(Path(parent) / name, folder)
        for parent, folders, files in os.walk(folder)
        for name in (*files, *(name for name in folders if (Path(parent) / name).is_symlink()))
    ]
    return min((name for name in names if name not in ours), default=None)


def belongs_to_a_dataset(file: Path) -> bool:
    """Whether a file is a part of a dataset that this program made; it lies in the dataset's folder or one below."""
    here, above = file.parent, file.absolute().parent.parent
    of_the_folder_above = f"{file.absolute().parent.name}/{file.name}"
    return file.name in _listed(here) or of_the_folder_above in _listed(above)


def _listed(folder: Path) -> set[str]:
    return _listed_in_manifest(folder) | _listed_in_specs(folder)


def _listed_in_manifest(folder: Path) -> set[str]:
    try:
        document = manifest.load_manifest(folder, damaged=True)
    except (manifest.ManifestError, OSError):
        return set()
    if not document["made_by"].startswith(_OURS):
        return set()
    return {manifest.MANIFEST, *document["files"]}


def _listed_in_specs(folder: Path) -> set[str]:
    """Files that the metadata of a feature spec lists, as transcribe writes it, and the spec itself."""
    listed: set[str] = set()
    for path in sorted(folder.glob("*.yaml")):
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_SPEC or _OURS.encode() not in path.read_bytes():
                continue
            metadata = FeatureSpec.load(path).metadata
        except (FeatureSpecError, OSError):
            continue
        if isinstance(metadata, dict) and str(metadata.get("made_by")).startswith(_OURS):
            files = metadata.get("files")
            listed |= {path.name, *(files if isinstance(files, dict) else ())}
    return listed


def _split_bin_files(folder: Path) -> set[str]:
    try:
        with open_plain(folder / "metadata.json") as file:
            document = json.loads(file.read(_LARGEST_SPEC).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return _SPLIT_BIN if isinstance(document, dict) and "vocab_sizes" in document else set()
