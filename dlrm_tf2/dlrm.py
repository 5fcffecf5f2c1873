"""The program: trains, evaluates or benchmarks DLRM, or says how its tables would be spread.

    python -m dlrm_tf2.dlrm --dataset_path DIR [--mode train|eval|inference|plan] ...
    horovodrun -np 4 python -m dlrm_tf2.dlrm --dataset_path DIR ...
"""

import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: the packages are beside this one, not in it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import flags, planning, runtime
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.model_config import ModelConfig
from dlrm_tf2.stopping import Stopped


def main(
    arguments: list[str] | None = None, program: str = "dlrm", defaults: Mapping[str, object] | None = None
) -> int:
    """Runs the program; returns its exit status.

    Args:
      program: what it calls itself.
      defaults: flag -> its default, where it is not DLRM's.
    """
    launch = runtime.Launch.detect()
    try:
        config = flags.parse(sys.argv[1:] if arguments is None else arguments, program, defaults)
        spec = FeatureSpec.load(Path(config.dataset_path) / config.feature_spec)
        model = ModelConfig.of(config, spec)
    except (ValueError, OSError) as error:  # the same on every rank, so one of them speaks
        if launch.rank == 0:
            print(f"{program}: {error}", file=sys.stderr)
        else:
            time.sleep(1)  # a launcher kills the job at the first exit, and rank 0 must get its word out
        return 1
    try:
        if config.mode == "plan":
            if launch.rank == 0:
                print(planning.report_of(config, model, spec, config.world_size or launch.world_size))
            return 0
        _run(config, spec, model, launch)
    except (ValueError, OSError, RuntimeError) as error:
        rank = f" rank {launch.rank}:" if launch.world_size > 1 else ""
        print(f"{program}:{rank} {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        if launch.rank == 0:
            saved = "nothing saved: no --save_checkpoint_path"
            if stopped.saved_step is not None:
                saved = f"saved {config.save_checkpoint_path}: the same command goes on from there"
            print(f"{program}: {stopped}; {saved}", file=sys.stderr, flush=True)
        else:
            time.sleep(1)  # as above
        return stopped.status
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _run(config: TrainConfig, spec: FeatureSpec, model_config: ModelConfig, launch: runtime.Launch) -> None:
    device = runtime.setup(
        launch, config.cpu, config.amp, config.amp_dtype, config.intra_op_parallelism, config.inter_op_parallelism,
        config.stall_timeout_s,
    )  # fmt: skip
    # TensorFlow must not be imported before that.
    import tensorflow as tf

    from dlrm_tf2 import comm, job, watchdog

    with watchdog.joining(launch.rank, config.stall_timeout_s):
        ranks = comm.connect(launch.world_size, timed=device.device == "cpu")
        watching = watchdog.Watchdog(ranks, config.stall_timeout_s)
    with watching:
        try:
            job.start(config, spec, model_config, launch, device, ranks).run()
        except tf.errors.OpError as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, until the reason is told
            raise RuntimeError(_reason(error.message, watching.who_left())) from error


def _reason(message: str, who_left: str) -> str:
    """What a TensorFlow error says, without the trace of the graph around it.

    Args:
      who_left: the rank that ended the job, if one is known to have.
    """
    if "Horovod has been shut down" in message or who_left:
        return f"the job was ended by another rank: {who_left or 'its message says why'}"
    lines = [line.strip() for line in message.splitlines() if line.strip() and "Graph execution error" not in line]
    told = [line for line in lines if not line.startswith(("File ", "Detected at node", "[[", "^"))]
    return f"TensorFlow stopped: {(told or lines or ['no reason given'])[-1]}"


if __name__ == "__main__":
    sys.exit(main())
