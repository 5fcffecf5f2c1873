"""What one rank writes of a checkpoint: its shards, and on rank 0 the dense variables. No TensorFlow."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint.files import CheckpointError, StoredFile, rows_per_block, write_npy
from dlrm_tf2.checkpoint.manifest import StoredShard, dense_path, shard_path
from dlrm_tf2.runtime import activity


class TablesCopy:
    """A copy of what a rank writes of its tables, which stays as it is while training changes them.

    To `write_part` it is what the tables themselves are.

    Args:
      embedding: see save_checkpoint. A slot with one number a row takes no more than that.
    """

    def __init__(self, embedding):
        self.tables, self.plan, self.rank, self.slots = (
            embedding.tables,
            embedding.plan,
            embedding.rank,
            embedding.slots,
        )
        self._arrays = {(shard, slot): _copied(embedding, shard, slot) for shard, slot in _written_by(embedding)}

    def read_rows(self, shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a shard, counted in its table: [stop - start, columns]."""
        rows = self._arrays[shard, slot][start - shard.rows[0] : stop - shard.rows[0]]
        return np.broadcast_to(rows, (stop - start, shard.num_columns))


def dense_arrays(dense: dict, rank: int) -> dict[str, np.ndarray]:
    """Copies of the dense variables that a rank writes: of all of them on rank 0, of none on the others."""
    return {name: np.array(variable.numpy()) for name, variable in dense.items()} if rank == 0 else {}


def write_part(
    folder: Path, dense: dict[str, np.ndarray], embedding
) -> tuple[list[StoredShard], dict[str, StoredFile]]:
    """Writes a rank's part. Makes no exchange with other ranks.

    Args:
      dense: what dense_arrays returned.
      embedding: the tables, or a TablesCopy of them.

    Raises:
      CheckpointError: a file cannot be written, or a number is not finite.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: rank 0 made this folder, but it is not here. Save on a shared file system.")
    shards = []
    for shard, slot in _written_by(embedding):
        path = shard_path(shard.table, slot, rows=shard.rows, columns=shard.columns)
        blocks = _finite(_blocks(embedding, shard, slot), f"table {shard.table!r}, {slot}")
        file = write_npy(folder, path, shape=(shard.num_rows, shard.num_columns), dtype=np.dtype("<f4"), blocks=blocks)
        shards.append(StoredShard(shard.table, slot, rows=shard.rows, columns=shard.columns, file=file))
    return shards, {
        name: write_npy(
            folder,
            dense_path(name),
            shape=array.shape,
            dtype=array.dtype,
            blocks=_finite([array], f"variable {name!r}"),
        )
        for name, array in dense.items()
    }


def _written_by(embedding) -> Iterator[tuple]:
    """The shards and slots that a rank writes."""
    for shard in embedding.plan.of_rank(embedding.rank):
        if shard.table in embedding.plan.replicated and embedding.rank != 0:
            continue  # every rank has all of it, and one of them saves it
        if shard.num_bytes:
            yield from ((shard, slot) for slot in embedding.slots)


def _blocks(embedding, shard, slot: str) -> Iterator[np.ndarray]:
    step = rows_per_block(shard.num_columns)
    for start in range(*shard.rows, step):
        activity.goes_on()
        yield embedding.read_rows(shard, slot, start=start, stop=min(start + step, shard.rows[1]))


def _copied(embedding, shard, slot: str) -> np.ndarray:
    """float32 [rows, columns], or [rows, 1] where a row is one number repeated."""
    first = shard.rows[0]
    copy = None
    for block in _blocks(embedding, shard, slot):
        block = block[:, :1] if block.strides[1] == 0 else block
        copy = np.empty((shard.num_rows, block.shape[1]), np.float32) if copy is None else copy
        copy[first - shard.rows[0] : first - shard.rows[0] + len(block)] = block
        first += len(block)
    return copy


def _finite(blocks: Iterable[np.ndarray], what: str) -> Iterator[np.ndarray]:
    """The blocks; raises CheckpointError at a number that is not finite, for a model that has diverged is no use."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise CheckpointError(
                f"{what}: holds numbers that are not finite; the model has diverged. Lower --learning_rate or lengthen "
                "--warmup_steps."
            )
        yield block
