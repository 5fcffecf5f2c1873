"""What a run has done so far, on disk, so that one that is killed can be gone on with.

    <folder>/work/journal.json    inputs, rules, and how far the parse is; replaced at every checkpoint
    <folder>/work/cat_<i>.json    a column that is finished: its cardinality and its files

Everything a checkpoint speaks of is in the files already; what stands behind it is cut off and made again.

Forcing files to the disk takes time that a small run had rather spend on doing its work again after a power cut. So
a journal counts only until the machine is started anew, unless it is `forced`: then all that it speaks of was forced to
the disk before, and so is the journal itself.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from criteo_prep.durable import boot_id, force
from criteo_prep.schema import NUM_CATEGORICAL

_FORMAT = 2


@dataclass
class ParsedFile:
    """What one input file held.

    Attributes:
      path: as it was given.
      num_rows: good rows.
      skipped: reason -> bad rows that were left out, for the reasons that occurred.
      first_skipped: the first of them for each reason, in words.
      position: how far it is parsed: bytes of text, or rows of parquet.
      num_lines: lines up to there.
      finished: all of it is parsed.
      num_zeros: see RawColumns; of all files up to this one.
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
      folder: of the journal and of other work files.
      wanted: inputs and rules of the dataset in the making.
      files: the input files that were begun, in order.
      parsed: all files are.
      source: what of a finished dataset it is made of instead of the inputs; see derive.py. None: of the inputs.
      forced: what is written down here must be on the disk before.
    """

    folder: Path
    wanted: dict
    files: list[ParsedFile] = field(default_factory=list)
    parsed: bool = False
    source: str | None = None
    forced: bool = False

    @property
    def num_zeros(self) -> list[int]:
        return self.files[-1].num_zeros if self.files else [0] * NUM_CATEGORICAL

    @property
    def num_rows(self) -> int:
        return sum(file.num_rows for file in self.files)

    @classmethod
    def load(cls, folder: Path) -> "Journal | None":
        """The journal in `folder`; None where there is none that this version wrote, or none that still counts."""
        try:
            document = json.loads((folder / "journal.json").read_text(encoding="utf-8"))
            if document.pop("format") != _FORMAT or (document.pop("boot") != boot_id() and not document["forced"]):
                return None
            files = [ParsedFile(**file) for file in document.pop("files")]
            return cls(folder, files=files, **document)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def document(self) -> dict:
        """What `save` writes, as it is now."""
        document = {name: getattr(self, name) for name in ("wanted", "parsed", "source", "forced")}
        return {"format": _FORMAT, "boot": boot_id(), **document, "files": [asdict(file) for file in self.files]}

    def save(self, document: dict | None = None) -> None:
        """Writes the journal, or how it was when it gave `document`."""
        self._write("journal.json", document or self.document())

    def column(self, name: str) -> dict | None:
        """What `finish_column` wrote for a column; None before that."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish_column(self, name: str, document: dict) -> None:
        self._write(f"{name}.json", document)

    def forget_column(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink(missing_ok=True)

    def _write(self, name: str, document: dict) -> None:
        """The file appears whole or not at all."""
        temporary = self.folder / f".{name}.partial"
        temporary.write_text(json.dumps(document), encoding="utf-8")
        if self.forced:
            force([temporary])
        os.replace(temporary, self.folder / name)
        if self.forced:
            force([self.folder])
