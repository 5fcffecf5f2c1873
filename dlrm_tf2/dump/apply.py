"""A dump and the changes after it as one dump. No TensorFlow: a serving process can follow a training with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlrm_tf2.dump.arguments import (
    BLOCK_ROWS,
    Arguments,
    DumpError,
    TableRows,
    read_arguments,
    write_arguments,
)
from dlrm_tf2.dump.changes import TableChanges, read_changes
from dlrm_tf2.dump.files import Part, PartWriter, parts_in, read_part
from dlrm_tf2.runtime.staging import StagedPath, StagingError


class TableContent:
    """All rows of a dumped table in memory, in the order of their keys.

    Args:
      rows: each key once.
      arguments: of the table.
    """

    def __init__(self, rows: TableRows, arguments: Arguments):
        self.rows, self.arguments = rows.take(np.argsort(rows.keys, kind="stable")), arguments
        repeated = np.flatnonzero(self.rows.keys[1:] == self.rows.keys[:-1])
        if len(repeated):
            raise DumpError(f"key {self.rows.keys[repeated[0]]} is in the dump twice. Dump the table again.")

    @classmethod
    def read(cls, folder: Path, table: str, parts: Sequence[Part]) -> "TableContent":
        """A table of a dump.

        Raises:
          DumpError: files are missing or damaged.
        """
        arguments = read_arguments(folder, table)
        blocks = [block for part in parts for block in read_part(folder, part, arguments)]
        if not blocks:
            return cls(_no_rows(arguments), arguments)
        columns = zip(*blocks, strict=True)
        rows = TableRows(*(None if of_blocks[0] is None else np.concatenate(of_blocks) for of_blocks in columns))
        return cls(rows, arguments)

    def apply(self, changes: TableChanges) -> "TableContent":
        """The table after some changes.

        Raises:
          DumpError: the changes begin after the table ends, or are of another table.
        """
        old, new = self.arguments, changes.arguments
        if changes.first_step > old.next_step:
            raise DumpError(
                f"the changes begin at step {changes.first_step}, and the table ends before step {old.next_step}: what "
                "changed between is missing. Give all changes, in their order."
            )
        if (old.embedding_dim, old.state_dim, old.score) != (new.embedding_dim, new.state_dim, new.score):
            raise DumpError(
                f"the changes have embedding_dim {new.embedding_dim}, state_dim {new.state_dim} and score {new.score}; "
                f"the dump has {old.embedding_dim}, {old.state_dim} and {old.score}. They are of different tables."
            )
        if new.next_step <= old.next_step:  # nothing newer than what is there
            return self
        replaced = np.concatenate([changes.rows.keys, changes.deleted])
        kept = self.rows.take(~np.isin(self.rows.keys, replaced))
        columns = zip(kept, changes.rows, strict=True)
        rows = TableRows(*(None if a is None or b is None else np.concatenate([a, b]) for a, b in columns))
        return TableContent(rows, new)

    def write(self, folder: Path, table: str) -> None:
        """Writes the table as the dump of one rank."""
        with PartWriter(folder, Part(table, 0, world_size=1), self.arguments) as writer:
            for start in range(0, len(self.rows.keys), BLOCK_ROWS):
                writer.write(self.rows.take(np.arange(start, min(start + BLOCK_ROWS, len(self.rows.keys)))))
        write_arguments(folder, table, self.arguments)


def apply_changes(dump: str | Path, changes: Sequence[str | Path], output: str | Path) -> dict[str, TableContent]:
    """Applies changes to a dump and writes the result as the dump of one rank, the keys in ascending order.

    Without changes it only joins the parts of the ranks. The counts of keys that are not admitted yet are left out:
    changes do not have them. All rows of a table are in memory at a time.

    Args:
      dump: folder of a dump.
      changes: folders of changes, in the order of their steps.
      output: folder to write; absent or empty.

    Returns:
      Table -> its content.

    Raises:
      DumpError: something is missing, damaged or does not fit, or `output` holds files. Nothing is written then.
    """
    dump, output = Path(dump), Path(output).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DumpError(f"{output}: is not an empty folder. Name another output.")
    content = {table: TableContent.read(dump, table, parts) for table, parts in parts_in(dump).items()}
    for folder in changes:
        for one_set in read_changes(Path(folder)):
            content = _applied(content, one_set, folder=folder)
    staged = StagedPath(output, is_folder=True)
    try:
        staged.claim()
        for table, one in content.items():
            one.write(staged.path, table)
        staged.rename()
    except (OSError, StagingError) as error:
        staged.discard()
        raise DumpError(f"{output}: cannot be written: {error}.") from error
    return content


def _applied(
    content: dict[str, TableContent], changes: dict[str, TableChanges], *, folder: str | Path
) -> dict[str, TableContent]:
    """The tables after a set of changes, which has all of them: so all are as of the same step."""
    if content.keys() != changes.keys():
        first, last = {(one.first_step, one.arguments.next_step - 1) for one in changes.values()}.pop()
        raise DumpError(
            f"{folder}: the changes of steps {first} to {last} have the tables {', '.join(sorted(changes))}, and the "
            f"dump has {', '.join(sorted(content))}. Give a dump and changes of one training, in whole folders."
        )
    applied = {}
    for table, one in changes.items():
        try:
            applied[table] = content[table].apply(one)
        except DumpError as error:
            raise DumpError(f"{folder}: table {table!r}: {error}") from error
    return applied


def _no_rows(arguments: Arguments) -> TableRows:
    none = np.empty(0, np.int64)
    state = None if arguments.opt_type is None else np.empty((0, arguments.state_dim), np.float32)
    return TableRows(none, none, values=np.empty((0, arguments.embedding_dim), np.float32), state=state, steps=none)
