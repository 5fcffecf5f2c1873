"""A parquet file that is open to be read; the errors of a damaged file name it."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

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


def integers_of(array) -> np.ndarray:
    """A pyarrow column of integers without nulls, as numpy has them; array.to_numpy would import an installed pandas.

    Raises:
      pyarrow.ArrowInvalid: the column has a null, or another type.
    """
    import pyarrow

    if not pyarrow.types.is_integer(array.type) or array.null_count:
        raise pyarrow.ArrowInvalid(f"a column of type {array.type} with {array.null_count} nulls; expected integers")
    dtype = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
