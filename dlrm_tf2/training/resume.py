"""Whether a training is a new run or resumes an interrupted run: the checkpoint in save_checkpoint_path decides.

An interrupted run is resumed with the same flags and on the same data. The content of the data decides, not the name of
its folder.
"""

import contextlib
import dataclasses
import secrets
from dataclasses import dataclass

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import splits_of
from dlrm_tf2.data.fingerprint import fingerprint_of
from dlrm_tf2.runtime.agreement import on_rank_0
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.unused_flags import DYNAMIC

# Flags that may change when a run is resumed. These flags do not change what is computed:
_NO_EFFECT = frozenset(
    """save_checkpoint_path checkpoint_every checkpoint_async checkpoint_gather keep_checkpoints keep_best resume
    log_path print_freq pipeline tensorboard mllog final_split profiler_start_step profiled_rank profiler_path
    predictions_path stall_timeout_s elastic safe_check inter_op_parallelism intra_op_parallelism cpu world_size
    restore_checkpoint_path dataset_path feature_spec hbm_for_embeddings embeddings_folder caching""".split()
)
# These flags change only the order in which numbers are added up, as the number of ranks does:
_ORDER_OF_SUMS = frozenset(
    """dist_strategy column_slice_threshold row_slice_threshold data_parallel_threshold cpu_offloading_threshold_gb
    data_parallel_input dedup_ids network_gbit""".split()
)
# Keys that the document of a resumed run must have, see checkpoint.check_document.
RESUMED_KEYS = ("config.seed", "data", "run.id", "run.first_step", "run.first_position")
_LONGEST_TEXT = 300  # characters of a value in a message
MAY_DIFFER = _NO_EFFECT | _ORDER_OF_SUMS


def flags_without_effect(config: TrainConfig) -> frozenset[str]:
    """The flags that change nothing because of the run's other flags, so that they may change too."""
    groups = (
        ("synthetic_dataset_train_batches synthetic_dataset_valid_batches", config.dataset_type == "synthetic"),
        ("epsilon", config.optimizer != "sgd"),
        ("shuffle_window", config.shuffle == "window"),
        ("beta1 beta2", config.optimizer == "adam"),
        ("num_cross_layers cross_layer_projection_dim", config.interaction == "cross"),
        ("projection_branch1_dims projection_branch2_dims", config.interaction == "projection"),
        ("interaction_op", config.interaction not in ("cross", "projection")),
        ("amp_dtype", config.amp),
        ("loss_scale loss_scaling", config.amp and config.amp_dtype != "bfloat16"),
        (" ".join(DYNAMIC), config.dynamic_capacity is not None),
        ("admission_counter", config.admit_after > 1),
        ("evals_per_epoch", not config.eval_every),
        ("eval_split", bool(config.evals_per_epoch or config.eval_every)),
    )
    return frozenset(name for names, has_effect in groups if not has_effect for name in names.split())


@dataclass(frozen=True)
class Resumption:
    """How a run begins: as a new run, or from the checkpoint that it left when it was interrupted.

    Attributes:
      run: name of the run, in its checkpoints and in its log.
      notes: lines for the user.
      path: folder of the checkpoint from which the run is resumed; None for a new run.
      step: step of that checkpoint; 0 for a new run.
      seed: seed of the resumed run; None for a new run.
      fingerprint: fingerprint of the dataset, which the run's checkpoints keep; None if it is not known.
    """

    run: str
    notes: tuple[str, ...] = ()
    path: str | None = None
    step: int = 0
    seed: int | None = None
    fingerprint: str | None = None

    @property
    def resumes(self) -> bool:
        """Whether an interrupted run is resumed."""
        return self.path is not None

    @classmethod
    def find(
        cls, config: TrainConfig, comm: Comm, *, spec: FeatureSpec | None = None, job: str | None = None
    ) -> "Resumption":
        """How the run of `config` begins, the same on all ranks. All ranks must call it.

        Args:
          config: the run.
          comm: the ranks.
          spec: feature spec of the dataset; None leaves the content of the dataset out of the decision.
          job: name of the run of an elastic job, which may have been started before; None for no such job.

        Raises:
          CheckpointError: the checkpoint is damaged, or its run has another configuration or other data.
        """

        def find() -> "Resumption":
            fingerprint = None
            if spec and config.mode == "train" and config.save_checkpoint_path:
                with contextlib.suppress(OSError, FeatureSpecError):  # opening the dataset reports it
                    fingerprint = fingerprint_of(spec, () if config.dataset_type == "synthetic" else splits_of(config))
            return dataclasses.replace(_find(config, fingerprint, job), fingerprint=fingerprint)

        return on_rank_0(comm, "resumption", work=find, error=CheckpointError)


