"""The only place where tasks open or measure an input."""

from pathlib import Path
from typing import BinaryIO


def open_input(path: Path) -> BinaryIO:
    """An input for reading, with readinto, seek and tell."""
    return open(path, "rb", buffering=0)


def size_of_input(path: Path) -> int:
    """Stored bytes of an input."""
    return path.stat().st_size
