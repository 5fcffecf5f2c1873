"""Which features to deduplicate: features whose ids repeat often in a rank's batch.

For a deduplicated feature a rank fetches one row per different id, and pools the rows itself. For the other features
the table's rank sends one vector per sample. The fewer different ids a batch has, the fewer bytes travel in both
directions; finding the different ids costs time on both sides. So it pays on a slow network, and never on one host.
What counts are the different ids of a host, whose ranks request rows in common.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import RankData, RankShare, Reading
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.network import gbit_of_hosts, ranks_per_host
from dlrm_tf2.sharding.tables import Table

PAYS_BELOW = 0.5  # different ids per sample: deduplication saves at least half of the bytes
# What deduplication costs a rank on a CPU, with one thread: seconds for each id, and for each number of its vector.
# Source: bench/hosts.py with links of 1.5 to 10 Gbit/s, vectors of width 8 to 128 (docs/sharding.md).
_SECONDS_PER_ID, _SECONDS_PER_NUMBER = 20e-9, 4e-9
_ID_BYTES, _ROW_BYTES = 4, 8  # an id on its way to the rank of the table; a row that is requested


class Network(NamedTuple):
    """What lies between a rank and the rows that it needs.

    Attributes:
      rank_gbit: gigabits a second that each rank can send to other hosts while all ranks send.
      remote: the part of the rows that is on other hosts.
    """

    rank_gbit: float
    remote: float


class Repeated(NamedTuple):
    """A feature in a batch.

    Attributes:
      ids: ids of a sample.
      different: different ids of the host's samples, for each sample.
      vectors: vectors that a sample gets without deduplication.
      width: numbers of a vector.
      wire_bytes: bytes of a number that travels.
    """

    ids: float
    different: float
    vectors: float
    width: int
    wire_bytes: int

    def saved_s(self, network: Network) -> float:
        """Seconds that a rank saves for each of its samples by deduplication: on the network, less its cost."""
        vector_bytes = 2 * self.width * self.wire_bytes  # a vector, and its gradient
        saved = self.ids * _ID_BYTES + self.vectors * vector_bytes - self.different * (_ROW_BYTES + vector_bytes)
        cost_s = self.ids * (_SECONDS_PER_ID + self.width * _SECONDS_PER_NUMBER)
        return 8e-9 * saved * network.remote / network.rank_gbit - cost_s


def choose_features(
    config: TrainConfig, spec: FeatureSpec, *, tables: Sequence[Table], comm: Comm, on_gpu: bool = False
) -> tuple[tuple[str, ...], str | None]:
    """The features that `--dedup_ids` means for this dataset, the same on every rank.

    On a GPU, where the cost is not measured, `auto` means features with fewer than PAYS_BELOW different ids per sample.

    Returns:
      (features to deduplicate, a line for the log or None).
    """
    if not config.data_parallel_input or comm.size == 1 or config.dedup_ids == "off":
        return (), None
    features = spec.channels["categorical"]
    if config.dedup_ids == "on":
        return features, f"ids deduplicated: all {len(features)} features, as asked"
    network = None if on_gpu else _network(config, comm)
    if network is None and not on_gpu:
        return (), "ids deduplicated: none, because there is no network between the ranks, where this would save time"
    counts = comm.allgather_object(_measured(config, spec, features=features, comm=comm), name="different_ids")
    samples = max(1, sum(num_samples for num_samples, _ in counts))
    ratios = {name: sum(different.get(name, 0) for _, different in counts) / samples for name in features}
    if network is None:
        chosen = tuple(name for name in features if ratios[name] < PAYS_BELOW)
        why = f"fewer than {PAYS_BELOW} different ids per sample in the first batch"
    else:
        repeated = _repeated(config, spec, tables=tables, ratios=ratios)
        chosen = tuple(name for name in features if repeated[name].saved_s(network) > 0)
        why = f"at {network.rank_gbit:.3g} Gbit/s for each rank more to gain on the network than to lose in computing"
    mean = np.mean([ratios[name] for name in chosen]) if chosen else 0.0
    return chosen, (
        f"ids deduplicated: {len(chosen)} of {len(features)} features, which have {why} "
        f"({mean:.3f} different ids per sample on average)"
    )


def _network(config: TrainConfig, comm: Comm) -> Network | None:
    """The network between the ranks; None on one host."""
    measured = gbit_of_hosts(comm) if config.network_gbit is None else config.network_gbit
    if measured is None or comm.local_size == comm.size:
        return None
    measured = comm.broadcast_object(measured, name="network_gbit")
    return Network(measured / comm.local_size, 1 - comm.local_size / comm.size)


def _repeated(
    config: TrainConfig, spec: FeatureSpec, *, tables: Sequence[Table], ratios: Mapping[str, float]
) -> dict[str, Repeated]:
    """Each feature as it is in the first batch."""
    table_of = {feature: table for table in tables for feature in table.features}
    found = {}
    for feature in spec.categorical:
        table, ids = table_of[feature.name], feature.hotness
        vectors, wire_bytes = 1 if table.combiner else ids, 2 if config.amp else 4
        found[feature.name] = Repeated(
            ids, ratios[feature.name], vectors=vectors, width=table.embedding_dim, wire_bytes=wire_bytes
        )
    return found


def different_ids(batch: IdBatch, features: Sequence[str], hotness: Sequence[int | None]) -> dict[str, int]:
    """Number of different ids of each feature in a batch.

    Args:
      batch: ids, as arrays.
      features: names of the features in the batch, in order.
      hotness: ids per sample of each feature; None for any number.
    """
    counts, start = {}, 0
    for name, width in zip(features, hotness, strict=True):
        if width is None:
            counts[name] = len(np.unique(batch.ragged[name][0]))
            continue
        counts[name] = len(np.unique(batch.fixed[:, start : start + width]))
        start += width
    return counts


def _measured(
    config: TrainConfig, spec: FeatureSpec, *, features: tuple[str, ...], comm: Comm
) -> tuple[int, dict[str, int]]:
    """(samples, feature -> different ids) in this host's part of the first batch that the mode reads.

    One rank of the host counts; the others say that they have no samples.
    """
    ranks = ranks_per_host(comm)
    if ranks in (None, comm.size):  # each rank requests rows for itself
        ranks = 1
    host, place = divmod(comm.rank, ranks)
    if place:
        return 0, {}
    split, size = "train", config.batch_size
    if config.mode != "train":
        split, size = config.eval_split, max(config.valid_batch_sizes)
    reading = Reading(seed=config.seed, synthetic_samples=size if config.dataset_type == "synthetic" else None)
    share = RankShare(host, comm.size // ranks, sample_features=features)
    batches = RankData(spec, split, share=share, reading=reading).batches(size)
    batch = next(batches)
    batches.close()
    hotness = [None if feature.ragged else feature.hotness for feature in spec.categorical]
    return len(batch.label), different_ids(batch.ids.local_ids, features, hotness)
