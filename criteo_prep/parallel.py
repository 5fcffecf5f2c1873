"""Work on several threads, with results in the order of the items."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(make: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None) -> Iterator[Result]:
    """Yields make(item) for each item, in the order of the items.

    Args:
      make: called in a thread; it should spend its time outside the interpreter's lock.
      items: at most `workers` + 1 of them are in work or wait to be taken, so memory does not grow with them.
      workers: threads, at least 1; by default as many as this process may use cores.

    Raises:
      ValueError: workers is not positive. What `make` raises is raised where its result would have been yielded.
    """
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers {workers}: must be at least 1.")
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_parallel(function: Callable, arguments: list, workers: int) -> list:
    """[function(argument) for each], on several threads."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, arguments))
