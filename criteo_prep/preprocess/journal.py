"""The finished part of a run's work, on disk, so that a killed run can be resumed.

    <folder>/work/journal.json    inputs, rules, and how far the parse is; replaced at every checkpoint
    <folder>/work/cat_<i>.json    a finished column: its cardinality and its files

A checkpoint lists only bytes that are already in the files. Bytes after them are cut off and made again.

Forcing files to the disk takes time. A small run does better to repeat its work after a power cut. So a journal counts
only until the machine is restarted, unless it is `forced`: then the files were forced to the disk before the journal,
and the journal is forced too.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from criteo_prep.durable import boot_id, force, naming
from criteo_prep.plain_file import open_plain
from criteo_prep.schema import NUM_CATEGORICAL

_FORMAT = 2


@dataclass
class ParsedFile:
    """What was parsed from one input file.

    Attributes:
      path: the path as the user gave it.
      num_rows: good rows.
      skipped: reason -> skipped bad rows, for the reasons that occurred.
      first_skipped: reason -> the first skipped row, in words.
      position: where the parse stands: bytes of text, or rows of parquet.
      num_lines: lines before the position.
      finished: the whole file is parsed.
      num_zeros: the zeros of each column in this file and the files before it; see RawColumns.
    """

    path: str
    num_rows: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    first_skipped: dict[str, str] = field(default_factory=dict)
    position: int = 0
    num_lines: int = 0
    finished: bool = False
    num_zeros: list[int] = field(default_factory=lambda: [0] * NUM_CATEGORICAL)


@dataclass
class Journal:
    """The state of a run.

    Attributes:
      folder: folder of the journal and of the other work files.
      wanted: the keys "made_by", "inputs" and "rules" of the manifest to write.
      files: the input files whose parsing began, in order.
      parsed: all input files are parsed.
      source: what the dataset is derived from, see decide.Decision; None for the inputs.
      forced: files are forced to the disk before the journal lists them.
      linked: file -> its entry in the manifest of the finished dataset, for files that are linked from that dataset.
    """

    folder: Path
    wanted: dict
    files: list[ParsedFile] = field(default_factory=list)
    parsed: bool = False
    source: str | None = None
    forced: bool = False
    linked: dict[str, dict] = field(default_factory=dict)

    @property
    def num_zeros(self) -> list[int]:
        return self.files[-1].num_zeros if self.files else [0] * NUM_CATEGORICAL

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)

    @classmethod
    def load(cls, folder: Path) -> "Journal | None":
        """The journal in `folder`; None where it is missing, is of another version, or no longer counts."""
        try:
            document = _read(folder / "journal.json")
            if document.pop("format") != _FORMAT or (document.pop("boot") != boot_id() and not document["forced"]):
                return None
            files = [ParsedFile(**file) for file in document.pop("files")]
            return cls(folder, files=files, **document)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def document(self) -> dict:
        """The content that `save` writes now."""
        document = {name: getattr(self, name) for name in ("wanted", "parsed", "source", "forced", "linked")}
        return {"format": _FORMAT, "boot": boot_id(), **document, "files": [asdict(file) for file in self.files]}

    def save(self, document: dict | None = None) -> None:
        """Writes the journal, or an earlier state of it that `document()` returned."""
        self._write("journal.json", document or self.document())

    def column(self, name: str) -> dict | None:
        """What `finish_column` wrote for a column; None for a column that is not finished."""
        path = self.folder / f"{name}.json"
        return _read(path) if path.exists() else None

    def finish_column(self, name: str, document: dict) -> None:
        self._write(f"{name}.json", document)

    def forget_column(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def _write(self, name: str, document: dict) -> None:
        """Writes a file that appears whole or not at all."""
        temporary = self.folder / f".{name}.partial"
        with naming(temporary):
            temporary.write_text(json.dumps(document), encoding="utf-8")
        if self.forced:
            force([temporary])
        os.replace(temporary, self.folder / name)
        if self.forced:
            force([self.folder])


def _read(path: Path) -> object:
    """The content of a JSON file. Raises ValueError where it is not JSON."""
    with open_plain(path) as file:
        return json.loads(file.read().decode("utf-8"))
