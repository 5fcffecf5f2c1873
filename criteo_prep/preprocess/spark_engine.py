"""Spark as the cluster that makes a dataset. The only module that imports pyspark.

Spark schedules tasks, runs them again elsewhere after a fault, and brings records to their partitions. What a task does
stands in the folder `distributed`. A task may run twice, also at the same time: its bytes are the same.
"""

import contextlib
import logging
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

from criteo_prep.messages import one_line
from criteo_prep.preprocess.distributed.cluster import ClusterError, Record, Result, Task

_SETTINGS = {
    "spark.app.name": "criteo-prep preprocess",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_LOCAL_SETTINGS = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
_INSTALL_PYSPARK = "pyspark is not installed, which --engine spark needs. Run: pip install 'criteo-dlrm[spark]'"
_INSTALL_JAVA = (
    "Spark cannot be started. It needs Java 17 or later; Debian, Ubuntu: apt-get install openjdk-17-jre-headless. If "
    "Java is installed elsewhere, set JAVA_HOME"
)
_FAULT = "criteo-prep task: "  # marks the message of a task's error in the text of Java's stack trace
_LARGEST_MESSAGE = 400


@contextlib.contextmanager
def spark_cluster(
    master: str | None = None, settings: dict[str, str] | None = None, log: str | None = None
) -> Iterator["SparkCluster"]:
    """Starts a Spark application. Its exit ends the application.

    Args:
      master: URL of the master; None for the master that spark-submit has set, and else all processors of this machine.
      settings: settings of Spark, by their full names.
      log: file to which Spark's own log is appended; None to see nothing of it.

    Raises:
      ClusterError: pyspark or Java is missing, or the master cannot be reached.
    """
    try:
        import pyspark
        from pyspark.errors import PySparkException
        from pyspark.java_gateway import launch_gateway
    except ImportError:
        raise ClusterError(f"{_INSTALL_PYSPARK}.") from None
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")  # it is not used here
    given = {**_SETTINGS, **({"spark.master": master} if master else {}), **(settings or {})}
    with _without_tracebacks(), open(log, "ab+") if log else tempfile.TemporaryFile() as output:
        start = output.seek(0, 2)
        gateway = context = None
        try:
            first = pyspark.SparkConf(loadDefaults=False)
            first.setAll(given.items())
            try:
                gateway = launch_gateway(first, {"stdout": output, "stderr": output})
                context = _context(pyspark, gateway, given)
            except PySparkException:
                raise ClusterError(f"{_INSTALL_JAVA}. {_last_line(output, start)}".rstrip()) from None
            except Exception as error:
                if not _is_java_error(error):
                    raise
                raise ClusterError(f"Spark cannot be started: {_reason(error)}") from None
            yield SparkCluster(context)
        finally:
            _stop(context, gateway)


class SparkCluster:
    """A running Spark application as a Cluster; see distributed/cluster.py.

    Args:
      context: the application's SparkContext.
    """

    def __init__(self, context):
        self._context = context

    @property
    def parallelism(self) -> int:
        return self._context.defaultParallelism

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        work = self._context.parallelize(list(tasks), len(tasks))
        return self._collect(work.mapPartitions(_Mapped(function)))

    def exchange(
        self,
        deal: Callable[[Task], Iterable[Record]],
        tasks: Sequence[Task],
        *,
        collect: Callable[[int, Iterator[tuple]], Result],
        num_partitions: int,
    ) -> list[Result]:
        work = self._context.parallelize(list(tasks), max(1, len(tasks)))
        records = work.mapPartitions(_Dealt(deal)).partitionBy(num_partitions, int)
        return self._collect(records.mapPartitionsWithIndex(_Collected(collect)))

    def _collect(self, work) -> list:
        try:
            return work.collect()
        except Exception as error:
            if not _is_java_error(error):
                raise
            raise ClusterError(_reason(error)) from None


class _Mapped:
    """function(task) for each task of a partition."""

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, tasks: Iterator) -> Iterator:
        for task in tasks:
            with _named_faults():
                result = self._function(task)
            yield result


