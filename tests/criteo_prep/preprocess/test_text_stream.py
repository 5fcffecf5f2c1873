"""Compressed files: whole, cut, damaged, followed by other bytes, and made to fill the memory; other formats."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import tracemalloc
import zipfile

import pytest
import zstandard
from support.log_samples import check_split, make, plain_count, random_rows, write_rows

from criteo_prep.manifest import load_manifest
from criteo_prep.preprocess.parse.text_blocks import text_blocks
from criteo_prep.preprocess.parse.text_stream import InputError, TruncatedError


def zstd_in_blocks(data):
    """One frame with a block for every 500 bytes, which can be read without the blocks behind it."""
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    packed = b""
    for start in range(0, len(data), 500):
        packed += packer.compress(data[start : start + 500]) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    return packed + packer.flush()


PACK = {"gz": gzip.compress, "zst": zstd_in_blocks}


def lines_of(path, block_bytes=1 << 16):
    """(the text that was yielded, the error that ended it or None)."""
    text = b""
    try:
        for block, _ in text_blocks(path, block_bytes):
            text += bytes(block)
    except InputError as error:
        return text, error
    return text, None


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 16])
def test_a_cut_file_yields_its_whole_lines_and_is_named(tmp_path, ending, block_bytes):
    text = b"".join(b"%d\n" % random.Random(7).randrange(10**9 + number) for number in range(300))
    packed, path = PACK[ending](text), tmp_path / f"day_0.{ending}"
    for size in [4, 20, len(packed) // 2, len(packed) - 1]:
        path.write_bytes(packed[:size])
        found, error = lines_of(path, block_bytes)
        assert text.startswith(found) and (not found or found.endswith(b"\n"))
        assert isinstance(error, TruncatedError) and f"day_0.{ending}: the" in str(error)
        assert "stream ends early; the file is truncated" in str(error) and "--on_truncated keep" in str(error)
        assert error.lost_bytes < 11
    assert found == text  # the last cut takes a part of the checksum alone


def test_corrupt_gzip(tmp_path):
    packed = bytearray(gzip.compress(random.Random(1).randbytes(5000)))
    packed[-6] ^= 1  # in the checksum
    (tmp_path / "day_0.gz").write_bytes(packed)
    with pytest.raises(InputError, match=r"day_0\.gz: the gzip stream is corrupt"):
        list(text_blocks(tmp_path / "day_0.gz"))


def test_corrupt_zstd(tmp_path):
    (tmp_path / "day_0.zst").write_bytes(zstandard.compress(b"x")[:5] + b"\xff" * 20)
    with pytest.raises(InputError, match=r"day_0\.zst: the zstd stream is corrupt"):
        list(text_blocks(tmp_path / "day_0.zst"))


@pytest.mark.parametrize("ending", PACK)
def test_several_streams_in_one_file(tmp_path, ending):
    parts = [b"one\n", b"", b"two\nthr", b"ee\n"]
    (tmp_path / "day_0").write_bytes(b"".join(map(PACK[ending], parts)))
    assert lines_of(tmp_path / "day_0") == (b"one\ntwo\nthree\n", None)


def test_padding_and_frames_without_text_are_left_out(tmp_path):
    (tmp_path / "padded.gz").write_bytes(gzip.compress(b"one\n") + bytes(300_000))
    assert lines_of(tmp_path / "padded.gz") == (b"one\n", None)
    extra = b"\x52\x2a\x4d\x18\x03\x00\x00\x00abc"
    (tmp_path / "frames.zst").write_bytes(zstandard.compress(b"one\n") + extra + zstandard.compress(b"two\n"))
    assert lines_of(tmp_path / "frames.zst") == (b"one\ntwo\n", None)


@pytest.mark.parametrize("ending", PACK)
def test_other_bytes_behind_the_stream_are_not_called_a_truncation(tmp_path, ending):
    packed, path = PACK[ending](b"one\n"), tmp_path / f"day_0.{ending}"
    path.write_bytes(packed + b"<html>")
    text, error = lines_of(path)
    assert not isinstance(error, TruncatedError)
    assert "the last 6 bytes, behind the" in str(error) and "they begin with b'<html>'" in str(error)
    assert f"head -c {len(packed)} {path}" in str(error)
    path.write_bytes(path.read_bytes()[: len(packed)])
    assert lines_of(path) == (b"one\n", None)


def tar_of(data, mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        entry = tarfile.TarInfo("train.txt")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def zip_of(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train.txt", data)
    return file.getvalue()


@pytest.mark.parametrize("pack, message", [
    (tar_of, r"is a tar archive; .*tar -xf"), (lambda data: tar_of(data, "w:gz"), r"is a tar archive"),
    (lambda data: zstandard.compress(tar_of(data)), r"is a tar archive"), (zip_of, r"is a zip archive; .*unzip"),
    (bz2.compress, r"is a bzip2 file; .*bunzip2 -k"), (lzma.compress, r"is an xz file; .*xz -dk"),
    (lambda data: b"ORC" + data, r"is an ORC file; .*parquet"),
])  # fmt: skip
def test_archives_and_other_formats_are_named(tmp_path, pack, message):
    """Not as bad rows, whose advice, --on_bad_row skip, would lose rows."""
    data = "".join(row + "\n" for row in random_rows(0, 3)).encode()
    (tmp_path / "train.txt").write_bytes(pack(data))
    with pytest.raises(InputError, match=rf"train\.txt: {message}"):
        make(tmp_path / "train.txt", tmp_path / "set", on_bad_row="skip")
    assert not (tmp_path / "set").exists()


def test_a_name_that_promises_gzip(tmp_path):
    write_rows(tmp_path / "day_0", random_rows(0, 1)).rename(tmp_path / "day_0.gz")
    with pytest.raises(InputError, match=r"day_0\.gz: is named \.gz but is not a gzip file"):
        list(text_blocks(tmp_path / "day_0.gz"))


@pytest.mark.parametrize("ending", PACK)
def test_a_small_file_of_many_zeros_does_not_fill_the_memory(tmp_path, ending):
    zeros, path = bytes(1 << 22), tmp_path / f"day_0.{ending}"
    packer = zstandard.ZstdCompressor().compressobj() if ending == "zst" else gzip.zlib.compressobj(wbits=31)
    path.write_bytes(b"".join([*(packer.compress(zeros) for _ in range(40)), packer.flush()]))  # of 160 MiB
    tracemalloc.start()
    try:
        (block,) = [len(block) for block, _ in text_blocks(path, num_buffers=2)]
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert block == (64 << 10) + 2


@pytest.mark.parametrize("ending", PACK)
def test_the_whole_rows_of_a_cut_file_can_be_kept(tmp_path, ending):
    rows = random_rows(3, 400)
    path = tmp_path / f"train.{ending}"
    path.write_bytes(PACK[ending]("".join(row + "\n" for row in rows).encode())[:-900])
    kept, error = lines_of(path)
    num_kept = kept.count(b"\n")
    assert 200 < num_kept < 400 and error.lost_bytes
    with pytest.raises(TruncatedError):
        make(path, tmp_path / "set", block_bytes=2000)
    outcome = make(path, tmp_path / "set", block_bytes=2000, on_truncated="keep")  # resumes
    ids_of = plain_count(rows[:num_kept], 3)
    check_split(tmp_path / "set", "train", rows[: num_kept - num_kept // 10], ids_of)
    check_split(tmp_path / "set", "test", rows[num_kept - num_kept // 10 : num_kept], ids_of)
    (entry,) = load_manifest(tmp_path / "set")["inputs"]
    assert (entry["rows"], entry["skipped"]) == (num_kept, {"truncated": 1})
    assert load_manifest(tmp_path / "set")["rules"]["on_truncated"] == "keep"
    assert (
        f"the file ends early, after line {num_kept}; {error.lost_bytes} bytes of the next row" in outcome.warnings[0]
    )
    write_rows(tmp_path / "whole.tsv", rows[:num_kept])
    make(tmp_path / "whole.tsv", tmp_path / "whole")
    binaries = [file.relative_to(tmp_path / "set") for file in (tmp_path / "set").rglob("*.bin")]
    assert all((tmp_path / "set" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes() for file in binaries)
