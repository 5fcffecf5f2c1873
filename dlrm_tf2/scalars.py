"""The numbers of the log as TensorBoard scalars."""

from pathlib import Path

import tensorflow as tf


class ScalarWriter:
    """Writes an event file.

    Args:
      folder: where TensorBoard looks for it; made if it is not there.

    Raises:
      ValueError: it is no folder.
    """

    def __init__(self, folder: str):
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--tensorboard {folder}: {error.strerror}. Name a folder, or one to make.") from None
        self._writer = tf.summary.create_file_writer(folder)

    def write(self, record: dict) -> None:
        """The numbers of a record of the log that has a step, each under its key; of a list under key/0, key/1, ..."""
        if "step" not in record:
            return
        with self._writer.as_default(step=record["step"]):
            for key, value in record.items():
                numbers = {f"{key}/{place}": one for place, one in enumerate(value)} if isinstance(value, list) else {
                    key: value
                }
                for name, number in numbers.items():
                    if key != "step" and isinstance(number, (int, float)):
                        tf.summary.scalar(name, number)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
