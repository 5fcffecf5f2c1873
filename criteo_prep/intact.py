"""Files that are read to be written again, checked against their checksums meanwhile.

Without this check, damage in a file would get a fresh checksum in the new dataset, and nobody could find it any more.
"""

import contextlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import DamagedError
from criteo_prep.plain_file import open_plain

_READ_BYTES = 4 << 20
_WORKERS = 2  # threads that check files while others read them


class Check:
    """Takes all bytes of a file in order, and compares them with the file's entry in the manifest.

    Args:
      path: the file, for the message.
      entry: what the manifest (or the metadata of a feature spec) says of the file.
    """

    def __init__(self, path: Path, entry: dict):
        self._path, self._entry = path, entry
        self._blocks = manifest.BlockChecksums(entry["block_bytes"]) if "xxh3_64" in entry else None
        self._bytes = self._crc32 = 0

    def update(self, data) -> None:
        """Takes the next bytes."""
        if self._blocks:
            self._blocks.update(data)
        else:
            self._crc32 = zlib.crc32(data, self._crc32)
            self._bytes += len(data)

    def finish(self) -> None:
        """Raises DamagedError where the bytes differ."""
        found = self._blocks.entry if self._blocks else {"bytes": self._bytes, "crc32": f"{self._crc32:08x}"}
        if any(found.get(key) != value for key, value in self._entry.items()):
            raise DamagedError(
                f"{self._path}: is damaged: its bytes do not fit its checksum in the manifest or the feature spec. "
                "Restore the file, or make its dataset again. (If you changed it on purpose, delete the checksum.)"
            )


def check_file(path: Path, entry: dict, *, stands_for: Path | None = None) -> None:
    """Reads a file, and raises DamagedError where it differs from its entry.

    Args:
      path: the file to read.
      entry: the entry of the file in a manifest.
      stands_for: the file to name in the message, where `path` is a copy of it.
    """
    check = Check(stands_for or path, entry)
    with open_plain(path, buffering=0) as file:
        while data := file.read(_READ_BYTES):
            check.update(data)
    check.finish()


@contextlib.contextmanager
def checking(entries: dict[Path, dict]) -> Iterator[None]:
    """Checks files in threads of its own, while the body reads them too. Raises DamagedError at a clean exit."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        checks = [pool.submit(check_file, path, entry) for path, entry in entries.items()]
        try:
            yield
            for check in checks:
                check.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def entries_of(spec: FeatureSpec) -> dict[Path, dict]:
    """File -> its entry with a checksum, from the manifest of a dataset, or else from the metadata of its spec."""
    try:
        files = manifest.load_manifest(spec.root)["files"]
    except DamagedError:
        raise
    except manifest.ManifestError:  # published datasets have none, or a file of that name of another kind
        files = spec.metadata.get("files") if isinstance(spec.metadata, dict) else None
    entries = files if isinstance(files, dict) else {}
    return {
        spec.root / name: entry
        for name, entry in entries.items()
        if isinstance(entry, dict) and ("xxh3_64" in entry or "crc32" in entry)
    }
