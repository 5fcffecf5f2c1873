"""Dumps the dynamic tables of a DistributedEmbedding, or what has changed in them, at once or behind the training."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from dlrm_tf2.dump.arguments import DumpError
from dlrm_tf2.dump.changes import set_folder, write_changes
from dlrm_tf2.dump.copying import DumpMoment, TablesSource, copy_changes
from dlrm_tf2.dump.pending import PendingDump
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.runtime.comm import Comm

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def dump_tables(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    step: int,
    optimizer_state: bool = True,
    time: int | None = None,
) -> None:
    """Dumps all dynamic tables into a folder, which appears when it is complete. All ranks call it, between two steps.

    Args:
      folder: on a file system that all ranks share; absent, empty, or a dump of the same step, which is replaced.
      step: the last step that was made.
      optimizer_state: whether the state of the optimizer is dumped.
      time: nanoseconds, for the ages of the score timestamp; the clock of rank 0 when not given.

    Raises:
      DumpError: on every rank: the folder holds something else, or a rank cannot write.
    """
    pending, moment = _pending(embedding, folder, comm=comm, step=step, time=time)
    source = TablesSource(embedding, moment._replace(optimizer_state=optimizer_state), copied=False)
    pending.write(lambda staged: source.write(staged, rank=comm.rank, world_size=comm.size))
    pending.commit()


def begin_dump(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    step: int,
    optimizer_state: bool = True,
    time: int | None = None,
) -> PendingDump:
    """Copies all dynamic tables, and dumps the copy on a thread: training waits for the copy alone.

    The copy has the memory of all stored rows of the rank, until they are written.

    Args:
      folder, step, optimizer_state, time: as in `dump_tables`.

    Returns:
      The dump; its `commit` lets the folder appear.

    Raises:
      DumpError: on every rank: the folder holds something else, or a rank has no copy.
    """
    pending, moment = _pending(embedding, folder, comm=comm, step=step, time=time)

    def copy():
        source = TablesSource(embedding, moment._replace(optimizer_state=optimizer_state), copied=True)
        return lambda staged: source.write(staged, rank=comm.rank, world_size=comm.size)

    pending.write_behind(copy)
    return pending


def begin_changes(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    first_step: int,
    step: int,
    time: int | None = None,
) -> PendingDump:
    """Copies what has changed in all dynamic tables since a step, and dumps it on a thread, as `begin_dump` does.

    Args:
      folder: for the folder steps_{first_step}_{step + 1} of these changes; one that is there is replaced.
      first_step: the first step whose changes are wanted: the step after the dump, or after the changes before. The
        step of a time is `first_step_since`.
      step, time: as in `dump_tables`.

    Raises:
      DumpError: on every rank: as begin_dump, or the keys that left since first_step are not known.
    """
    changes_folder = set_folder(Path(folder), first_step, step + 1)
    pending, moment = _pending(embedding, changes_folder, comm=comm, step=step, time=time)

    def copy():
        copies = copy_changes(embedding, first_step, moment=moment)

        def write(staged: Path) -> None:
            for one in copies:
                write_changes(staged, one, rank=comm.rank, world_size=comm.size)

        return write

    pending.write_behind(copy)
    return pending


def dump_changes(
    embedding: DistributedEmbedding,
    folder: str | Path,
    *,
    comm: Comm,
    first_step: int,
    step: int,
    time: int | None = None,
) -> None:
    """Dumps what has changed in all dynamic tables since a step. All ranks call it, between two steps.

    Args, Raises: as in `begin_changes`.
    """
    begin_changes(embedding, folder, comm=comm, first_step=first_step, step=step, time=time).commit()


def first_step_since(embedding: DistributedEmbedding, since_time: datetime, *, comm: Comm) -> int:
    """The first_step for the changes since a time. All ranks call it.

    The layer knows the times of dumps, and of the steps that `layer.expire` and `layer.note_step` were told. Between
    two such times the older one counts: more changes are dumped than asked for, and never fewer.

    Args:
      since_time: with a time zone.

    Raises:
      DumpError: on every rank: since_time has no time zone, or lies before the first time that is known.
    """
    if since_time.tzinfo is None:
        raise DumpError(
            f"since_time {since_time}: has no time zone, so it names no moment. Give one, such as tzinfo=datetime.UTC."
        )
    # Whole microseconds, by integers; a moment in the microsecond belongs to it.
    microseconds = (since_time - _EPOCH) // _MICROSECOND
    nanoseconds = 1000 * microseconds + 999
    known = [table.known_steps for table in embedding.dynamic_tables.values()]
    own = [(one.first_step_since(nanoseconds), one.oldest()) for one in known]
    of_ranks = [one for of_rank in comm.allgather_object(own, name="dump.since") for one in of_rank]
    steps = [step for step, _ in of_ranks if step is not None]
    if len(steps) < len(of_ranks) or not steps:
        oldest = max((time for _, time in of_ranks), default=0)
        raise DumpError(
            f"since_time {since_time}: the steps before {_EPOCH + oldest // 1000 * _MICROSECOND} are not known: the "
            "tables were made or loaded then. Give a later time or a first_step, or dump the tables in whole."
        )
    return min(steps)


def _pending(
    embedding: DistributedEmbedding, folder: str | Path, *, comm: Comm, step: int, time: int | None
) -> tuple[PendingDump, DumpMoment]:
    """Begins a dump. Its time is noted, so that the changes since then can be found."""
    pending = PendingDump(folder, comm, next_step=step + 1, time=time)
    for table in embedding.dynamic_tables.values():
        table.known_steps.note(pending.time, step, exact=True)
    return pending, DumpMoment(step, pending.time)
