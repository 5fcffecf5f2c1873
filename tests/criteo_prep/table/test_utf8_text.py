"""Text that is checked while it is read: the same bytes in any pieces, and the line of the first wrong byte."""

import io
import random

import pytest

from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.table.utf8_text import Utf8File


def read(data, piece):
    file, parts = Utf8File(io.BytesIO(data), "log.csv"), []
    while part := file.read(piece):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 7, 1000])
def test_text_in_pieces_of_any_size(piece):
    text = "a\nä€\n\U0001f600b\u07ff\uffff\n".encode() * 5
    assert read(text, piece) == text


def test_wrong_bytes_are_found_as_python_finds_them():
    source = random.Random(0)
    text = ("a\nä€\n\U0001f600b" * 4).encode()
    num_wrong = 0
    for _ in range(500):
        data = bytearray(text)
        for _ in range(source.randrange(3)):
            data[source.randrange(len(data))] = source.randrange(256)
        data = bytes(data[: source.randrange(len(data))])
        piece = source.choice([1, 2, 3, 5, 100])
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            num_wrong += 1
            line = data.count(b"\n", 0, error.start) + 1
            with pytest.raises(BadRowError, match=f"log.csv: line {line}: is not text in UTF-8 "):
                read(data, piece)
        else:
            assert read(data, piece) == data
    assert 100 < num_wrong < 500
