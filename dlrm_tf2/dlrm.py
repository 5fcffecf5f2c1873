"""The program: trains, evaluates or benchmarks DLRM, or says how its tables would be spread.

    python -m dlrm_tf2.dlrm --dataset_path DIR [--mode train|eval|inference|plan] ...
    horovodrun -np 4 python -m dlrm_tf2.dlrm --dataset_path DIR ...
"""

import dataclasses
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__" and not __package__:  # run as a file: the packages are beside this one, not in it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import flags, memory, planning, preflight, runtime
from dlrm_tf2.config import ModelConfig, TrainConfig
from dlrm_tf2.embedding.plan import ShardingPlan

if TYPE_CHECKING:
    from dlrm_tf2.comm import Comm
    from dlrm_tf2.run_log import RunLog
    from dlrm_tf2.trainer import Trainer


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
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130
    return 0


def _run(config: TrainConfig, spec: FeatureSpec, model_config: ModelConfig, launch: runtime.Launch) -> None:
    device = runtime.setup(launch, config.cpu, config.amp)
    # TensorFlow must not be imported before that.
    import tensorflow as tf

    from dlrm_tf2 import checkpoint, comm, deduplication, interaction
    from dlrm_tf2.model import Dlrm
    from dlrm_tf2.optim import Optimizer
    from dlrm_tf2.run_log import RunLog
    from dlrm_tf2.trainer import Trainer

    ranks = comm.connect(launch.world_size)
    seed = config.seed if config.seed is not None else random.SystemRandom().getrandbits(31)
    config = dataclasses.replace(config, seed=ranks.broadcast_object(seed, name="seed"))
    plan = planning.plan_of(config, model_config, spec, ranks.size)
    log = RunLog(config.log_path, enabled=ranks.rank == 0, live=ranks.size == 1)
    log.record({"world_size": ranks.size, "device": device.device, **dataclasses.asdict(config)})
    chosen, note = interaction.TENSORFLOW, None
    if model_config.interaction == "dot":
        chosen, note = interaction.choose(config.interaction_op_asked, device.device)
    notes = (*device.notes, note, planning.offloading_note(config, model_config, plan, device.device))
    for note in filter(None, notes):
        log.say(note)
    if config.restore_checkpoint_path:
        model_config.check_same(
            checkpoint.read_document(config.restore_checkpoint_path)["model"], config.restore_checkpoint_path
        )
    if config.mode == "train" and config.save_checkpoint_path:
        checkpoint.check_destination(config.save_checkpoint_path)  # now, not after the training
    if device.device == "cpu":
        log.say(_check_memory(config, model_config, spec, plan, launch, ranks))
    deduplicated, note = deduplication.choose(config, spec, ranks)
    if note:
        log.say(note)
    try:
        start = time.perf_counter()
        restoring = config.restore_checkpoint_path is not None
        optimizer = Optimizer(config.optimizer, config.momentum, config.beta1, config.beta2)
        model = Dlrm(
            model_config, plan, ranks, config.seed, device.compute_dtype, config.xla, not restoring, optimizer,
            config.mode == "train", config.data_parallel_input, deduplicated, chosen,
        )
        step, data = 0, None
        if config.restore_checkpoint_path:
            restored = checkpoint.load_checkpoint(
                config.restore_checkpoint_path, ranks, model.dense_by_name, model.embedding
            )
            step, data = restored["step"], restored.get("data")
            log.say(f"restored {config.restore_checkpoint_path}: step {step}")
        log.say(f"tables are ready after {time.perf_counter() - start:.1f} s")
        trainer = Trainer(config, spec, model, ranks, log, step, data)
        _report(config.mode, trainer, log)
        if config.mode == "train" and config.save_checkpoint_path:
            document = {"model": model_config.document(), "step": trainer.step, "data": trainer.data_document(),
                        "config": dataclasses.asdict(config)}
            checkpoint.save_checkpoint(
                config.save_checkpoint_path, ranks, model.dense_by_name, model.embedding, document
            )
            log.say(f"saved {config.save_checkpoint_path}: step {trainer.step}")
    except tf.errors.OpError as error:
        raise RuntimeError(_reason(error.message)) from error


def _check_memory(
    config: TrainConfig,
    model: ModelConfig,
    spec: FeatureSpec,
    plan: ShardingPlan,
    launch: runtime.Launch,
    ranks: "Comm",
) -> str:
    """The memory line of this machine; refuses on all ranks what does not fit on one of their machines."""
    line = refusal = ""
    try:
        hotness = planning.hotness_of(spec)
        line = preflight.check(config, model, plan, launch.local_ranks, memory.available_bytes(), hotness)
    except preflight.DoesNotFit as error:
        refusal = str(error)
    refusals = [refused for refused in ranks.allgather_object(refusal, name="memory") if refused]
    if refusals:
        raise preflight.DoesNotFit(refusals[0])
    return line


def _reason(message: str) -> str:
    """What a TensorFlow error says, without the trace of the graph around it."""
    if "Horovod has been shut down" in message:
        return "the job was ended by another rank, whose message says why"
    lines = [line.strip() for line in message.splitlines() if line.strip() and "Graph execution error" not in line]
    told = [line for line in lines if not line.startswith(("File ", "Detected at node", "[[", "^"))]
    return f"TensorFlow stopped: {(told or lines or ['no reason given'])[-1]}"


def _report(mode: str, trainer: "Trainer", log: "RunLog") -> None:
    """Runs the mode and says its result."""
    if mode == "train":
        summary = trainer.train()
        log.say(f"{summary['throughput']:,.0f} samples/s, {summary['mean_step_time_ms']:.1f} ms a step")
    elif mode == "eval":
        log.say(trainer.evaluate_only().line())
    else:
        summary = trainer.infer()
        log.say(", ".join(f"{name} {value:.6g}" for name, value in summary.items() if value is not None))


if __name__ == "__main__":
    sys.exit(main())
