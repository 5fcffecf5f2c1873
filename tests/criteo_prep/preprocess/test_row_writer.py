"""The writer of parsed rows, on a disk that fails."""

import errno
import os

import pytest
from support.log_samples import random_rows

from criteo_prep.preprocess.journal import Journal
from criteo_prep.preprocess.parse.parse_files import _parsed_block
from criteo_prep.preprocess.parse.row_writer import RowWriter
from criteo_prep.preprocess.parse.tsv import parse


@pytest.mark.timeout(60)
def test_after_a_failed_write_every_flush_raises_its_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    block = _parsed_block(parse("".join(row + "\n" for row in random_rows(1, 20)).encode()))
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(os, "pwrite", full)
    with RowWriter(tmp_path, Journal(tmp_path / "work", {})) as writer:
        for _ in range(3):
            writer.write(block)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left") as raised:
                writer.flush()
            assert raised.value.filename == str(tmp_path / "work" / "label.bin")
