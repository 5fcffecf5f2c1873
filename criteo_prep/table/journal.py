"""The finished part of a run's work, on disk: how far the parse is, and which columns are finished.

    <folder>/work/journal.json       inputs, rules, the parsed files, and the size of each work file
    <folder>/work/finished_<feature>.json   a finished feature: its cardinality and its files

The journal counts only until the machine is restarted, because the work files are not forced to the disk.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from criteo_prep.durable import boot_id, naming
from criteo_prep.plain_file import open_plain
from criteo_prep.table.cells import ColumnKind

_FORMAT = 1


@dataclass
class ParsedTable:
    """What was parsed of one input file.

    Attributes:
      path: the path as the user gave it.
      num_rows: good rows.
      num_read: rows, good and bad.
      position: where the parse stands, as the reader of the format counts.
      skipped: reason -> skipped bad rows.
      first_skipped: reason -> the first skipped row, in words.
      finished: the whole file is parsed.
    """

    path: str
    num_rows: int = 0
    num_read: int = 0
    position: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    first_skipped: dict[str, str] = field(default_factory=dict)
    finished: bool = False


@dataclass
class TableJournal:
    """The state of a run.

    Attributes:
      folder: folder of the journal and of the other work files.
      wanted: the keys "made_by", "inputs" and "rules" of the manifest to write.
      files: the input files whose parsing began, in order.
      sizes: name of a work file -> its bytes at the last checkpoint.
      kinds: the kind of each categorical column; empty before the first row.
      negative: the label of the rows that are not positive; None while all are positive.
      num_positive: rows with the positive label.
      parsed: all input files are parsed.
    """

    folder: Path
    wanted: dict
    files: list[ParsedTable] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    kinds: list[ColumnKind] = field(default_factory=list)
    negative: str | None = None
    num_positive: int = 0
    parsed: bool = False

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)

    @classmethod
    def load(cls, folder: Path) -> "TableJournal | None":
        """The journal in `folder`; None where it is missing, is of another version, or no longer counts."""
        try:
            document = _read(folder / "journal.json")
            if document.pop("format") != _FORMAT or document.pop("boot") != boot_id():
                return None
            files = [ParsedTable(**file) for file in document.pop("files")]
            kinds = [ColumnKind(*kind) for kind in document.pop("kinds")]
            return cls(folder, files=files, kinds=kinds, **document)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save(self) -> None:
        names = ("wanted", "sizes", "kinds", "negative", "num_positive", "parsed")
        document = {name: getattr(self, name) for name in names}
        files = [asdict(file) for file in self.files]
        self._write("journal.json", {"format": _FORMAT, "boot": boot_id(), **document, "files": files})

    def feature(self, name: str) -> dict | None:
        """What `finish_feature` wrote for a feature; None for a feature that is not finished."""
        path = self.folder / f"finished_{name}.json"
        return _read(path) if path.exists() else None

    def finish_feature(self, name: str, document: dict) -> None:
        self._write(f"finished_{name}.json", document)

    def _write(self, name: str, document: dict) -> None:
        temporary = self.folder / f".{name}.partial"
        with naming(temporary):
            temporary.write_text(json.dumps(document), encoding="utf-8")
        os.replace(temporary, self.folder / name)


def _read(path: Path) -> dict:
    with open_plain(path) as file:
        return json.loads(file.read().decode("utf-8"))
