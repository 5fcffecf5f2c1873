"""Results on several threads, in the order of the items."""

import threading

import pytest

from criteo_prep.parallel import in_order


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_have_the_order_of_the_items_though_the_first_is_the_slowest(workers):
    later = threading.Event()

    def make(item):
        if item == 0 and workers > 1:
            assert later.wait(60)
        elif item == 1:
            later.set()
        return item * item

    assert list(in_order(make, range(20), workers=workers)) == [item * item for item in range(20)]


def test_few_items_are_taken_ahead():
    taken = []
    results = in_order(lambda item: item, (taken.append(item) or item for item in range(100)), workers=3)
    for number, _ in enumerate(results, 1):
        assert len(taken) <= number + 3


def items_that_end_in_an_error():
    yield from range(3)
    raise OSError("the disk")


def fail_at_3(item):
    if item == 3:
        raise OSError("the disk")
    return item


@pytest.mark.parametrize("make, items", [(lambda item: item, items_that_end_in_an_error()), (fail_at_3, range(9))])
def test_an_error_comes_after_the_earlier_results(make, items):
    results = []
    with pytest.raises(OSError, match="the disk"):
        for result in in_order(make, items, workers=4):
            results.append(result)
    assert results == [0, 1, 2]


def test_no_thread_is_left_when_the_caller_stops():
    before = threading.active_count()
    results = in_order(lambda item: item, range(100), workers=3)
    assert next(results) == 0 and threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_workers_below_one():
    with pytest.raises(ValueError, match="--workers 0: must be at least 1"):
        list(in_order(abs, [1], workers=0))
