"""The numbers of the log as TensorBoard scalars."""

import contextlib
import itertools
import os
import platform
import time
from pathlib import Path

import tensorflow as tf

from dlrm_tf2.runtime import terminal

_FILE_NUMBERS = itertools.count()


class ScalarWriter:
    """Writes an event file: a TFRecord file of Event messages.

    The file begins with the first step of the run. From that step on, TensorBoard ignores older files in the folder, so
    a resumed run is one curve. If the file cannot be written any more, a warning says so and the run continues.

    Args:
      folder: the folder that TensorBoard reads; it is created if it is missing.
      after: the step after which the run begins; 0 for a new run.

    Raises:
      ValueError: the folder cannot be written.
    """

    def __init__(self, folder: str, after: int = 0):
        # TensorBoard reads the files of a folder in the order of their names.
        unique = f"{int(time.time()):010d}.{platform.node()}.{os.getpid()}.{next(_FILE_NUMBERS)}"
        self._path = str(Path(folder) / f"events.out.tfevents.{unique}.v2")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = tf.io.TFRecordWriter(self._path)
            self._write(file_version="brain.Event:2")
            self._write(step=after + 1, session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START))
            self._file.flush()
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message
            raise ValueError(f"--tensorboard {folder}: {reason}. Name a folder that can be written.") from None

    def write(self, record: dict) -> None:
        """Writes the numbers of a record that has a step, each under its key; a list under key/0, key/1, ..."""
        if "step" not in record or self._file is None:
            return
        numbers = {}
        for key, value in record.items():
            numbers |= {f"{key}/{i}": one for i, one in enumerate(value)} if isinstance(value, list) else {key: value}
        scalars = [
            tf.compat.v1.Summary.Value(tag=key, simple_value=number)
            for key, number in numbers.items()
            if key != "step" and isinstance(number, (int, float))
        ]
        try:
            self._write(step=record["step"], summary=tf.compat.v1.Summary(value=scalars))
            self._file.flush()
        except tf.errors.OpError as error:
            terminal.warn(f"{self._path}: cannot be written: {error.message}. The run continues without TensorBoard.")
            self.close()  # after half a record, TensorBoard would read no other

    def close(self) -> None:
        """Closes the file; `write` does nothing afterwards."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(tf.errors.OpError):
                file.close()

    def _write(self, **content: object) -> None:
        self._file.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())
