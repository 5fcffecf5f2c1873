"""The file of a log: one JSON object a line. A run locks it and appends to it; lines of other runs stay.

The first line of a run is its configuration: it has the keys `mode` and `run`. No TensorFlow.
"""

import contextlib
import fcntl
import json
import os
import stat
from pathlib import Path

from dlrm_tf2.runtime import terminal

_BEGINNING = b'{"mode": "'  # of a log's first line: the first field of TrainConfig


class LogFileError(ValueError):
    """The log cannot be opened: it is another kind of file, or another run is writing it."""


class LogFile:
    """Appends records to a log. A record that cannot be written does not end the run.

    Args:
      path: file to append to; it is created if it is missing.
      resumed: (run, step) of a run that is resumed after that step. Its later lines are dropped, if they end the file.

    Attributes:
      continues: the file ends with the lines of the resumed run up to its step.

    Raises:
      LogFileError: the file cannot be opened, is not a log, or another run is writing it.
    """

    def __init__(self, path: str, resumed: tuple[str, int] | None = None):
        self._path, self._has_warned, self.continues = path, False, False
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise LogFileError(f"--log_path {path}: cannot be opened: {error.strerror}. Name another file.") from None
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)  # and not a pipe or a device
        if self._is_file:
            try:
                self._lock()
                self._check_is_log()
                self._drop_lines(resumed)
            except BaseException:
                os.close(self._descriptor)
                raise

    def append(self, record: dict) -> None:
        """Appends one line. If it cannot be written, it is left out; the first time, a warning says so."""
        line, size = (json.dumps(record) + "\n").encode(), os.fstat(self._descriptor).st_size
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            if self._is_file:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, size)  # no half line
            self._warn(f"cannot be written: {error.strerror}. The run continues, and the log misses lines.")

    def close(self) -> None:
        """Ends the lock."""
        try:
            os.close(self._descriptor)
        except OSError as error:  # a network file system reports a full disk here
            self._warn(f"cannot be written: {error.strerror}. The log misses lines.")

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            terminal.warn(f"--log_path {self._path}: {text}")
        self._has_warned = True

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogFileError(
                f"--log_path {self._path}: another run is writing this log. Name another file, or wait for that run."
            ) from None
        except OSError as error:
            self._warn(f"cannot be locked: {error.strerror}. Nothing keeps a second run from writing it.")

    def _check_is_log(self) -> None:
        """Raises LogFileError unless the file is empty or begins with the first line of a run, whole or cut."""
        with open(self._path, "rb") as file:
            first = file.readline(1 << 20)
        is_cut = not first.endswith(b"\n") and (first.startswith(_BEGINNING) or _BEGINNING.startswith(first))
        if not is_cut and not {"mode", "run"} <= _record(first).keys():
            raise LogFileError(
                f"--log_path {self._path}: is not a log of this program, which begins with the configuration of a run. "
                "Name another file."
            )

    def _drop_lines(self, resumed: tuple[str, int] | None) -> None:
        """Drops half a line at the end, which a killed process left, and the lines that a resumed run writes again."""
        whole_bytes, kept_bytes, is_kept = 0, None, False
        with open(self._path, "rb") as file:
            for number, line in enumerate(file):
                if not line.endswith(b"\n"):
                    break
                whole_bytes += len(line)
                record = _record(line)
                if number == 0 or "mode" in record:  # the first line of a run
                    is_kept = resumed is not None and record.get("run") == resumed[0]
                    kept_bytes = whole_bytes if is_kept else None
                elif is_kept:
                    is_kept = bool(record) and _step_of(record, resumed[1]) <= resumed[1]
                    kept_bytes = whole_bytes if is_kept else kept_bytes
        self.continues = kept_bytes is not None
        os.ftruncate(self._descriptor, kept_bytes if self.continues else whole_bytes)


def _record(line: bytes) -> dict:
    """The JSON object in a line; an empty one if it holds something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _step_of(record: dict, otherwise: int) -> float:
    step = record.get("step", otherwise)
    return step if isinstance(step, int | float) else otherwise
