"""metadata.json: the types of the records and the number of ids of each table.

Source: split_bin.py of the DLRM benchmarks of HugeCTR's sparse operation kit.
"""

import json
from pathlib import Path

from criteo_prep.plain_file import open_plain
from criteo_prep.split_bin.record import ID_TYPES, NUMBER_TYPES, PARTS, RecordForm, SplitBinError

METADATA = "metadata.json"
_LARGEST = 1 << 22  # bytes; the number of ids of 262,144 tables, which no record exceeds, has fewer


def metadata_text(form: RecordForm, slot_sizes: list[int]) -> str:
    """The text of metadata.json, with the same bytes as the published program writes."""
    document = {
        "vocab_sizes": slot_sizes,
        "label_raw_type": form.label_type,
        "dense_raw_type": form.dense_type,
        "category_raw_type": form.category_type,
        "dense_log": form.dense_log,
    }
    if set(form.hotness) != {1}:
        document["hotness_per_table"] = list(form.hotness)
    return json.dumps(document)


def has_types(path: Path) -> bool:
    """Whether a file named metadata.json is one of split-bin; many programs write files of this name."""
    try:
        document = _load(path)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "vocab_sizes" in document


def read_metadata(path: Path) -> tuple[RecordForm, list[int]]:
    """(form of the records, slot sizes) of a metadata.json. Raises SplitBinError for any other content."""
    try:
        document = _load(path)
    except FileNotFoundError:
        raise SplitBinError(f"{path}: there is no such file. Name a folder that split-bin has made.") from None
    except (ValueError, RecursionError) as error:
        raise SplitBinError(f"{path}: is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise SplitBinError(f"{path}: must be a mapping, not {type(document).__name__}.")
    sizes = positive_integers(document.get("vocab_sizes"), f"{path}: vocab_sizes")
    hotness = document.get("hotness_per_table", [1] * len(sizes))
    hotness = positive_integers(hotness, f"{path}: hotness_per_table")
    types = [document.get(f"{part}_raw_type", "int32") for part in PARTS]
    for part, dtype, known in zip(PARTS, types, (NUMBER_TYPES, NUMBER_TYPES, ID_TYPES), strict=True):
        if dtype not in known:
            raise SplitBinError(f"{path}: {part}_raw_type is {repr(dtype)[:80]}; {' or '.join(known)} are right.")
    if len(hotness) != len(sizes):
        raise SplitBinError(f"{path}: {len(sizes)} vocab_sizes, but {len(hotness)} in hotness_per_table.")
    try:
        return RecordForm(*types, tuple(hotness), document.get("dense_log") is True), sizes
    except SplitBinError as error:
        raise SplitBinError(f"{path}: {error}") from None


def _load(path: Path) -> object:
    with open_plain(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    return json.loads(content.decode("utf-8"))


def positive_integers(value: object, where: str) -> list[int]:
    """A list of positive integers below 2**31. Raises SplitBinError for any other value."""
    if not isinstance(value, list) or not value or not all(type(n) is int and 0 < n < 1 << 31 for n in value):
        raise SplitBinError(f"{where}: must be a list of positive integers below 2147483648, such as [3, 20, 7].")
    return value
