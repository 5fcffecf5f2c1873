"""The work of a stopped run in the staging folder: read, continued with other rules, or deleted."""

import contextlib
import shutil
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.preprocess.decide import Unfinished
from criteo_prep.preprocess.finished import load_finished
from criteo_prep.preprocess.journal import Journal, ParsedFile
from criteo_prep.preprocess.request import DatasetRequest
from criteo_prep.schema import CATEGORICAL

_VALUE_BYTES = 4


def read_unfinished(root: Path) -> Unfinished | None:
    """The work in a staging folder; None where there is none."""
    journal, finished = Journal.load(root / "work"), _finished_manifest(root)
    if journal is None and finished is None and not (root / "work").exists():
        return None
    num_rows = journal.num_rows if journal else 0
    is_arranged = _size(root / "work" / "label.bin") < num_rows or _size(root / "work" / "numerical.bin") < 0
    raw_rows = min(_size(root / "raw" / f"{name}.raw") // _VALUE_BYTES for name in CATEGORICAL)
    return Unfinished(journal, raw_rows, is_arranged=is_arranged, finished=finished)


def start_over(root: Path, request: DatasetRequest, source: str | None = None) -> Journal:
    """Empties the staging folder. Returns the journal of a run that has not done anything.

    Args:
      source: what the dataset is derived from, see decide.Decision.
    """
    discard(root)
    (root / "work").mkdir()
    return Journal(root / "work", request.wanted, source=source)


def keep_files(journal: Journal, request: DatasetRequest, files: tuple[ParsedFile, ...]) -> None:
    """Keeps these parsed files of a run with other inputs or rules; its columns are made again."""
    (journal.folder.parent / manifest.MANIFEST).unlink(missing_ok=True)
    for name in CATEGORICAL:
        journal.forget_column(name)
    same_inputs = journal.wanted["inputs"] == request.wanted["inputs"]
    journal.files, journal.parsed, journal.wanted = list(files), journal.parsed and same_inputs, request.wanted
    journal.save()


def remove_work(root: Path) -> None:
    """Deletes the work files of a finished dataset."""
    if (root / "work").exists():
        shutil.rmtree(root / "work")


def remove_if_worthless(root: Path) -> None:
    """Empties the folder of a run that failed, unless it holds parsed rows that the next run can use."""
    journal = Journal.load(root / "work")
    if (journal is None or journal.num_rows == 0) and not (root / manifest.MANIFEST).exists():
        discard(root)


def discard(root: Path) -> None:
    """Empties a staging folder."""
    # These two describe the other files, so they go first.
    for description in (manifest.MANIFEST, "work/journal.json"):
        (root / description).unlink(missing_ok=True)
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _finished_manifest(root: Path) -> dict | None:
    """The manifest in a staging folder, where the files have the sizes that it says."""
    if not (root / manifest.MANIFEST).exists():
        return None
    try:
        document = load_finished(root)
        manifest.check_files(root, document)
    except manifest.ManifestError:  # the run was killed while it deleted the folder
        return None
    return document


def _size(path: Path) -> int:
    """Bytes of a file; -1 where there is no such file."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return -1
