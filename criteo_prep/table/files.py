"""The files that the user's paths stand for, in natural order, and the format of each.

A path is a file, a folder (its files with a known ending), or a pattern such as logs/*.csv.
"""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from criteo_prep.plain_file import check_plain
from criteo_prep.preprocess.locations import (
    Location,
    files_in,
    is_folder,
    location_of,
    open_location,
    parts_below,
    size_of,
)
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

    train: tuple[Location, ...]
    test: tuple[Location, ...] = ()
    validation: tuple[Location, ...] = ()
    ignored: tuple[Location, ...] = ()

    @property
    def all(self) -> tuple[Location, ...]:
        return (*self.train, *self.test, *self.validation)


def find_files(paths: Sequence[str | Location], split: SplitRule, folder: Path) -> TableFiles:
    """The files of a dataset.

    Args:
      paths: files, folders and patterns, as paths or URLs; a pattern is a path.
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
    validation: tuple[Location, ...] = ()
    if split.validation_file is not None and split.validation_file != HALF:
        validation = _named(split.validation_file, "validation_file", folder=folder, files=files)
    other = {path.resolve() for path in (*test, *validation)}
    if len(other) != len(test) + len(validation):
        raise InputError(f"{validation[0]}: is both the test file and the validation file. Name two files.")
    train = tuple(path for path in files if path.resolve() not in other)
    return TableFiles(train, test, validation=validation, ignored=ignored)


def list_files(paths: Sequence[str | Location]) -> tuple[tuple[Location, ...], tuple[Location, ...]]:
    """(the files that the paths stand for, files of folders that are left aside). Raises InputError as find_files."""
    if not paths:
        raise InputError("--input: no file is named. Name files, folders or patterns.")
    found: list[Location] = []
    ignored: list[Location] = []
    for location in map(location_of, paths):
        path = str(location)
        if not isinstance(location, Path) and "*" in path:
            raise InputError(f"{path}: is a pattern, and patterns are for local files. Name files, or their folder.")
        if is_folder(location):
            found += _files_in(location, ignored)
        elif not isinstance(location, Path):
            found.append(_checked(location))
        elif os.path.lexists(path) or not glob.has_magic(path):
            found.append(_checked(Path(path)))
        else:
            matches = sorted(map(Path, glob.glob(path, recursive=True)), key=natural_key)
            if not matches:
                raise InputError(f"{path}: no file has a name like this. Name existing files.")
            found += [_checked(match) for match in matches if not match.is_dir()]
    seen: dict[Location, Location] = {}
    for each in found:
        if (first := seen.setdefault(each.resolve(), each)) is not each:
            raise InputError(f"{each}: is given twice (as {first} too). Name each file once.")
    return tuple(found), tuple(ignored)


def format_of(path: Location, wanted: str | None = None) -> str:
    """The format of a file, one of schema.FORMATS: the wanted one; or by its first bytes, then by its ending."""
    if wanted:
        return wanted
    with open_location(path) as file:
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


def _files_in(folder: Location, ignored: list[Location]) -> list[Location]:
    entries = sorted((path for path in files_in(folder, recursive=True) if not is_folder(path)), key=natural_key)
    visible = [path for path in entries if not _is_hidden(parts_below(folder, path))]
    chosen = [path for path in visible if _has_ending(path)]
    if not chosen:
        raise InputError(
            f"{folder}: holds no file with a known ending ({', '.join(_ENDINGS)}; .gz and .zst may follow). Name the "
            "files to read."
        )
    ignored += [path for path in visible if path not in chosen]
    return [_checked(path) for path in chosen]


def _is_hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith((".", "_")) for part in parts)


def _has_ending(path: Location) -> bool:
    ending = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    return ending.lower() in _ENDINGS


def _checked(path: Location) -> Location:
    if not isinstance(path, Path):
        size_of(path)
        return path
    if not path.exists():
        raise InputError(f"{path}: does not exist. Name an existing file.")
    check_plain(path)
    return path


def _named(name: str, key: str, *, folder: Path, files: Sequence[Location]) -> tuple[Location, ...]:
    """The file that the schema names: one of the given files by its path or name, or another existing file."""
    by_name = [path for path in files if path.name == name or str(path) == name]
    if len(by_name) == 1:
        return (by_name[0],)
    elsewhere = location_of(name)
    if not isinstance(elsewhere, Path):
        return list_files([elsewhere])[0]
    for path in (folder / name, elsewhere):
        if path.is_dir():
            return list_files([path])[0]
        if path.exists():
            return (_checked(path),)
    raise InputError(f"split: {key}: {name}: is not one of the given files, and does not exist. Name an existing file.")
