"""The document that the trainer keeps in a checkpoint: its keys and their types, checked before they are used."""

from pathlib import Path

from dlrm_tf2.checkpoint.files import CheckpointError

_NONE = type(None)
_DOCUMENT = {
    "step": (int,),
    "model": (dict,),
    "config": (dict,),
    "data": (dict,),
    "run": (dict,),
    "optimizer_state_began": (int,),
}
_RUN = {
    "id": (str,),
    "finished": (bool,),
    "first_step": (int,),
    "first_position": (list,),
    "best_auc": (float, int, _NONE),
    "evaluated": (bool,),
    "skipped_steps": (int,),
    "loss_scaling": (dict, _NONE),
}
_DATA = {"epoch": (int,), "sample": (int,), "num_samples": (int,), "seed": (int,)}
_LOSS_SCALING = {"scale": (float, int), "good_steps": (int,)}
_LARGEST = 2**63  # whole numbers are from 0 to below this


def check_document(path: str | Path, document: dict, *, is_resumed: bool = False) -> None:
    """Checks the types of the values that a training uses.

    Args:
      path: the checkpoint, for the message.
      document: its document.
      is_resumed: the run of the checkpoint is resumed, so its document must also have the state of the run.

    Raises:
      CheckpointError: a value is missing or has another type; names its key.
    """
    run = document.get("run")
    is_unfinished = isinstance(run, dict) and run.get("finished") is False
    _check(path, "", value=document, types=_DOCUMENT, required=("step", *(("config",) if is_unfinished else ())))
    _check(path, "run.", value=document.get("run"), types=_RUN, required=())
    _check(path, "data.", value=document.get("data"), types=_DATA, required=tuple(_DATA))
    if run is not None:
        _check(path, "run.loss_scaling.", value=run.get("loss_scaling"), types=_LOSS_SCALING, required=("scale",))
        position = run.get("first_position", [0, 0])
        _require(path, "run.first_position", len(position) == 2 and all(_is_count(number) for number in position))
    if is_unfinished:
        _require(path, "config.seed", _is_count(document["config"].get("seed")))
    if is_resumed:
        _check(path, "", value=document, types=_DOCUMENT, required=("model", "config", "data", "run"))
        _check(path, "run.", value=run, types=_RUN, required=("id", "first_step", "first_position"))


def _check(path: str | Path, prefix: str, *, value: dict | None, types: dict, required: tuple[str, ...]) -> None:
    if value is None:
        return
    for key, kinds in types.items():
        if key in value:
            found = value[key]
            is_right = isinstance(found, kinds) and (bool in kinds or not isinstance(found, bool))
            _require(path, prefix + key, is_right and (not isinstance(found, int) or 0 <= found < _LARGEST))
        else:
            _require(path, prefix + key, key not in required)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _require(path: str | Path, key: str, condition: bool) -> None:
    if not condition:
        raise CheckpointError(
            f"{path}: {key} in its document is missing or has another type than this program saves. The checkpoint is "
            "damaged, or another program wrote it; restore another checkpoint."
        )
