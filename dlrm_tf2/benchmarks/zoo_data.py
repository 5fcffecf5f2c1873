"""The data of the synthetic models: power-law ids, numericals uniform on [0, 100), labels that are fair coins.

Every number is a function of the seed and its place alone, so the global batch is the same for any number of ranks.

Source: the laws of NVIDIA's distributed-embeddings, which draws without a seed, and whose ids may by rounding be one
too large; here they are cut.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.synthetic.power_law import PowerLaw, draw, stream_key
from dlrm_tf2.benchmarks.zoo import ZooModel
from dlrm_tf2.data.batches import Position, RankBatch, RankShare
from dlrm_tf2.embedding.ids import IdBatch, RankIds
from dlrm_tf2.sharding.plan import samples_of_rank
from dlrm_tf2.sharding.tables import TableConfig

_LARGEST_NUMERICAL = 100


class ZooData:
    """Makes the batches of one rank.

    Args:
      model: the model that reads them.
      share: what this rank reads of each batch.
      batch_size: samples of a batch, all ranks together.
      alpha: exponent of the power law, at least 0; with 0 all ids are equally frequent.
      seed: seed of the data, the same on all ranks.
    """

    def __init__(self, model: ZooModel, share: RankShare, *, batch_size: int, alpha: float, seed: int):
        self._model, self._share, self._batch_size, self._seed = model, share, batch_size, seed
        rows = {feature: table.num_rows for table in model.tables for feature in table.features}
        laws = {num_rows: PowerLaw(num_rows, alpha) for num_rows in set(rows.values())}
        self._laws = {feature: laws[num_rows] for feature, num_rows in rows.items()}

    def batch(self, number: int) -> RankBatch:
        """This rank's part of batch 0, 1, ..."""
        start, stop = samples_of_rank(self._batch_size, self._share.world_size, self._share.rank)
        first = number * self._batch_size
        own, everybody = (first + start, first + stop), (first, first + self._batch_size)
        numerical = np.empty((stop - start, self._model.num_numerical), np.float32)
        _fill_uniform(self._key("numerical"), own[0] * self._model.num_numerical, numerical.reshape(-1))
        label = np.empty(stop - start, np.float32)
        _fill_coins(self._key("label"), own[0], label)
        ids = RankIds(
            IdBatch(self._ids(self._share.global_features, everybody), {}, {}),
            IdBatch(self._ids(self._share.sample_features, own), {}, {}),
        )
        return RankBatch(self._batch_size, label, numerical=numerical, ids=ids, after=Position())

    def distinct_rows(self, table: TableConfig, rows: tuple[int, int]) -> int:
        """How many of the rows [rows[0], rows[1]) of a table batch 0 names."""
        ids = np.concatenate([self._ids([feature], (0, self._batch_size)).reshape(-1) for feature in table.features])
        distinct = np.unique(ids)
        return int(np.count_nonzero((distinct >= rows[0]) & (distinct < rows[1])))

    def _ids(self, features: Sequence[str], samples: tuple[int, int]) -> np.ndarray:
        """The ids of some features in samples [start, stop), counted over all batches: int32 [samples, columns]."""
        num_samples, hotness = samples[1] - samples[0], [self._model.hotness[feature] for feature in features]
        ids, stops = np.empty((num_samples, sum(hotness)), np.int32), np.cumsum(hotness, dtype=int)

        def fill(place: int) -> None:
            columns = np.empty(num_samples * hotness[place], np.int32)
            key = self._key("id", features[place])
            self._laws[features[place]].fill(key, samples[0] * hotness[place], out=columns)
            ids[:, stops[place] - hotness[place] : stops[place]] = columns.reshape(num_samples, -1)

        with ThreadPoolExecutor() as threads:
            list(threads.map(fill, range(len(features))))
        return ids

    def _key(self, *names: str) -> np.uint64:
        return stream_key(self._seed, "zoo", *names)


@compiled
def _fill_uniform(key, first, out):
    for i in range(out.size):
        # 24 bits are what a float32 in [0, 1) holds exactly.
        out[i] = np.float32(draw(key, first + i) >> np.uint64(40)) * np.float32(2**-24) * np.float32(_LARGEST_NUMERICAL)


@compiled
def _fill_coins(key, first, out):
    for i in range(out.size):
        out[i] = np.float32(draw(key, first + i) >> np.uint64(63))
