"""Keys in place of synthetic ids: key of an id = the 32-bit value that the day files have for the id, as an int64.

So `synthesize --ids raw` and `preprocess --ids raw` make the same keys of the same ids. Equal ids of a column have
equal keys, different ids different keys: criteo_tsv.id_of_value is the inverse.
"""

import dataclasses

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature
from criteo_prep.synthetic.criteo_tsv import values_of_ids
from criteo_prep.synthetic.generator import BatchWriter

KEY_RULE = "raw keys: the value that criteo_tsv has for the id, as int64"


def with_key(feature: Feature) -> Feature:
    """The feature with keys in place of its ids."""
    return dataclasses.replace(feature, cardinality=None, key=True)


class KeyWriter:
    """Takes samples with ids and hands them on with keys.

    Args:
      writer: gets each batch.
    """

    def __init__(self, writer: BatchWriter):
        self._writer = writer

    def write(self, batch: Batch) -> None:
        keys = {name: Ids(values_of_ids(name, ids.values), ids.row_lengths) for name, ids in batch.categorical.items()}
        self._writer.write(dataclasses.replace(batch, categorical=keys))
