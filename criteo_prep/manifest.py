"""`manifest.json`: how a dataset was made, and the size and checksum of each file. It is written last.

    {"format": 1, "made_by": "criteo-prep preprocess", "versions": {"criteo_prep": "0.1.0", ...},
     "inputs": [{"name": "day_0", "bytes": 1234, ...}], "rules": {"threshold": 15, ...},
     "splits": {"train": {"num_samples": 1000}, ...},
     "files": {"train/cat_0.bin": {"bytes": 1000, "crc32": "0123abcd"}, ...},
     "checksum": "0123456789abcdef"}

A file has a "crc32", or, if `preprocess` wrote it, "xxh3_64": a checksum for each block of "block_bytes", so that many
threads can check a large file. "checksum" is the xxh3_64 of the manifest's own text before the comma that ends "files".
"""

import importlib.metadata
import itertools
import json
import os
import platform
import zlib
from collections.abc import Iterable
from pathlib import Path

import criteo_prep
from criteo_prep.durable import force
from criteo_prep.manifest_document import KINDS, problem_of
from criteo_prep.messages import one_line
from criteo_prep.plain_file import check_plain, open_plain

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK_BYTES = 32 << 20
LARGEST_BYTES = 256 << 20  # of a manifest; the checksums of 100 TB have about 60 MiB
_CHECKSUM = ',\n "checksum": "'
_KEYS = ("format", *KINDS)


class ManifestError(ValueError):
    """A manifest is missing or damaged, or a dataset does not fit its manifest."""


class DamagedError(ManifestError):
    """The bytes of a manifest or of a file are not the bytes that were written."""


class ChecksummedFile:
    """A new file that counts its size and crc32 while it is written. A context manager that closes the file."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.bytes = self._crc32 = 0
        self._file = open(path, "wb")

    def write(self, data) -> None:
        """Appends `data`, bytes or a contiguous array. An OSError, such as a full disk, names the path."""
        data = memoryview(data).cast("B") if len(data) else b""
        try:
            self._file.write(data)
        except OSError as error:
            error.filename = str(self.path)
            raise
        self.bytes += len(data)
        self._crc32 = zlib.crc32(data, self._crc32)

    @property
    def entry(self) -> dict:
        """The manifest's entry for the file."""
        return {"bytes": self.bytes, "crc32": f"{self._crc32:08x}"}

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "ChecksummedFile":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


class BlockChecksums:
    """The checksums of a file's blocks, computed from its data in order."""

    def __init__(self, block_bytes: int = BLOCK_BYTES):
        import xxhash

        self.bytes, self._block_bytes, self._new = 0, block_bytes, xxhash.xxh3_64
        self._done: list[str] = []
        self._block = self._new()

    def update(self, data) -> None:
        """Takes the next data, bytes or a contiguous array."""
        data = memoryview(data).cast("B") if len(data) else b""
        while data:
            room = self._block_bytes - self.bytes % self._block_bytes
            self._block.update(data[:room])
            self.bytes += len(data[:room])
            data = data[room:]
            if self.bytes % self._block_bytes == 0:
                self._done.append(self._block.hexdigest())
                self._block = self._new()

    @property
    def entry(self) -> dict:
        """The manifest's entry for the file."""
        unfinished = [self._block.hexdigest()] if self.bytes % self._block_bytes else []
        return {"bytes": self.bytes, "block_bytes": self._block_bytes, "xxh3_64": [*self._done, *unfinished]}


def block_entry(path: str | Path) -> dict:
    """The manifest's entry for an existing file, with a checksum for each block. Reads the file."""
    checksums = BlockChecksums()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(4 << 20):
            checksums.update(data)
    return checksums.entry


