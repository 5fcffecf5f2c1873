"""Dumps that are killed at each of their file operations, and what a reader finds then. No TensorFlow: it forks.

python -m support.killed_dumps FOLDER      prints a list of Outcome as JSON
"""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from support.killed_at import kill_at

from dlrm_tf2.dump.apply import apply_changes
from dlrm_tf2.dump.arguments import Arguments, DumpError, TableRows, write_arguments
from dlrm_tf2.dump.changes import TableChanges, set_folder, write_changes
from dlrm_tf2.dump.files import Part, PartWriter
from dlrm_tf2.dump.pending import PendingDump

TABLES = ("a", "b")


class OneRank:
    """A job of one rank, without TensorFlow."""

    rank, size = 0, 1

    def allgather_object(self, value, name):
        return [value]


class Outcome(NamedTuple):
    """What a reader found after a kill at operation `number`, and after the same command again.

    `found` and `after` are the values of the tables, "none" where there is no dump, or the error of the reader.
    """

    number: int
    found: object
    after: object
    names: list[str]


def rows(value: int) -> TableRows:
    keys = np.arange(5)
    values = np.full((5, 2), value, np.float32)
    return TableRows(keys, keys, values=values, state=values, steps=keys)


def arguments(next_step: int) -> Arguments:
    return Arguments.of("step", "adagrad", widths=(2, 2), next_step=next_step, time=0)


def dump(folder: Path, value: int) -> None:
    def write(staged: Path) -> None:
        for table in TABLES:
            with PartWriter(staged, Part(table, 0, 1), arguments(5)) as writer:
                writer.write(rows(value))
                writer.write_counts(np.arange(2), np.arange(2))
            write_arguments(staged, table, arguments(5))

    pending = PendingDump(folder / "dump", OneRank(), next_step=5)
    pending.write(write)
    pending.commit()


def dump_changes(folder: Path, first: int, value: int) -> None:
    """The changes of the steps first .. first + 2."""

    def write(staged: Path) -> None:
        for table in TABLES:
            nothing = np.empty(0, np.int64)
            one = TableChanges(table, first, rows=rows(value), deleted=nothing, arguments=arguments(first + 3))
            write_changes(staged, one, rank=0, world_size=1)

    pending = PendingDump(set_folder(folder / "changes", first, first + 3), OneRank(), next_step=first + 3)
    pending.write(write)
    pending.commit()


def found_in(folder: Path) -> object:
    """The value in each table, as a reader of the dump and of all changes finds it."""
    if not (folder / "dump").exists():
        return "none"
    changes = folder / "changes"
    has_changes = changes.exists() and any(name.startswith("steps") for name in os.listdir(changes))
    output = folder.with_name(f"{folder.name}_read_{len(os.listdir(folder.parent))}")
    try:
        tables = apply_changes(folder / "dump", [changes] if has_changes else [], output)
    except DumpError as error:
        return str(error)
    return [sorted(set(table.rows.values.flatten().tolist())) for table in tables.values()]


def killed(folder: Path, number: int, work) -> bool:
    """Runs `work` in a process that is killed at an operation. Returns whether it was."""
    if not (child := os.fork()):
        kill_at(number, folder)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def outcomes(root: Path, before, work) -> list[Outcome]:
    """The outcome for each operation of `work`, each in a folder where `before` has run."""
    of_all: list[Outcome] = []
    while True:
        folder = root / f"{len(of_all)}" / "place"
        folder.mkdir(parents=True)
        before(folder)
        if not killed(folder, len(of_all) + 1, lambda: work(folder)):  # noqa: B023
            return of_all
        found = found_in(folder)
        work(folder)
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())
        of_all.append(Outcome(len(of_all) + 1, found, found_in(folder), names))


def main(root: Path) -> None:
    os.fsync = lambda descriptor: None  # a killed process needs no disk, and a thousand of these take their time
    cases = {
        "dump": (lambda folder: None, lambda folder: dump(folder, 2)),
        "dump again": (lambda folder: dump(folder, 1), lambda folder: dump(folder, 2)),
        "changes": (lambda folder: dump(folder, 1), lambda folder: dump_changes(folder, 5, 2)),
        "changes again": (
            lambda folder: (dump(folder, 0), dump_changes(folder, 5, 1)),
            lambda folder: dump_changes(folder, 5, 2),
        ),
    }
    print(json.dumps({name: outcomes(root / name, *case) for name, case in cases.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
