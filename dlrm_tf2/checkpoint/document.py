"""The document that the trainer keeps in a checkpoint: its keys and their types, checked before they are used."""

from collections.abc import Sequence
from pathlib import Path

from dlrm_tf2.checkpoint.files import CheckpointError

_NONE = type(None)
_LARGEST = 2**63  # whole numbers are from 0 to below this

# Key -> types of its value. `run.id` is the key `id` of the object `run`.
_TYPES = {
    "step": (int,),
    "model": (dict,),
    "config": (dict,),
    "optimizer_state_began": (int,),
    "data": (dict,),
    "data.epoch": (int,),
    "data.sample": (int,),
    "data.num_samples": (int,),
    "data.seed": (int,),
    "run": (dict, _NONE),
    "run.id": (str,),
    "run.finished": (bool,),
    "run.first_step": (int,),
    "run.first_position": (list,),
    "run.best_auc": (float, int, _NONE),
    "run.evaluated": (bool,),
    "run.skipped_steps": (int,),
    "run.loss_scaling": (dict, _NONE),
    "run.loss_scaling.scale": (float, int),
    "run.loss_scaling.good_steps": (int,),
    "run.key_counters": (list,),
}
_WITH_DATA = ("data.epoch", "data.sample", "data.num_samples", "data.seed")
_WITH_LOSS_SCALING = ("run.loss_scaling.scale", "run.loss_scaling.good_steps")
_MISSING = object()


def check_document(path: str | Path, document: dict, required: Sequence[str] = ()) -> None:
    """Checks the types of the values that a training uses.

    Args:
      path: the checkpoint, for the message.
      document: its document.
      required: keys that the document must have besides `step`, such as "run.first_step".

    Raises:
      CheckpointError: a value is missing or has another type; names its key.
    """
    required = {"step", *required}
    if _value(document, "data") is not _MISSING:
        required.update(_WITH_DATA)
    if isinstance(_value(document, "run.loss_scaling"), dict):
        required.update(_WITH_LOSS_SCALING)
    for key, types in _TYPES.items():
        value = _value(document, key)
        if value is _MISSING and key not in required:
            continue
        is_right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
        if is_right and isinstance(value, int):
            is_right = 0 <= value < _LARGEST
        if not is_right or (key in _CHECKS and not _CHECKS[key](value)):
            raise _wrong(path, key)
    if "config.seed" in required and not _is_count(_value(document, "config.seed")):
        raise _wrong(path, "config.seed")


def _value(document: dict, key: str) -> object:
    """The value of a key; _MISSING if an object on the way to it does not exist."""
    value = document
    for name in key.split("."):
        if not isinstance(value, dict) or name not in value:
            return _MISSING
        value = value[name]
    return value


def _is_position(value: list) -> bool:
    return len(value) == 2 and all(map(_is_count, value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _are_counts(value: list) -> bool:
    return all(isinstance(row, list) and len(row) == len(value[0]) and all(map(_is_count, row)) for row in value)


# Key -> what its list must be.
_CHECKS = {"run.first_position": _is_position, "run.key_counters": _are_counts}


def _wrong(path: str | Path, key: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {key} in its document is missing or has another type than this program saves. The checkpoint is "
        "damaged, or another program wrote it; restore another checkpoint."
    )
