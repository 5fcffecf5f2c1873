"""Applies changes to a dump of dynamic tables: `python -m dlrm_tf2.dump --dump D --changes C --output O`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dlrm_tf2.dump.apply import apply_changes
from dlrm_tf2.dump.arguments import DumpError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program. Returns the exit code: 0, or 1 with a message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m dlrm_tf2.dump", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dump", type=Path, required=True, help="folder of a dump")
    parser.add_argument(
        "--changes", type=Path, nargs="*", default=[], help="folders of changes, in the order of their steps"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write; absent or empty")
    flags = parser.parse_args(arguments)
    try:
        tables = apply_changes(flags.dump, flags.changes, flags.output)
    except DumpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, table in tables.items():
        arguments_of = table.arguments
        print(
            f"{name}: {len(table.rows.keys):,} keys of {arguments_of.embedding_dim} numbers, "
            f"before step {arguments_of.next_step}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
