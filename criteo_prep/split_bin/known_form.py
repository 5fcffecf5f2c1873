"""What a file next to a file of records says of them: their types, ids of each table and slot sizes.

`transcribe` writes records with a feature spec. `split` writes metadata.json. Without either, the flags decide.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.feature_spec import AUTO, Chunk, FeatureSpec, FeatureSpecError
from criteo_prep.intact import check_file, entries_of
from criteo_prep.schema import NUM_NUMERICAL
from criteo_prep.split_bin.metadata import METADATA, has_types, read_metadata
from criteo_prep.split_bin.record import ID_TYPES, NUMBER_TYPES, RecordForm, SplitBinError

_SPEC = "feature_spec.yaml"


@dataclass(frozen=True)
class KnownForm:
    """The form of records, as a file next to them says it.

    Attributes:
      path: file that says it.
      form: types and sizes of a record.
      slot_sizes: number of ids of each table; None where the file does not say it.
    """

    path: Path
    form: RecordForm
    slot_sizes: list[int] | None


def known_form(source: Path) -> KnownForm | None:
    """The form of the records in a file; None where no file next to it says it.

    A feature spec counts if its source_spec names the file. It may stand in the file's folder or in the folder above.

    Raises:
      SplitBinError: the file says what split-bin cannot read, or is damaged.
      DamagedError: the records do not have the checksum that the spec records.
    """
    for root in (source.parent, source.parent.parent):
        if (root / _SPEC).is_file() and (known := _form_in_spec(root / _SPEC, source)):
            return known
    path = source.parent / METADATA
    if path.is_file() and has_types(path):
        form, slot_sizes = read_metadata(path)
        return KnownForm(path, form, slot_sizes)
    return None


def _form_in_spec(path: Path, source: Path) -> KnownForm | None:
    try:
        spec = FeatureSpec.load(path, auto=True)
    except FeatureSpecError as error:
        raise SplitBinError(f"{error} It is next to {source}, so it must say what the records are.") from None
    for chunk in (chunk for chunks in spec.sources.values() for chunk in chunks):
        for file in chunk.files if chunk.type == "record_binary" else ():
            if os.path.realpath(path.parent / file) == os.path.realpath(source):
                if entry := entries_of(spec).get(path.parent / file):
                    check_file(source, entry)
                return _form_of_chunk(spec, chunk)
    return None


def _form_of_chunk(spec: FeatureSpec, chunk: Chunk) -> KnownForm:
    label, numerical, categorical = (spec.channels[channel] for channel in ("label", "numerical", "categorical"))
    types = {spec.label.dtype, *(feature.dtype for feature in spec.numerical)} - set(NUMBER_TYPES)
    id_types = {feature.dtype for feature in spec.categorical}
    dense_types = {feature.dtype for feature in spec.numerical}
    if (
        chunk.features != (*label, *numerical, *categorical)
        or len(numerical) != NUM_NUMERICAL
        or types
        or len(dense_types) != 1
        or len(id_types) != 1
        or not id_types <= set(ID_TYPES)
    ):
        raise SplitBinError(
            f"{spec.path}: the records of {chunk.files[0]} are not label, {NUM_NUMERICAL} numericals and ids, in this "
            "order, with one dtype each. split-bin cannot read them; use criteo-prep transcribe --src_dataset_type "
            "record_binary."
        )
    form = RecordForm(
        spec.label.dtype,
        dense_types.pop(),
        category_type=id_types.pop(),
        hotness=tuple(feature.hotness for feature in spec.categorical),
        dense_log=spec.numerical[0].dtype == "int32",  # floats in a dataset are logarithms already
    )
    sizes = [feature.cardinality for feature in spec.categorical]
    return KnownForm(spec.path, form, None if AUTO in sizes else sizes)
