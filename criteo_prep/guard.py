"""What a destination may be: the same guard for every verb that writes.

Nothing that a verb reads lies in its destination or around it, and only files that this program made are replaced.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.replaceable import belongs_to_a_dataset, foreign_file
from criteo_prep.sizes import shown_bytes


class DestinationError(ValueError):
    """The destination cannot be written, or something else would be lost."""


def check_apart(destination: str | Path, reads: Iterable[str | Path]) -> None:
    """Raises DestinationError where writing the destination could touch something that is read.

    None of `reads` may be the destination, lie in it, or hold it: directly, through a link, or by another mount. And
    the destination has a name in UTF-8, as the libraries that write it need.
    """
    destination = Path(destination)
    if not _is_utf8(real := os.path.realpath(destination)):
        raise DestinationError(f"{os.fsencode(real)!r}: the name is not UTF-8. Name another destination.")
    for path in map(Path, reads):
        if _holds(destination, path):
            what = "is read," if _holds(path, destination) else f"holds {path}, which is read"
            raise DestinationError(f"{destination}: {what} and would be lost. Name another destination.")
        if _holds(path, destination):
            raise DestinationError(f"{destination}: lies in {path}, which is read. Name a destination outside it.")


def check_free(destination: str | Path, overwrite: bool = False) -> None:
    """Raises DestinationError unless `destination` is missing, empty, or a dataset that may be overwritten."""
    destination = Path(destination)
    if destination.exists() and not destination.is_dir():
        raise DestinationError(f"{destination}: is not a folder. Name a folder that does not exist yet.")
    if not destination.exists():
        return
    if os.path.ismount(destination):
        raise DestinationError(f"{destination}: is a mount point, which cannot be replaced. Name a folder inside it.")
    if _holds_current_folder(destination):
        raise DestinationError(
            f"{destination}: is or holds the current folder, which would be lost. Name a folder inside it, such as "
            f"{destination / 'dataset'}."
        )
    if not any(destination.iterdir()):
        return
    foreign = foreign_file(destination)
    if not overwrite:
        hint = "" if foreign else ", or add --overwrite to replace its dataset"
        raise DestinationError(f"{destination}: is not empty. Name another destination{hint}.")
    if foreign:
        raise DestinationError(
            f"{destination}: holds {foreign}, which this program did not make, so the folder is not replaced. Name "
            "another destination, or delete the folder yourself."
        )


def check_file_free(path: str | Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    """Raises DestinationError unless a path is free for a new file, or has a file that may be replaced.

    Args:
      path: the file to make.
      overwrite: whether an existing file is replaced.
      is_ours: whether an existing file, which is not empty, has the content that this program gives it.
    """
    path = Path(path)
    if not path.exists():
        return
    if path.is_dir():
        raise DestinationError(f"{path}: exists already. Name a file.")
    if not path.is_file():
        raise DestinationError(f"{path}: is a pipe or a device, which cannot be replaced. Name a file.")
    if not overwrite:
        raise DestinationError(
            f"{path}: exists already. Name another file, or add --overwrite to replace a file that this program made."
        )
    if belongs_to_a_dataset(path):
        raise DestinationError(f"{path}: is a part of a dataset, which would be lost. Name another file.")
    if path.stat().st_size and not is_ours(path):
        raise DestinationError(
            f"{path}: does not hold what this program would write there, so it is not replaced. Name another file, or "
            "delete this one yourself."
        )


def check_spec_free(path: str | Path) -> None:
    """Raises DestinationError unless a path is free for a feature spec, or holds one that may be replaced."""
    path = Path(path)
    if path.is_dir():
        raise DestinationError(f"{path}: is a folder. Name a file, such as {path / 'feature_spec.yaml'}.")
    if not path.exists():
        return
    try:
        FeatureSpec.load(path, auto=True)
    except FeatureSpecError:
        raise DestinationError(f"{path}: is not a feature spec, so it is not replaced. Name another file.") from None
    if belongs_to_a_dataset(path):
        raise DestinationError(f"{path}: describes a dataset, which would be lost. Name another file.")


def check_space(destination: str | Path, needed: int) -> None:
    """Raises DestinationError when the disk of a destination has fewer than `needed` bytes left."""
    folder = next(folder for folder in Path(os.path.realpath(destination)).parents if folder.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DestinationError(
            f"{folder}: the dataset needs {needed:,} bytes ({shown_bytes(needed)}), the disk has {free:,} bytes "
            f"({shown_bytes(free)}) left. "
            "Ask for fewer samples or name another disk."
        )


def _holds(folder: Path, path: Path) -> bool:
    """Whether `path` is `folder` or lies in it."""
    real_folder, real_path = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    as_named = Path(os.path.realpath(path.parent)) / path.name  # a link in the folder counts, not only its target
    for place in (real_path, as_named):
        if place.is_relative_to(real_folder):
            return True
        for ancestor in (place, *place.parents):  # the same folder may have another path, by another mount
            with contextlib.suppress(OSError):
                if os.path.samefile(folder, ancestor):
                    return True
    return False


def _holds_current_folder(folder: Path) -> bool:
    try:
        return _holds(folder, Path.cwd())
    except FileNotFoundError:  # the current folder was deleted
        return False


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
