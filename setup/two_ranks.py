"""Set-up's last question: can two Horovod processes start here and add two numbers? Exit code 0 says yes."""

import horovod.tensorflow as hvd
import tensorflow as tf


def main() -> None:
    tf.config.set_visible_devices([], "GPU")  # two processes on one GPU is not what is asked here
    hvd.init()
    total = hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum).numpy()
    assert hvd.size() == 2 and total == 3.0, f"{hvd.size()} processes added up to {total}; expected 2 and 3.0"


if __name__ == "__main__":
    main()
