"""The types in a manifest's document, so that no reader of a manifest meets another type.

criteo_prep.manifest checks each document that it reads. `verify` also checks the entries of files in a feature spec.
"""

from criteo_prep.feature_spec_files import is_inside
from criteo_prep.messages import shown
from criteo_prep.schema import SPLITS

KINDS = {"made_by": str, "versions": dict, "inputs": list, "rules": dict, "splits": dict, "files": dict}
_JSON_NAMES = {str: "text", dict: "an object", list: "a list"}


def problem_of(document: dict) -> str | None:
    """The first wrong type in a manifest, or None. The content of "versions" and "rules" is free."""
    for key, kind in KINDS.items():
        if not isinstance(document[key], kind):
            return f"{key!r} is not {_JSON_NAMES[kind]}"
    for number, entry in enumerate(document["inputs"], 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            return f"input {number} is {shown(entry)}; it must be an object with a name"
    for split, entry in document["splits"].items():
        if split not in SPLITS:
            return f"split {split!r} is not one of {list(SPLITS)}"
        if not isinstance(entry, dict) or not _is_count(entry.get("num_samples")):
            return f"split {split!r} is {shown(entry)}; it must be an object with num_samples"
    problems = (problem_of_entry(name, entry) for name, entry in document["files"].items())
    return next(filter(None, problems), None)


def problem_of_entry(name: object, entry: object) -> str | None:
    """What is wrong with an item of "files" in a manifest or in the metadata of a feature spec, or None.

    Args:
      name: path of the file, relative to the dataset folder.
      entry: size and checksums of the file.
    """
    if not isinstance(name, str) or not is_inside(name):
        return f"file {shown(name)} leads out of the dataset folder"
    if not isinstance(entry, dict) or not _is_count(entry.get("bytes")):
        return f"file {name!r} has the entry {shown(entry)}; it must have a number of bytes"
    blocks = entry.get("xxh3_64")
    if blocks is None:
        good = isinstance(entry.get("crc32"), str)
    else:
        block_bytes = entry.get("block_bytes")
        good = isinstance(blocks, list) and all(isinstance(block, str) for block in blocks)
        good = good and _is_count(block_bytes) and block_bytes > 0 and len(blocks) == -(-entry["bytes"] // block_bytes)
    return (
        None if good else f"file {name!r} has the entry {shown(entry)}; it must have a checksum for each block or file"
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
