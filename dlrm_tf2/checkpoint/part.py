"""What one rank writes of a checkpoint: its shards, and on rank 0 the dense variables. No TensorFlow."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dlrm_tf2.checkpoint.bfloat16 import BFLOAT16, bits_of, weights_of
from dlrm_tf2.checkpoint.dynamic import DynamicCopy, blocks_of_keys
from dlrm_tf2.checkpoint.dynamic_entries import KEY_DTYPE, OF_KEYS
from dlrm_tf2.checkpoint.files import CheckpointError, StoredFile, rows_per_block, write_npy
from dlrm_tf2.checkpoint.folder import Folder
from dlrm_tf2.checkpoint.manifest import dense_path, shard_path
from dlrm_tf2.checkpoint.manifest_entries import StoredShard
from dlrm_tf2.runtime import activity


class TablesCopy:
    """A copy of the shards that a rank writes, which training does not change. `write_part` takes it for the tables.

    Args:
      embedding: the tables, see save_checkpoint. A slot with one number a row takes the memory of one number a row,
        a 16-bit weight 16 bits.
    """

    def __init__(self, embedding):
        self.tables, self.plan = embedding.tables, embedding.plan
        self.rank, self.slots, self.table_dtype = embedding.rank, embedding.slots, embedding.table_dtype
        dtypes = {slot: _dtype_of(embedding, slot) for slot in embedding.slots}
        self.dynamic_tables = {name: DynamicCopy(table, dtypes) for name, table in embedding.dynamic_tables.items()}
        self._arrays = {(shard, slot): _copy(embedding, shard, slot) for shard, slot in _written_by(embedding)}

    def read_rows(self, shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a shard, counted in its table: [stop - start, columns]."""
        rows = self._arrays[shard, slot][start - shard.rows[0] : stop - shard.rows[0]]
        rows = weights_of(rows) if _dtype_of(self, slot) == BFLOAT16 else rows
        return np.broadcast_to(rows, (stop - start, shard.num_columns))


def dense_arrays(dense: dict, rank: int) -> dict[str, np.ndarray]:
    """Copies of the dense variables that a rank writes: all of them on rank 0, none on the others."""
    return {name: np.array(variable.numpy()) for name, variable in dense.items()} if rank == 0 else {}


def write_part(
    folder: Path | Folder, dense: dict[str, np.ndarray], embedding
) -> tuple[list[StoredShard], dict[str, StoredFile]]:
    """Writes the part of one rank. Makes no exchange with other ranks.

    Args:
      folder: the staging folder that rank 0 made; a path is on a disk that this rank sees too.
      dense: the result of dense_arrays.
      embedding: the tables, or a TablesCopy of them.

    Raises:
      CheckpointError: a file cannot be written, or a number is not finite.
    """
    if isinstance(folder, Path) and not folder.is_dir():
        raise CheckpointError(f"{folder}: rank 0 made this folder, but it is not here. Save on a shared file system.")
    shards = []
    for shard, slot in _written_by(embedding):
        path = shard_path(shard.table, slot, rows=shard.rows, columns=shard.columns)
        blocks = _check_finite(_blocks(embedding, shard, slot), f"table {shard.table!r}, {slot}")
        shape, dtype = (shard.num_rows, shard.num_columns), _dtype_of(embedding, slot)
        file = write_npy(folder, path, shape=shape, dtype=dtype, blocks=blocks)
        shards.append(StoredShard(shard.table, slot, rows=shard.rows, columns=shard.columns, file=file))
    for shard in embedding.plan.of_rank(embedding.rank):
        if table := embedding.dynamic_tables.get(shard.table):
            shards += _write_keys(folder, embedding, shard=shard, table=table)
    files = {}
    for name, array in dense.items():
        blocks = _check_finite([array], f"variable {name!r}")
        files[name] = write_npy(folder, dense_path(name), shape=array.shape, dtype=array.dtype.str, blocks=blocks)
    return shards, files


def _write_keys(folder: Path | Folder, embedding, *, shard, table) -> Iterator[StoredShard]:
    """Writes the files of the part of a dynamic table, see dynamic_entries.py."""
    stored = table.stored()
    of_index = {slot: getattr(stored, slot) for slot in OF_KEYS} | table.counted()
    where = {"rows": shard.rows, "columns": shard.columns}
    for slot, numbers in of_index.items():
        path = shard_path(shard.table, slot, **where)
        file = write_npy(folder, path, shape=numbers.shape, dtype=KEY_DTYPE, blocks=[numbers])
        yield StoredShard(shard.table, slot, **where, file=file)
    for slot in embedding.slots:
        blocks = blocks_of_keys(table, stored.rows, slot=slot, num_columns=shard.num_columns)
        blocks = _check_finite(blocks, f"table {shard.table!r}, {slot}")
        shape, path = (len(stored.keys), shard.num_columns), shard_path(shard.table, slot, **where)
        file = write_npy(folder, path, shape=shape, dtype=_dtype_of(embedding, slot), blocks=blocks)
        yield StoredShard(shard.table, slot, **where, file=file)


def _written_by(embedding) -> Iterator[tuple]:
    """The shards and slots that a rank writes row by row; shards of dynamic tables are written key by key."""
    for shard in embedding.plan.of_rank(embedding.rank):
        if shard.table in embedding.plan.replicated and embedding.rank != 0:
            continue  # every rank has the whole table, and rank 0 writes it
        if shard.num_elements and shard.table not in embedding.dynamic_tables:
            yield from ((shard, slot) for slot in embedding.slots)


def _dtype_of(embedding, slot: str) -> str:
    """The dtype of the files of a slot, see StoredFile."""
    return BFLOAT16 if slot == "weights" and embedding.table_dtype == BFLOAT16 else "<f4"


def _blocks(embedding, shard, slot: str) -> Iterator[np.ndarray]:
    step = rows_per_block(shard.num_columns)
    for start in range(*shard.rows, step):
        activity.report_progress()
        yield embedding.read_rows(shard, slot, start=start, stop=min(start + step, shard.rows[1]))


def _copy(embedding, shard, slot: str) -> np.ndarray:
    """[rows, columns] in the type of its file, or [rows, 1] where each row is one number repeated."""
    row, copy = 0, None
    for block in _blocks(embedding, shard, slot):
        block = block[:, :1] if block.strides[1] == 0 else block
        block = bits_of(block) if _dtype_of(embedding, slot) == BFLOAT16 else block
        copy = np.empty((shard.num_rows, block.shape[1]), block.dtype) if copy is None else copy
        copy[row : row + len(block)] = block
        row += len(block)
    return copy


def _check_finite(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Yields the blocks. Raises CheckpointError at a number that is not finite, which means a model that diverged."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise CheckpointError(
                f"{name}: holds numbers that are not finite; the model has diverged. Lower --learning_rate or lengthen "
                "--warmup_steps."
            )
        yield block
