"""Whether the rows of an input have labels, found by reading the beginning of each file."""

from collections.abc import Sequence
from itertools import islice

from criteo_prep.preprocess.locations import Location
from criteo_prep.preprocess.parse.parquet_columns import find_columns
from criteo_prep.preprocess.parse.parquet_rows import column_names, is_parquet
from criteo_prep.preprocess.parse.text_blocks import text_blocks
from criteo_prep.preprocess.parse.text_stream import InputError, TruncatedError
from criteo_prep.preprocess.parse.tsv import NUM_FIELDS, parse

_BLOCK_BYTES, _MAX_BLOCKS = 1 << 16, 64


def have_labels(paths: Sequence[Location]) -> bool:
    """Whether the rows of all files have labels.

    Raises:
      InputError: no file says it, or two files differ.
    """
    found = {path: label for path in paths if (label := has_labels(path)) is not None}
    if not found:
        raise InputError(
            f"{paths[0]}: no good row at its beginning says whether rows have labels ({NUM_FIELDS} fields) or none "
            f"({NUM_FIELDS - 1} fields). Add --labelled yes or --labelled no."
        )
    first, labelled = next(iter(found.items()))
    for path, other in found.items():
        if other != labelled:
            with_, without = (first, path) if labelled else (path, first)
            raise InputError(f"{with_}: rows have labels, but the rows of {without} have none. Encode them one by one.")
    return labelled


def refuse_unlabelled(paths: Sequence[Location]) -> None:
    """Raises InputError for the first file whose rows have no labels."""
    for path in paths:
        if has_labels(path) is False:
            raise InputError(
                f"{path}: its rows have {NUM_FIELDS - 1} fields and no label, as Kaggle's test.txt; preprocess needs "
                "labels. criteo-prep encode makes a dataset of rows without labels, with the ids of a finished dataset."
            )


def has_labels(path: Location) -> bool | None:
    """Whether the rows of a file have labels; None where its beginning has no good row, or as many of either kind.

    A parquet file has labels unless it has one column less; InputError for another number of columns.

    The first row alone does not say it: a row with a label that lacks its last field may look like a row without label.
    """
    if is_parquet(path):
        names = column_names(path)
        labelled = len(names) != NUM_FIELDS - 1
        find_columns(path, names, labelled)
        return labelled
    try:
        for block, _ in islice(text_blocks(path, _BLOCK_BYTES), _MAX_BLOCKS):
            with_label, without = len(parse(block)), len(parse(block, labelled=False))
            if with_label != without:
                return with_label > without
    except TruncatedError:  # parsing reports it
        pass
    return None
