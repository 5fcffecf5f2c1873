"""Work on several threads, with results in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from criteo_prep.machine import processors

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    make: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None = None, ahead: int = 1
) -> Iterator[Result]:
    """Yields make(item) for each item, in the order of the items.

    At most `workers` + `ahead` items are taken and not yet yielded, so memory does not grow with the number of items.
    An error of `make` or of `items` is raised at its place in the order, after the results of all earlier items.

    Args:
      make: called in a thread; it should spend its time outside the interpreter's lock.
      items: taken in the caller's thread, while earlier items are in work.
      workers: threads, at least 1; by default as many as this process can keep busy.

      ahead: items that may be finished or wait for a thread while the caller works on a result.

    Raises:
      ValueError: workers is less than 1.
    """
    workers = processors() if workers is None else workers
    if workers < 1:
        raise ValueError(f"--workers {workers}: must be at least 1.")
    items = iter(items)
    pending: deque[Future[Result]] = deque()
    error: Exception | None = None
    pool = ThreadPoolExecutor(workers)
    try:
        while True:
            try:
                pending.append(pool.submit(make, next(items)))
            except StopIteration:
                break
            except Exception as raised:
                error = raised
                break
            if len(pending) >= workers + ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if error is not None:
            raise error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
