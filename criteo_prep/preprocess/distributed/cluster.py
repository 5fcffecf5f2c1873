"""What is asked of a cluster: functions run on tasks, on any machine, perhaps twice; and records reach their partition.

An error that the user can do something about is a ValueError. It is a result like any other, because to run the task
again would not help. Any other error makes the cluster run the task again, a few times.
"""

import functools
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Record = tuple[int, tuple]  # (number of its partition, content)


class ClusterError(ValueError):
    """The cluster cannot run the work: it cannot be reached, or tasks fail again and again."""


class Cluster(Protocol):
    """Runs functions, which are defined in modules that every machine has.

    Attributes:
      parallelism: about how many tasks run at a time.
    """

    parallelism: int

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """function(task) for each task, in the order of the tasks."""

    def exchange(
        self,
        deal: Callable[[Task], Iterable[Record]],
        tasks: Sequence[Task],
        *,
        collect: Callable[[int, Iterator[tuple]], Result],
        num_partitions: int,
    ) -> list[Result]:
        """collect(number, contents of the records for this partition, in any order) for each partition, in order."""


@dataclass(frozen=True)
class UserError:
    """A task's ValueError, on its way to the driver."""

    error: ValueError


class Tasks:
    """A cluster whose machines all see one folder.

    Args:
      cluster: the cluster.
      probe: a file in the folder; a task on a machine that does not see the file is an error.
    """

    def __init__(self, cluster: Cluster, probe: Path):
        self._cluster, self._probe = cluster, probe

    @property
    def parallelism(self) -> int:
        return max(1, self._cluster.parallelism)

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """function(task) for each task, in order. Raises the ValueError of the first task that has one."""
        return _results(self._cluster.run(functools.partial(_guarded, function, self._probe), tasks) if tasks else [])

    def exchange(
        self,
        deal: Callable[[Task], Iterable[Record]],
        tasks: Sequence[Task],
        *,
        collect: Callable[[int, Iterator[tuple]], Result],
        num_partitions: int,
    ) -> list[Result]:
        """The result of each partition, see Cluster.exchange. Raises the ValueError of a task that has one."""
        results = self._cluster.exchange(
            functools.partial(_guarded_deal, deal, self._probe),
            tasks,
            collect=functools.partial(_guarded_collect, (collect, self._probe)),
            num_partitions=num_partitions,
        )
        return _results(results)


def _results(results: list) -> list:
    for result in results:
        if isinstance(result, UserError):
            raise result.error
    return results


def _check_shared(probe: Path) -> None:
    if not probe.exists():
        raise ClusterError(
            f"{probe.parent}: the machine {socket.gethostname()} does not see this folder. --output must be on a file "
            "system that all machines of the cluster share, under the same path."
        )


def _guarded(function: Callable, probe: Path, task: object) -> object:
    try:
        _check_shared(probe)
        return function(task)
    except ValueError as error:
        return UserError(error)


def _guarded_deal(deal: Callable, probe: Path, task: object) -> Iterator[Record]:
    try:
        _check_shared(probe)
        yield from deal(task)
    except ValueError as error:
        yield 0, (UserError(error),)


def _guarded_collect(collect_and_probe: tuple[Callable, Path], number: int, contents: Iterator[tuple]) -> object:
    collect, probe = collect_and_probe
    errors: list[UserError] = []

    def without_errors() -> Iterator[tuple]:
        for content in contents:
            if isinstance(content[0], UserError):
                errors.append(content[0])
            else:
                yield content

    try:
        _check_shared(probe)
        result = collect(number, without_errors())
    except ValueError as error:
        errors.append(UserError(error))
    except Exception:
        if not errors:  # else the records were not complete
            raise
    return errors[0] if errors else result
