"""The checkpoints that stay beside the newest of a run, as NAME.step-N. Rank 0 alone does this.

Which run a checkpoint is of stands in its document, under run: id. Those of other runs are left alone.
"""

import contextlib
import os
import shutil
from pathlib import Path

from dlrm_tf2.checkpoint.manifest import document_of


def best_path(path: str | Path) -> Path:
    """Where the checkpoint of the best evaluation is, beside the newest in `path`."""
    newest = Path(os.path.realpath(path))
    return newest.with_name(f"{newest.name}.best")


def of_other_runs(path: str | Path, run: str) -> list[Path]:
    """The checkpoints beside `path` that are called NAME.step-N or NAME.best, but are not of this run."""
    newest = Path(os.path.realpath(path))
    beside = [*kept_steps(newest).values(), best_path(path)]
    return [folder for folder in beside if document_of(folder) is not None and run_of(document_of(folder)) != run]


def kept_steps(path: Path) -> dict[int, Path]:
    """The checkpoints beside `path` that are called NAME.step-N: step -> folder, the newest first."""
    prefix, found = f"{path.name}.step-", {}
    for folder in path.parent.glob("*") if path.parent.is_dir() else ():
        step = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and step.isdigit() and document_of(folder) is not None:
            found[int(step)] = folder
    return dict(sorted(found.items(), reverse=True))


def put_aside(old: Path, path: Path, keep: int) -> list[str]:
    """Finds a place for the checkpoint that was in `path` before the one there now, and removes what is too old.

    Args:
      old: where it is now; it is gone afterwards.
      keep: how many checkpoints of the run stay, the one in `path` among them.

    Returns:
      Lines for the user.
    """
    notes = []
    newest, before = (document_of(folder) or {} for folder in (path, old))
    run, step = run_of(newest), newest.get("step")
    if old.exists():
        if keep > 1 and run is not None and run == run_of(before) and before.get("step") != step:
            notes += _move(old, path.with_name(f"{path.name}.step-{before['step']}"), path=path, run=run)
        else:
            remove(old, path)
    older = [
        folder
        for of, folder in kept_steps(path).items()
        if run is not None and of < step and run_of(document_of(folder)) == run
    ]
    for folder in older[keep - 1 :]:
        remove(folder, path)
    return notes


def run_of(document: dict | None) -> str | None:
    """The run that a checkpoint is of; None if it does not say."""
    return ((document or {}).get("run") or {}).get("id")


def remove(folder: Path, path: Path) -> None:
    """Removes a checkpoint, which is never taken for one again, even if this is stopped half-way.

    Args:
      path: the newest checkpoint, beside which it is.
    """
    gone = path.with_name(f".{path.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)  # what cannot go now goes the next time
    with contextlib.suppress(OSError):
        os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _move(old: Path, place: Path, *, path: Path, run: str) -> list[str]:
    """Puts the checkpoint before into `place`, or removes it where that cannot be; the newest is complete by now."""
    notes = []
    if place.exists() and document_of(place) is not None:
        if run_of(document_of(place)) != run:
            notes = [f"{place}: the checkpoint there was another run's, and is replaced"]
        remove(place, path)
    try:
        os.rename(old, place)
    except OSError as error:
        remove(old, path)
        notes = [f"{place}: the checkpoint of that step is not kept: {error.strerror}"]
    return notes