class _Dealt:
    """The records that the tasks of a partition deal."""

    def __init__(self, deal: Callable):
        self._deal = deal

    def __call__(self, tasks: Iterator) -> Iterator[Record]:
        for task in tasks:
            with _named_faults():
                yield from self._deal(task)


class _Collected:
    """The one result of a partition's records."""

    def __init__(self, collect: Callable):
        self._collect = collect

    def __call__(self, number: int, records: Iterator[Record]) -> Iterator:
        with _named_faults():
            result = self._collect(number, (content for _, content in records))
        yield result


@contextlib.contextmanager
def _named_faults() -> Iterator[None]:
    """Marks the message of an error, so that the driver finds the message in Java's stack trace."""
    try:
        yield
    except Exception as error:
        message = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise RuntimeError(f"{_FAULT}{one_line(message, _LARGEST_MESSAGE)}") from error


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Hides what py4j logs after Ctrl-C: tracebacks of the interrupted call. The exception itself is raised."""
    is_other = lambda record: "py4j" not in record.pathname  # noqa: E731
    root, py4j = logging.getLogger(), logging.getLogger("py4j")
    propagated = py4j.propagate
    root.addFilter(is_other)
    py4j.propagate = False
    try:
        yield
    finally:
        root.removeFilter(is_other)
        py4j.propagate = propagated


@contextlib.contextmanager
def _own_ctrl_c() -> Iterator[None]:
    """Takes back the handling of Ctrl-C, which a SparkContext changes so that another call to Java comes first."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _context(pyspark, gateway, given: dict[str, str]):
    """The SparkContext of a new application."""
    conf = pyspark.SparkConf(_jvm=gateway.jvm)
    conf.setAll(given.items())
    conf.setIfMissing("spark.master", "local[*]")
    if conf.get("spark.master").startswith("local"):
        for name, value in _LOCAL_SETTINGS.items():
            conf.setIfMissing(name, value)
    with _own_ctrl_c():
        context = pyspark.SparkContext(conf=conf, gateway=gateway)
    named = conf.get("spark.pyspark.python", None)  # the Python of the tasks: this one, unless the user names another
    if named or context.pythonExec == "python3":
        context.pythonExec = named or sys.executable
    return context


def _stop(context, gateway) -> None:
    """Ends the application, also after Ctrl-C in the middle of a call to Java."""
    import pyspark

    with contextlib.suppress(Exception):
        if context is not None:
            context.stop()
    with contextlib.suppress(Exception):
        if gateway is not None:
            gateway.shutdown()
            gateway.proc.stdin.close()  # Java ends with its standard input
            gateway.proc.wait(30)
    pyspark.SparkContext._gateway = pyspark.SparkContext._jvm = None  # so that this process may start another one


def _is_java_error(error: Exception) -> bool:
    return type(error).__module__.startswith(("py4j", "pyspark"))


def _reason(error: Exception) -> str:
    """Why a job failed, in one line."""
    text = str(error)
    if faults := re.findall(rf"{_FAULT}(.*)", text):
        return faults[-1].strip()
    if "stopped SparkContext" in text or "SparkContext was shut down" in text:
        return (
            "Spark has ended the application: the master cannot be reached, or it stopped the application. Spark's own "
            "log says why: --spark_log FILE"
        )
    lines = [line.strip().removeprefix(": ") for line in text.splitlines() if line.strip()]
    python = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line) and "py4j" not in line]
    lines = [line for line in lines if not line.startswith("An error occurred while calling")] or lines
    reason = next((line for line in lines if "Job aborted" in line), lines[0])
    return one_line(python[-1] if python and "Traceback" in text else reason, _LARGEST_MESSAGE)


def _last_line(output: BinaryIO, start: int) -> str:
    """The last line that Spark has printed."""
    output.seek(start)
    lines = output.read().decode(errors="replace").strip().splitlines()
    return one_line(lines[-1], _LARGEST_MESSAGE) if lines else ""
