"""The published tables of other systems, each with the rows that this project reaches here.

    python bench/published.py [--tables zoo,sok] [--quick] [--again]

Runs the programs at a scale that fits 2 cores and 24 GiB without a GPU, and prints each table as Markdown: the
published rows, the rows of this machine in bold, and what differs. A run whose command has figures in --json is not
repeated, so the same command continues where a stopped one ended; --again repeats the runs of the chosen tables.
Figures that another benchmark measures come from its JSON.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from programs import run
from published_figures import PUBLISHED, cells
from result_file import about_run, commit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from published_tables import FULL, QUICK, TABLES, Table

from dlrm_tf2.benchmarks.timing import markdown_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--tables", default=",".join(TABLES), help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--quick", action="store_true", help="tiny runs, whose figures say nothing and are not kept")
    parser.add_argument("--again", action="store_true", help="repeat the runs that --json has")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "published.json"))
    arguments = parser.parse_args()
    names = arguments.tables.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        parser.error(f"--tables: there is no table {unknown[0]}; the tables are {', '.join(TABLES)}")
    with tempfile.TemporaryDirectory(prefix="bench_published_") as folder:
        file = Path(folder, "published.json") if arguments.quick else Path(arguments.json)
        measurements = Measurements(file, again=arguments.again)
        for name in names:
            table = TABLES[name](measurements.measure, QUICK if arguments.quick else FULL)
            print("\n" + markdown(name, table), flush=True)
    if not arguments.quick:
        print(f"\nwritten to {file}")


class Measurements:
    """The figures of runs, kept in a JSON file as soon as a run has ended.

    Args:
      file: the JSON file; it need not exist.
      again: repeat runs that the file has.
    """

    def __init__(self, file: Path, *, again: bool = False):
        self._file, self._again = file, again
        self._kept: dict[str, dict] = json.loads(file.read_text())["runs"] if file.exists() else {}

    def measure(self, command: str, *, data: str = "", ranks: int = 1) -> dict:
        """The figures of a run: all numbers of its log, later lines before earlier ones.

        Args:
          command: module and flags of a program that writes log.json, in a folder of its own.
          data: a shell script that makes the data in this folder.
          ranks: processes that run the program together.
        """
        data, command = (" ".join(text.split()) for text in (data, command))
        launcher = f"horovodrun -np {ranks} " if ranks > 1 else ""
        key = f"{data + ' && ' if data else ''}{launcher}python -m {command}"
        if key not in self._kept or self._again:
            print(f"running: {key}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="bench_published_") as name:
                folder = Path(name)
                if data:
                    run(["bash", "-ec", data], folder=folder)
                run(["python", "-m", *command.split()], ranks, folder=folder)
                figures = numbers((folder / "log.json").read_text())
            self._kept[key] = {"figures": figures, "load_average": os.getloadavg(), "commit": commit()}
            document = {"runs": self._kept, **about_run()}
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(document, indent=1) + "\n")
        return self._kept[key]["figures"]


def numbers(log: str) -> dict[str, float]:
    """The numbers of a log, one JSON object a line; the first line is the configuration and does not count."""
    found: dict[str, float] = {}
    for line in log.splitlines()[1:]:
        found |= {name: value for name, value in json.loads(line).items() if isinstance(value, int | float)}
    return found


def markdown(name: str, table: Table) -> str:
    """A table as Markdown, with its source and what differs."""
    published = PUBLISHED[name]
    lines = markdown_table(cells(published.columns), table.rows)
    heading = f"### {published.title}\n\n`--tables {name}`; published: {published.source}."
    return f"{heading}\n\n{lines}\n\nWhat differs: {table.differs}"


if __name__ == "__main__":
    main()
