"""The last test of set-up: two Horovod processes start and add two numbers. Exit code 0 means success."""

import horovod.tensorflow as hvd
import tensorflow as tf


def main() -> None:
    tf.config.set_visible_devices([], "GPU")  # the test is not about two processes on one GPU
    hvd.init()
    total = hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum).numpy()
    assert hvd.size() == 2 and total == 3.0, f"{hvd.size()} processes added up to {total}; expected 2 and 3.0"


if __name__ == "__main__":
    main()
