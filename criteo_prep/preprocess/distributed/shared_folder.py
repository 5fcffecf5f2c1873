"""The staging folder of a run on a cluster, which all machines see; and what an earlier run has left in it.

    <root>/work/parts-<p>/       the parts; p stands for inputs, rules of parsing and sizes of splits
    <root>/work/finished-<r>/    <name>.json for each finished column, and for the rows; r stands for p and other rules
    <root>/work/run-<name>/      files in the making; another run never takes them over
    <root>/work/probe            a file that every task must see
    <root>/<split>/ ...          the finished files of the dataset

A task of a killed run may still write for some seconds. It can spoil nothing: a part with the same name has the same
bytes, and everything else it writes is in the folder of its own run, which the next run deletes.
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.durable import boot_id, force, naming
from criteo_prep.plain_file import open_plain
from criteo_prep.preprocess.distributed.task_sizes import TaskSizes
from criteo_prep.preprocess.request import DatasetRequest
from criteo_prep.preprocess.unfinished import discard

_FORMAT = 1  # of parts, and of the documents of finished columns
_RULES_OF_PARSING = ("on_bad_row", "on_truncated", "numerical")
_DELETE_S = 10
ROWS = "rows"  # the name under which labels and numericals are finished


@dataclass(frozen=True)
class SharedFolder:
    """The staging folder, ready for a run.

    Attributes:
      root: the folder, by its real path.
      parts: the folder of the parts.
      finished: the folder of the documents of finished columns.
      scratch: the folder of this run.
      note: what becomes of the unfinished work that was found, for the user; None where nothing was found.
    """

    root: Path
    parts: Path
    finished: Path
    scratch: Path
    note: str | None = None

    @property
    def probe(self) -> Path:
        return self.root / "work" / "probe"

    @property
    def run(self) -> str:
        return self.scratch.name

    def remove_work(self) -> None:
        """Deletes everything but the files of the dataset."""
        _delete([self.root / "work"])

    def document(self, name: str) -> dict | None:
        """The document of a finished column; None for a column that is not finished, or may be lost since a restart."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            with open_plain(self.finished / f"{name}.json") as file:
                document = json.loads(file.read().decode())
            return document["content"] if document["boot"] == boot_id() else None
        return None

    def finish(self, name: str, content: dict) -> None:
        """Records that the files of a column are finished."""
        temporary = self.scratch / f"{name}.json"
        with naming(temporary):
            temporary.write_text(json.dumps({"boot": boot_id(), "content": content}), encoding="utf-8")
        os.replace(temporary, self.finished / temporary.name)


def open_shared_folder(root: Path, request: DatasetRequest, *, sizes: TaskSizes, block_bytes: int) -> SharedFolder:
    """Keeps what an earlier run has left and this run can use, and deletes the rest.

    Args:
      root: the staging folder.
      request: what to make.
      sizes: sizes of splits and parts.
      block_bytes: text that is parsed at a time, which decides where parts end.
    """
    work = root / "work"
    rules = {key: request.wanted["rules"].get(key) for key in _RULES_OF_PARSING}
    parse = [_FORMAT, request.wanted["inputs"], rules, request.labelled]
    parse += [sizes.split_bytes, sizes.part_rows, block_bytes]
    parts = work / f"parts-{_digest(parse)}"
    finished = work / f"finished-{_digest([parse, request.wanted, request.keep_raw])}"
    found, usable = any(root.iterdir()), parts.exists()
    note = None
    if found and not usable:
        note = f"the unfinished work in {root} {_why_unusable(root)}; all of it is made again"
        _delete(path for path in (work,) if path.exists())
        discard(root)
    elif found and not finished.exists():
        note = f"the unfinished work in {root} differs in rules that are not about parsing; the parsed rows are kept"
    if not finished.exists():
        _delete(path for path in root.iterdir() if path != work)
    if work.exists():
        _delete(path for path in work.iterdir() if path not in (parts, finished))
    scratch = work / f"run-{uuid.uuid4().hex[:12]}"
    for folder in (parts, finished, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    force([work])
    shared = SharedFolder(root, parts, finished=finished, scratch=scratch, note=note)
    shared.probe.write_text(scratch.name)
    return shared


def made_on_cluster(root: Path) -> bool:
    """Whether the unfinished work in a staging folder was made by tasks on a cluster."""
    return any(root.glob("work/parts-*"))


def discard_if_worthless(root: Path) -> None:
    """Empties the folder of a run that failed, unless it holds parts that the next run can use."""
    if not any(root.glob("work/parts-*/split-*")):
        discard(root)


def _why_unusable(root: Path) -> str:
    if (root / "work" / "journal.json").exists():
        return "was made by --engine local"
    return "is of other inputs or other rules of parsing" if made_on_cluster(root) else "cannot be used"


def _delete(paths: Iterable[Path]) -> None:
    """Deletes files and folders. A task of a stopped run, or the duplicate of a task, may still write into a folder."""
    for path in list(paths):
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            continue
        deadline = time.monotonic() + _DELETE_S
        while path.exists() and time.monotonic() < deadline:
            shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            shutil.rmtree(path)


def _digest(content: object) -> str:
    import xxhash

    return xxhash.xxh3_64(json.dumps(content, sort_keys=True).encode()).hexdigest()
