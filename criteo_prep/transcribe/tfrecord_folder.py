"""A folder of split_tfrecords: the records of one feature, or of all numericals, and their format.json.

{"format": "tfrecords", "dtype": "int32", "multihot": false, "feature_name": "data", "num_features": 1, ...}
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import Chunk, Feature
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.plain_file import open_plain
from criteo_prep.transcribe.layout_spec import LayoutError
from criteo_prep.transcribe.tensor_proto import ProtoError, parse_example, parse_ragged, parse_tensor
from criteo_prep.transcribe.tfrecord import records

_LARGEST_JSON = 1 << 16  # bytes


class TfRecordFolder:
    """The records of one folder, in order.

    Args:
      root: the dataset folder.
      chunk: the files of the folder, and their features.
      feature: the first of these features.

    Raises:
      LayoutError: format.json and the spec differ.
    """

    def __init__(self, root: Path, chunk: Chunk, feature: Feature):
        self.paths = [existing_file(root, file, chunk.features[0]) for file in chunk.files]
        self.folder = self.paths[0].parent
        document = read_json(self.folder / "format.json")
        keys = {"format": str, "dtype": str, "multihot": bool, "feature_name": str, "num_features": int}
        for key, kind in keys.items():
            if not isinstance(document, dict) or not isinstance(document.get(key), kind):
                raise LayoutError(f"{self.folder}/format.json: has no {key!r} that is a {kind.__name__}.")
        if document["multihot"] != (feature.ragged or feature.hotness > 1):
            raise LayoutError(
                f"{self.folder}/format.json: says multihot {str(document['multihot']).lower()}, but the feature spec "
                f"gives {feature.name!r} hotness {feature.hotness}. Correct the spec."
            )
        self.name, self.dtype, self.multihot = document["feature_name"], document["dtype"], document["multihot"]

    def __iter__(self) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        """Each record as (file and byte, values [n] or [n, columns], row lengths or None)."""
        for path in self.paths:
            for offset, data in records(path):
                where = f"{path}: the record at byte {offset}"
                try:
                    content = parse_example(data, self.name)
                    if not self.multihot:
                        values, lengths = parse_tensor(content), None
                    else:
                        values, row_splits = parse_ragged(content)
                        lengths = np.diff(row_splits).astype(np.int32)
                except ProtoError as error:
                    raise LayoutError(f"{where} {error}. Another program wrote it, or it is damaged.") from None
                if values.dtype != self.dtype:
                    raise LayoutError(f"{where} is {values.dtype}, but format.json says {self.dtype}.")
                yield where, values, lengths


def write_format(root: Path, chunk: Chunk, *, feature: Feature, num_records: int) -> None:
    """Writes format.json next to the records of a chunk, whose first feature is `feature`."""
    document = {
        "format": "tfrecords",
        "dtype": feature.dtype,
        "multihot": feature.ragged or feature.hotness > 1,
        "feature_name": "data",
        "num_features": len(chunk.features),
        "batches_per_file": num_records,
    }
    (root / chunk.files[0]).with_name("format.json").write_text(json.dumps(document))


def read_json(path: Path) -> object:
    """The content of a small JSON file. Raises LayoutError where it is not JSON."""
    try:
        with open_plain(path) as file:
            return json.loads(file.read(_LARGEST_JSON).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise LayoutError(f"{path}: is not JSON: {error}.") from None
