"""Which features to deduplicate: features whose ids repeat often in a rank's batch.

For a deduplicated feature a rank fetches one row per different id, and pools the rows itself. For the other features
the table's rank sends one vector per sample. The fewer different ids a batch has, the fewer bytes travel in both
directions; finding the different ids costs time on both sides.
"""

from collections.abc import Sequence

import numpy as np

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import RankData, RankShare, Reading
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.runtime.comm import Comm

PAYS_BELOW = 0.5  # different ids per sample: deduplication saves at least half of the bytes


def choose_features(config: TrainConfig, spec: FeatureSpec, comm: Comm) -> tuple[tuple[str, ...], str | None]:
    """The features that `--dedup_ids` means for this dataset, the same on every rank.

    Returns:
      (features to deduplicate, a line for the log or None).
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
        f"ids deduplicated: {len(chosen)} of {len(features)} features, which have fewer than {PAYS_BELOW} different "
        f"ids per sample in the first batch ({mean:.3f} on average)"
    )


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
    """(samples, feature -> different ids) in this rank's part of the first batch that the mode reads."""
    split, size = "train", config.batch_size
    if config.mode != "train":
        split, size = config.eval_split, max(config.valid_batch_sizes)
    reading = Reading(seed=config.seed, synthetic_samples=size if config.dataset_type == "synthetic" else None)
    share = RankShare(comm.rank, comm.size, sample_features=features)
    batches = RankData(spec, split, share=share, reading=reading).batches(size)
    batch = next(batches)
    batches.close()
    hotness = [None if feature.ragged else feature.hotness for feature in spec.categorical]
    return len(batch.label), different_ids(batch.ids.local_ids, features, hotness)
