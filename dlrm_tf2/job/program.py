"""What every program does around its work: it connects the ranks, reports errors, and returns an exit status."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from dlrm_tf2.runtime import process, terminal
from dlrm_tf2.runtime.elastic import NOT_ELASTIC, Link, NotElastic, PeerLost
from dlrm_tf2.runtime.stopping import Stopped

if TYPE_CHECKING:  # programs without ranks need neither numpy nor TensorFlow
    from dlrm_tf2.runtime.comm import Comm

Prepared = TypeVar("Prepared")
_INTERRUPTED = 128 + signal.SIGINT
_OF_EXCHANGES = ("Horovod has been shut down", "gloo/transport", "MPI_")  # in errors that another rank has caused
_LAST_WORD_S = 1  # a launcher kills the job at the first exit, so the other ranks leave rank 0 the time to print
_RANK_0_HAS_NONE_S = 4  # if the launcher has not ended the job after so long, rank 0 does not have this error


class RankSettings(Protocol):
    """What `connected_ranks` reads of a program's configuration; the names are TrainConfig's, which explains them."""

    @property
    def cpu(self) -> bool: ...
    @property
    def amp(self) -> bool: ...
    @property
    def amp_dtype(self) -> str | None: ...
    @property
    def intra_op_parallelism(self) -> int | None: ...
    @property
    def inter_op_parallelism(self) -> int | None: ...
    @property
    def stall_timeout_s(self) -> float: ...


def run_alone(name: str, work: Callable[[], None]) -> int:
    """Runs a program that has no ranks; returns its exit status: 0, 1 for an error, 130 for Ctrl-C.

    Args:
      name: name of the program, in front of its messages.
      work: does everything, the arguments included.
    """
    try:
        work()
    except (ValueError, OSError) as error:
        terminal.warn(f"{name}: {error_line(error)}")
        return 1
    except KeyboardInterrupt:
        terminal.warn(f"{name}: stopped; nothing was written")
        return _INTERRUPTED
    return 0


def run_program(name: str, prepare: Callable[[], Prepared], run: Callable[[Prepared, process.Launch], None]) -> int:
    """Runs a program on this rank; returns its exit status: 0, 1 for an error, 128 + number of a signal.

    Args:
      name: name of the program, in front of its messages.
      prepare: reads and checks the arguments. Where it fails on every rank alike, rank 0 alone reports the error.
      run: does the work with what `prepare` returned. Each rank reports its own error.
    """
    terminal.open_standard_streams()
    launch = process.Launch()
    try:
        launch = process.Launch.detect()
        prepared = prepare()
    except (ValueError, OSError) as error:
        if launch.rank:
            time.sleep(_RANK_0_HAS_NONE_S)
        rank = f" {launch.rank_name}:" if launch.rank else ""
        terminal.warn(f"{name}:{rank} {error_line(error)}")
        return 1
    try:
        run(prepared, launch)
    except (ValueError, OSError, RuntimeError) as error:
        rank = f" {launch.rank_name}:" if launch.world_size > 1 else ""
        terminal.warn(f"{name}:{rank} {error_line(error)}")
        return 1
    except Stopped as stopped:
        _print_on_rank_0(f"{name}: {stopped}", launch)
        return stopped.status
    except KeyboardInterrupt:
        terminal.warn(f"{name}: stopped")
        return _INTERRUPTED
    return 0


def error_line(error: Exception) -> str:
    """The message of an error; of an error of the system, the file and the reason."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


@contextlib.contextmanager
def connected_ranks(
    launch: process.Launch, config: RankSettings, link: NotElastic = NOT_ELASTIC
) -> Iterator[tuple[process.Runtime, "Comm"]]:
    """Sets up this process and connects it to the other ranks. Inside the context, a watchdog ends a job that hangs.

    Args:
      launch: how the process was started.
      config: the program's configuration.
      link: the link of this rank to the supervisor of an elastic job.

    Raises:
      DifferentRanks: a rank runs another version of the program, of TensorFlow, Horovod or Python.
      PeerLost: another rank ended the job.
      RuntimeError: TensorFlow ended the job. The message has the reason without TensorFlow's trace.
    """
    runtime = process.set_up_process(
        launch,
        config.cpu,
        amp=config.amp,
        amp_dtype=config.amp_dtype,
        threads=process.Threads(config.intra_op_parallelism, config.inter_op_parallelism),
        stall_timeout_s=config.stall_timeout_s,
    )
    # TensorFlow must not be imported before the process is set up.
    import tensorflow as tf

    from dlrm_tf2.job import same_on_ranks
    from dlrm_tf2.runtime.comm import connect
    from dlrm_tf2.runtime.watchdog import Watchdog, joining

    end = link.end_process if isinstance(link, Link) else None
    with joining(launch.rank, config.stall_timeout_s, end=end, gloo_timeout_s=process.gloo_timeout_s()):
        comm = connect(launch.world_size, timed=runtime.device == "cpu")
        same_on_ranks.check_program(comm)
        watchdog = Watchdog(comm, config.stall_timeout_s, end=end)
    with watchdog:
        try:
            yield runtime, comm
        except tf.errors.OpError as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from the launcher, until the reason is printed
            who_left = watchdog.who_left()
            kind = PeerLost if who_left or any(word in error.message for word in _OF_EXCHANGES) else RuntimeError
            raise kind(reason_of(error.message, who_left)) from error


def reason_of(message: str, who_left: str) -> str:
    """The reason that a TensorFlow error gives, without the trace of the graph around it.

    Args:
      message: message of the error.
      who_left: the rank that ended the job, "" where none is known.
    """
    if "Horovod has been shut down" in message or who_left:
        return f"the job was ended by another rank: {who_left or 'its message says why'}"
    lines = [line.strip() for line in message.splitlines() if line.strip() and "Graph execution error" not in line]
    without_trace = [
        line for line in lines if not line.startswith(("File ", "Detected at node", "[[", "^", "Hint:", "[Op:"))
    ]
    reason = (without_trace or lines or ["no reason given"])[-1]
    if reason.startswith("assertion failed: ["):  # and the parts of its message
        reason = reason.removeprefix("assertion failed: [").removesuffix("]").replace("] [", " ").replace("\\'", "'")
    return f"TensorFlow stopped: {reason}"


def _print_on_rank_0(line: str, launch: process.Launch) -> None:
    if launch.rank == 0:
        terminal.warn(line)
    else:
        time.sleep(_LAST_WORD_S)
