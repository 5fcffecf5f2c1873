"""Files that must not change while they are read: a result made from two states of a file describes neither of them."""

from collections.abc import Iterable
from pathlib import Path


class ChangedError(ValueError):
    """A file changed while it was read."""


def state_of(path: str | Path) -> dict:
    """What changes when somebody writes a file: {"bytes": ..., "modified_ns": ...}."""
    status = Path(path).stat()
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def check_unchanged(path: str | Path, state: dict) -> None:
    """Raises ChangedError where a file is not in this state any more, or is missing."""
    try:
        now = state_of(path)
    except OSError:
        raise ChangedError(f"{path}: disappeared while it was read. Put it back, and run the command again.") from None
    check_state(path, state, now=now)


def check_state(path: object, state: dict, *, now: dict) -> None:
    """Raises ChangedError where the state of a file now, as state_of returns it, is not an earlier one.

    Args:
      path: the file, for the message.
      state: the earlier state, which may have more keys.
      now: the state now.
    """
    if any(now[key] != state.get(key) for key in now):
        same_size = now["bytes"] == state["bytes"]
        what = "its bytes were written" if same_size else f"it had {state['bytes']:,} bytes, it has {now['bytes']:,}"
        raise ChangedError(
            f"{path}: changed while it was read ({what}). Wait until it is complete, and run the command again."
        )


class Unchanged:
    """Remembers the state of files, and checks it later. Files that do not exist are left out."""

    def __init__(self, paths: Iterable[str | Path]):
        self._states = {path: state_of(path) for path in paths if Path(path).is_file()}

    def check(self) -> None:
        """Raises ChangedError for the first file that changed."""
        for path, state in self._states.items():
            check_unchanged(path, state)