def file_entry(path: str | Path) -> dict:
    """The manifest's entry for an existing file, with its crc32. Reads the file."""
    from isal.isal_zlib import crc32 as crc32_of  # five times as fast as zlib's

    size = crc32 = 0
    data = memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(data):
            size += count
            crc32 = crc32_of(data[:count], crc32)
    return {"bytes": size, "crc32": f"{crc32:08x}"}


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of criteo_prep, of Python and of `packages`: a dataset may depend on them."""
    return {
        "criteo_prep": criteo_prep.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
    }


def save_manifest(root: str | Path, document: dict) -> None:
    """Writes <root>/manifest.json; the file appears whole or not at all.

    Args:
      root: the dataset folder.
      document: "made_by", "versions", "inputs", "rules", "splits", "files" and any other keys. "format" and
        "checksum" are added here.
    """
    document = {"format": FORMAT, **document}
    assert all(key in document for key in _KEYS), f"a manifest needs {_KEYS}"
    path = Path(root) / MANIFEST
    temporary = path.with_name(f".{MANIFEST}.partial")
    document.pop("checksum", None)
    text = json.dumps(document, indent=1).removesuffix("\n}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(f'{text}{_CHECKSUM}{_xxh3(text)}"\n}}\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    force([root])


def load_manifest(root: str | Path, damaged: bool = False) -> dict:
    """Reads <root>/manifest.json, without its "checksum". The types in the document are right.

    Args:
      root: the dataset folder.
      damaged: whether to accept a manifest that does not fit its own checksum, or has none.

    Raises:
      DamagedError: the manifest does not fit its own checksum, or has none. save_manifest always writes one.
      ManifestError: the file does not exist or is not a manifest.
      OSError: the file cannot be read.
    """
    path = Path(root) / MANIFEST
    content = _content_of(path)
    try:
        text = content.decode("utf-8")
        document = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"{path}: is not JSON: {one_line(str(error))}") from None
    except RecursionError:
        raise ManifestError(f"{path}: is not JSON: too many brackets within brackets.") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ManifestError(f"{path}: is not a manifest of format {FORMAT}. A newer version may have written it.")
    if missing := [key for key in _KEYS if key not in document]:
        raise ManifestError(f"{path}: has no {missing[0]!r}; it is damaged. Make the dataset again.")
    if problem := problem_of(document):
        raise ManifestError(f"{path}: {one_line(problem)}; it is damaged. Make the dataset again.")
    if not damaged and not _fits_its_checksum(text):
        problem = "its bytes do not fit its own checksum" if "checksum" in document else "it has no checksum of its own"
        raise DamagedError(f"{path}: is damaged: {problem}. Restore it, or make the dataset again (with --overwrite).")
    document.pop("checksum", None)
    return document


def _content_of(path: Path) -> bytes:
    try:
        with open_plain(path) as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: there is no manifest; {path.parent} is not a dataset that this program finished."
        ) from None
    if len(content) > LARGEST_BYTES:
        raise ManifestError(f"{path}: has more than {LARGEST_BYTES >> 20} MiB, so it is not a manifest.")
    return content


def _fits_its_checksum(text: str) -> bool:
    content = text.rpartition(_CHECKSUM)[0]
    return text == f'{content}{_CHECKSUM}{_xxh3(content)}"\n}}\n'


def _xxh3(text: str) -> str:
    import xxhash

    return xxhash.xxh3_64(text.encode()).hexdigest()


def check_files(root: str | Path, document: dict) -> None:
    """Checks that a dataset's files exist and have their sizes; reads no file. Raises ManifestError otherwise."""
    for name, entry in document["files"].items():
        path = Path(root) / name
        check_plain(path)
        if not path.is_file():
            raise ManifestError(f"{path}: there is no such file, but the manifest names it. Make the dataset again.")
        if path.stat().st_size != entry["bytes"]:
            raise ManifestError(
                f"{path}: has {path.stat().st_size} bytes; the manifest says {entry['bytes']}. Make the dataset again."
            )


def differences(old: dict, new: dict) -> list[str]:
    """The differences between the manifest of an existing dataset and a requested dataset, one line for each.

    Args:
      old: manifest of the existing dataset.
      new: the requested "made_by", "rules" and "inputs". The keys of an input decide which keys are compared, because
        its number of rows is unknown before it is read.
    """
    lines = []
    if old["made_by"] != new["made_by"]:
        lines.append(f"made by {one_line(old['made_by'], 80)}, not {new['made_by']}")
    for key in {**old["rules"], **new["rules"]}:
        existing, requested = old["rules"].get(key), new["rules"].get(key)
        if existing != requested:
            lines.append(f"{one_line(key, 80)}: {_difference(existing, requested)}")
    for number, (before, after) in enumerate(itertools.zip_longest(old["inputs"], new["inputs"]), 1):
        if before is None or after is None:
            lines.append(f"input {number}: {_difference(before and before['name'], after and after['name'])}")
        else:
            where = f"input {number} ({after['name']})"
            changed = [key for key in after if after[key] != before.get(key)]
            lines += [f"{where}: {key} {_difference(before.get(key), after[key])}" for key in changed]
    return lines


def _difference(existing: object, requested: object) -> str:
    old, new = ("none" if value is None else one_line(repr(value), 300) for value in (existing, requested))
    return f"existing {old}, requested {new}"
