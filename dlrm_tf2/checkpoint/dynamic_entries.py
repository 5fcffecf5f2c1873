"""The files of dynamic tables in a manifest: one line for each stored key, where other tables have one for each row.

A shard is the rectangle of the rows of a rank's buckets. Its files hold its n stored keys, in the order of their rows:
keys, scores and steps (int64 [n]), weights and optimizer state ([n, columns]). The counter of admission, which knows
keys that are not stored, has files with lines of its own.
"""

from collections.abc import Sequence

from dlrm_tf2.checkpoint.files import CheckpointError
from dlrm_tf2.checkpoint.manifest_entries import StoredShard

KEYS, SCORES, STEPS = "keys", "scores", "steps"
OF_KEYS = (KEYS, SCORES, STEPS)
COUNTED = ("counted_keys", "sketch_cells", "counts")
KEY_DTYPE = "<i8"


def is_of_index(slot: str) -> bool:
    """Whether a slot belongs to the index of a dynamic table, and not to its rows."""
    return slot in OF_KEYS or slot in COUNTED


def check_dynamic(where: str, shards: Sequence[StoredShard], embedding_dim: int) -> None:
    """Raises CheckpointError unless the files of a dynamic table fit each other.

    Args:
      where: manifest and table, for the message.
      shards: all shards of the table.
      embedding_dim: columns of the table.
    """
    num_keys = {shard.rows: shard.file.shape[:1] for shard in shards if shard.slot == KEYS}
    for shard in shards:
        expected = num_keys.get(shard.rows)
        if shard.slot in COUNTED:
            expected = shard.file.shape[:1]
        elif not is_of_index(shard.slot):
            expected = expected and (*expected, embedding_dim)
        of_type = shard.file.dtype == KEY_DTYPE or not is_of_index(shard.slot)
        if shard.columns != (0, embedding_dim) or shard.file.shape != expected or not of_type:
            raise CheckpointError(f"{where}, {shard.slot}: {shard.file.path} does not fit the keys of its shard.")
    slots = {shard.slot for shard in shards}
    if missing := [slot for slot in OF_KEYS if slot not in slots]:
        raise CheckpointError(f"{where}: has no {missing[0]}.")
