"""The files of a dataset against their sizes and checksums, and vocabularies against their features, for `verify`."""

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from criteo_prep import manifest
from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.manifest_document import problem_of_entry
from criteo_prep.plain_file import check_plain
from criteo_prep.verify_content import READ_BYTES
from criteo_prep.verify_report import Job


def checksum_jobs(root: Path, files: dict[str, dict]) -> Iterator[Job]:
    """The jobs that check each file.

    Args:
      root: the dataset folder.
      files: path -> entry, as in a manifest. Entries from a feature spec may have wrong types, which is a problem too.
    """
    for name, entry in files.items():
        if (problem := problem_of_entry(name, entry) or _size_problem(root / name, entry["bytes"])) is not None:
            yield Job(str(name), "size", bytes=0, run=partial(str, problem))
        elif "xxh3_64" in entry:
            yield from _block_jobs(root / name, name, entry)
        else:
            run = partial(_crc32_problem, root / name, entry["crc32"])
            yield Job(name, "checksum", bytes=entry["bytes"], run=run)


def vocabulary_jobs(root: Path, spec: FeatureSpec, files: dict[str, dict]) -> Iterator[Job]:
    """The jobs that check the vocabularies, which only datasets of preprocess have."""
    for feature in spec.categorical:
        name = f"vocabularies/{feature.name}.parquet"
        if name in files and (root / name).is_file():
            yield Job(name, "vocabulary", bytes=0, run=partial(_vocabulary_problem, root / name, feature))


def _size_problem(path: Path, size: int) -> str | None:
    try:
        check_plain(path)
        found = path.stat().st_size if path.is_file() else None
    except OSError as error:  # a name that is too long, say
        return str(error)
    if found is None:
        return "there is no such file"
    return None if found == size else f"has {found} bytes, not {size}"


def _block_jobs(path: Path, name: str, entry: dict) -> Iterator[Job]:
    for number, expected in enumerate(entry["xxh3_64"]):
        start = number * entry["block_bytes"]
        count = min(entry["block_bytes"], entry["bytes"] - start)
        run = partial(_block_problem, path, start, count=count, expected=expected)
        yield Job(name, "checksum", bytes=count, run=run)


def _block_problem(path: Path, start: int, *, count: int, expected: str) -> str | None:
    checksums = manifest.BlockChecksums(count)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while checksums.bytes < count and (data := file.read(min(READ_BYTES, count - checksums.bytes))):
            checksums.update(data)
    if checksums.entry["xxh3_64"] != [expected]:
        return f"bytes {start} to {start + count - 1} do not fit their checksum"
    return None


def _crc32_problem(path: Path, expected: str) -> str | None:
    crc32 = 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(READ_BYTES):
            crc32 = zlib.crc32(data, crc32)
    return None if f"{crc32:08x}" == expected else f"its crc32 is {crc32:08x}, not {expected}"


def _vocabulary_problem(path: Path, feature: Feature) -> str | None:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            ids = (batch.column(0).to_numpy() for batch in file.iter_batches(READ_BYTES // 8, columns=["id"]))
            largest = max((int(part.max(initial=0)) for part in ids), default=0)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError) as error:
        return f"is not a vocabulary: {error}"
    if largest + 1 != feature.cardinality:
        return f"has ids up to {largest}, but {feature.name} has cardinality {feature.cardinality}"
    return None
