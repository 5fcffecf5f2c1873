"""A parquet file that is open to be read; the errors of a damaged file name it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from criteo_prep.preprocess.locations import Location, location_of, open_location

_BUFFER_BYTES = 1 << 20  # read buffer of each column


@contextlib.contextmanager
def open_parquet(path: str | Location, error: type[ValueError], *, dictionaries: Sequence[str] = ()) -> Iterator:
    """Opens a file as a pyarrow ParquetFile, which keeps no more in memory than is being read.

    Args:
      path: the file.
      error: the class of the error for a file that is not parquet, or is damaged.
      dictionaries: columns to read as dictionary arrays.

    Raises:
      error: the file is not parquet, or is damaged.
      OSError: the file cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    location = location_of(path)
    try:
        with (
            (
                contextlib.nullcontext(location)
                if isinstance(location, Path)
                else open_location(location, in_order=False)
            ) as source,
            pyarrow.parquet.ParquetFile(
                source,
                pre_buffer=False,  # else everything that was read stays in memory until the file is closed
                buffer_size=_BUFFER_BYTES,
                read_dictionary=list(dictionaries) or None,
                page_checksum_verification=True,
            ) as file,
        ):
            yield file
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as raised:
        if isinstance(raised, OSError) and raised.errno is not None:  # of the disk, and not of the file's content
            raise
        reason = (str(raised).strip() or type(raised).__name__).splitlines()[0]
        raise error(f"{path}: is not a whole parquet file: {reason}. Fetch or make the file again.") from None
