import pytest

from criteo_prep.pages.numbers import count_text, decimal_text, number_text, share_text, thinned, usual_top


@pytest.mark.parametrize("value, text", [(1234567.8, "1,234,568"), (0.4512345, "0.45123"), (1234.56, "1,234.6")])
def test_numbers_for_people(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize("share, text", [
    (None, "–"), (0, "0 %"), (1, "100 %"), (0.12345, "12.3 %"), (0.00456, "0.456 %"), (4.5e-5, "0.00450 %"),
    (1e-9, "< 0.001 %"),
])  # fmt: skip
def test_shares_for_people(share, text):
    assert share_text(share) == text


def test_what_is_not_known():
    assert (count_text(None), decimal_text(None)) == ("–", "–")
    assert (count_text(12345), decimal_text(0.12345)) == ("12,345", "0.123")


def test_thinning_keeps_the_ends_and_the_peaks():
    points = [(x, 1.0) for x in range(10000)]
    points[4321], points[7654] = (4321, 9.0), (7654, -9.0)
    kept = thinned(points, 100)
    assert len(kept) <= 101 and kept[0] == points[0] and kept[-1] == points[-1]
    assert {points[4321], points[7654]} <= set(kept) and kept == sorted(kept)
    assert thinned(points[:100], 100) == points[:100]


def test_the_top_of_the_usual_values():
    assert usual_top([2.0] * 50 + [900.0]) == 3.0
    assert usual_top([2.0, 3.0, 7.9]) == 7.9
