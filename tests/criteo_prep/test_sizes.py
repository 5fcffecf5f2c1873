import pytest

from criteo_prep.sizes import shown_bytes


@pytest.mark.parametrize("size, text", [
    (0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (4_560_000, "4.56 MB"), (2_570_000_000, "2.57 GB"),
    (1_100_000_000_000, "1.10 TB"),
])  # fmt: skip
def test_a_size_never_reads_as_nothing(size, text):
    assert shown_bytes(size) == text
