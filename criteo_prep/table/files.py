"""The files that the user's paths stand for, in natural order, and the format of each.

A path is a file, a folder (its files with a known ending), or a pattern such as logs/*.csv.
"""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from criteo_prep.plain_file import check_plain, open_plain
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import natural_key
from criteo_prep.table.schema import HALF, SplitRule

_ENDINGS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
_COMPRESSED = (".gz", ".zst")
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow"}


class TableFiles(NamedTuple):
    """The files of a dataset, in the order of their rows.

    Attributes:
      train, test, validation: files. Test and validation files are named by a split by file, and are empty otherwise.
      ignored: files of the given folders that are not read.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...] = ()
    validation: tuple[Path, ...] = ()
    ignored: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        return (*self.train, *self.test, *self.validation)


def find_files(paths: Sequence[str | Path], split: SplitRule, folder: Path) -> TableFiles:
    """The files of a dataset.

    Args:
      paths: files, folders and patterns.
      split: names the files of test and validation rows, if any. They may be among the given files.
      folder: folder of the schema; the files that the schema names lie in it, or their paths are absolute. The current
        folder is searched too.

    Raises:
      InputError: a path does not exist or is named twice, or a folder or a pattern has no file.
    """
    files, ignored = list_files(paths)
    if split.test_file is None:
        return TableFiles(files, ignored=ignored)
    test = _named(split.test_file, "test_file", folder=folder, files=files)
    validation: tuple[Path, ...] = ()
    if split.validation_file is not None and split.validation_file != HALF:
        validation = _named(split.validation_file, "validation_file", folder=folder, files=files)
    other = {path.resolve() for path in (*test, *validation)}
    if len(other) != len(test) + len(validation):
        raise InputError(f"{validation[0]}: is both the test file and the validation file. Name two files.")
    train = tuple(path for path in files if path.resolve() not in other)
    return TableFiles(train, test, validation=validation, ignored=ignored)


def list_files(paths: Sequence[str | Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """(the files that the paths stand for, files of folders that are left aside). Raises InputError as find_files."""
    if not paths:
        raise InputError("--input: no file is named. Name files, folders or patterns.")
    found: list[Path] = []
    ignored: list[Path] = []
    for path in map(str, paths):
        if os.path.isdir(path):
            found += _files_in(Path(path), ignored)
        elif os.path.lexists(path) or not glob.has_magic(path):
            found.append(_checked(Path(path)))
        else:
            matches = sorted(map(Path, glob.glob(path, recursive=True)), key=natural_key)
            if not matches:
                raise InputError(f"{path}: no file has a name like this. Name existing files.")
            found += [_checked(match) for match in matches if not match.is_dir()]
    seen: dict[Path, Path] = {}
    for each in found:
        if (first := seen.setdefault(each.resolve(), each)) is not each:
            raise InputError(f"{each}: is given twice (as {first} too). Name each file once.")
    return tuple(found), tuple(ignored)


def format_of(path: Path, wanted: str | None = None) -> str:
    """The format of a file, one of schema.FORMATS: the wanted one; or by its first bytes, then by its ending."""
    if wanted:
        return wanted
    with open_plain(path) as file:
        start = file.read(6)
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    ending = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    by_name = _ENDINGS.get(ending.lower())
    if by_name is None:
        return "ndjson" if start.lstrip()[:1] == b"{" else "csv"
    if by_name == "parquet":
        raise InputError(
            f"{path}: is named {ending} but does not begin as a parquet file. Fetch it again, or rename it."
        )
    return by_name


def _files_in(folder: Path, ignored: list[Path]) -> list[Path]:
    entries = sorted((path for path in folder.rglob("*") if not path.is_dir()), key=natural_key)
    visible = [path for path in entries if not _is_hidden(path.relative_to(folder))]
    chosen = [path for path in visible if _has_ending(path)]
    if not chosen:
        raise InputError(
            f"{folder}: holds no file with a known ending ({', '.join(_ENDINGS)}; .gz and .zst may follow). Name the "
            "files to read."
        )
    ignored += [path for path in visible if path not in chosen]
    return [_checked(path) for path in chosen]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _has_ending(path: Path) -> bool:
    ending = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    return ending.lower() in _ENDINGS


def _checked(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: does not exist. Name an existing file.")
    check_plain(path)
    return path


def _named(name: str, key: str, *, folder: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """The file that the schema names: one of the given files by its path or name, or another existing file."""
    by_name = [path for path in files if path.name == name or str(path) == name]
    if len(by_name) == 1:
        return (by_name[0],)
    for path in (folder / name, Path(name)):
        if path.is_dir():
            return list_files([path])[0]
        if path.exists():
            return (_checked(path),)
    raise InputError(f"split: {key}: {name}: is not one of the given files, and does not exist. Name an existing file.")
