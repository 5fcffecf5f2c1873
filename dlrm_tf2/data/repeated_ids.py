"""Which features to deduplicate: whose ids repeat so much in a rank's batch that asking for each once is worth it.

Deduplicated, a rank fetches one row per different id and pools it itself; otherwise the table's rank sends one vector
per sample. The fewer different ids there are to a sample, the less travels, forwards and backwards; finding the
different ones costs time on either side.
"""

from collections.abc import Sequence

import numpy as np

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import RankData, Reading
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.runtime.comm import Comm

PAYS_BELOW = 0.5  # different ids per sample: at least half of the traffic saved


def choose_features(config: TrainConfig, spec: FeatureSpec, comm: Comm) -> tuple[tuple[str, ...], str | None]:
    """What `--dedup_ids` means for this dataset, the same on every rank.

    Returns:
      (features to deduplicate, a line for the log, None where there is nothing to say).
    """
    if not config.data_parallel_input or comm.size == 1 or config.dedup_ids == "off":
        return (), None
    features = spec.channels["categorical"]
    if config.dedup_ids == "on":
        return features, f"ids deduplicated: all {len(features)} features, as asked"
    counts = comm.allgather_object(_measured(config, spec, features=features, comm=comm), name="different_ids")
    samples = max(1, sum(num_samples for num_samples, _ in counts))
    ratios = {name: sum(different[name] for _, different in counts) / samples for name in features}
    chosen = tuple(name for name in features if ratios[name] < PAYS_BELOW)
    mean = np.mean([ratios[name] for name in chosen]) if chosen else 0.0
    return chosen, (
        f"ids deduplicated: {len(chosen)} of {len(features)} features, those with fewer than {PAYS_BELOW} different "
        f"ids per sample in the first batch (they have {mean:.3f})"
    )


def different_ids(batch: IdBatch, features: Sequence[str], hotness: Sequence[int | None]) -> dict[str, int]:
    """Number of different ids of each feature in a batch of arrays.

    Args:
      hotness: of each feature; None for any number of ids.
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
    """(samples, different ids by feature) of this rank's part of the first batch of the split that the mode reads."""
    split, size = ("train", config.batch_size) if config.mode == "train" else ("test", max(config.valid_batch_sizes))
    reading = Reading(seed=config.seed, synthetic_samples=size if config.dataset_type == "synthetic" else None)
    batches = RankData(
        spec, split, global_features=(), sample_features=features, rank=comm.rank, world_size=comm.size, reading=reading
    ).batches(size)
    batch = next(batches)
    batches.close()
    hotness = [None if feature.ragged else feature.hotness for feature in spec.categorical]
    return len(batch.label), different_ids(batch.ids.local_ids, features, hotness)
