"""`python -m dlrm_tf2.export`: a checkpoint in a form that other programs read.

    --format npy          feature_<i>.npy, one whole table per categorical feature, and dense/<name>.npy (npy_tables.py)
    --format published    NVIDIA's folders sparse/ and dense/ (published_form.py)
    --format saved_model  a TensorFlow SavedModel that answers without this package (saved_model.py)

In each of them export.json says what is what, and holds the checkpoint's document. The output appears when complete.
Only saved_model starts TensorFlow.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from criteo_prep.machine import available_memory_bytes
from dlrm_tf2.checkpoint import open_checkpoint
from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.checkpoint.staging import take_empty
from dlrm_tf2.export.npy import write_dense, write_tables
from dlrm_tf2.export.nvidia import write_published_form
from dlrm_tf2.job.program import run_alone
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime import process

# TensorFlow and this program as a process, measured as resident memory of an export of a tiny model.
_PROCESS_BYTES = 700 << 20


class ExportError(ValueError):
    """The output cannot be written."""


def export(checkpoint: str | Path, output: str | Path, form: str = "npy") -> dict:
    """Writes a checkpoint in one of FORMATS.

    Args:
      checkpoint: folder that training saved.
      output: folder to create; it may exist if it is empty. It appears when it is complete.
      form: a key of FORMATS.

    Returns:
      What export.json holds.

    Raises:
      CheckpointError: the checkpoint is incomplete or damaged.
      ExportError: the output is not empty, or is no folder, or the model does not fit in memory.
    """
    folder, manifest = open_checkpoint(checkpoint)
    with _new_folder(Path(os.path.realpath(output))) as staging:
        contents = {"format": form, **FORMATS[form](folder, manifest, staging), "document": manifest.document}
        (staging / "export.json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return contents


def _npy(folder: Path, manifest: Manifest, output: Path) -> dict:
    features = write_tables(folder, manifest, output)
    return {"features": features, "dense": write_dense(folder, manifest, output)}


def _published(folder: Path, manifest: Manifest, output: Path) -> dict:
    return write_published_form(folder, manifest, shape=_shape_of(folder, manifest), output=output)


def _saved_model(folder: Path, manifest: Manifest, output: Path) -> dict:
    shape = _shape_of(folder, manifest)
    needed = 4 * sum(rows * dim for rows, dim in zip(shape.cardinalities, shape.dims, strict=True)) + _PROCESS_BYTES
    there = available_memory_bytes()
    if needed > there:
        raise ExportError(
            f"{folder}: a SavedModel is written from memory, which needs {needed} bytes ({needed / 2**30:.2f} GiB) for "
            f"this model, and {there} bytes ({there / 2**30:.2f} GiB) are there. Use a larger machine, or --format npy."
        )
    process.set_up_process(process.Launch(), cpu=True, amp=False)
    from dlrm_tf2.export.saved_model import write_saved_model  # TensorFlow must not be imported before that

    return {"inputs": write_saved_model(folder, manifest, shape=shape, output=output)}


# Each writes a checkpoint into an empty folder, and returns what export.json is to say of it.
FORMATS = {"npy": _npy, "published": _published, "saved_model": _saved_model}


def _shape_of(folder: Path, manifest: Manifest) -> ModelConfig:
    if "model" not in manifest.document:
        raise ExportError(f"{folder}: does not say the shape of its model, which only --format npy can do without.")
    return ModelConfig.from_document(manifest.document["model"])


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A staging folder beside `path`, renamed to it on a clean exit and removed on another."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ExportError(f"{path}: is not an empty folder. Name another --output.")
    if os.path.ismount(path):
        raise ExportError(f"{path}: is a mount point, which cannot be replaced. Name a folder inside it.")
    staging = path.with_name(f".{path.name}.partial")
    lock = take_empty(staging, path)
    try:
        yield staging
        os.replace(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dlrm_tf2.export",
        description="Writes a checkpoint in a form that other programs read.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder that training saved")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to create, absent or empty")
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="npy",
        help="plain .npy files (the default), NVIDIA's folders, or a TensorFlow SavedModel",
    )
    arguments = parser.parse_args(argv)
    return run_alone("export", lambda: _export_and_report(arguments))


def _export_and_report(arguments: argparse.Namespace) -> None:
    contents = export(arguments.checkpoint, arguments.output, arguments.format)
    for entry in contents.get("features", ()):
        print(f"{entry['file']}: {entry['feature']}, {entry['rows']} x {entry['embedding_dim']}")
    for note in contents.get("notes", ()):
        print(f"note: {note}")
    if "features" in contents:
        print(f"{arguments.output}: {len(contents['features'])} tables, {len(contents['dense'])} dense variables")
    else:
        print(f"{arguments.output}: a SavedModel with the inputs {', '.join(contents['inputs'])}")


if __name__ == "__main__":
    sys.exit(main())
