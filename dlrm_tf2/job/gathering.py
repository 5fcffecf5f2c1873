"""Which ranks see the folders of the checkpoints; with --checkpoint_gather the others use the disk of rank 0's host."""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.checkpoint.manifest import Manifest, read_manifest
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.rank_names import names_of, this_host
from dlrm_tf2.training.resume import Resumption

_PATIENCE_S = 3.0  # a network file system may show a new file of another host late
_ADVICE = (
    "name a folder on a file system that all hosts share, or give --checkpoint_gather: then the checkpoint lies on the "
    "disk of rank 0's host alone."
)


@dataclass(frozen=True)
class Far:
    """The ranks that do not see a folder of rank 0, the same on all ranks. `names`: for people, with their hosts."""

    ranks: tuple[int, ...] = ()
    names: str = ""


def far_from_saves(config: TrainConfig, comm: Comm) -> Far:
    """The ranks that do not see the folder next to which rank 0 writes the checkpoints.

    Rank 0 writes a file next to the checkpoint, the others look for the file, and rank 0 removes it.

    Raises:
      CheckpointError: on all ranks, without --checkpoint_gather: names the ranks that do not see the file.
    """
    if comm.size == 1:
        return Far()
    path = config.save_checkpoint_path
    parents = Path(os.path.realpath(path)).parents

    def write() -> tuple[int, str]:
        level = next(level for level, parent in enumerate(parents) if parent.exists())
        name = f".{Path(path).name}.probe-{secrets.token_hex(8)}"
        (parents[level] / name).touch(exist_ok=False)
        return level, name

    level, name = on_rank_0(comm, "shared.write", work=write, error=CheckpointError)
    probe = parents[min(level, len(parents) - 1)] / name
    refusal = (
        f"{path}: rank 0 wrote {name} into {probe.parent}, and the file is not here. All ranks write one checkpoint: "
        f"{_ADVICE}"
    )
    try:
        return _far(comm, "shared.look", sees=probe.exists, refusal=None if config.checkpoint_gather else refusal)
    finally:
        if comm.rank == 0:
            probe.unlink(missing_ok=True)


def far_from_source(config: TrainConfig, folder: Path, *, manifest: Manifest, comm: Comm) -> Far:
    """The ranks that do not see the checkpoint that a run begins from.

    Args:
      config: the run.
      folder, manifest: the checkpoint, as rank 0 sees it.
      comm: the ranks.

    Raises:
      CheckpointError: on all ranks, without --checkpoint_gather: names the ranks that do not see it.
    """
    if comm.size == 1:
        return Far()
    text = repr(manifest)  # a manifest may hold nan, which equals nothing

    def sees() -> bool:
        try:
            return repr(read_manifest(folder)) == text
        except CheckpointError:
            return False

    refusal = (
        f"{folder}: rank 0 sees a checkpoint here, and this rank does not see the same files. All ranks read one "
        f"checkpoint: {_ADVICE}"
    )
    return _far(comm, "source.look", sees=sees, refusal=None if config.checkpoint_gather else refusal)


def check_left_behind(config: TrainConfig, resumption: Resumption, *, far: Far, comm: Comm) -> None:
    """Refuses, on all ranks, to begin where another host has more of an unfinished run than the host of rank 0.

    So it is if the launcher gave rank 0 to another host than before: the job would begin again, and say nothing.

    Raises:
      CheckpointError: names the ranks that see such a checkpoint.
    """
    path = config.save_checkpoint_path

    def look() -> None:
        if comm.rank not in far.ranks or config.resume == "off":
            return
        document = checkpoint.peek_document(path) or {}
        run, step = document.get("run"), document.get("step")
        if not isinstance(run, dict) or run.get("finished") is not False or not isinstance(step, int):
            return
        if run.get("id") == resumption.run and step <= resumption.step:
            return  # a copy of an older time
        raise CheckpointError(
            f"{path}: this host has the checkpoint of an unfinished run (step {step}), and the host of rank 0 does not "
            "have it. With --checkpoint_gather it lies on one host: start the job so that rank 0 is on this host; or "
            "move the checkpoint to the host of rank 0; or begin a new run with --resume off."
        )

    if far.ranks:
        on_all_ranks(comm, "left_behind", work=look, error=CheckpointError)


def note(far: Far, path: str, comm: Comm) -> str | None:
    """A line for the log if the checkpoints in `path` are gathered."""
    if not far.ranks or comm.rank:
        return None
    return f"{path}: lies on the disk of {this_host()} alone, and is written there for {far.names} too"


def _far(comm: Comm, name: str, *, sees: Callable[[], bool], refusal: str | None) -> Far:
    """The ranks on which `sees` stays false; with a refusal, these ranks raise it as CheckpointError."""

    def look() -> tuple[bool, str]:
        deadline = time.monotonic() + _PATIENCE_S
        while not (seen := sees()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not seen and refusal:
            raise CheckpointError(refusal)
        return seen, this_host()

    looks = on_all_ranks(comm, name, work=look, error=CheckpointError)
    ranks = tuple(rank for rank, (seen, _) in enumerate(looks) if not seen)
    return Far(ranks, names_of(ranks, [host for _, host in looks]))
