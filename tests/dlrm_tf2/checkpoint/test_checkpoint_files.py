"""The .npy files of a checkpoint: which headers count."""

from zlib import crc32

import numpy as np
import pytest

from dlrm_tf2.checkpoint.files import CheckpointError, StoredFile, read_array, stream_rows, write_npy


def stored(folder, content):
    """A file with the bytes of a 3 x 2 array, as a manifest describes it."""
    (folder / "a.npy").write_bytes(content)
    return StoredFile("a.npy", (3, 2), dtype="<f4", num_bytes=len(content), crc32=f"{crc32(content):08x}")


def test_the_header_of_another_writer_counts_and_other_bytes_do_not(tmp_path):
    """numpy fills a header with blanks up to a line break; how many there are is the writer's choice."""
    array = np.arange(6, dtype="<f4").reshape(3, 2)
    own = write_npy(tmp_path, "own.npy", shape=(3, 2), dtype="<f4", blocks=[array])
    content = (tmp_path / "own.npy").read_bytes()
    size = own.num_bytes - array.nbytes
    text = content[10:size].rstrip()
    longer = content[:8] + (size + 54).to_bytes(2, "little") + text.ljust(size + 53) + b"\n"
    for header in (content[:size], longer):
        file = stored(tmp_path, header + array.tobytes())
        np.testing.assert_array_equal(read_array(tmp_path, file), array)
        ((first, rows),) = stream_rows(tmp_path, file, (1, 3))
        np.testing.assert_array_equal(rows, array[1:])
    for damaged in (content[:size] + bytes(8), content[: size - 1], b""):
        file = stored(tmp_path, damaged + array.tobytes())
        for read in (read_array, lambda *a: list(stream_rows(*a, None))):
            with pytest.raises(CheckpointError, match="The file is damaged"):
                read(tmp_path, file)