def _find(config: TrainConfig, fingerprint: str | None, job: str | None) -> Resumption:
    path, run = config.save_checkpoint_path, job or secrets.token_hex(8)
    if config.mode != "train" or not path:
        return Resumption(run)
    if not checkpoint.has_checkpoint(path):
        return Resumption(run, _checkpoints_of_others(path, run))
    document = checkpoint.peek_document(path)
    if document is None:
        checkpoint.read_document(path)  # raises, with the damage
        checkpoint.check_destination(path)  # or raises, with the other files in the folder
        return Resumption(run)
    checkpoint.check_document(path, document)
    step, saved_run = document.get("step"), document.get("run") or {}
    is_of_job = job is not None and saved_run.get("id") == job
    if is_of_job and saved_run.get("finished"):
        raise CheckpointError(
            f"{path}: holds the finished run (step {step}); a rank was lost after its last checkpoint"
        )
    if saved_run.get("finished", True):
        note = f"{path}: holds a finished run (step {step}); this is a new run, whose first checkpoint replaces it"
        return Resumption(run, (note, *_checkpoints_of_others(path, run)))
    if config.resume == "off" and not is_of_job:
        note = (
            f"{path}: holds an unfinished run (step {step}); --resume off begins a new run, whose first checkpoint "
            "replaces it"
        )
        return Resumption(run, (note, *_checkpoints_of_others(path, run)))
    checkpoint.check_document(path, document, ("config",))
    _check_same(path, document, config)
    _check_same_data(path, document, config=config, fingerprint=fingerprint)
    checkpoint.check_document(path, document, ("config.seed",))
    note = f"{path}: holds an unfinished run, which resumes after step {step} (--resume off begins a new run)"
    run = saved_run.get("id", run)
    notes = (note, *_checkpoints_of_others(path, run))
    return Resumption(run, notes, path=path, step=step, seed=document["config"]["seed"])


def _checkpoints_of_others(path: str, run: str) -> tuple[str, ...]:
    """A line about the checkpoints of other runs next to `path`, if any exist."""
    others = checkpoint.of_other_runs(path, run)
    if not others:
        return ()
    return (f"{', '.join(map(str, others))}: of another run; stays until a checkpoint of this run needs the name",)


def _check_same(path: str, document: dict, config: TrainConfig) -> None:
    """Raises CheckpointError, with each flag that differs, if the checkpoint's run has another configuration."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    before, now = defaults | document["config"], dataclasses.asdict(config)
    may_differ = MAY_DIFFER | flags_without_effect(config)
    if "evict_below_norm" not in may_differ and config.evict_below_norm is not None:
        may_differ -= {"checkpoint_every"}  # it decides when keys leave
    differences = [
        f"--{name} was {_text(before[name])}, is {_text(now.get(name))}"
        for name in before
        if name not in may_differ
        and _text(before[name]) != _text(now.get(name))
        and not (name == "seed" and now["seed"] is None)
    ]
    if differences:
        raise CheckpointError(
            f"{path}: holds an unfinished run (step {document['step']}) with another configuration: "
            f"{'; '.join(differences)}. Give the flags as they were to resume it; or begin a new run with --resume "
            "off, or in another --save_checkpoint_path."
        )


def _check_same_data(path: str, document: dict, *, config: TrainConfig, fingerprint: str | None) -> None:
    """Raises CheckpointError if the checkpoint's run had other data. A checkpoint from before fingerprints has none."""
    saved = document["run"].get("fingerprint")
    if saved and fingerprint and saved != fingerprint:
        raise CheckpointError(
            f"{config.dataset_path}: does not hold the dataset of the unfinished run in {path} (step "
            f"{document['step']}), which read {document['config']['dataset_path']}: the content differs. Bring that "
            "dataset back, in any folder; or begin a new run with --resume off, or in another --save_checkpoint_path."
        )


def _text(value: object) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "not given"
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
