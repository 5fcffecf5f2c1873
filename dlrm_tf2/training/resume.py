"""Whether a training goes on with a run that was interrupted: the checkpoint in save_checkpoint_path says so."""

import dataclasses
import secrets
from dataclasses import dataclass

from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.runtime.agreement import on_rank_0
from dlrm_tf2.runtime.comm import Comm

# Flags that a run may go on with other values of. These do not change what is computed:
_ASIDE = frozenset(
    """save_checkpoint_path checkpoint_every checkpoint_async keep_checkpoints keep_best resume log_path print_freq
    tensorboard profiler_start_step profiled_rank profiler_path predictions_path stall_timeout_s inter_op_parallelism
    intra_op_parallelism cpu world_size""".split()
)
# And these, as the number of ranks, only in which order numbers are added up:
_SPREADING = frozenset(
    """dist_strategy column_slice_threshold row_slice_threshold data_parallel_threshold cpu_offloading_threshold_gb
    data_parallel_input dedup_ids""".split()
)
MAY_DIFFER = _ASIDE | _SPREADING


@dataclass(frozen=True)
class Resumption:
    """How a run begins: as a new one, or with a checkpoint that it left when it was interrupted.

    Attributes:
      run: names the run, in its checkpoints and in its log.
      notes: lines for the user.
      path: folder of the checkpoint that it goes on from; None for a new run.
      step: of that checkpoint; 0 for a new run.
      seed: of the run that goes on.
    """

    run: str
    notes: tuple[str, ...] = ()
    path: str | None = None
    step: int = 0
    seed: int | None = None

    @property
    def goes_on(self) -> bool:
        return self.path is not None

    @classmethod
    def find(cls, config: TrainConfig, comm: Comm) -> "Resumption":
        """What `config` asks for, the same on all ranks, which all call this.

        Raises:
          CheckpointError: the checkpoint is damaged, or its run has another configuration.
        """
        return on_rank_0(comm, "resumption", work=lambda: _find(config), error=CheckpointError)


def _find(config: TrainConfig) -> Resumption:
    path, run = config.save_checkpoint_path, secrets.token_hex(8)
    if config.mode != "train" or not path:
        return Resumption(run)
    if not checkpoint.has_checkpoint(path):
        return Resumption(run, _leftovers(path, run))
    document = checkpoint.peek_document(path)
    if document is None:
        checkpoint.read_document(path)  # says what is damaged
        checkpoint.check_destination(path)  # or what else is in the folder
        return Resumption(run)
    step, of_run = document.get("step"), document.get("run") or {}
    if of_run.get("finished", True):
        said = f"{path}: holds a finished run (step {step}); this is a new one, whose first checkpoint replaces it"
        return Resumption(run, (said, *_leftovers(path, run)))
    if config.resume == "off":
        said = (
            f"{path}: holds an unfinished run (step {step}); --resume off begins a new one, whose first checkpoint "
            "replaces it"
        )
        return Resumption(run, (said, *_leftovers(path, run)))
    _check_same(path, document, config)
    said = f"{path}: holds an unfinished run, which goes on after step {step} (--resume off begins a new one)"
    run = of_run.get("id", run)
    return Resumption(run, (said, *_leftovers(path, run)), path=path, step=step, seed=document["config"]["seed"])


def _leftovers(path: str, run: str) -> tuple[str, ...]:
    found = checkpoint.of_other_runs(path, run)
    if not found:
        return ()
    return (f"{', '.join(map(str, found))}: of another run; stays until a checkpoint of this run needs the name",)


def _check_same(path: str, document: dict, config: TrainConfig) -> None:
    """Raises CheckpointError, naming each flag that differs, unless the run of the checkpoint is that of `config`."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    before, now = defaults | document["config"], dataclasses.asdict(config)
    differences = [
        f"--{name} was {_text(before[name])}, is {_text(now.get(name))}"
        for name in before
        if name not in MAY_DIFFER
        and _text(before[name]) != _text(now.get(name))
        and not (name == "seed" and now["seed"] is None)
    ]
    if differences:
        raise CheckpointError(
            f"{path}: holds an unfinished run (step {document['step']}) with another configuration: "
            f"{'; '.join(differences)}. Give the flags as they were and it goes on; or begin a new run with --resume "
            "off, or in another --save_checkpoint_path."
        )


def _text(value: object) -> str:
    """A value as on the command line."""
    if value is None:
        return "not given"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
