"""The numbers of the log as TensorBoard scalars."""

import itertools
import os
import platform
import time
from pathlib import Path

import tensorflow as tf

_FILE_NUMBERS = itertools.count()


class ScalarWriter:
    """Writes an event file: a TFRecord file of Event messages.

    It begins with the step that the run begins with, of which TensorBoard makes one curve: it forgets what older files
    in the folder have from that step on.

    Args:
      folder: where TensorBoard looks for it; made if it is not there.
      after: the step that the run goes on after; 0 for a new one.

    Raises:
      ValueError: it is no folder.
    """

    def __init__(self, folder: str, after: int = 0):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--tensorboard {folder}: {error.strerror}. Name a folder, or one to make.") from None
        # TensorBoard reads them in the order of their names.
        unique = f"{int(time.time()):010d}.{platform.node()}.{os.getpid()}.{next(_FILE_NUMBERS)}"
        self._file = tf.io.TFRecordWriter(str(Path(folder) / f"events.out.tfevents.{unique}.v2"))
        self._write(file_version="brain.Event:2")
        self._write(step=after + 1, session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START))

    def write(self, record: dict) -> None:
        """The numbers of a record of the log that has a step, each under its key; of a list under key/0, key/1, ..."""
        if "step" not in record:
            return
        numbers = {}
        for key, value in record.items():
            numbers |= {f"{key}/{i}": one for i, one in enumerate(value)} if isinstance(value, list) else {key: value}
        scalars = [
            tf.compat.v1.Summary.Value(tag=key, simple_value=number)
            for key, number in numbers.items()
            if key != "step" and isinstance(number, (int, float))
        ]
        self._write(step=record["step"], summary=tf.compat.v1.Summary(value=scalars))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: object) -> None:
        self._file.write(tf.compat.v1.Event(wall_time=time.time(), **content).SerializeToString())
