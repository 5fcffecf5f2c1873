"""The files that the user's paths stand for: single files, and the pieces of one input, in order.

    day_0 day_1.gz day_2.parquet        a file for each day; endings: .tsv, .txt or .csv, then .gz or .zst; .parquet
    day_0.00 day_0.01.gz                the pieces of day 0
    day_0/part-00000 day_0/part-00001   the pieces of day 0
    part-00000 part-00001.gz _SUCCESS   the pieces of one input, as Spark writes them
    train.txt                           the only file of a folder

Nothing else in a folder is read: it is left aside, and listed for the user.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.preprocess.locations import Location, files_in, is_folder, location_of, open_location, size_of
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import day_number, natural_key

_ENDINGS = ("", ".tsv", ".txt", ".csv", ".gz", ".zst", ".parquet")


@dataclass(frozen=True)
class InputFiles:
    """One input.

    Attributes:
      path: the file, or the folder of its pieces, for messages.
      pieces: the files of its rows, in order; one for most inputs.
      day: the N of an input named day_N, else None.
    """

    path: Location
    pieces: tuple[Location, ...]
    day: int | None = None


def list_inputs(paths: Sequence[str | Location]) -> tuple[list[InputFiles], tuple[Location, ...]]:
    """The inputs that some paths stand for.

    Args:
      paths: files, and folders whose files are the pieces of one input; or one folder of inputs. Paths and URLs.

    Returns:
      The inputs, and the files of the folders that are left aside. Hidden files are in neither.

    Raises:
      InputError: a path does not exist or cannot be read, is given twice, or does not stand for an input.
    """
    paths = [location_of(path) for path in paths]
    if not paths:
        raise InputError("--input: no file is named. Name files, or one folder.")
    for number, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:number]]:
            raise InputError(f"{path}: is given twice. Name each input once.")
    if len(paths) == 1 and is_folder(paths[0]) and day_number(paths[0].name) is None:
        return _inputs_in(paths[0])
    ignored: list[Location] = []
    inputs = [_input_at(path, ignored) for path in paths]
    return _join_pieces(inputs), tuple(ignored)


def _inputs_in(folder: Location) -> tuple[list[InputFiles], tuple[Location, ...]]:
    """The inputs in a folder: its days, or its part files as one input, or its only file; and the other files."""
    entries = _entries(folder)
    ignored: list[Location] = []
    if chosen := [path for path in entries if day_number(path.name) is not None]:
        inputs = _join_pieces([_input_at(path, ignored) for path in chosen])
    elif chosen := [path for path in entries if _is_part(path)]:
        for path in chosen:
            _check_file(path)
        inputs = [InputFiles(folder, tuple(chosen))]
    elif len(chosen := [path for path in entries if path.suffix in _ENDINGS and not is_folder(path)]) == 1:
        inputs = [_input_at(chosen[0], ignored)]
    else:
        found = f"{len(chosen)} files, none of them named day_N" if chosen else "no file that could be an input"
        others = f" ({', '.join(path.name for path in entries[:5])})" if entries else ""
        raise InputError(f"{folder}: holds {found}{others}. Name the files to read.")
    return inputs, (*(path for path in entries if path not in chosen), *ignored)


def _input_at(path: Location, ignored: list[Location]) -> InputFiles:
    """The input at a path; the files of a folder that are not pieces of the input are added to `ignored`."""
    if not is_folder(path):
        _check_file(path)
        return InputFiles(path, (path,), day_number(path.name))
    entries = _entries(path)
    pieces = [entry for entry in entries if _is_part(entry)]
    if not pieces and day_number(path.name) is not None:
        pieces = [entry for entry in entries if entry.suffix in _ENDINGS and not is_folder(entry)]
    if not pieces:
        raise InputError(f"{path}: is a folder without part files (part-*). Name a single folder, or files.")
    for piece in pieces:
        _check_file(piece)
    ignored += [entry for entry in entries if entry not in pieces]
    return InputFiles(path, tuple(pieces), day_number(path.name))


def _entries(folder: Location) -> list[Location]:
    """The files and folders in a folder, in natural order, but for hidden ones: Spark hides names with _ and . too."""
    return sorted((path for path in files_in(folder) if not path.name.startswith((".", "_"))), key=natural_key)


def _is_part(path: Location) -> bool:
    """Whether a file is named as Spark, Hive and others name the parts of one output."""
    return path.name.startswith("part-") and path.suffix in _ENDINGS and not is_folder(path)


def _join_pieces(inputs: list[InputFiles]) -> list[InputFiles]:
    """Joins the files day_N.K of each day N to one input."""
    pieces: dict[int, dict[int, Location]] = {}
    others = []
    for each in inputs:
        match = re.match(r"day_(\d+)\.(\d+)(?!\w)", each.path.name)
        if match is None:
            others.append(each)
            continue
        first = pieces.setdefault(int(match[1]), {}).setdefault(int(match[2]), each.path)
        if first is not each.path:
            raise InputError(f"{each.path}: is piece {int(match[2])} of its day, as is {first}. Name each piece once.")
    return others + [InputFiles(_ordered(files)[0], _ordered(files), day) for day, files in pieces.items()]


def _ordered(pieces: dict[int, Location]) -> tuple[Location, ...]:
    """The pieces of a day by their numbers. Raises InputError where one is missing, or a row continues in the next."""
    numbers = sorted(pieces)
    files = tuple(pieces[number] for number in numbers)
    expected = range(min(numbers[0], 1), min(numbers[0], 1) + len(numbers))
    if missing := sorted(set(expected) - set(numbers)):
        raise InputError(
            f"{files[0]}: piece {missing[0]} of its day is missing. Add it, or join the pieces to one file."
        )
    for file in files[:-1]:
        if not _ends_with_a_line(file):
            raise InputError(f"{file}: ends in the middle of a row, which the next piece continues. Join them (cat).")
    return files


def _ends_with_a_line(path: Location) -> bool:
    """Whether a text file ends in a newline; True for a compressed file, whose text is not known here."""
    with open_location(path, in_order=False) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return path.suffix in (".gz", ".zst", ".parquet") or file.read(1) in (b"", b"\n")


def _check_file(path: Location) -> None:
    """Raises InputError where a path is not a file that can be read, again from any position."""
    if not isinstance(path, Path):
        size_of(path)
        return
    if str(path) == "-":
        raise InputError("--input -: standard input cannot be read, because a stopped run resumes. Name a file.")
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path}: is a link to {os.readlink(path)}, which does not exist. Restore it, or remove the link."
        )
    if not path.exists():
        raise InputError(f"{path}: does not exist. Name an existing file.")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}.get(stat.S_IFMT(mode))
        reason = "a stopped run resumes in the middle of an input, so only a file can be read"
        raise InputError(f"{path}: is {kind or 'a device'}; {reason}. Write its text to a file.")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read by this user. Change its permissions (chmod), or name another file.")
