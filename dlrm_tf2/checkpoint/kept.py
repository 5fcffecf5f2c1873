"""The older checkpoints of a run, next to its newest one: NAME.step-N and NAME.best. Rank 0 alone does this.

The document of a checkpoint names its run, under run: id. Checkpoints of other runs are left alone.
"""

import contextlib
import os
import shutil
from pathlib import Path

from dlrm_tf2.checkpoint.manifest import document_of


def best_path(path: str | Path) -> Path:
    """Where the checkpoint of the best evaluation is, next to the newest checkpoint in `path`."""
    newest = Path(os.path.realpath(path))
    return newest.with_name(f"{newest.name}.best")


def of_other_runs(path: str | Path, run: str) -> list[Path]:
    """The checkpoints next to `path` that are named NAME.step-N or NAME.best and belong to another run."""
    newest = Path(os.path.realpath(path))
    neighbours = [*kept_steps(newest).values(), best_path(path)]
    return [
        folder for folder in neighbours if (document := document_of(folder)) is not None and run_of(document) != run
    ]


def kept_steps(path: Path) -> dict[int, Path]:
    """The checkpoints next to `path` that are named NAME.step-N: step -> folder, the newest first."""
    prefix, kept = f"{path.name}.step-", {}
    for folder in path.parent.glob("*") if path.parent.is_dir() else ():
        step = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and step.isdecimal() and document_of(folder) is not None:
            kept[int(step)] = folder
    return dict(sorted(kept.items(), reverse=True))


def keep_or_remove(old: Path, path: Path, keep: int) -> list[str]:
    """Renames the replaced checkpoint to NAME.step-N or removes it; then removes the steps that are too old.

    Args:
      old: folder of the checkpoint that `path` held before; it does not exist afterwards.
      path: folder of the newest checkpoint.
      keep: how many checkpoints of the run stay, the newest included.

    Returns:
      Lines for the user.
    """
    notes = []
    newest, replaced = (document_of(folder) or {} for folder in (path, old))
    run, step = run_of(newest), step_of(newest)
    if old.exists():
        old_step = step_of(replaced)
        if keep > 1 and run is not None and run == run_of(replaced) and old_step not in (None, step):
            notes += _rename(old, path.with_name(f"{path.name}.step-{old_step}"), path=path, run=run)
        else:
            remove(old, path)
    if run is None or step is None:
        return notes
    older = [folder for kept, folder in kept_steps(path).items() if kept < step and run_of(document_of(folder)) == run]
    for folder in older[keep - 1 :]:
        remove(folder, path)
    return notes


def run_of(document: dict | None) -> str | None:
    """The id of the run that saved a checkpoint; None if the document does not name it."""
    run = (document or {}).get("run")
    return run.get("id") if isinstance(run, dict) else None


def step_of(document: dict) -> int | None:
    """The step of a checkpoint; None if the document does not say it."""
    step = document.get("step")
    return step if isinstance(step, int) else None


def remove(folder: Path, path: Path) -> None:
    """Removes a checkpoint. It is renamed first, so that half a checkpoint never has its name.

    Args:
      folder: folder of the checkpoint.
      path: folder of the newest checkpoint, next to `folder`.
    """
    removed = path.with_name(f".{path.name}.gone")
    shutil.rmtree(removed, ignore_errors=True)  # the next call removes what this call cannot
    with contextlib.suppress(OSError):
        os.rename(folder, removed)
    shutil.rmtree(removed, ignore_errors=True)


def _rename(old: Path, place: Path, *, path: Path, run: str) -> list[str]:
    """Renames a replaced checkpoint to `place`, or removes it where it cannot be renamed."""
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
