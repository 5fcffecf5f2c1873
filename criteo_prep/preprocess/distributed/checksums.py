"""The checksums of files, by tasks: a task reads some blocks of a large file, or many small files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.manifest import BLOCK_BYTES, BlockChecksums
from criteo_prep.preprocess.distributed.cluster import Tasks

_BLOCKS = 8  # in a task
_READ_BYTES = 4 << 20


@dataclass(frozen=True)
class FileBlocks:
    """Some bytes of a file, which begin with a block."""

    path: Path
    start: int
    stop: int


def file_entries(tasks: Tasks, root: Path, names: Sequence[str]) -> dict[str, dict]:
    """The manifest's entry for each file, the same as manifest.block_entry gives.

    Args:
      tasks: runs tasks.
      root: the folder of the dataset.
      names: paths of the files, relative to the folder.
    """
    sizes = {name: (root / name).stat().st_size for name in names}
    step = _BLOCKS * BLOCK_BYTES
    work: list[list[FileBlocks]] = []
    room = 0
    for name, size in sizes.items():
        for start in range(0, size, step):
            stop = min(start + step, size)
            if stop - start > room:
                work.append([])
                room = step
            work[-1].append(FileBlocks(root / name, start, stop))
            room -= stop - start
    checksums: dict[Path, list[str]] = {root / name: [] for name in names}
    for blocks, results in zip(work, tasks.run(checksums_of, work), strict=True):
        for part, result in zip(blocks, results, strict=True):
            checksums[part.path] += result
    return {
        name: {"bytes": sizes[name], "block_bytes": BLOCK_BYTES, "xxh3_64": checksums[root / name]} for name in names
    }


def checksums_of(parts: Sequence[FileBlocks]) -> list[list[str]]:
    """The checksums of the blocks of each part of a file."""
    return [block_checksums(part) for part in parts]


def block_checksums(blocks: FileBlocks) -> list[str]:
    """The checksum of each block."""
    checksums = BlockChecksums()
    with open(blocks.path, "rb", buffering=0) as file:
        file.seek(blocks.start)
        while checksums.bytes < blocks.stop - blocks.start:
            data = file.read(min(_READ_BYTES, blocks.stop - blocks.start - checksums.bytes))
            if not data:
                raise OSError(f"{blocks.path}: is shorter than it was written")
            checksums.update(data)
    return checksums.entry["xxh3_64"]
