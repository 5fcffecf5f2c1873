"""What a dump says of a table, and the rows that it has of a table. No TensorFlow.

The arguments of a table are in {table}_opt_args.json of a dump, and in the metadata of a file of changes.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

BLOCK_ROWS = 65536  # rows that are read or written at a time
_EVICT_STRATEGIES = {
    "timestamp": "LRU",
    "step": "CUSTOMIZED",
    "lfu": "LFU",
    "custom": "CUSTOMIZED",
    "no_eviction": "CUSTOMIZED",
}


class DumpError(ValueError):
    """A dump cannot be written, is damaged, or does not fit the tables."""


class TableRows(NamedTuple):
    """Some rows of a dynamic table.

    Attributes:
      keys, scores: int64 [n].
      values: float32 [n, embedding_dim].
      state: float32 [n, state_dim], the optimizer's slots side by side; None where they are not known.
      steps: int64 [n], the last step that touched each key; None where it is not known.
    """

    keys: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    state: np.ndarray | None
    steps: np.ndarray | None

    def take(self, rows: np.ndarray) -> "TableRows":
        """Some of the rows, by number or by a mask."""
        return TableRows(*(None if part is None else part[rows] for part in self))


@dataclass(frozen=True)
class Arguments:
    """What a dump says of a table.

    Attributes:
      opt_type: name of the optimizer; None where the dump has no optimizer state.
      evict_strategy: LRU, LFU or CUSTOMIZED.
      score: as DynamicTableConfig has it.
      embedding_dim, state_dim: numbers of a row's values and of its state.
      next_step: the first step that is not in the dump.
      time: nanoseconds, the time of the dump.
    """

    opt_type: str | None
    evict_strategy: str
    score: str
    embedding_dim: int
    state_dim: int
    next_step: int
    time: int

    @classmethod
    def of(
        cls, score: str, optimizer: str | None, *, widths: tuple[int, int], next_step: int, time: int
    ) -> "Arguments":
        """The arguments of a table with a score, `widths` = (embedding_dim, state_dim)."""
        return cls(optimizer, _EVICT_STRATEGIES[score], score, *widths, next_step=next_step, time=time)


def write_arguments(folder: Path, table: str, arguments: Arguments) -> None:
    """Writes {table}_opt_args.json."""
    text = json.dumps({**asdict(arguments), "dist_type": "buckets"}, indent=1)
    with (folder / f"{table}_opt_args.json").open("x", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_arguments(folder: Path, table: str, *, embedding_dim: int | None = None) -> Arguments:
    """Reads {table}_opt_args.json; of a dump that has no embedding_dim, the given one stands in.

    Raises:
      DumpError: it is missing, or is not what it should be.
    """
    path = folder / f"{table}_opt_args.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        strategy = str(found["evict_strategy"]).rsplit(".", maxsplit=1)[-1].upper()
        score = found.get("score") or {"LRU": "timestamp", "LFU": "lfu"}.get(strategy, "custom")
        return Arguments(
            _optimizer_name(found.get("opt_type")),
            strategy,
            score,
            embedding_dim=int(found.get("embedding_dim", embedding_dim)),
            state_dim=int(found.get("state_dim", 0)),
            next_step=int(found.get("next_step", 0)),
            time=int(found.get("time", 0)),
        )
    except OSError as error:
        raise DumpError(f"{path}: cannot be read: {error.strerror}. A dump has this file for each table.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DumpError(f"{path}: is not the arguments of a dumped table ({error!r}). Dump the table again.") from error


def _optimizer_name(name: str | None) -> str | None:
    """The house's name of an optimizer that a dump names, such as OptimizerType.EXACT_ROW_WISE_ADAGRAD."""
    if name is None:
        return None
    return name.rsplit(".", maxsplit=1)[-1].lower().removeprefix("exact_").replace("row_wise", "rowwise")
