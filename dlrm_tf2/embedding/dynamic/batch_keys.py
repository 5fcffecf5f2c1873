"""BatchKeys: on one rank, the keys of a batch become rows, which the native lookup then takes for ids."""

from collections.abc import Sequence

import tensorflow as tf

from dlrm_tf2.embedding.dynamic.table import DynamicTable, Touch
from dlrm_tf2.embedding.dynamic.tables import DynamicTables
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.result_layout import ResultLayout


class BatchKeys:
    """Replaces the keys of dynamic tables in batches.

    Args:
      tables: the dynamic tables.
      features: the features of the batches, in this order.
      layout: the columns of the result.
    """

    def __init__(self, tables: DynamicTables, features: Sequence[str], *, layout: ResultLayout):
        self._columns = layout.fixed_columns(features)
        self._features_of = {
            table: [feature for feature in features if feature in table.config.features]
            for table in tables.by_name.values()
        }

    def __call__(self, batch: IdBatch, touch: Touch | None) -> IdBatch:
        """The batch with rows of slabs, int64, in place of keys. One call of the index serves a table."""
        rows: dict[str, tf.Tensor] = {}
        for table, features in self._features_of.items():
            keys = self._keys_of_table(batch, table)
            if keys:
                found = table.rows_of(tf.concat(keys, axis=0), touch)
                rows |= zip(features, tf.split(found, [tf.size(of_feature) for of_feature in keys]), strict=True)
        if not rows:
            return batch
        fixed = [
            tf.reshape(rows[feature], [batch.num_samples, columns.stop - columns.start])
            if feature in rows
            else tf.cast(batch.fixed[:, columns], tf.int64)
            for feature, columns in self._columns.items()
        ]
        ragged = {
            feature: (rows.get(feature, ids), row_lengths) for feature, (ids, row_lengths) in batch.ragged.items()
        }
        return IdBatch(tf.concat(fixed, axis=1) if fixed else batch.fixed, ragged, batch.weights)

    def ask_ahead(self, batch: IdBatch, slots: Sequence[str]) -> None:
        """Asks for the rows of a later batch, see DynamicTable.ask_ahead."""
        for table in self._features_of:
            if keys := self._keys_of_table(batch, table):
                table.ask_ahead(tf.concat(keys, axis=0), slots)

    def _keys_of_table(self, batch: IdBatch, table: DynamicTable) -> list[tf.Tensor]:
        """The keys of each feature of a table, int64 [n] each."""
        return [tf.cast(self._keys(batch, feature), tf.int64) for feature in self._features_of[table]]

    def _keys(self, batch: IdBatch, feature: str) -> tf.Tensor:
        """All keys of a feature, sample after sample: [n]."""
        if feature in self._columns:
            return tf.reshape(batch.fixed[:, self._columns[feature]], [-1])
        return batch.ragged[feature][0]
